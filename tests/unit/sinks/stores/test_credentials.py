"""What is read of AWS's shared files: the named profile, changed files anew, and clear words where it cannot work."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.errors import SettingRefused
from sinks.stores.credentials import profile_of, provider

Files = Callable[..., dict[str, str]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return what writes the two files and returns the environment that names them."""

    def write(credentials: str = "", config: str = "", **more: str) -> dict[str, str]:
        (tmp_path / "credentials").write_text(credentials)
        (tmp_path / "config").write_text(config)
        places = {
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
        }
        return {**places, **more}

    return write


def test_a_profile_is_put_together_from_both_files(files: Files) -> None:
    environment = files(
        "[default]\naws_access_key_id=d\naws_secret_access_key=e\n[p]\naws_access_key_id=a\naws_secret_access_key=b\n"
        "aws_session_token=c",
        "[default]\nregion=eu-1\n[profile p]\nregion=eu-2\n",
    )
    default, named = profile_of(None, environment), profile_of("p", environment)
    assert default is not None
    assert named is not None
    assert (default.settings["region"], named.settings["region"]) == ("eu-1", "eu-2")
    keys = provider(named, environment)()
    assert (keys["access_key_id"], keys["secret_access_key"], keys["token"]) == ("a", "b", "c")
    assert profile_of(None, {**environment, "AWS_PROFILE": "p"}) == named


def test_keys_are_read_again_when_the_file_changes(files: Files) -> None:
    text = "[default]\naws_access_key_id=a\naws_secret_access_key={}\n"
    environment = files(text.format("one"))
    profile = profile_of(None, environment)
    assert profile is not None
    ask = provider(profile, environment)
    assert ask()["secret_access_key"] == "one"
    files(text.format("another"))
    assert ask()["secret_access_key"] == "another"


def test_no_files_are_no_profile_unless_one_is_named(files: Files, tmp_path: Path) -> None:
    nowhere = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "x"), "AWS_CONFIG_FILE": str(tmp_path / "y")}
    assert profile_of(None, nowhere) is None
    with pytest.raises(SettingRefused, match=r"the profile nope is neither in .*y nor in .*x: check its name"):
        profile_of("nope", nowhere)


def test_a_file_that_cannot_be_read_is_named_and_not_quoted(files: Files) -> None:
    with pytest.raises(SettingRefused, match="credentials: line 1 is not written as") as caught:
        profile_of(None, files("hunter2 without a section"))
    assert "hunter2" not in str(caught.value)


def test_a_program_gives_keys_until_they_end(files: Files, tmp_path: Path) -> None:
    said = {
        "Version": 1,
        "AccessKeyId": "a",
        "SecretAccessKey": "b",
        "SessionToken": "c",
        "Expiration": "2030-01-01T00:00:00Z",
    }
    script = tmp_path / "keys.py"
    script.write_text(f"print({json.dumps(json.dumps(said))})")
    command = shlex.join([sys.executable, str(script)])
    environment = files(config=f"[default]\ncredential_process = {command}\n")
    profile = profile_of(None, environment)
    assert profile is not None
    keys = provider(profile, environment)()
    assert (keys["access_key_id"], keys["expires_at"].year) == ("a", 2030)
    script.write_text("print('hunter2'); raise SystemExit(1)")
    with pytest.raises(LookupError, match="the credential_process of the profile default gives none") as caught:
        provider(profile, environment)()
    assert "hunter2" not in str(caught.value)


def test_a_role_needs_boto3_and_says_so(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = files(config="[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = y\n")
    profile = profile_of(None, environment)
    assert profile is not None
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(SettingRefused, match=r"has role_arn, .* pip install 'kafka-batcher\[sqs\]'"):
        provider(profile, environment)
