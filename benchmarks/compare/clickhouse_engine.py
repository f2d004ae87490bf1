"""ClickHouse's own Kafka table engine, inside the embedded engine, into the same table.

    python -m benchmarks.compare.clickhouse_engine BOOTSTRAP TOPIC RECORDS SCRATCH --shape usual|best

`usual` is what its manual shows: the columns in the queue, `JSONEachRow`, one consumer. `best` is the fastest shape
known: one String a message, the JSON read in the view, a thread for each of two consumers. Both take blocks of the same
size. The clock runs from the moment at which each consumer has read a message, as the engine itself reports it, until
every record can be selected; rows that are there before are not counted. It commits by itself after each block, so that
the rebalance of its consumers may double some: of this contender only completeness is asked.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any, Final

from chdb.session import Session

from benchmarks.compare.turn import Turn, take_one_of
from benchmarks.harness import Measured, Stopwatch
from benchmarks.orders import COLUMNS, NAMES

LOOK_EVERY_S: Final = 0.05

PATIENCE_S: Final = 60
"""Without a new row for so long, the turn has failed."""

JOIN_S: Final = 150
"""For all consumers to join and read. It is not measured, and took more than a minute on a busy machine."""

CONSUMERS: Final = {"usual": 1, "best": 2}

COMMON: Final = (
    # A block ends at this many rows or after ten empty polls: short polls keep the end of the run from being a wait.
    "kafka_max_block_size = 65536, kafka_poll_max_batch_size = 65536, kafka_poll_timeout_ms = 20, "
    "kafka_thread_per_consumer = 1"
)


def usual() -> tuple[str, str, str]:
    """Return columns and settings of the queue, and what the view selects."""
    settings = "kafka_format = 'JSONEachRow', date_time_input_format = 'best_effort'"
    return COLUMNS, settings, "SELECT * FROM queue"


def best() -> tuple[str, str, str]:
    """Return columns and settings of the queue, and what the view selects."""
    fields = COLUMNS.replace("DateTime64(3, 'UTC')", "String")
    # Reading the time from a string column is cheaper than having JSONExtract do it.
    values = (f"parseDateTime64BestEffort(o.{n}, 3, 'UTC') AS {n}" if n == "ts" else f"o.{n} AS {n}" for n in NAMES)
    select = f"SELECT {', '.join(values)} FROM (SELECT JSONExtract(s, 'Tuple({fields})') AS o FROM queue)"  # noqa: S608  # constants
    return "s String", "kafka_format = 'RawBLOB'", select


def load(shape: str, turn: Turn) -> Measured:
    """Attach the view and watch the rows come."""
    columns, settings, select = {"usual": usual, "best": best}[shape]()
    untyped: Any = Session
    engine = untyped(str(turn.scratch / "engine"))
    engine.query(
        f"CREATE TABLE events ({COLUMNS}) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )
    queue = (
        f"CREATE TABLE queue ({columns}) ENGINE = Kafka SETTINGS kafka_broker_list = '{turn.bootstrap}', "
        f"kafka_topic_list = '{turn.topic}', kafka_group_name = '{turn.group}', {settings}, "
        f"kafka_num_consumers = {CONSUMERS[shape]}, {COMMON}"
    )
    try:
        engine.query(queue)
    except RuntimeError as error:
        # The embedded engine says so and streams nevertheless, once there is a view.
        if "Code: 49" not in str(error):
            raise
    engine.query(f"CREATE MATERIALIZED VIEW view TO events AS {select}")
    watch, before = started(engine, turn.records, CONSUMERS[shape])
    wait(engine, turn.records)
    watch.last()
    result = watch.measured(f"kafka-engine-{shape}", turn.records - before)
    check_values(engine)
    engine.query("DROP TABLE view")
    engine.close()
    return result


def started(engine: Any, records: int, consumers: int) -> tuple[Stopwatch, int]:
    """Wait until all consumers read; return a clock that runs since then, and how many rows there were.

    They join one after the other, which is a rebalance of about a second. Where one of them has loaded everything by
    then, the clock runs since it began and no row was there.
    """
    of_one, of_all = Stopwatch(), Stopwatch()
    deadline = time.monotonic() + JOIN_S
    reading = 0
    while time.monotonic() < deadline:
        # Each look may be the one that sees them at work, so the clocks start anew with each.
        of_one.first(again=not reading)
        of_all.first(again=True)
        before = number(engine, "count()")
        reading = number(engine, "countIf(num_messages_read > 0)", "system.kafka_consumers")
        if before >= records:
            return of_one, 0
        if reading >= consumers:
            return of_all, before
        time.sleep(LOOK_EVERY_S / 5)
    sys.exit(f"{reading} of {consumers} consumers of the engine read within {JOIN_S} s")


def wait(engine: Any, records: int) -> None:
    """Return once each record is there."""
    seen, moved = 0, time.monotonic()
    while (now := number(engine, "count()")) < records or number(engine, "uniqExact(id)") < records:
        if now > seen:
            seen, moved = now, time.monotonic()
        if time.monotonic() - moved > PATIENCE_S:
            sys.exit(f"the engine stopped at {seen} rows, of {records} records")
        time.sleep(LOOK_EVERY_S)


def number(engine: Any, what: str, table: str = "events") -> int:
    """Return one whole number."""
    return int(str(engine.query(f"SELECT {what} FROM {table}", "TSV")))  # noqa: S608  # constants


def check_values(engine: Any) -> None:
    """End the process if the JSON was not read: a field that cannot be is silently 0 or empty."""
    unread = number(engine, "countIf(user_id = 0 OR quantity = 0 OR ts < '2020-01-01' OR session = '')")
    if unread:
        sys.exit(f"incomplete: {unread} rows have empty values")


if __name__ == "__main__":
    take_one_of({shape: partial(load, shape) for shape in CONSUMERS}, "--shape", __doc__)
