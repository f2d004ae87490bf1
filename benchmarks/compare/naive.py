"""Loops as one writes them on the first day: poll, json.loads, write so many rows, commit.

    python -m benchmarks.compare.naive BOOTSTRAP TOPIC RECORDS SCRATCH --to parquet|columns

`parquet` writes a zstd file a batch; `columns` turns the rows into columns and inserts those into the embedded
ClickHouse, which is faster than the lists of rows that `naive` in `benchmarks.contenders` inserts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer

from benchmarks.compare.turn import BATCH_ROWS, Turn, check_committed, check_rows, take_one_of
from benchmarks.harness import Measured, Stopwatch
from benchmarks.orders import COLUMNS, NAMES

Rows = list[dict[str, Any]]


def loop(turn: Turn, watch: Stopwatch, write: Callable[[Rows], None]) -> None:
    """Read the topic to its end."""
    consumer = Consumer(turn.consumer())
    consumer.subscribe([turn.topic])
    rows: Rows = []
    seen = 0
    while seen < turn.records:
        watch.first(again=not seen)
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        rows.append(json.loads(message.value() or b""))
        seen += 1
        if len(rows) == BATCH_ROWS or seen == turn.records:
            write(rows)
            consumer.commit(asynchronous=False)
            rows.clear()
    watch.last()
    consumer.close()


def to_parquet(turn: Turn) -> Measured:
    """Write files."""
    from benchmarks.compare.files import Files, check_files

    directory, watch = turn.scratch / "out", Stopwatch()
    loop(turn, watch, Files(directory).write)
    result = watch.measured("naive-parquet", turn.records)
    check_committed(turn)
    check_files(turn, directory)
    return result


def to_columns(turn: Turn) -> Measured:
    """Insert columns."""
    import clickhouse_connect

    client: Any = clickhouse_connect.get_client(dsn=f"chdb://{turn.scratch / 'engine'}")
    client.command(f"CREATE TABLE naive ({COLUMNS}) ENGINE = MergeTree ORDER BY id")

    def write(rows: Rows) -> None:
        columns = [[row[name] for row in rows] for name in NAMES]
        columns[1] = [datetime.fromisoformat(text) for text in columns[1]]
        client.insert("naive", columns, column_names=NAMES, column_oriented=True)

    watch = Stopwatch()
    loop(turn, watch, write)
    result = watch.measured("naive-columns", turn.records)
    check_committed(turn)
    (found,) = client.query("SELECT count(), uniqExact(id), sum(id) FROM naive").result_rows
    check_rows(turn, *found)
    client.close()
    return result


if __name__ == "__main__":
    take_one_of({"parquet": to_parquet, "columns": to_columns}, "--to", __doc__)
