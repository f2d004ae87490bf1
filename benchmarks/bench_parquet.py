"""Measure the Parquet sink alone, on one thread: rows a second and bytes, by compression and size of the block.

    python -m benchmarks.bench_parquet [--dir DIR] [--seconds 0.7] [--json FILE]

Blocks have 8 columns of an order and the three coordinates; every write includes its fsyncs. Figures of a disk
cache, not of a disk, where DIR is on one that ignores fsync.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from batcher.records import COORDINATES, Block, Partition, Range
from benchmarks.harness import RESULTS
from benchmarks.report import Spread, Table, publish
from sinks.parquet import one_root
from sinks.parquet.options import PARQUET_COORDINATES

ROWS = (4_000, 10_000, 100_000, 500_000)
TOLD = ("compression", "encodings")
COMPRESSIONS = ("none", "lz4", "snappy", "zstd", "zstd:3", "gzip:1")
START_MS = 1_700_000_000_000
REPEATS = 3
"""Blocks of a combination at least, however long each takes."""


def orders(rows: int) -> pa.Table:
    """Return rows as an event stream has them: two ascending columns, three of few values, three of many."""
    rng = random.Random(1)  # noqa: S311  # the same rows in every run
    countries = ("DE", "FR", "GB", "NL", "PL", "US")
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "user": pa.array([rng.randrange(50_000) for _ in range(rows)], pa.int32()),
            "country": [rng.choice(countries) for _ in range(rows)],
            "amount": [round(rng.random() * 1_000, 2) for _ in range(rows)],
            "item": [f"order {rng.randrange(10**9)} from the shop" for _ in range(rows)],
            "at": pa.array([START_MS + 7 * i for i in range(rows)], pa.timestamp("ms", "UTC")),
            "paid": [rng.random() < 0.5 for _ in range(rows)],
            "quantity": pa.array([rng.randrange(10) for _ in range(rows)], pa.int16()),
        }
    )


def blocks(table: pa.Table) -> Iterator[Block]:
    """Yield blocks of the same rows, each of the next offsets."""
    partition = Partition("orders", 0)
    positions = pa.array(range(table.num_rows), pa.int64())
    first = 0
    while True:
        last = first + table.num_rows - 1
        columns = {
            "_partition": pa.array([0] * table.num_rows, pa.int32()),
            "_offset": pa.array(range(first, last + 1), pa.int64()),
            "_timestamp": pa.array(range(START_MS, START_MS + table.num_rows), pa.timestamp("ms", "UTC")),
        }
        full = table
        for name in PARQUET_COORDINATES:
            full = full.append_column(COORDINATES.field(name), columns[name])
        yield Block(full.combine_chunks(), positions, f"bench|{first}-{last}", (Range(partition, first, last),))
        first = last + 1


def measure(root: Path, table: pa.Table, seconds: float, **options: Any) -> dict[str, Any]:
    """Return the figures of writing blocks of a table for about `seconds` seconds of wall-clock time."""
    sink = one_root({"path": str(root), "schema": table.schema, **options})
    sink.open()
    source = blocks(table)
    sink.write(next(source))  # the pin, and the first use of the codec
    spent: list[float] = []
    cpu: list[float] = []
    while sum(spent) < seconds or len(spent) < REPEATS:
        block = next(source)
        start, cpu_start = time.perf_counter(), time.process_time()
        sink.write(block)
        spent.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    sink.close()
    files = list(root.rglob("*.parquet"))
    written, rows = len(spent), len(spent) * table.num_rows
    return {
        "rows_per_block": table.num_rows,
        "options": options,
        "files_per_block": len(files) // (written + 1),
        "rows_per_second": [round(table.num_rows / one) for one in spent],
        "cpu_us_per_row": [round(one / table.num_rows * 1e6, 3) for one in cpu],
        "bytes_per_row": round(sum(file.stat().st_size for file in files) / (rows + table.num_rows), 2),
    }


@contextmanager
def scratch(directory: str | None) -> Iterator[Path]:
    """Yield a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="batcher-bench-", dir=directory) as path:
        yield Path(path)


def main() -> None:
    """Print one line for each combination."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", help="where to write; the system's temporary directory if not given")
    parser.add_argument("--seconds", type=float, default=0.7, help="time for each combination (default 0.7)")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "parquet.json", help="where to write")
    arguments = parser.parse_args()
    tables = {rows: orders(rows) for rows in ROWS}
    plan: list[tuple[int, dict[str, Any]]] = [(100_000, {"compression": codec}) for codec in COMPRESSIONS]
    plan += [(rows, {"compression": "zstd"}) for rows in ROWS if rows != 100_000]
    plan += [(rows, {"compression": "zstd", "encodings": "v2"}) for rows in ROWS]
    plan += [(100_000, {"compression": "zstd", "partition_by": ("country",)})]
    plan += [(100_000, {"compression": "zstd", "partition_by": ("country", "quantity")})]
    figures, lines = [], []
    for rows, options in plan:
        with scratch(arguments.dir) as root:
            figure = measure(root / "root", tables[rows], arguments.seconds, **options)
        figures.append(figure)
        lines.append(
            (
                ", ".join([f"{rows:,} rows", *(str(value) for name, value in options.items() if name in TOLD)]),
                str(figure["files_per_block"]),
                Spread.of(figure["rows_per_second"]).text(),
                Spread.of(figure["cpu_us_per_row"]).text(2),
                str(figure["bytes_per_row"]),
            )
        )
    table = Table("Writing blocks", ("block", "files", "rows/s", "CPU µs a row", "bytes a row"), lines)
    facts = {"parameters": {"seconds": arguments.seconds}, "figures": figures}
    print(publish(arguments.json, "How fast Parquet files are written", [table], [], facts))


if __name__ == "__main__":
    main()
