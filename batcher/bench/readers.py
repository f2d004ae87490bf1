"""Sources to measure with, and the passes that only read."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from batcher.bench.figures import Stage
from batcher.core.state import FETCH_RECORDS
from batcher.generate.events import EventGenerator
from batcher.protocols import PartitionListener, Source, SourceInfo
from batcher.records import Partition, Position, Records
from batcher.sources.kafka.detached import DetachedSource
from batcher.sources.kafka.options import KafkaOptions

POLL_S: Final = 0.1

MEMORY_BYTES: Final = 40 << 20
"""What one fetch may bring: the default of `batch.memory`."""

BARE: Final = 10_000
"""Messages asked for by the bare call: with this many the call's own cost is nothing."""

GENERATED_RUN: Final = 1000
GENERATED_PARTITIONS: Final = 4
GENERATED_MS: Final = 1_700_000_000_000

Stop = Callable[[], bool]
"""Return whether it has to end."""


class Stopwatch:
    """Measure time and CPU from the first sign of progress, or from a moment before it, to the last."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._ended = (0.0, 0.0)

    def first(self, at: tuple[float, float]) -> bool:
        """Start at a moment, unless it runs, and return whether it did."""
        if self._began is not None:
            return False
        self._began = self._ended = at
        return True

    def last(self) -> None:
        """Move the end to now."""
        self._ended = moment()

    @property
    def seconds(self) -> float:
        """Return the time taken."""
        return self._ended[0] - (self._began or self._ended)[0]

    @property
    def cpu_s(self) -> float:
        """Return the CPU taken by all threads."""
        return self._ended[1] - (self._began or self._ended)[1]


def moment() -> tuple[float, float]:
    """Return the time and the CPU used so far."""
    return time.perf_counter(), time.process_time()


class Listening:
    """Take every partition (see PartitionListener)."""

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Take all."""
        del positions
        return ()

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Do nothing."""

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Do nothing."""


class Replayed:
    """Hand out records that are in memory, as a source whose commits go nowhere (see protocols.Source)."""

    def __init__(self, runs: Sequence[Records]) -> None:
        self._untold: PartitionListener | None = None
        self._left = list(reversed(runs))
        self._reached = {run.partition: run.first_offset for run in self._left}
        self._paused: set[Partition] = set()

    def open(self, listener: PartitionListener) -> SourceInfo:
        self._untold = listener
        return SourceInfo(keeps_intents=True, reason="")

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        if self._untold is not None:
            listener, self._untold = self._untold, None
            listener.on_assigned({partition: Position(first) for partition, first in self._reached.items()})
        runs: list[Records] = []
        del max_bytes
        wanted = max_records
        while wanted and self._left and self._left[-1].partition not in self._paused:
            run = self._left.pop()
            if len(run) > wanted:
                self._left.append(run.slice(wanted))
                run = run.slice(0, wanted)
            runs.append(run)
            wanted -= len(run)
            self._reached[run.partition] = run.next_offset
        if not runs:
            time.sleep(timeout_s)
        return runs

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Do nothing."""

    @property
    def reached(self) -> Mapping[Partition, int]:
        return dict(self._reached)

    @property
    def exhausted(self) -> bool:
        return not self._left

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class Watched:
    """Pass everything on to a source except commits, which are counted, and measure the time of reading."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.watch = Stopwatch()
        self.commits = 0
        self.cpu_s = 0.0
        """The CPU time of the thread in `fetch` since the first records came."""
        self.begun: Callable[[], None] = lambda: None
        """Called when the first records come."""

    def open(self, listener: PartitionListener) -> SourceInfo:
        return replace(self._source.open(listener), capabilities=frozenset())

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        began, used = moment(), time.thread_time()
        runs = self._source.fetch(max_records, max_bytes, timeout_s)
        if runs and self.watch.first(began):
            # The connection, and a group, which does not exist here, are not measured.
            self.cpu_s = 0.0
            self.begun()
        self.cpu_s += time.thread_time() - used
        return runs

    def pause(self, partitions: Collection[Partition]) -> None:
        self._source.pause(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._source.resume(partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Count it. A measurement must not move a group's offsets."""
        del positions, timeout_s
        self.commits += 1

    @property
    def reached(self) -> Mapping[Partition, int]:
        return self._source.reached

    @property
    def exhausted(self) -> bool:
        return self._source.exhausted

    def close(self) -> None:
        self._source.close()


def generated(template: str, records: int, stop: Stop) -> list[Records]:
    """Return made-up records, the same each time, of GENERATED_PARTITIONS partitions in short runs."""
    events = EventGenerator(template, seed=1)
    runs: list[Records] = []
    ends = [0] * GENERATED_PARTITIONS
    while events.made < records and not stop():
        values = events.take(min(GENERATED_RUN, records - events.made))
        number = len(runs) % GENERATED_PARTITIONS
        first, count = ends[number], len(values)
        ends[number] += count
        times = pa.arange(GENERATED_MS + first, GENERATED_MS + first + count)
        offsets = pa.arange(first, first + count)
        partition = Partition("generated", number)
        runs.append(Records(partition, offsets, times, pa.nulls(count, pa.binary()), pa.array(values, pa.binary())))
    return runs


def fetched(options: KafkaOptions, records: int, seconds: float, stop: Stop) -> Iterator[list[Records]]:
    """Yield records as a run fetches them, up to `records` or for `seconds`. Raise as a source does."""
    source, left = DetachedSource(options), records
    try:
        source.open(Listening())
        deadline = time.monotonic() + seconds
        while left > 0 and not source.exhausted and time.monotonic() < deadline and not stop():
            runs = list(source.fetch(min(FETCH_RECORDS, left), MEMORY_BYTES, POLL_S))
            left -= sum(map(len, runs))
            yield runs
    finally:
        source.close()


def fetch(options: KafkaOptions, records: int, seconds: float, stop: Stop) -> Stage:
    """Measure reading alone: from the brokers into columns, which are dropped."""
    watch, rows, nbytes = Stopwatch(), 0, 0
    began = moment()
    for runs in fetched(options, records, seconds, stop):
        if runs:
            watch.first(began)
            rows += sum(map(len, runs))
            nbytes += sum(run.nbytes for run in runs)
            watch.last()
        began = moment()
    return Stage("fetch", rows, nbytes, watch.seconds, watch.cpu_s)


def consume(
    options: KafkaOptions, places: Mapping[Partition, tuple[int, int]], records: int, seconds: float, stop: Stop
) -> Stage:
    """Measure the client's own `consume()`, whose messages are dropped: the upper limit for all that is built on it."""
    left = min(records, sum(end - first for first, end in places.values()))
    properties = {**options.librdkafka(), "enable.partition.eof": "false"}
    properties.pop("group.instance.id", None)
    consumer = Consumer(properties)
    watch, rows = Stopwatch(), 0
    threshold = gc.get_threshold()
    # As the library comes: a plain loop over it has the collector at its defaults.
    gc.set_threshold(2000, 10, 10)
    try:
        consumer.assign([TopicPartition(*partition, first) for partition, (first, _) in places.items()])
        deadline, began = time.monotonic() + seconds, moment()
        while rows < left and time.monotonic() < deadline and not stop():
            messages = consumer.consume(BARE, POLL_S)
            if messages:
                watch.first(began)
                rows += len(messages)
                watch.last()
            began = moment()
    finally:
        gc.set_threshold(*threshold)
        consumer.close()
    # Asking the messages for their sizes would be measured as well.
    return Stage("consume", rows, 0, watch.seconds, watch.cpu_s)


def sample(options: KafkaOptions, records: int, nbytes: int, seconds: float, stop: Stop) -> list[Records]:
    """Return the first records, up to `records` and `nbytes`, to measure the other stages with."""
    runs: list[Records] = []
    for found in fetched(options, records, seconds, stop):
        runs += found
        nbytes -= sum(run.nbytes for run in found)
        if nbytes <= 0:
            break
    return runs
