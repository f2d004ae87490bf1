"""Quix Streams: a streaming dataframe into a batching sink that writes Parquet.

The framework decodes with its JSON deserializer (orjson), keeps a batch for each partition and flushes them, then
commits, after so many messages: its checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.compare.files import Files, check_files
from benchmarks.compare.turn import BATCH_ROWS, PARTITIONS, Turn, check_committed, take
from benchmarks.harness import Measured, Stopwatch


class ParquetSink(BatchingSink):  # type: ignore[misc]  # the framework is not installed where types are checked
    """Write a file for each partition at each checkpoint."""

    def __init__(self, directory: Path, watch: Stopwatch) -> None:
        super().__init__()
        self._files = Files(directory)
        self._watch = watch

    def add(self, *words: Any, **named: Any) -> None:
        """Start the clock with the first record."""
        self._watch.first()
        super().add(*words, **named)

    def write(self, batch: SinkBatch) -> None:
        """Write the rows of one partition."""
        self._files.write([item.value for item in batch])


def work(turn: Turn) -> Measured:
    """Run the application until it has seen every record."""
    directory, watch = turn.scratch / "out", Stopwatch()
    application = Application(
        broker_address=turn.bootstrap,
        consumer_group=turn.group,
        auto_offset_reset="earliest",
        # Each checkpoint ends all partitions' batches: this makes them as large as the others'.
        commit_every=BATCH_ROWS * PARTITIONS,
        auto_create_topics=False,
        state_dir=turn.scratch / "state",
        loglevel="ERROR",
    )
    frame = application.dataframe(application.topic(turn.topic, value_deserializer="json"))
    frame.sink(ParquetSink(directory, watch))
    application.run(count=turn.records, collect=False)
    watch.last()
    result = watch.measured("quix", turn.records)
    check_committed(turn)
    check_files(turn, directory)
    return result


if __name__ == "__main__":
    take(work, __doc__)
