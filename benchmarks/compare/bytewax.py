"""Bytewax: a dataflow from its Kafka source over `collect` into a sink that writes Parquet.

JSON is read with orjson, a batch of messages at a time. In place of a consumer group the framework keeps the offsets,
and the rows that are collected but not written, in its recovery store; snapshots are taken as often as others commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

from benchmarks.compare.files import Files, check_files
from benchmarks.compare.turn import BATCH_ROWS, Turn, take
from benchmarks.harness import Measured, Stopwatch

Keyed = tuple[str, dict[str, Any]]


class Writer(StatelessSinkPartition[tuple[str, list[Any]]]):  # type: ignore[misc]  # not installed where types are checked
    """Write each collected batch as a file."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def write_batch(self, items: list[tuple[str, list[Any]]]) -> None:
        """Write what has been collected."""
        for _, rows in items:
            self._files.write(rows)


class ParquetSink(DynamicSink[tuple[str, list[Any]]]):  # type: ignore[misc]  # not installed where types are checked
    """Make the one writer that one worker needs."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Writer:
        """Return the writer."""
        del step_id, worker_index, worker_count
        return Writer(self._files)


def work(turn: Turn) -> Measured:
    """Run the dataflow to the end of the topic."""
    directory, watch = turn.scratch / "out", Stopwatch()

    def decode(messages: list[KafkaSourceMessage[bytes, bytes]]) -> Iterator[Keyed]:
        watch.first()
        loads = orjson.loads
        for message in messages:
            yield str(message.partition), loads(message.value)

    flow = Dataflow("compare")
    source = KafkaSource([turn.bootstrap], [turn.topic], tail=False, batch_size=10_000)
    keyed = op.flat_map_batch("decode", op.input("read", flow, source), decode)
    collected = op.collect("collect", keyed, timedelta(seconds=10), BATCH_ROWS)
    op.output("write", collected, ParquetSink(Files(directory)))
    store = turn.scratch / "recovery"
    store.mkdir()
    init_db_dir(store, 1)
    run_main(flow, epoch_interval=timedelta(seconds=5), recovery_config=RecoveryConfig(store))
    watch.last()
    result = watch.measured("bytewax", turn.records)
    check_files(turn, directory)
    return result


if __name__ == "__main__":
    take(work, __doc__)
