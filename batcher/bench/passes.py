"""Passes through decoder, sink and pipeline, and the parts that make sure that they leave nothing behind."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import pyarrow as pa

from batcher.bench.figures import Cut, Run, Stage
from batcher.bench.readers import Stop, Watched, moment
from batcher.core.buffer import Buffer, FlushPolicy
from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.engine.assembly import DeliveryMode, merging
from batcher.engine.pipeline import Pipeline
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.protocols import Format, Sink, SinkInfo, Source
from batcher.records import Batch, Block, DeadLetter, Partition, Records
from batcher.telemetry.events import BatchWritten, Event, Phase, TimeSpent

T = TypeVar("T")

EVERYWHERE: Final = (1 << 63) - 1
ANY_SHARE: Final = DeadLetterPolicy(max_ratio=1.0, max_consecutive=EVERYWHERE, max_bisect=EVERYWHERE)
"""Any number of bad records is only counted."""


class Discarding:
    """Stand in for a sink: promise what it promises, take its schema, and throw every block away."""

    def __init__(self, info: SinkInfo) -> None:
        # The capabilities for which it has the methods.
        self._info = replace(info, capabilities=info.capabilities & {"pin", "pin_topic", "query"})

    def open(self) -> SinkInfo:
        return self._info

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        return proposed

    def pin_topic(self, topic: str, proposed: pa.Schema) -> pa.Schema:
        del topic
        return proposed

    def schema_of(self, topic: str) -> pa.Schema | None:
        del topic
        return None

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Have nothing."""
        del partition, first, last
        return pa.array([], pa.int64())

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Have nothing."""
        del positions
        return {}

    def write(self, block: Block) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Counting:
    """Stand in for a dead-letter queue: count reasons, and throw the dead letters away."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    def open(self) -> None:
        """Do nothing."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self.reasons.update(letter.reason for letter in letters)

    def close(self) -> None:
        """Do nothing."""


class Tally:
    """Collect the times and the batches from a pipeline's events; `durable` is called after each batch."""

    def __init__(self, durable: Callable[[], None]) -> None:
        self._durable = durable
        self.phases: dict[Phase, float] = {}
        self.cuts: list[Cut] = []

    def __call__(self, event: Event) -> None:
        """Add an event."""
        match event:
            case TimeSpent(phase, seconds):
                self.phases[phase] = self.phases.get(phase, 0.0) + seconds
            case BatchWritten(batch, delivered):
                self.cuts.append(Cut(delivered.rows, delivered.nbytes, batch.trigger))
                self._durable()
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Plan:
    """Say how to run: the settings of batches, and the bounds of a pass, in records and seconds.

    `name` stands for the group in tokens.
    """

    name: str
    flush: FlushPolicy
    memory_bytes: int
    delivery: DeliveryMode
    merge_partitions: bool | None
    retry: RetryPolicy
    stop_timeout_s: float
    records: int
    seconds: float

    def merges(self, info: SinkInfo) -> bool:
        """Return whether partitions share a batch."""
        announces = info.guarantee == "exactly-once" and self.delivery != "at-least-once"
        return merging("exactly-once" if announces else "at-least-once", info, wanted=self.merge_partitions)


Running = Callable[[Pipeline], AbstractContextManager[object]]
"""Let signals stop a pipeline as long as the context is open."""


def pipeline(source: Source, sink: Sink, format_: Format, plan: Plan, running: Running) -> Run:
    """Run the whole pipeline once. Raise as it does."""
    watched, letters = Watched(source), Counting()
    tally = Tally(watched.watch.last)
    watched.begun = tally.phases.clear
    made = Pipeline(
        watched,
        sink,
        format_,
        name=plan.name,
        dead_letters=letters,
        flush=plan.flush,
        memory_bytes=plan.memory_bytes,
        retry=plan.retry,
        poison=ANY_SHARE,
        delivery=plan.delivery,
        merge_partitions=plan.merge_partitions,
        max_records=plan.records,
        stop_timeout_s=plan.stop_timeout_s,
        subscribers=[tally],
    )
    with running(made), _stopping(made, plan.seconds):
        made.run()
    return Run(
        rows=sum(cut.rows for cut in tally.cuts),
        nbytes=sum(cut.nbytes for cut in tally.cuts),
        seconds=watched.watch.seconds,
        cpu_s=watched.watch.cpu_s,
        fetch_s=tally.phases.get("fetch", 0.0),
        fetch_cpu_s=min(watched.cpu_s, tally.phases.get("fetch", 0.0)),
        room_s=tally.phases.get("backpressure", 0.0),
        decode_s=tally.phases.get("decode", 0.0) + tally.phases.get("transform", 0.0),
        transform_s=tally.phases.get("transform", 0.0),
        write_s=tally.phases.get("write", 0.0),
        commits=watched.commits,
        cuts=tuple(tally.cuts),
        refused=dict(letters.reasons),
    )


def stages(runs: Sequence[Records], sink: Sink, format_: Format, plan: Plan, stop: Stop) -> tuple[Stage, Stage]:
    """Measure decoding and writing alone, batch by batch, on one thread. Raise as the pipeline does."""
    info = sink.open()
    try:
        writer = Writer(
            sink,
            info,
            format_,
            dead_letters=Counting(),
            limit=DeadLetterLimit(ANY_SHARE),
            retry=plan.retry,
            abort=threading.Event(),
        )
        batches = [named(plan.name, batch.joined()) for batch in cut(runs, plan.flush, mixes=plan.merges(info))]
        if batches:
            # The first one may have to infer a schema, and loads libraries.
            writer.prepare(batches[0])
        decode, write = [0.0, 0.0], [0.0, 0.0]
        rows = nbytes = 0
        deadline = time.monotonic() + plan.seconds
        for batch in batches:
            if stop() or time.monotonic() > deadline:
                break
            prepared = _timed(decode, writer.prepare, batch)
            _timed(write, writer.write, prepared)
            rows += batch.rows
            nbytes += batch.nbytes
        return Stage("decode", rows, nbytes, *decode), Stage("write", rows, nbytes, *write)
    finally:
        sink.close()


def cut(runs: Sequence[Records], policy: FlushPolicy, *, mixes: bool) -> Iterator[Batch]:
    """Cut records into batches as the pipeline does when they come faster than --batch.max-wait."""
    buffer = Buffer(policy, EVERYWHERE, mixes_partitions=mixes)
    for run in runs:
        buffer.extend([run], 0.0)
        yield from buffer.take(0.0)
    while batches := buffer.take_rest("end", 0.0):
        yield from batches


def _timed(into: list[float], action: Callable[..., T], argument: object) -> T:
    began = moment()
    result = action(argument)
    ended = moment()
    into[0] += ended[0] - began[0]
    into[1] += ended[1] - began[1]
    return result


@contextmanager
def _stopping(pipeline_: Pipeline, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, pipeline_.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
