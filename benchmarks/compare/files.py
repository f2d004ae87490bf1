"""Parquet for the rivals in Python: rows as decoded in, zstd files out, and a look whether all are there.

No `fsync`, no temporary name and no coordinates, all of which the sink of batcher has: what is left out is in the
rivals' favour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.compare.turn import Turn, check_rows

DECODED: Final = pa.schema(
    [
        ("id", pa.uint64()),
        ("ts", pa.string()),
        ("user_id", pa.uint32()),
        ("country", pa.string()),
        ("product", pa.string()),
        ("quantity", pa.uint8()),
        ("price", pa.float64()),
        ("paid", pa.bool_()),
        ("session", pa.string()),
    ]
)
WRITTEN: Final = DECODED.set(1, pa.field("ts", pa.timestamp("ms", tz="UTC")))


class Files:
    """Write each batch of rows as a file of its own into a new directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._written = 0

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one file; the times are read by Arrow, a column at once."""
        table = pa.Table.from_pylist(rows, schema=DECODED).cast(WRITTEN)
        pq.write_table(table, self._directory / f"{self._written:06}.parquet", compression="zstd")
        self._written += 1


def check_files(turn: Turn, directory: Path) -> None:
    """End the process unless the files hold each record once and no value is missing."""
    found = [pq.ParquetFile(path) for path in sorted(directory.glob("*.parquet"))]
    nulls = 0
    for one in found:
        for group in range(one.metadata.num_row_groups):
            columns = one.metadata.row_group(group)
            nulls += sum(columns.column(number).statistics.null_count for number in range(columns.num_columns))
    if nulls:
        raise SystemExit(f"incomplete: {nulls} values are null")
    ids = pa.concat_tables([one.read(columns=["id"]) for one in found])["id"]
    check_rows(turn, len(ids), pc.count_distinct(ids).as_py(), pc.sum(ids).as_py())
