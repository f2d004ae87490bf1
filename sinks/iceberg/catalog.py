"""The catalog that says where a table is, from the properties of `--iceberg.catalog`, with a bound for every call."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

import pyiceberg.catalog
import pyiceberg.catalog.rest
import pyiceberg.io
from pyarrow.fs import AwsStandardS3RetryStrategy
from pyiceberg.catalog import Catalog, CatalogType, infer_catalog_type, load_catalog
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.io import FileIO
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.utils.config import Config, merge_config
from requests import Session

from batcher.errors import ConfigurationError
from batcher.options.masking import masked_url

CONNECT_TIMEOUT_S: Final = 5.0

REQUEST_TIMEOUT: Final = "batcher.request-timeout"
"""The property under which `RestCatalogInTime` is told how many seconds an answer may take."""

# Properties that pyiceberg reads and has no constant for.
_MORE: Final = frozenset({"name", "type", "uri", "warehouse", "echo", "pool_pre_ping", "init_catalog_tables", "prefix"})
_FREE: Final = ("header.", "table-default.", "table-override.", "view-default.", "view-override.")
"""What begins so is passed on with any name behind it."""


class RestCatalogInTime(RestCatalog):
    """Ask a REST catalog, and give up after a time: pyiceberg's own waits for ever for a server that says nothing."""

    def _create_session(self) -> Session:
        session = super()._create_session()
        answer_s = float(self.properties[REQUEST_TIMEOUT])
        # Assigned to the session, because adapters with their own ways (signing) are mounted beside any of ours.
        session.request = partial(session.request, timeout=(CONNECT_TIMEOUT_S, answer_s))  # type: ignore[method-assign]
        return session

    @staticmethod
    def _delete_old_metadata(io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Do nothing: the server removes old metadata itself, and pyiceberg would warn of each file that is gone."""
        del io, base, metadata


class FewAttempts(AwsStandardS3RetryStrategy):  # type: ignore[misc]
    """Try a request to S3 twice. Everything else is tried again by batcher, with a line in the log each time."""

    def __init__(self) -> None:
        super().__init__(max_attempts=2)


def opened(properties: Mapping[str, str], timeout_s: float) -> Catalog:
    """Return the catalog of some properties, together with what pyiceberg's own file and variables say of its name.

    `timeout_s` bounds each answer of a REST catalog and of S3. Raise ConfigurationError for properties that cannot
    work, and whatever the catalog raises where it does not answer.
    """
    name = properties.get("name", "default")
    given = {key: value for key, value in properties.items() if key != "name"}
    merged = merge_config(Config().get_catalog_config(name) or {}, dict(given))
    known = {key: str(value) for key, value in merged.items() if not isinstance(value, dict)}
    if "py-catalog-impl" not in known and (unknown := next(unknown_properties(given), None)) is not None:
        close = get_close_matches(unknown, known_properties(), 1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise ConfigurationError(f"--iceberg.catalog {unknown} is not a property of pyiceberg's catalogs{hint}")
    bounded = {
        "s3.connect-timeout": str(CONNECT_TIMEOUT_S),
        "s3.request-timeout": str(timeout_s),
        "s3.retry-strategy-impl": f"{FewAttempts.__module__}.{FewAttempts.__name__}",
    }
    wanted = {key: value for key, value in bounded.items() if key not in merged}
    try:
        if "py-catalog-impl" not in known and _kind(name, known) is CatalogType.REST:
            # `auth` and `ssl` of pyiceberg's file are mappings themselves.
            every: dict[str, Any] = {**merged, **wanted, REQUEST_TIMEOUT: str(timeout_s)}
            return RestCatalogInTime(name, **every)
        try:
            return load_catalog(name, **given, **wanted)
        except Exception as error:
            # Of two that make the tables of a new catalog in a database, one is told so.
            if "already exists" not in str(error):
                raise
            return load_catalog(name, **given, **wanted)
    except (ValueError, pyiceberg.exceptions.NoSuchPropertyException) as error:
        raise ConfigurationError(f"--iceberg.catalog: {said(error)}") from error
    except (ImportError, pyiceberg.exceptions.NotInstalledError) as error:
        raise ConfigurationError(
            f"--iceberg.catalog {known.get('type', '')}: pyiceberg lacks a package for it ({said(error)})"
        ) from error


def unknown_properties(given: Mapping[str, str]) -> Iterator[str]:
    """Yield the properties that nothing in pyiceberg reads."""
    known = known_properties()
    yield from (name for name in sorted(given) if name not in known and not name.startswith(_FREE))


def known_properties() -> frozenset[str]:
    """Return the names of the properties that pyiceberg's catalogs and file systems read: the constants it has."""
    found = set(_MORE)
    for module in (pyiceberg.catalog, pyiceberg.catalog.rest, pyiceberg.io):
        for name, value in inspect.getmembers(module):
            if name.isupper() and isinstance(value, str) and value == value.lower():
                found.add(value)
    return frozenset(found)


def said(error: BaseException) -> str:
    """Return what an error says as one line, without passwords in addresses."""
    lines = str(error).strip().splitlines()
    return masked_url(lines[0].strip().rstrip(".")) if lines else type(error).__name__


def _kind(name: str, properties: Mapping[str, str]) -> CatalogType | None:
    kind = properties.get("type")
    return CatalogType(kind.lower()) if kind else infer_catalog_type(name, dict(properties))
