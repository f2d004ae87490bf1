"""sentry-arroyo: decode, batch, write Parquet, commit, as a chain of its processing strategies.

JSON is read with orjson. Offsets are committed once the batch that holds them is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from arroyo import Message, Partition, Topic
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from arroyo.commit import IMMEDIATE
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory, RunTask
from arroyo.processing.strategies.batching import BatchStep, ValuesBatch
from arroyo.types import Commit

from benchmarks.compare.files import Files, check_files
from benchmarks.compare.turn import BATCH_ROWS, Turn, check_committed, take
from benchmarks.harness import Measured, Stopwatch

BATCH_S = 10.0


class Factory(ProcessingStrategyFactory[KafkaPayload]):  # type: ignore[misc]  # not installed where types are checked
    """Build the chain and count what has gone through it."""

    def __init__(self, turn: Turn, watch: Stopwatch) -> None:
        self.directory = turn.scratch / "out"
        self.seen = 0
        self._files = Files(self.directory)
        self._watch = watch

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        """Return the first of the strategies."""
        del partitions
        write = RunTask(self._write, CommitOffsets(commit))
        return RunTask(self._decode, BatchStep(BATCH_ROWS, BATCH_S, write))

    def _decode(self, message: Message[KafkaPayload]) -> Any:
        self._watch.first()
        self.seen += 1
        return orjson.loads(message.payload.value)

    def _write(self, message: Message[ValuesBatch[Any]]) -> None:
        self._files.write([value.payload for value in message.payload])


def work(turn: Turn) -> Measured:
    """Run the processor until it has seen every record; the rest of them is flushed when it stops."""
    watch = Stopwatch()
    factory = Factory(turn, watch)
    options = build_kafka_consumer_configuration(
        {},
        turn.group,
        auto_offset_reset="earliest",
        bootstrap_servers=[turn.bootstrap],
        # The client library's own default; the framework asks for a tenth of it to save memory.
        queued_min_messages=100_000,
        enable_auto_commit=False,
    )
    processor = StreamProcessor(KafkaConsumer(options), Topic(turn.topic), factory, IMMEDIATE)
    while factory.seen < turn.records:
        processor._run_once()  # noqa: SLF001  # what run() repeats until a signal comes
    processor._shutdown()  # noqa: SLF001
    watch.last()
    result = watch.measured("arroyo", turn.records)
    check_committed(turn)
    check_files(turn, factory.directory)
    return result


if __name__ == "__main__":
    take(work, __doc__)
