"""Measure the sinks of lake tables alone, on one thread, beside the Parquet sink: CPU and bytes a row, CPU a commit.

    python -m benchmarks.bench_lake [--dir DIR] [--commits 1000] [--only parquet,delta,iceberg] [--json FILE]

Large blocks say what a row costs. Small ones, 100 rows each, say what a commit costs when there were many before it:
the mean of the last hundred. Blocks have 8 columns of an order and the coordinates of each sink.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

import sinks
from batcher.records import COORDINATES, Block, Partition, Range
from benchmarks.bench_parquet import START_MS, orders, scratch
from benchmarks.harness import RESULTS
from benchmarks.report import Spread, Table, publish

LARGE_ROWS: Final = 100_000
LARGE_BLOCKS: Final = 5
SMALL_ROWS: Final = 100
LAST: Final = 100
"""Commits at the end that are averaged."""


def _catalog(root: Path) -> dict[str, str]:
    root.mkdir(parents=True, exist_ok=True)
    return {"type": "sql", "uri": f"sqlite:///{root}/catalog.db", "warehouse": f"file://{root}/warehouse"}


SINKS: Final[Mapping[str, Callable[[Path], tuple[str, dict[str, Any]]]]] = {
    "parquet": lambda root: ("parquet", {"path": str(root)}),
    "delta": lambda root: ("delta", {"path": str(root)}),
    "iceberg": lambda root: ("iceberg", {"catalog": _catalog(root), "table": "bench.orders"}),
}
"""For each name the sink and its options; the table is in the directory, made by the sink."""


def blocks(table: pa.Table, coordinates: tuple[str, ...]) -> Iterator[Block]:
    """Yield blocks of the same rows, each of the next offsets."""
    partition, rows = Partition("orders", 0), table.num_rows
    first = 0
    while True:
        last = first + rows - 1
        columns = {
            "_topic": pa.repeat("orders", rows),
            "_partition": pa.array([0] * rows, pa.int32()),
            "_offset": pa.array(range(first, last + 1), pa.int64()),
            "_timestamp": pa.array(range(START_MS, START_MS + rows), pa.timestamp("ms", "UTC")),
        }
        full = table
        for name in coordinates:
            full = full.append_column(COORDINATES.field(name), columns[name])
        positions = pa.array(range(rows), pa.int64())
        yield Block(full.combine_chunks(), positions, f"bench|{first}", (Range(partition, first, last),))
        first = last + 1


def opened(name: str, root: Path, table: pa.Table) -> tuple[Any, Iterator[Block]]:
    """Return a sink on a new table, and blocks for it."""
    plugin, options = SINKS[name](root)
    sink: Any = sinks.load(plugin)(options)
    info = sink.open()
    sink.pin(table.schema)
    return sink, blocks(table, info.coordinates)


def measure(name: str, directory: Path, commits: int) -> dict[str, Any]:
    """Return the figures of one sink."""
    table = orders(LARGE_ROWS)
    sink, source = opened(name, directory / "large", table)
    sink.write(next(source))
    cpu = []
    for _ in range(LARGE_BLOCKS):
        block, start = next(source), time.process_time()
        sink.write(block)
        cpu.append((time.process_time() - start) / LARGE_ROWS * 1e6)
    sink.close()
    files = list((directory / "large").rglob("*.parquet"))
    sink, source = opened(name, directory / "small", table.slice(0, SMALL_ROWS))
    each = []
    for _ in range(commits):
        block, start = next(source), time.process_time()
        sink.write(block)
        each.append((time.process_time() - start) * 1e3)
    sink.close()
    return {
        "sink": name,
        "cpu_us_per_row": [round(one, 3) for one in cpu],
        "bytes_per_row": round(sum(file.stat().st_size for file in files) / (LARGE_BLOCKS + 1) / LARGE_ROWS, 2),
        "commits": commits,
        "cpu_ms_per_commit_first": round(sum(each[:LAST]) / len(each[:LAST]), 1),
        "cpu_ms_per_commit_last": round(sum(each[-LAST:]) / len(each[-LAST:]), 1),
    }


def main() -> None:
    """Print one line for each sink."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dir", help="where to write; the system's temporary directory if not given")
    parser.add_argument("--commits", type=int, default=1_000, help="small commits of each sink (default 1000)")
    parser.add_argument("--only", default=",".join(SINKS), metavar="SINK[,…]", help="which sinks")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "lake.json", help="where to write")
    arguments = parser.parse_args()
    figures, lines = [], []
    for name in arguments.only.split(","):
        with scratch(arguments.dir) as directory:
            figure = measure(name, directory, arguments.commits)
        figures.append(figure)
        lines.append(
            (
                name,
                Spread.of(figure["cpu_us_per_row"]).text(2),
                str(figure["bytes_per_row"]),
                str(figure["cpu_ms_per_commit_first"]),
                str(figure["cpu_ms_per_commit_last"]),
            )
        )
    titles = ("sink", "CPU µs a row", "bytes a row", "CPU ms a commit, first 100", f"last of {arguments.commits:,}")
    facts = {"parameters": {"commits": arguments.commits}, "figures": figures}
    print(publish(arguments.json, "What lake tables cost", [Table("Writing blocks", titles, lines)], [], facts))


if __name__ == "__main__":
    main()
