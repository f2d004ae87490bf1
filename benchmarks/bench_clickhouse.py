"""Ask how fast the ClickHouse sink writes blocks, embedded and over HTTP, and what compression costs.

Blocks of 100,000 rows and 8 columns go through `write()` to a MergeTree table: to chDB in this process, then to the
test server (chDB behind HTTP on loopback, in a process of its own) uncompressed, with lz4 and with zstd.
Loopback has no latency and no limit, so what it shows of compression is its cost; what it saves is in bytes on the
wire. Prints the median of `--blocks` writes and their spread; the first write of each target is not counted.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from batcher.protocols import Sink
from batcher.testing.clickhouse import ClickHouseServer, EmbeddedEngine
from batcher.testing.values import make_block
from benchmarks.harness import RESULTS
from benchmarks.report import Spread, Table, publish
from sinks.clickhouse import plugin

TABLE = """
CREATE TABLE bench (
    id UInt64, at DateTime64(3), user UInt32, country LowCardinality(String), path String,
    price Decimal(18, 2), score Float64, session UUID
) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100
"""


def rows_of(count: int, schema: pa.Schema) -> pa.Table:
    """Return a table of `count` made-up events in the sink's schema."""
    numbers = pa.array(range(count), pa.int64())
    values: dict[str, Any] = {
        "id": numbers,
        "at": pa.array([1_760_000_000_000 + 7 * n for n in range(count)], pa.int64()),
        "user": pa.array([n * 2_654_435_761 % 2**32 for n in range(count)], pa.int64()),
        "country": pa.array([("DE", "FR", "US", "JP")[n * 31 % 4] for n in range(count)]),
        "path": pa.array([f"/shop/item/{n * 7919 % 10_000}?ref=mail" for n in range(count)]),
        "price": pa.array([n * 37 % 100_000 for n in range(count)], pa.int64()).cast(pa.decimal128(19, 0)),
        "score": pa.array([n * 0.37 % 1 for n in range(count)]),
        "session": pa.array([f"{n * 2_654_435_761:08x}"[-8:] + "-6f55-471d-8c8e-8e4449a3ab51" for n in range(count)]),
    }
    return pa.table({name: values[name].cast(schema.field(name).type) for name in schema.names})


def measured(sink: Sink, rows: int, blocks: int) -> dict[str, Any]:
    """Write blocks of equal rows under tokens of their own; return the rows per second of each."""
    schema = sink.open().schema
    assert schema is not None
    table = rows_of(rows, schema)
    tokens = itertools.count()
    seconds = []
    for _ in range(blocks + 1):
        block = make_block(table, token=f"bench|{next(tokens)}")
        began = time.perf_counter()
        sink.write(block)
        seconds.append(time.perf_counter() - began)
    sink.close()
    return {"rows_per_second": [round(rows / one) for one in seconds[1:]]}


def main() -> int:
    """Run the comparison and print it as a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows in a block")
    parser.add_argument("--blocks", type=int, default=10, help="blocks timed for each target")
    parser.add_argument("--json", type=Path, default=RESULTS / "clickhouse.json", help="where to write")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    engine = EmbeddedEngine.shared()
    engine.execute(TABLE)
    results["embedded"] = measured(plugin({"dsn": engine.dsn, "table": "bench"}), options.rows, options.blocks)
    with tempfile.TemporaryDirectory() as directory, ClickHouseServer(Path(directory) / "db") as server:
        server.query(TABLE)
        for compression in ("none", "lz4", "zstd"):
            server.clear()
            sink = plugin({"dsn": f"{server.dsn}?compression={compression}", "table": "bench"})
            results[f"http {compression}"] = measured(sink, options.rows, options.blocks)
            results[f"http {compression}"]["wire_bytes"] = server.inserts()[-1].wire_bytes
    lines = [
        (
            name,
            Spread.of(figures["rows_per_second"]).text(),
            f"{figures['wire_bytes'] / 1e6:.2f}" if "wire_bytes" in figures else "-",
        )
        for name, figures in results.items()
    ]
    table = Table("Writing blocks", ("target", "rows/s", "MB on the wire a block"), lines)
    facts = {"parameters": {"rows": options.rows, "blocks": options.blocks}, "targets": results}
    print(publish(options.json, "How fast ClickHouse takes blocks", [table], [], facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
