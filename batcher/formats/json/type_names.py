"""The name of a column's type in a message: the target's own word, or a plain one."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from batcher.formats.json.shape import integer_bounds
from batcher.records import COLUMN_TYPE

UNITS: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def type_name(field: pa.Field) -> str:
    """Return the name of a field's type, fit to stand behind "the column's type"."""
    own = (field.metadata or {}).get(COLUMN_TYPE)
    return own.decode() if own else _plain(field.type)


def _plain(kind: pa.DataType) -> str:
    bounds = integer_bounds(kind)
    if bounds is not None:
        return f"{'integer' if bounds[0] else 'unsigned integer'} of {kind.bit_width} bits"
    if pa.types.is_floating(kind):
        return f"float of {kind.bit_width} bits"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pa.types.is_timestamp(kind):
        return f"timestamp in {UNITS[kind.unit]}"
    return "date" if pa.types.is_date(kind) else str(kind)
