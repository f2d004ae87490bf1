"""The columns of the made-up orders that `contenders.load` writes. Only the standard library: rivals import this."""

from __future__ import annotations

from typing import Final

COLUMNS: Final = (
    "id UInt64, ts DateTime64(3, 'UTC'), user_id UInt32, country LowCardinality(String), "
    "product LowCardinality(String), quantity UInt8, price Float64, paid Bool, session String"
)
NAMES: Final = ("id", "ts", "user_id", "country", "product", "quantity", "price", "paid", "session")
