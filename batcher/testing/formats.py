"""A format so small that a test can predict it: decimal numbers."""

from __future__ import annotations

import pyarrow as pa

from batcher.records import Batch, Decoded, Rejection

NUMBERS = pa.schema([pa.field("n", pa.int64(), nullable=False)])
"""The only schema of `NumberFormat`."""


class NumberFormat:
    """Read each value as a decimal number into the column `n`; skip null, refuse anything else."""

    schema = NUMBERS

    def infer(self, batch: Batch) -> pa.Schema | None:
        """Return the only schema there is if one record fits it."""
        return NUMBERS if any(value and _readable(value) for value in batch.values().to_pylist()) else None

    def decoder(self, schema: pa.Schema) -> NumberFormat:
        """Return itself: there is nothing to prepare."""
        del schema
        return self

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
        for position, value in enumerate(batch.values().to_pylist()):
            if value is None:
                skipped.append(position)
            elif _readable(value):
                rows.append(int(value))
                positions.append(position)
            else:
                rejections.append(Rejection(position, "syntax", "is not a number"))
        table = pa.table({"n": pa.array(rows, pa.int64())}, schema=NUMBERS)
        return Decoded(table, pa.array(positions, pa.int64()), tuple(rejections), pa.array(skipped, pa.int64()))


def _readable(value: bytes) -> bool:
    return value.removeprefix(b"-").isdigit()
