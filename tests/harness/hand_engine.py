"""The engine put together by hand, on a manual clock: a test plays its threads, one step at a time.

The one place outside `engine/assembly.py` that knows how the parts fit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pyarrow as pa

from batcher.core.buffer import Buffer, FlushPolicy
from batcher.core.in_flight import BatchInFlight
from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy, RecordLimit
from batcher.core.offsets import Offsets
from batcher.core.rate import RateLimit
from batcher.core.state import PipelineState, ReadPlan, Snapshot, StatePhase
from batcher.engine.decode_loop import DecodeLoop
from batcher.engine.dispatcher import Dispatcher
from batcher.engine.fetch_loop import FetchLoop
from batcher.engine.reconcile import OnExisting
from batcher.engine.retry import RetryPolicy
from batcher.engine.shared import SharedState
from batcher.engine.write_loop import WriteLoop
from batcher.engine.writer import Writer
from batcher.protocols import DeadLetterQueue, Format, Sink, SinkInfo, Source
from batcher.records import Decoded, Partition, Position, Prepared, Records, Trigger
from batcher.telemetry.counters import Counters
from batcher.telemetry.events import Events
from batcher.testing.clock import ManualClock

ANY_SHARE = DeadLetterPolicy(max_ratio=1.0, max_consecutive=10**9)
NO_WAIT = RetryPolicy(wait_s=1e-9, max_wait_s=1e-9)


class HandEngine:
    """Hold the state of a pipeline; each method is what one of its threads does with it."""

    def __init__(
        self,
        *,
        policy: FlushPolicy | None = None,
        memory: int = 1 << 22,
        mixes: bool = False,
        offsets: Offsets | None = None,
        max_records: int | None = None,
        rate: RateLimit | None = None,
        writers: int = 1,
        clock: ManualClock | None = None,
    ) -> None:
        self.clock = clock or ManualClock()
        self.buffer = Buffer(policy or FlushPolicy(5, 1000, 1.0), memory, mixes_partitions=mixes)
        self.offsets = offsets or Offsets()
        limit = RecordLimit(max_records)
        self.state = PipelineState(self.buffer, self.offsets, limit=limit, rate=rate, writers=writers)
        self.shared = SharedState(self.state, self.clock)
        self.counters = Counters(self.clock)
        self.events = Events(self.counters)

    # The fetch loop.

    def reading(self, source: Source, *, drain_timeout_s: float = 30.0) -> FetchLoop:
        """Return a fetch loop whose source is open."""
        loop = FetchLoop(source, self.events, drain_timeout_s=drain_timeout_s, clock=self.clock)
        loop.open()
        loop.begin(Dispatcher.to(self.shared))
        return loop

    def assign(self, positions: Mapping[Partition, Position]) -> Mapping[Partition, str]:
        """Take over partitions."""
        with self.shared.changing() as state:
            return state.assign(positions)

    def put(self, runs: Iterable[Records]) -> list[Records]:
        """Add fetched records."""
        return self.shared.fetched(runs, {}, exhausted=False)

    def reached(self, offsets: Mapping[Partition, int]) -> None:
        """Learn below which offsets there is nothing more to come."""
        self.shared.fetched([], offsets, exhausted=False)

    def next_read(self) -> ReadPlan:
        """Ask what to do in a round."""
        return self.state.next_read(self.clock())

    def take_commit(self) -> Mapping[Partition, Position]:
        """Take the commit that is due."""
        return self.state.take_commit()

    def committed(self, positions: Mapping[Partition, Position], sent_at: float) -> None:
        """Learn that a commit was stored."""
        with self.shared.changing() as state:
            state.committed(positions, sent_at)

    def forget(self, partitions: Collection[Partition]) -> int:
        """Give partitions up."""
        with self.shared.changing() as state:
            return state.forget(partitions)

    def begin_revoke(self, partitions: Collection[Partition]) -> None:
        """Begin to give partitions up."""
        with self.shared.changing() as state:
            state.begin_revoke(partitions, self.clock())

    def busy(self, partitions: Collection[Partition]) -> bool:
        """Return whether partitions are still in flight."""
        return self.state.busy(partitions)

    # The decode loop.

    def begin(self) -> BatchInFlight | None:
        """Take the next batch to decode."""
        one = self.state.next_decode(self.clock())
        if one is not None:
            one.join()
        return one

    def ready(self, one: BatchInFlight) -> None:
        """Hand over a batch as decoded, without a row."""
        empty = Decoded(pa.table({}), pa.array([], pa.int64()))
        with self.shared.changing() as state:
            state.decoded(one, Prepared(one.batch, empty, 0.0))

    # The write loop.

    def head(self) -> BatchInFlight | None:
        """Take the next batch to write."""
        with self.shared.changing() as state:
            return state.next_write(self.clock())

    def finish(self, one: BatchInFlight) -> None:
        """Learn that a batch is durable."""
        with self.shared.changing() as state:
            state.finished(one, self.clock())

    def hand_back(self, one: BatchInFlight) -> None:
        """Give up writing a batch."""
        with self.shared.changing() as state:
            state.hand_back(one, self.clock())

    def unchecked(self) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
        """Return the partitions of which the target was not asked, and their epochs."""
        return self.state.unchecked()

    def mark_checked(self, epochs: Mapping[Partition, int]) -> None:
        """Learn that the target was looked at."""
        with self.shared.changing() as state:
            state.mark_checked(epochs)

    # All of them.

    @property
    def phase(self) -> StatePhase:
        """Return the phase."""
        return self.shared.phase

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions that are ours."""
        return self.state.owned

    @property
    def replaying(self) -> frozenset[Partition]:
        """Return the partitions of which an announced range is not read to its end."""
        return self.snapshot().replaying

    @property
    def full(self) -> bool:
        """Return whether reading has to pause."""
        return self.buffer.above_high_watermark

    @property
    def drained(self) -> bool:
        """Return whether a drain has come to its end."""
        return self.shared.drained()

    @property
    def commit_near(self) -> bool:
        """Return whether a commit is due or will be."""
        return bool(self.state._in_flight or self.state._unsettled or self.state.commit_due)

    @property
    def in_flight(self) -> list[BatchInFlight]:
        """Return the batches in flight, in order."""
        return list(self.state._in_flight)

    def snapshot(self) -> Snapshot:
        """Return what is going on."""
        return self.shared.snapshot()

    def drain(self, trigger: Trigger = "stop") -> None:
        """Stop reading."""
        self.shared.drain(trigger)

    def halt(self, failed: BatchInFlight | None = None) -> None:
        """Begin nothing more."""
        self.shared.halt(failed)

    def abort(self) -> None:
        """End it at once."""
        self.shared.abort()


class HandLoops(HandEngine):
    """Add the writer and the loops around a sink; a test calls their `step`."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        format_: Format,
        *,
        policy: FlushPolicy,
        memory: int,
        mixes: bool,
        offsets: Offsets,
        dead_letters: DeadLetterQueue | None = None,
        on_existing: OnExisting = "halt",
        drain_timeout_s: float = 0.0,
        clock: ManualClock | None = None,
        releases: bool = False,
        writers: int = 1,
    ) -> None:
        super().__init__(policy=policy, memory=memory, mixes=mixes, offsets=offsets, writers=writers, clock=clock)
        self.info: SinkInfo = sink.open()
        self.writer = Writer(
            sink,
            self.info,
            format_,
            dead_letters=dead_letters,
            limit=DeadLetterLimit(ANY_SHARE),
            retry=NO_WAIT,
            abort=self.shared.aborting,
            on_existing=on_existing,
            releases=releases,
        )
        self.fetch = self.reading(source, drain_timeout_s=drain_timeout_s)
        self.decode = DecodeLoop(self.shared, self.writer.prepare)
        self.write = WriteLoop(self.shared, self.writer, self.events)
