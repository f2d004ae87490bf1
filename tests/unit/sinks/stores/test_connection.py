"""Which client is made of a location and options: known options only, the right endpoint, keys from the right place."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import ConfigurationError, SettingRefused
from sinks.parquet import one_root
from sinks.stores import connection
from sinks.stores.connection import connected
from sinks.stores.location import location
from sinks.stores.options import CHOICES, KNOWN, Family, Kind, store_options

URIS: Mapping[Family, str] = {"s3": "s3://bucket/p", "gcs": "gs://bucket/p", "azure": "abfs://account@box/p"}

VALUES: Mapping[Kind, str] = {"url": "http://127.0.0.1:1", "duration": "1s", "count": "2", "text": "x"}


def client(family: Family, environment: Mapping[str, str] | None = None, **given: Any) -> Any:
    place = location(URIS[family], setting="--parquet.path")
    assert place is not None
    parts = [("--parquet.path", place.options), ("--parquet.option", given)]
    options = store_options(family, parts, setting="--parquet.option", allow="--parquet.allow-insecure")
    return connected(place, options, environment or {})


NEEDED: Mapping[Family, Mapping[str, Any]] = {
    "s3": {"region": "eu-1", "access_key_id": "a", "secret_access_key": "b"},
    "gcs": {"skip_signature": "true"},
    "azure": {"account_key": "eA=="},
}

KEY_256 = "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg="

SPECIAL: Mapping[str, str] = {
    "account_key": "eA==",
    "account_name": "account",
    "credential_type": "auto",
    "encryption_key": KEY_256,
    "server_side_encryption": "aws:kms",
    "sse_customer_key_base64": KEY_256,
}


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, known in KNOWN.items() for name in known], ids=str
)
def test_each_option_is_one_that_the_client_takes(family: Family, name: str) -> None:
    if name in ("profile", "service_account", "service_account_key", "application_credentials", "tls_ca_file"):
        pytest.skip("it names a file that has to be there, or holds one")
    if name == "s3_express":
        pytest.skip("only for buckets whose names end in a certain way")
    kind = KNOWN[family][name]
    value = SPECIAL.get(name) or (CHOICES[kind][0] if kind in CHOICES else VALUES[kind])
    more: dict[str, Any] = {"server_side_encryption": "sse-c"} if name == "sse_customer_key_base64" else {}
    assert client(family, **{**NEEDED[family], **more, name: value}) is not None


def test_an_endpoint_of_the_environment_that_others_could_read_needs_the_flag() -> None:
    with pytest.raises(SettingRefused, match=r"endpoint of AWS_ENDPOINT_URL with http .*--parquet.allow-insecure"):
        client("s3", {"AWS_ENDPOINT_URL": "http://store.example"}, region="eu-1")


def test_a_bucket_in_the_name_of_the_host_is_put_there_once() -> None:
    for endpoint in ("https://store.example", "https://bucket.store.example"):
        made = client("s3", endpoint=endpoint, addressing="virtual", region="eu-1")
        assert made.config["endpoint"] == "https://bucket.store.example"


def test_keys_of_the_environment_come_before_the_files_and_a_named_profile_before_both(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[p]\naws_access_key_id=a\naws_secret_access_key=b\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_CONFIG_FILE": str(tmp_path / "none")}
    both = {**files, "AWS_PROFILE": "p", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    assert client("s3", {**files, "AWS_PROFILE": "p"}, region="eu-1").credential_provider is not None
    assert client("s3", both, region="eu-1").credential_provider is None
    assert client("s3", both, region="eu-1", profile="p").credential_provider is not None


def test_the_region_of_a_bucket_is_asked_for_only_where_nothing_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(bucket: str, timeout_s: float) -> str:
        asked.append(bucket)
        return "eu-9"

    monkeypatch.setattr(connection, "bucket_region", answer)
    assert client("s3", {"AWS_REGION": "eu-1"}).config["region"] == "eu-1"
    assert client("s3", region="eu-2").config["region"] == "eu-2"
    assert client("s3", endpoint="https://store.example").config["region"] == "us-east-1"
    assert not asked
    assert client("s3").config["region"] == "eu-9"
    assert asked == ["bucket"]


def test_the_client_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(connection, "find_spec", lambda name: None if name == "obstore" else found(name))
    said = r"^--parquet.path s3://b/p needs .*'obstore'.*: pip install 'kafka-batcher\[object-store\]'$"
    with pytest.raises(ConfigurationError, match=said) as caught:
        one_root({"path": "s3://b/p"})
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("path", ["/tmp/x", "hdfs://namenode/p"])
def test_options_are_for_object_stores(path: str) -> None:
    with pytest.raises(SettingRefused, match=r"--parquet.option region: only object stores have options"):
        one_root({"path": path, "option": {"region": "eu"}})
