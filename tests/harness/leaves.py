"""Walk over every value of a document and tell which of them a row does not have. Knows nothing of how it was decoded.

A value is there when the row has it at the same path: as itself, as the moment or the number that it writes down, or as
JSON text of the object that holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import pyarrow as pa

_SUFFIXES: Final = re.compile(r"\[\]|\.[^.\[]*")
_ISO: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?")
_UNITS_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Moment:
    """Hold a point in time as it is stored, in nanoseconds since 1970."""

    ns: int


def document_of(text: bytes) -> dict[str, Any]:
    """Return a document with its numbers as they are written: int, or Decimal where there is a fraction."""
    found: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return found


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table as values to compare documents with: maps as objects, times as `Moment`."""
    columns = {
        name: [_value(value, column.type) for value in column.cast(_counted(column.type)).to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def paths_lacking(document: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths (`a.b[].c`) of the values that a row does not have. Null is no value, an empty list is one."""
    for key, value in document.items():
        yield from _lacking(value, row.get(key, _ABSENT), key)


def named(path: str, fields: Collection[str]) -> bool:
    """Return whether a field, or one that holds it, is among those named."""
    return path in fields or any(path[: found.start()] in fields for found in _SUFFIXES.finditer(path))


def _lacking(value: Any, stored: Any, path: str) -> Iterator[str]:
    if value is None or _same(value, stored):
        return
    if isinstance(value, dict) and value and isinstance(stored, Mapping):
        for key, item in value.items():
            yield from _lacking(item, stored.get(key, _ABSENT), f"{path}.{key}")
    elif isinstance(value, list) and value and isinstance(stored, Sequence) and not isinstance(stored, str):
        for number, item in enumerate(value):
            yield from _lacking(item, stored[number] if number < len(stored) else _ABSENT, f"{path}[]")
    else:
        yield path


def _same(value: Any, stored: Any) -> bool:
    if isinstance(stored, str) and _written_as(value, stored):
        return True
    match value:
        case bool():
            return stored is value
        case str():
            return value == stored or _is_moment(value, stored) or _is_number(value, stored)
        case int() | Decimal() if isinstance(stored, (Moment, str)):
            moment = _moment(stored)
            return moment is not None and any(value * unit == moment for unit in _UNITS_NS.values())
        case int() | Decimal():
            return _is_number(value, stored)
        case _:
            return not value and type(value) is type(stored)


def _is_moment(text: str, stored: Any) -> bool:
    moment = _moment(text)
    return moment is not None and moment == _moment(stored)


def _is_number(value: str | int | Decimal, stored: Any) -> bool:
    if isinstance(stored, bool) or not isinstance(stored, (int, float, Decimal)):
        return False
    try:
        number = Decimal(value)
    except InvalidOperation:
        return False
    # Whole numbers have to be there to the last digit; a fraction is what the nearest double is.
    return number == stored or (number % 1 != 0 and float(number) == stored)


def _written_as(value: Any, stored: str) -> bool:
    """Return whether a text is the JSON of a value."""
    try:
        found = json.loads(stored, parse_float=Decimal)
    except ValueError:
        return False
    return type(found) is type(value) and bool(found == value)


def _moment(stored: Any) -> int | None:
    """Return the nanoseconds since 1970 of a time, or of the text of one: in UTC unless it says otherwise."""
    if isinstance(stored, Moment):
        return stored.ns
    found = _ISO.fullmatch(stored) if isinstance(stored, str) else None
    if found is None:
        return None
    day, clock, digits, zone = found.groups()
    whole = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{(zone or 'Z').replace('Z', '+00:00')}")
    since = whole - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 10**9 + int(f"{digits or 0:0<9}")


def _counted(kind: pa.DataType) -> pa.DataType:
    """Return a type with times as whole numbers of their unit: Python's own times have no nanoseconds."""
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_counted(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([kind.field(n).with_type(_counted(kind.field(n).type)) for n in range(kind.num_fields)])
    return kind


def _value(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return Moment(value * _UNITS_NS[kind.unit])
    if pa.types.is_list(kind):
        return [_value(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind):
        return {
            kind.field(n).name: _value(value[kind.field(n).name], kind.field(n).type) for n in range(kind.num_fields)
        }
    if pa.types.is_map(kind):
        return {key: _value(item, kind.item_type) for key, item in value}
    return value.decode() if isinstance(value, bytes) else value
