"""What stands in the columns of a deleted row that its event does not tell: the default of the column's type.

Only the key of a deleted row is known, unless the table has REPLICA IDENTITY FULL. This is the one place where batcher
writes a value that no record has, and only into rows that are marked as deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from batcher.formats.json.shape import is_raw
from batcher.records import COLUMN_TYPE

_TEXTS: Final = {"UUID": "00000000-0000-0000-0000-000000000000", "IPv4": "0.0.0.0", "IPv6": "::"}  # noqa: S104
"""Text columns of ClickHouse that do not take the empty text."""

_ENUM: Final = re.compile(r"Enum(?:8|16)\('((?:[^'\\]|\\.)*)'")
_ESCAPED: Final = re.compile(r"\\(.)")


def default_of(field: pa.Field) -> pa.Scalar | None:
    """Return the default of a column's type; None where it has none."""
    value = _value(field)
    return None if value is None else pa.scalar(value, field.type)


def _value(field: pa.Field) -> Any:
    kind = field.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "{}" if is_raw(field) else _text(field)
    if pa.types.is_struct(kind):
        return {child.name: None if child.nullable else _value(child) for child in kind}
    for test, value in _VALUES:
        if test(kind):
            return value
    if pa.types.is_timestamp(kind):
        return datetime(1970, 1, 1, tzinfo=UTC if kind.tz else None)
    return None


def _text(field: pa.Field) -> str:
    name = (field.metadata or {}).get(COLUMN_TYPE, b"").decode()
    enum = _ENUM.search(name)
    return _ESCAPED.sub(r"\1", enum[1]) if enum else next((text for one, text in _TEXTS.items() if one in name), "")


_VALUES: Final[tuple[tuple[Callable[[pa.DataType], bool], Any], ...]] = (
    (pa.types.is_boolean, False),
    (pa.types.is_integer, 0),
    (pa.types.is_floating, 0.0),
    (pa.types.is_decimal, Decimal(0)),
    (pa.types.is_date, date(1970, 1, 1)),
    (pa.types.is_time, time()),
    (pa.types.is_binary, b""),
    (pa.types.is_large_binary, b""),
    (pa.types.is_list, []),
    (pa.types.is_map, []),
)
