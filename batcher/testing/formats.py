"""A format so small that a test can predict it: decimal numbers."""

from __future__ import annotations

import pyarrow as pa

from batcher.records import Batch, Decoded, Rejection

NUMBERS = pa.schema([pa.field("n", pa.int64(), nullable=False)])
"""The schema that `NumberFormat` infers."""

SMALL_NUMBERS = pa.schema([pa.field("n", pa.int8(), nullable=False)])
"""A schema that takes numbers from -128 to 127 only."""


class NumberFormat:
    """Read each value as a decimal number into the column `n`, an integer; skip null, refuse anything else.

    Other columns of the schema stay without a value.
    """

    def __init__(self, schema: pa.Schema = NUMBERS) -> None:
        self.schema = schema

    def infer(self, batch: Batch) -> pa.Schema | None:
        """Return the only schema there is, if one record fits it."""
        return NUMBERS if any(value and _readable(value) for value in batch.values().to_pylist()) else None

    def decoder(self, schema: pa.Schema) -> NumberFormat:
        """Return one for a schema with a column `n`."""
        return NumberFormat(schema)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        """Return the schema: nothing in it has to grow."""
        del batch
        return schema

    def decode(self, batch: Batch) -> Decoded:
        """Sort the records into rows, rejections and skips."""
        rows: list[int] = []
        positions: list[int] = []
        skipped: list[int] = []
        rejections: list[Rejection] = []
        kind = self.schema.field("n").type if "n" in self.schema.names else pa.int64()
        most = 1 << (kind.bit_width - 1)
        for position, value in enumerate(batch.values().to_pylist()):
            if value is None:
                skipped.append(position)
            elif _readable(value) and not -most <= int(value) < most:
                rejections.append(Rejection(position, "overflow", f"n: does not fit {kind}", "n"))
            elif _readable(value):
                rows.append(int(value))
                positions.append(position)
            else:
                rejections.append(Rejection(position, "syntax", "is not a number"))
        columns = [
            pa.array(rows, kind) if field.name == "n" else pa.nulls(len(rows), field.type) for field in self.schema
        ]
        table = pa.table(columns, schema=self.schema)
        return Decoded(table, pa.array(positions, pa.int64()), tuple(rejections), pa.array(skipped, pa.int64()))


def _readable(value: bytes) -> bool:
    return value.removeprefix(b"-").isdigit()
