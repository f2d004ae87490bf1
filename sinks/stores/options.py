"""What can be set about an object store, as NAME=VALUE, and as parameters of a URI.

The names are those of the `object_store` crate without `aws_`, `google_` or `azure_`, which delta-rs and Polars take as
well; those that `pyarrow.fs` had in URIs go on to work. Light: it is checked before anything is connected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final, Literal
from urllib.parse import urlsplit

from batcher.errors import SettingRefused
from batcher.options.units import parse_duration

Family = Literal["s3", "gcs", "azure"]
"""What a store is spoken to with: S3's protocol, Google's or Azure's."""

Kind = Literal["text", "flag", "duration", "count", "scheme", "addressing", "encryption", "checksum", "url"]

TIMEOUT: Final = timedelta(seconds=60)
"""How long one request may take, besides a second for each MiB that it sends."""

CONNECT_TIMEOUT: Final = timedelta(seconds=5)

UPLOADS: Final = 16
"""How many files of one batch go up at a time."""

MOST_UPLOADS: Final = 64

CHOICES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "scheme": ("http", "https"),
    "addressing": ("path", "virtual"),
    "encryption": ("AES256", "aws:kms", "aws:kms:dsse", "sse-c"),
    "checksum": ("sha256", "crc64nvme"),
    "flag": ("true", "false"),
}

_COMMON: Final[Mapping[str, Kind]] = {
    "connect_timeout": "duration",
    "endpoint": "url",
    "proxy_excludes": "text",
    "proxy_url": "url",
    "scheme": "scheme",
    "skip_signature": "flag",
    "storage_class": "text",
    "timeout": "duration",
    "tls_ca_file": "text",
    "tls_verify_certificates": "flag",
    "uploads": "count",
}

KNOWN: Final[Mapping[Family, Mapping[str, Kind]]] = {
    "s3": {
        **_COMMON,
        "access_key_id": "text",
        "addressing": "addressing",
        "checksum_algorithm": "checksum",
        "container_authorization_token_file": "text",
        "container_credentials_full_uri": "text",
        "container_credentials_relative_uri": "text",
        "imdsv1_fallback": "flag",
        "metadata_endpoint": "url",
        "profile": "text",
        "region": "text",
        "request_payer": "flag",
        "role_arn": "text",
        "role_session_name": "text",
        "s3_express": "flag",
        "secret_access_key": "text",
        "server_side_encryption": "encryption",
        "session_token": "text",
        "sse_bucket_key_enabled": "flag",
        "sse_customer_key_base64": "text",
        "sse_kms_key_id": "text",
        "sts_endpoint": "url",
        "unsigned_payload": "flag",
        "web_identity_token_file": "text",
    },
    "gcs": {
        **_COMMON,
        "application_credentials": "text",
        "bearer_token": "text",
        "service_account": "text",
        "service_account_key": "text",
    },
    "azure": {
        **_COMMON,
        "account_key": "text",
        "account_name": "text",
        "authority_host": "url",
        "client_id": "text",
        "client_secret": "text",
        "credential_type": "text",
        "encryption_key": "text",
        "federated_token_file": "text",
        "msi_endpoint": "url",
        "msi_resource_id": "text",
        "object_id": "text",
        "sas_key": "text",
        "tenant_id": "text",
        "token": "text",
        "use_azure_cli": "flag",
        "use_emulator": "flag",
    },
}
"""The options of each family, and what each of them is."""

ALIASES: Final[Mapping[str, str]] = {
    "access_key": "account_key",
    "account": "account_name",
    "anonymous": "skip_signature",
    "base_url": "endpoint",
    "default_region": "region",
    "endpoint_override": "endpoint",
    "endpoint_url": "endpoint",
    "endpoint_url_s3": "endpoint",
    "sas_token": "sas_key",
    "service_account_path": "service_account",
    "tls_ca_file_path": "tls_ca_file",
}
"""Other spellings, of `pyarrow.fs` and of the `object_store` crate."""

WITHOUT_EFFECT: Final = frozenset({"allow_bucket_creation", "allow_bucket_deletion", "allow_delayed_open"})
"""Parameters of `pyarrow.fs` that URIs may still have: a bucket was never made here."""

ARCHIVES: Final = frozenset({"ARCHIVE", "DEEP_ARCHIVE", "GLACIER"})
"""Storage classes whose files have to be restored before they can be read."""

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_PREFIX: Final = re.compile(r"^(?:aws|azure_storage|azure|google)_")

# Options of ours: the client does not know them, or gets them in another form.
_OURS: Final = frozenset({*_COMMON, "addressing", "profile"}) - {"skip_signature"}

_RENAMED: Final = {"sts_endpoint": "endpoint_url_sts"}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Hold the options of a store by their one name, checked. Make it with `store_options`.

    `allow_insecure` says that a person permits connections that others can read and change. `setting` and `allow` are
    for messages, as `store_options` has them.
    """

    family: Family
    values: Mapping[str, str] = field(default_factory=dict)
    allow_insecure: bool = False
    setting: str = "the option"
    allow: str = "allow_insecure"

    def __repr__(self) -> str:
        # Values are secrets; a traceback must not have them.
        return f"StoreOptions({self.family!r}, {sorted(self.values)})"

    @property
    def timeout_s(self) -> float:
        """Return how long one request may take, besides the time for what it sends."""
        return _seconds(self.values.get("timeout"), TIMEOUT)

    @property
    def connect_timeout_s(self) -> float:
        """Return how long a connection may take to come about."""
        return _seconds(self.values.get("connect_timeout"), CONNECT_TIMEOUT)

    @property
    def uploads(self) -> int:
        """Return how many requests may be on their way at a time."""
        return int(self.values.get("uploads", UPLOADS))

    @property
    def endpoint(self) -> str | None:
        """Return the URL of the endpoint; None for the provider's own."""
        given = self.values.get("endpoint")
        if given is None or "://" in given:
            return given
        return f"{self.values.get('scheme', 'https')}://{given}"

    @property
    def verifies_certificates(self) -> bool:
        """Return whether certificates are checked."""
        return self.values.get("tls_verify_certificates", "true") == "true"

    def own(self) -> dict[str, str]:
        """Return what the `object_store` crate is given for the account: without endpoint and connection."""
        config = {_RENAMED.get(name, name): value for name, value in self.values.items() if name not in _OURS}
        if "addressing" in self.values:
            config["virtual_hosted_style_request"] = str(self.values["addressing"] == "virtual").lower()
        return config

    def require_secure(self, what: str | None) -> None:
        """Raise SettingRefused where something lets others read or change what is sent, and nobody permitted it."""
        if what is not None and not self.allow_insecure:
            raise SettingRefused(
                f"{self.setting} {what} is refused: it lets anybody in between read and change files; "
                f"{self.allow} permits it"
            )

    def client(self) -> dict[str, object]:
        """Return what the client is given for its connections; raise SettingRefused where a file cannot be read."""
        # No limit on a whole request in the client: it would count the bytes of a large file against its answer.
        # `calls.py` has the deadlines.
        found: dict[str, object] = {
            "connect_timeout": timedelta(seconds=self.connect_timeout_s),
            "timeout": timedelta(days=1),
            "allow_http": True,  # `store_options` and `connection.py` have looked at what is spoken to
            "allow_invalid_certificates": not self.verifies_certificates,
        }
        found.update({name: self.values[name] for name in ("proxy_url", "proxy_excludes") if name in self.values})
        if "tls_ca_file" in self.values:
            try:
                with open(self.values["tls_ca_file"], "rb") as file:  # noqa: PTH123 - a path as it was given
                    found["root_certificate"] = file.read()
            except OSError as error:
                raise SettingRefused(f"the option tls_ca_file cannot be read: {error.strerror}") from error
        return found

    def flat(self) -> dict[str, str]:
        """Return the options as one mapping of texts, as delta-rs takes them (`storage_options`).

        The timeouts are for each request. Credentials of the shared files of AWS are not in it.
        """
        prefix = {"s3": "aws_", "gcs": "google_", "azure": "azure_storage_"}[self.family]
        config = {f"{prefix}{name}": value for name, value in self.own().items()}
        if self.endpoint is not None:
            config["google_base_url" if self.family == "gcs" else f"{prefix}endpoint"] = self.endpoint
            config["allow_http"] = str(self.endpoint.startswith("http://")).lower()
        config["timeout"] = f"{max(1, round(self.timeout_s))}s"
        config["connect_timeout"] = f"{max(1, round(self.connect_timeout_s))}s"
        if not self.verifies_certificates:
            config["allow_invalid_certificates"] = "true"
        config.update({name: self.values[name] for name in ("proxy_url", "proxy_excludes") if name in self.values})
        return config


def store_options(
    family: Family,
    given: Sequence[tuple[str, Mapping[str, str]]],
    *,
    setting: str,
    allow: str,
    allow_insecure: bool = False,
) -> StoreOptions:
    """Return checked options. Raise SettingRefused, naming the option and no value.

    Each part of `given` is what a person wrote options with, such as `--parquet.option`, and those options. `setting`
    is the main one of these places; `allow` is the flag that permits connections that others can read.
    """
    values: dict[str, str] = {}
    for place, part in given:
        for written, value in part.items():
            name = canonical(family, written)
            if name in WITHOUT_EFFECT:
                continue
            if name not in KNOWN[family]:
                # What is no name may be a piece of a password that was not written as it has to be.
                told = written if _NAME.fullmatch(written) else "behind a ? or &"
                raise SettingRefused(f"{place} {told} is not known for {family}: {_hint(family, name)}")
            checked = _checked(name, KNOWN[family][name], value, place)
            if values.setdefault(name, checked) != checked:
                raise SettingRefused(f"{place} {written} is given twice, with different values: leave one out")
    options = StoreOptions(family, values, allow_insecure, setting, allow)
    if not options.verifies_certificates:
        options.require_secure("tls_verify_certificates=false")
    if options.endpoint is not None and is_open(options.endpoint):
        options.require_secure("endpoint with http")
    if values.get("storage_class", "").upper() in ARCHIVES:
        raise SettingRefused(f"{setting} storage_class: files there cannot be read at once, and a replay has to")
    return options


def canonical(family: Family, written: str) -> str:
    """Return the one name of an option, from any spelling."""
    name = written.strip().lower().replace("-", "_").replace(".", "_")
    name = _PREFIX.sub("", name)
    if name == "token" and family == "s3":
        return "session_token"
    if name == "token" and family == "gcs":
        return "bearer_token"
    return ALIASES.get(name, name)


def is_open(url: str) -> bool:
    """Return whether what is sent to a URL can be read on its way: http, and not to this machine."""
    parts = urlsplit(url)
    if parts.scheme != "http":
        return False
    host = parts.hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _hint(family: Family, name: str) -> str:
    close = get_close_matches(name, [*KNOWN[family], *ALIASES], n=1)
    if close:
        return f"did you mean {ALIASES.get(close[0], close[0])}?"
    return f"there are {', '.join(sorted(KNOWN[family]))}"


def _checked(name: str, kind: Kind, value: str, setting: str) -> str:
    """Return a value in its one spelling."""
    value = value.strip()
    if kind == "flag":
        value = {"1": "true", "yes": "true", "on": "true", "0": "false", "no": "false", "off": "false"}.get(
            value.lower(), value.lower()
        )
    elif kind == "checksum":
        value = value.lower()
    if kind in CHOICES and value not in CHOICES[kind]:
        raise SettingRefused(f"{setting} {name} is {' or '.join(CHOICES[kind])}")
    if not value:
        raise SettingRefused(f"{setting} {name} has no value: give one, or leave it out")
    if kind == "duration":
        try:
            if parse_duration(value) <= timedelta(0):
                raise SettingRefused(f"{setting} {name} has to be more than 0")
        except ValueError as error:
            raise SettingRefused(f"{setting} {name} {error}") from error
    if kind == "count" and not (value.isdecimal() and 1 <= int(value) <= MOST_UPLOADS):
        raise SettingRefused(f"{setting} {name} is a number from 1 to {MOST_UPLOADS}")
    if kind == "url" and "://" in value and urlsplit(value).scheme not in ("http", "https"):
        raise SettingRefused(f"{setting} {name} is a URL with http:// or https://")
    return value


def _seconds(given: str | None, default: timedelta) -> float:
    return (default if given is None else parse_duration(given)).total_seconds()
