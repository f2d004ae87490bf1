"""What the options of object stores promise: known names, one meaning for each, nothing open to others by accident."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from batcher.errors import SettingRefused
from sinks.stores.location import location
from sinks.stores.options import Family, StoreOptions, canonical, store_options


def made(family: Family = "s3", *, allow_insecure: bool = False, **given: Any) -> StoreOptions:
    return store_options(
        family,
        [("--parquet.option", given)],
        setting="--parquet.option",
        allow="--parquet.allow-insecure",
        allow_insecure=allow_insecure,
    )


@pytest.mark.parametrize(
    ("family", "name", "close"),
    [
        ("s3", "regoin", "did you mean region"),
        ("s3", "endpoint_overide", "did you mean endpoint"),
        ("gcs", "service_acount", "did you mean service_account"),
        ("azure", "acount_key", "did you mean account_key"),
        ("s3", "xyzzy", "there are access_key_id, addressing, "),
    ],
)
def test_an_option_that_is_not_known_is_named_with_the_nearest(family: Family, name: str, close: str) -> None:
    with pytest.raises(SettingRefused, match=f"^--parquet.option {name} is not known for {family}: {close}") as caught:
        made(family, **dict[str, Any]({name: "hunter2"}))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "written", "name"),
    [
        ("s3", "aws_access_key_id", "access_key_id"),
        ("s3", "AWS_ENDPOINT_URL", "endpoint"),
        ("s3", "endpoint_override", "endpoint"),
        ("s3", "token", "session_token"),
        ("gcs", "google_service_account", "service_account"),
        ("azure", "azure_storage_account_key", "account_key"),
        ("azure", "sas-token", "sas_key"),
        ("azure", "token", "token"),
    ],
)
def test_other_spellings_mean_the_same(family: Family, written: str, name: str) -> None:
    assert canonical(family, written) == name


@pytest.mark.parametrize(
    "given",
    [
        {"tls_verify_certificates": "false"},
        {"endpoint": "http://store.example:9000"},
        {"endpoint_override": "minio:9000", "scheme": "http"},
        {"endpoint": "http://10.0.0.1"},
    ],
)
def test_what_others_could_read_needs_a_flag(given: Mapping[str, Any]) -> None:
    with pytest.raises(SettingRefused, match=r"anybody in between .*; --parquet.allow-insecure permits it"):
        made(**given)
    assert made(allow_insecure=True, **given).family == "s3"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"])
def test_this_machine_may_be_spoken_to_without_tls(endpoint: str) -> None:
    assert made(endpoint=endpoint).endpoint == endpoint


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timeout": "5"}, "timeout needs a number and a unit"),
        ({"timeout": "0s"}, "timeout has to be more than 0"),
        ({"uploads": "0"}, "uploads is a number from 1 to 64"),
        ({"scheme": "ftp"}, "scheme is http or https"),
        ({"endpoint": "ftp://x"}, "endpoint is a URL with http:// or https://"),
        ({"region": ""}, "region has no value"),
        ({"server_side_encryption": "AES128"}, "server_side_encryption is AES256 or aws:kms"),
        ({"storage_class": "GLACIER"}, "storage_class: files there cannot be read at once"),
        ({"region": "a", "default_region": "b"}, "default_region is given twice, with different values"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(given: Mapping[str, Any], said: str) -> None:
    with pytest.raises(SettingRefused, match=said):
        made(**given)


def test_parameters_that_had_no_effect_before_have_none_now() -> None:
    assert made(allow_bucket_creation="true", allow_delayed_open="true").values == {}


def test_secrets_are_in_no_representation() -> None:
    assert "hunter2" not in repr(made(secret_access_key="hunter2"))


def test_delta_takes_the_same_options_as_one_mapping() -> None:
    flat = made(endpoint="http://127.0.0.1:1", access_key_id="a", addressing="virtual", timeout="90s").flat()
    assert flat == {
        "aws_access_key_id": "a",
        "aws_virtual_hosted_style_request": "true",
        "aws_endpoint": "http://127.0.0.1:1",
        "allow_http": "true",
        "timeout": "90s",
        "connect_timeout": "5s",
    }


KEYS = {"access_key_id": "key", "secret_access_key": "sec/ret"}


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("s3://bucket/a/b/", ("s3", "bucket", "a/b", {})),
        ("s3a://bucket", ("s3", "bucket", "", {})),
        ("s3://key:sec%2Fret@bucket/p?region=eu", ("s3", "bucket", "p", {**KEYS, "region": "eu"})),
        ("gs://bucket/p%20q", ("gcs", "bucket", "p q", {})),
        ("abfs://box@account.dfs.core.windows.net/p", ("azure", "box", "p", {"account_name": "account"})),
        ("abfss://account.blob.core.windows.net/box/p", ("azure", "box", "p", {"account_name": "account"})),
        ("abfs://account@box/p", ("azure", "box", "p", {"account_name": "account"})),
        ("az://box/p", ("azure", "box", "p", {})),
    ],
)  # fmt: skip
def test_a_uri_means_a_bucket_a_prefix_and_options(uri: str, found: tuple[object, ...]) -> None:
    place = location(uri, setting="--parquet.path")
    assert place is not None
    assert (place.family, place.bucket, place.prefix, place.options) == found
    assert "ret" not in place.label


@pytest.mark.parametrize("uri", ["hdfs://namenode/p", "nosuch://x/y", "S3://bucket/p"])
def test_other_schemes_are_not_object_stores(uri: str) -> None:
    assert location(uri, setting="--parquet.path") is None


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://b/p?%zz", "parameters behind the"),
        ("s3://b/p#hunter2", "a # in a URI has to be written %23"),
        ("gs://user@b/p", "no user before the @"),
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused_without_its_values(uri: str, said: str) -> None:
    with pytest.raises(SettingRefused, match=said) as caught:
        location(uri, setting="--parquet.path")
    assert "hunter2" not in str(caught.value)
