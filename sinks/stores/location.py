"""Where the URI of an object store points, and the options in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from batcher.errors import SettingRefused
from sinks.stores.options import Family

FAMILIES: Final[Mapping[str, Family]] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
"""The schemes of URIs, and how the store behind each is spoken to."""

ACCOUNT: Final[Mapping[Family, tuple[str, ...]]] = {
    "s3": ("access_key_id", "secret_access_key"),
    "gcs": (),
    "azure": ("account_name", "account_key"),
}
"""The options that name and password before the @ stand for."""

AZURE_HOSTS: Final = (".blob.core.windows.net", ".dfs.core.windows.net")


class Location(NamedTuple):
    """Say which bucket (or container) and which prefix in it a URI means.

    `prefix` has no slash at either end. `label` is for people: no credentials. `options` are the account and the
    parameters of the URI, as they were written.
    """

    family: Family
    bucket: str
    prefix: str
    label: str
    options: Mapping[str, str]


def location(uri: str, *, setting: str) -> Location | None:
    """Return what a URI means; None where its scheme is not that of an object store. Raise SettingRefused.

    `setting` is what a person wrote it with, such as `--parquet.path`.
    """
    parts = urlsplit(uri)
    family = FAMILIES.get(uri[: len(parts.scheme)])
    if family is None:
        return None
    user, _, host = parts.netloc.rpartition("@")
    label = f"{parts.scheme}://{host}{parts.path}"
    try:
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise SettingRefused(
            f"{setting} {label}: the parameters behind the ? are not written as NAME=VALUE&NAME=VALUE"
        ) from error
    if parts.fragment:
        raise SettingRefused(f"{setting} {label}: a # in a URI has to be written %23")
    bucket, prefix = host, unquote(parts.path).strip("/")
    name, _, secret = (unquote(part) for part in user.partition(":"))
    if family == "azure":
        bucket, prefix, name = _of_azure(name, host, prefix)
        if bucket and host.endswith(AZURE_HOSTS) and user:
            label = f"{parts.scheme}://{bucket}@{host}{parts.path}"
    elif name and family != "s3":
        raise SettingRefused(f"{setting} {label}: a URI of this store has no user before the @")
    account = dict(zip(ACCOUNT[family], (name, secret), strict=False))
    options.update({option: value for option, value in account.items() if value})
    if not bucket:
        raise SettingRefused(f"{setting} {label} names no bucket: write {parts.scheme}://bucket/prefix")
    return Location(family, bucket, prefix, label, options)


def _of_azure(name: str, host: str, path: str) -> tuple[str, str, str]:
    """Return container, prefix and account of a URI in any of the forms that Azure's own tools write.

    container@account.dfs.core.windows.net/prefix, account.blob.core.windows.net/container/prefix,
    account@container/prefix, container/prefix. `name` is what is before the @.
    """
    for ending in AZURE_HOSTS:
        if host.endswith(ending):
            account = host.removesuffix(ending)
            if name:
                return name, path, account
            container, _, prefix = path.partition("/")
            return container, prefix, account
    return host, path, name
