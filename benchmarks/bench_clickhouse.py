"""Ask how fast the ClickHouse sink writes blocks, embedded and over HTTP, and what compression costs.

Blocks of 100,000 rows and 8 columns go through `write()` to a MergeTree table: to chDB in this process, then to the
test server (chDB behind HTTP on loopback, in a process of its own) uncompressed, with lz4 and with zstd. `Native` are
the same rows in ClickHouse's own format, as the driver makes it from columns of Python values.
Loopback has no latency and no limit, so what it shows of compression is its cost; what it saves is in bytes on the
wire. Prints the median of `--blocks` writes and their spread; the first write of each target is not counted. Targets
have their turns in `--rounds`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import clickhouse_connect
import pyarrow as pa

from batcher.protocols import SinkInfo
from batcher.records import Block
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


class NativeFormat:
    """Write blocks as the driver does without Arrow: columns of Python values become ClickHouse's Native format."""

    def __init__(self, dsn: str, table: str) -> None:
        self._sink = plugin({"dsn": dsn, "table": table})
        self._client = clickhouse_connect.get_client(dsn=dsn, compress="lz4")
        self._table = table

    def open(self) -> SinkInfo:
        return self._sink.open()

    def write(self, block: Block) -> None:
        names = [name for name in block.table.column_names if not name.startswith("_")]
        columns = [block.table.column(name).to_pylist() for name in names]
        settings = {"insert_deduplication_token": block.token}
        self._client.insert(self._table, columns, names, column_oriented=True, settings=settings)

    def close(self) -> None:
        self._client.close()
        self._sink.close()


class Writes(Protocol):
    """What is measured of a sink."""

    def open(self) -> SinkInfo: ...
    def write(self, block: Block) -> Any: ...
    def close(self) -> None: ...


def measured(sink: Writes, rows: int, blocks: int, server: ClickHouseServer | None = None) -> dict[str, Any]:
    """Write blocks of equal rows under tokens of their own; return the rows per second of each, and what CPU they took.

    The CPU is that of this process, and of the server where there is one, in microseconds a row.
    """
    schema = sink.open().schema
    assert schema is not None
    table = rows_of(rows, schema)
    seconds: list[float] = []
    began_cpu = (0.0, 0.0)
    for number in range(blocks + 1):
        if number == 1:
            began_cpu = (time.process_time(), server.cpu_s() if server else 0.0)
        block = make_block(table, token=f"bench|{uuid.uuid4()}")
        began = time.perf_counter()
        sink.write(block)
        seconds.append(time.perf_counter() - began)
    client = time.process_time() - began_cpu[0]
    served = server.cpu_s() - began_cpu[1] if server else 0.0
    sink.close()
    written = rows * blocks
    return {
        "rows_per_second": [round(rows / one) for one in seconds[1:]],
        "client_cpu_us": client / written * 1e6,
        "server_cpu_us": served / written * 1e6,
        "wire_bytes": server.inserts()[-1].wire_bytes if server else 0,
    }


def main() -> int:
    """Run the comparison and print it as a table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows in a block")
    parser.add_argument("--blocks", type=int, default=10, help="blocks timed in each turn of a target")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each target")
    parser.add_argument("--json", type=Path, default=RESULTS / "clickhouse.json", help="where to write")
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = defaultdict(list)
    engine = EmbeddedEngine.shared()
    engine.execute(TABLE)
    with tempfile.TemporaryDirectory() as directory, ClickHouseServer(Path(directory) / "db") as server:
        server.query(TABLE)
        targets: dict[str, Callable[[], Writes]] = {
            f"HTTP, Arrow, {codec}": partial(plugin, {"dsn": f"{server.dsn}?compression={codec}", "table": "bench"})
            for codec in ("none", "lz4", "zstd")
        }
        targets["HTTP, Native, lz4"] = partial(NativeFormat, server.dsn, "bench")
        for _ in range(options.rounds):
            embedded = plugin({"dsn": engine.dsn, "table": "bench"})
            results["embedded, Arrow"].append(measured(embedded, options.rows, options.blocks))
            engine.execute("TRUNCATE TABLE bench")
            for name, target in targets.items():
                server.clear()
                results[name].append(measured(target(), options.rows, options.blocks, server))
                server.query("TRUNCATE TABLE bench")
    lines = [
        (
            name,
            Spread.of([rate for turn in turns for rate in turn["rows_per_second"]]).text(),
            *(Spread.of([turn[cpu] for turn in turns]).text(2) for cpu in ("client_cpu_us", "server_cpu_us")),
            f"{turns[-1]['wire_bytes'] / 1e6:.2f}" if turns[-1]["wire_bytes"] else "-",
        )
        for name, turns in results.items()
    ]
    heads = ("target", "rows/s", "CPU µs a row here", "CPU µs a row in the server", "MB on the wire a block")
    table = Table("Writing blocks", heads, lines)
    facts = {"parameters": {"rows": options.rows, "blocks": options.blocks}, "targets": results}
    print(publish(options.json, "How fast ClickHouse takes blocks", [table], [], facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
