"""The shared files of AWS, `~/.aws/credentials` and `~/.aws/config`, which the client does not read by itself.

The order is that of AWS's own tools: options, environment, web identity, these files, and then what the client asks by
itself: container and machine metadata. A file that changes is read again with the next request.
"""

from __future__ import annotations

import configparser
import importlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from batcher.errors import SettingRefused

Credential = dict[str, Any]
"""What the client takes: `access_key_id`, `secret_access_key`, `token`, `expires_at`."""

# The client asks again five minutes before this: so with each request, but not more often than each 100 ms.
_SHORT: Final = timedelta(seconds=60)

PROCESS_TIMEOUT_S: Final = 60.0

BY_BOTO: Final = ("role_arn", "sso_session", "sso_start_url", "credential_source", "login_session")
"""Keys of a profile for which AWS has to be asked: boto3 can do that."""


class Profile(NamedTuple):
    """Hold what the shared files say about a profile, and where they are."""

    name: str
    settings: Mapping[str, str]
    files: tuple[Path, ...]

    @property
    def has_credentials(self) -> bool:
        """Return whether credentials come from it."""
        return any(key in self.settings for key in ("aws_access_key_id", "credential_process", *BY_BOTO))


def profile_of(name: str | None, environment: Mapping[str, str] = os.environ) -> Profile | None:
    """Return a profile of the shared files; None where none is named and the default one is not there.

    Raise SettingRefused for a named one that is not there, and for a file that cannot be read.
    """
    wanted = name or environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    home = Path(environment.get("HOME") or "~").expanduser()
    files = (
        Path(environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config").expanduser(),
        Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials").expanduser(),
    )
    settings: dict[str, str] = {}
    for file, prefix in zip(files, ("profile ", ""), strict=True):
        sections = _sections(file)
        called = wanted or "default"
        for section in {called, f"{prefix}{called}"} if called == "default" else {f"{prefix}{called}"}:
            settings.update(sections.get(section, {}))
    if not settings:
        if wanted is None:
            return None
        raise SettingRefused(f"the profile {wanted} is neither in {files[0]} nor in {files[1]}: check its name")
    return Profile(wanted or "default", settings, files)


def provider(profile: Profile, environment: Mapping[str, str] = os.environ) -> Callable[[], Credential]:
    """Return what the client calls for credentials, from any thread. Raise SettingRefused where it cannot work."""
    if any(key in profile.settings for key in BY_BOTO):
        return _by_boto(profile)
    if "aws_access_key_id" not in profile.settings and "credential_process" in profile.settings:
        return _ProcessCredentials(profile)
    return _FileCredentials(profile, environment)


class _FileCredentials:
    """Read keys from the files, again whenever one of them has changed."""

    def __init__(self, profile: Profile, environment: Mapping[str, str]) -> None:
        self._profile = profile
        self._environment = environment
        self._state: tuple[object, ...] = ()
        self._keys = _keys(profile)

    def __call__(self) -> Credential:
        state = tuple(map(_state, self._profile.files))
        if state != self._state:
            again = profile_of(self._profile.name, self._environment)
            assert again is not None, "a profile with a name is there, or is refused"
            self._keys, self._state = _keys(again), state
        return {**self._keys, "expires_at": datetime.now(UTC) + _SHORT}


class _ProcessCredentials:
    """Ask the program that a profile names (`credential_process`); it says how long its answer holds."""

    def __init__(self, profile: Profile) -> None:
        self._name = profile.name
        self._command = shlex.split(profile.settings["credential_process"])

    def __call__(self) -> Credential:
        try:
            done = subprocess.run(  # noqa: S603 - the user's own file names it
                self._command, capture_output=True, timeout=PROCESS_TIMEOUT_S, check=True
            )
            said = json.loads(done.stdout)
            until = said.get("Expiration")
            return {
                "access_key_id": said["AccessKeyId"],
                "secret_access_key": said["SecretAccessKey"],
                "token": said.get("SessionToken"),
                "expires_at": None if until is None else datetime.fromisoformat(until),
            }
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            # What the program printed may be a secret.
            raise LookupError(
                f"the credential_process of the profile {self._name} gives none ({type(error).__name__})"
            ) from None


def _by_boto(profile: Profile) -> Callable[[], Credential]:
    """Return a provider that lets boto3 ask AWS for a role or a single sign-on, and renew what it got."""
    needs = next(key for key in BY_BOTO if key in profile.settings)
    try:
        session = importlib.import_module("boto3.session").Session(profile_name=profile.name)
    except ModuleNotFoundError as error:
        raise SettingRefused(
            f"the profile {profile.name} has {needs}, for which AWS has to be asked: "
            "pip install 'kafka-batcher[sqs]', which brings boto3, or give keys"
        ) from error

    def ask() -> Credential:
        try:
            found = session.get_credentials().get_frozen_credentials()
        except Exception as error:  # boto3's errors have no base of their own; their texts name no secret
            raise LookupError(f"the profile {profile.name} gives none: {error}") from None
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            # boto3 knows when to renew them.
            "expires_at": datetime.now(UTC) + _SHORT,
        }

    return ask


def _keys(profile: Profile) -> Credential:
    try:
        return {
            "access_key_id": profile.settings["aws_access_key_id"],
            "secret_access_key": profile.settings["aws_secret_access_key"],
            "token": profile.settings.get("aws_session_token"),
        }
    except KeyError as error:
        raise LookupError(f"the profile {profile.name} has no {error.args[0]}") from None


def _sections(file: Path) -> Mapping[str, Mapping[str, str]]:
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingRefused(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, configparser.Error) as error:
        # The parser's message quotes the line, and may quote a secret with it.
        line = getattr(error, "lineno", None)
        where = f"line {line} is" if line is not None else "a line is"
        raise SettingRefused(
            f"{file}: {where} not written as files of profiles are: [name], then name = value"
        ) from None
    return {name.strip(): dict(parser[name]) for name in parser.sections()}


def _state(file: Path) -> object:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
