"""Loops as one writes them on the first day: poll, json.loads, write so many rows, commit.

    python -m benchmarks.compare.naive BOOTSTRAP TOPIC RECORDS SCRATCH --to parquet|columns|msgspec

`parquet` writes a zstd file a batch. `columns` turns the rows into columns and inserts those into the embedded
ClickHouse, which is faster than the lists of rows that `naive` in `benchmarks.contenders` inserts. `msgspec` does the
same with a decoder that knows the fields and makes objects of them: as far as one gets with a loop over records.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any

from confluent_kafka import Consumer

from benchmarks.compare.turn import BATCH_ROWS, Turn, check_committed, check_rows, take_one_of
from benchmarks.harness import Measured, Stopwatch
from benchmarks.orders import COLUMNS, NAMES

Decode = Callable[[bytes], Any]
Write = Callable[[list[Any]], None]


def loop(turn: Turn, watch: Stopwatch, write: Write, decode: Decode = json.loads) -> None:
    """Read the topic to its end."""
    consumer = Consumer(turn.consumer())
    consumer.subscribe([turn.topic])
    rows: list[Any] = []
    seen = 0
    while seen < turn.records:
        watch.first(again=not seen)
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        rows.append(decode(message.value() or b""))
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

    def columns(rows: list[dict[str, Any]]) -> list[list[Any]]:
        found = [[row[name] for row in rows] for name in NAMES]
        found[1] = [datetime.fromisoformat(text) for text in found[1]]
        return found

    return insert("naive-columns", turn, json.loads, columns)


def to_columns_of_objects(turn: Turn) -> Measured:
    """Insert columns that were attributes."""
    import msgspec

    types = (int, datetime, int, str, str, int, float, bool, str)
    order = msgspec.defstruct("Order", list(zip(NAMES, types, strict=True)), gc=False)

    def columns(rows: list[Any]) -> list[list[Any]]:
        return [list(map(attrgetter(name), rows)) for name in NAMES]

    return insert("naive-msgspec", turn, msgspec.json.Decoder(order).decode, columns)


def insert(name: str, turn: Turn, decode: Decode, columns: Callable[[list[Any]], list[list[Any]]]) -> Measured:
    """Decode each message, insert the columns of each batch into the embedded engine."""
    import clickhouse_connect

    client: Any = clickhouse_connect.get_client(dsn=f"chdb://{turn.scratch / 'engine'}")
    client.command(
        f"CREATE TABLE naive ({COLUMNS}) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )

    def write(rows: list[Any]) -> None:
        client.insert("naive", columns(rows), column_names=NAMES, column_oriented=True)

    watch = Stopwatch()
    loop(turn, watch, write, decode)
    result = watch.measured(name, turn.records)
    check_committed(turn)
    (found,) = client.query("SELECT count(), uniqExact(id), sum(id) FROM naive").result_rows
    check_rows(turn, *found)
    client.close()
    return result


if __name__ == "__main__":
    works = {"parquet": to_parquet, "columns": to_columns, "msgspec": to_columns_of_objects}
    take_one_of(works, "--to", __doc__)
