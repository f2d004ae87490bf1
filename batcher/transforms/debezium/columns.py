"""What is said about the columns of a row while it is still an event: in the metadata of their fields."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.connect.format import Wire, marked
from batcher.formats.json.shape import is_raw
from batcher.records import COLUMN_TYPE, SORTED

OP: Final = "_op"
VERSION: Final = "_version"
DELETED: Final = "_deleted"

ADDED: Final = pa.schema([(OP, pa.string()), (VERSION, pa.uint64()), (DELETED, pa.uint8())])
"""The columns that no field of a row fills."""

_NEEDED: Final = b"debezium.needed"
_KEY: Final = b"debezium.key"
_ADDED: Final = b"debezium.added"

_DECIMALS: Final[Mapping[str, Wire | None]] = {"base64": "base64", "variable": "variable", "plain": None}


def decimals_of(given: Sequence[str]) -> Mapping[str, Wire | None]:
    """Return how the decimals of each column are written, `*` for all others. Raise ConfigurationError."""
    found: dict[str, Wire | None] = {"*": "base64"}
    for word in given:
        column, _, how = word.rpartition("=")
        if how not in _DECIMALS:
            raise ConfigurationError(f"--debezium.decimals {word}: is none of {', '.join(_DECIMALS)}")
        found[column or "*"] = _DECIMALS[how]
    return found


def is_of_key(name: str) -> bool:
    """Return whether a column is read from the key of a record (`--decode.key-format`), beside the event."""
    return name == "_key" or name.startswith("_key.")


def inside(columns: Iterable[pa.Field], decimals: Mapping[str, Wire | None], key: Collection[str]) -> list[pa.Field]:
    """Return the columns of a row as fields of an event, which may lack any of them; marked with how each is written.

    Raise ConfigurationError where `key` names no column.
    """
    found = [field for field in columns if field.name not in ADDED.names and not is_of_key(field.name)]
    missing = sorted(set(key) - {field.name for field in found})
    if missing:
        raise ConfigurationError(
            f"--debezium.key {missing[0]}: is no column; there are {', '.join(field.name for field in found[:20])}"
        )
    return [_inside(field, decimals, key) for field in found]


def _inside(field: pa.Field, decimals: Mapping[str, Wire | None], key: Collection[str]) -> pa.Field:
    metadata = dict(field.metadata or {})
    if not field.nullable:
        metadata[_NEEDED] = b"1"
    if field.name in key or (not key and SORTED in metadata):
        metadata[_KEY] = b"1"
    field = field.with_nullable(True).with_metadata(metadata or None)
    wire = _wire_of(field, decimals)
    return field if wire is None else marked(field, wire)


def _wire_of(field: pa.Field, decimals: Mapping[str, Wire | None]) -> Wire | None:
    kind = field.type
    if is_raw(field):
        # In an event JSON is text. Where the type was found in records, it is what they had.
        return "json" if (field.metadata or {}).get(COLUMN_TYPE, b"").startswith(b"JSON") else None
    if pa.types.is_decimal(kind):
        return decimals.get(field.name, decimals["*"])
    if pa.types.is_date32(kind):
        return "days"
    return "base64" if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else None


def with_added(op: pa.Field, target: pa.Schema | None) -> pa.Field:
    """Return the field of the operation, with the columns of ADDED that a target has; all for a target without any."""
    names = [name for name in ADDED.names if target is None or name in target.names]
    return op.with_metadata({_ADDED: ",".join(names).encode()})


def added_by(op: pa.Field) -> list[str]:
    """Return the columns of ADDED that are due."""
    text = (op.metadata or {}).get(_ADDED, b"").decode()
    return text.split(",") if text else []


def is_needed(field: pa.Field) -> bool:
    """Return whether the target's column needs a value."""
    return _NEEDED in (field.metadata or {})


def names_row(field: pa.Field) -> bool:
    """Return whether the column is one of those that name a row."""
    return _KEY in (field.metadata or {})


def bare(field: pa.Field) -> pa.Field:
    """Return a column as the target knows it, without what only we say about it."""
    kept = {name: text for name, text in (field.metadata or {}).items() if not name.startswith(b"debezium.")}
    kept.pop(b"batcher.wire", None)
    return field.with_metadata(kept or None)
