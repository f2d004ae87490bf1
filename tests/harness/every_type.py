"""Rows of every type that a lake table can hold, for those who look at them with programs of other people."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

DAY: Final = dt.date(2026, 1, 31)
NOON: Final = dt.datetime(2026, 1, 31, 12, 0, 0, 1000, dt.UTC)

TABLE: Final = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.uint64()),
        "i8": pa.array([-1, 2, None], pa.int8()),
        "u8": pa.array([255, 2, None], pa.uint8()),
        "u32": pa.array([2**32 - 1, 2, None], pa.uint32()),
        "f32": pa.array([0.5, None, -1.0], pa.float32()),
        "paid": pa.array([True, None, False]),
        "country": ["DE", None, "a/b c"],
        "day": pa.array([DAY, DAY, None], pa.date32()),
        "at": pa.array([NOON, None, NOON], pa.timestamp("ns", "Europe/Berlin")),
        "local": pa.array([NOON.replace(tzinfo=None), None, None], pa.timestamp("ms")),
        "price": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(18, 2)),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "place": pa.array([{"x": 1.5}, None, {"x": None}], pa.struct([("x", pa.float64())])),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        "raw": pa.array([b"\x00", None, b""], pa.binary()),
    }
)

EXPECTED: Final[list[dict[str, Any]]] = [
    {**row, "at": row["at"] and row["at"].astimezone(dt.UTC), "id": Decimal(row["id"])} for row in TABLE.to_pylist()
]
"""The same rows as Python has them, read from a table: times in UTC, large numbers as decimals."""
