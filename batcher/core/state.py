"""What the threads of a pipeline share, as one state: it decides what is read, decoded, written and committed.

    fetch loop                          state                      decode loop         write loops
    fetched(records)  ───────────►  buffer  ─────────────────►  next_decode(now)
                                    in flight  ◄─────────────  decoded(batch)  ───►  next_write(now)
    next_read(now).commit  ◄──────  offsets  ◄───────────────────────────────────── finished(batch)
    committed(positions)  ───────►  offsets

A write loop decides a commit, and the fetch loop carries it out: a commit from another thread while the owner is in a
rebalance callback never returns. There may be several write loops. Each takes a batch whose partitions no other one
has, so that the order within a partition is kept, and one that does not get on holds up its own partitions alone. Pure:
no thread, no lock, no clock; `now` is an argument, in seconds of one monotonic clock. Each loop asks one question a
round (`next_read`, `next_decode`, `next_write`). A `snapshot` changes nothing. `engine/shared.py` holds the lock around
all of it.

It is long, and one class, because every decision needs several of its three parts. What one part knows by itself is in
a module of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from batcher.core.buffer import Buffer
from batcher.core.in_flight import BatchInFlight, InFlightQueue
from batcher.core.limits import RecordLimit
from batcher.core.offsets import Offsets
from batcher.core.rate import RateLimit
from batcher.records import Batch, Partition, Position, Prepared, Records, Releases, Trigger

StatePhase = Literal["running", "draining", "aborted"]

MAX_UNCOMMITTED: Final = 2
"""Batches that are written, or about to be, and not yet committed; one more for each write loop beyond the first. With
one, the write loop would wait for each commit. With many, many would be written again after a crash."""

MAX_ANNOUNCED_UNCOMMITTED: Final = 32
"""The same where intents are kept. Then nothing is written twice, and many small batches share one commit."""

LEASE_S: Final = 5.0
"""How old the last accepted commit of a partition may be when a batch of it is offered to the target. Below the
shortest session timeout that brokers allow (6 s): a member that was frozen longer asks first whether it still is."""

FETCH_RECORDS: Final = 4_000
"""Records asked for at once. `consume()` keeps the interpreter lock while it makes its messages, half a microsecond
each, and the write loop waits for the lock after every call into Arrow. With 10,000 the pipeline was a quarter
slower."""

POLL_S: Final = 0.2
"""The longest wait for records: how late a stop or a due commit may be noticed. An idle process takes half the CPU that
it takes with 0.1."""

PATIENCE_S: Final = 1.0
"""How long a full buffer is waited for before partitions are paused. Pausing throws away what librdkafka has
prefetched, and a sink that is merely slower than Kafka makes room many times a second. Well below any poll interval."""

REPLAY_FETCH_BYTES: Final = 16 << 20
"""About what one fetch may bring while an announced range is read, which the memory bound does not hold back."""

COMMIT_POLL_S: Final = 0.02
"""The longest wait for records while a commit is wanted: it delays the write loop by that much."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Say what the fetch loop does in one round, in this order."""

    release: Releases
    """Records to give back to their queue, all of them below a position of the commit, or of a later one."""
    commit: Mapping[Partition, Position]
    """Positions to commit, with their intents, of the partitions that are ours."""
    waits: bool
    """The buffer is full for the moment: nothing is fetched in this round, and nothing is paused yet."""
    pause: frozenset[Partition]
    resume: frozenset[Partition]
    max_records: int
    max_bytes: int
    timeout_s: float
    paused: bool = False
    """Something is paused in this round: the wait is for room, not for records."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Say what is going on at one moment."""

    phase: StatePhase
    rows: int
    """Records that wait to be sealed."""
    nbytes: int
    """Bytes held in memory, waiting and in flight."""
    limit_bytes: int
    age_s: float | None
    """How long the oldest record has been waiting; None when there is none."""
    due_in_s: float | None
    """Until a batch is due; None while nothing is buffered."""
    in_flight: Batch | None
    """The batch that has been in flight longest."""
    in_flight_s: float
    writing: tuple[tuple[Batch, float], ...]
    """What each write loop that is at work writes, and for how many seconds it has been in flight; oldest first."""
    writers: int
    awaits_commit: bool
    """The next batch has to wait for a commit: that of batches before it, or of its own intent."""
    held: bool
    """Nothing is read or written, because somebody said so."""
    rate_wait_s: float
    """Until the rate lets the next batch be written; 0.0 where that is not what it waits for."""
    replaying: frozenset[Partition]
    """Partitions of which an announced range has not been read to its end."""
    paused: frozenset[Partition]
    """Partitions that deliver nothing now, because the buffer is full or a stop is under way."""
    read: Mapping[Partition, int]
    committed: Mapping[Partition, int]


class PipelineState:
    """Compose the buffer, the offsets and the batches in flight, and say in which phase the pipeline is.

    `running` until `drain`, then `draining`: nothing more is read, and everything buffered is sealed, written and
    committed. `halt` works in any phase: as if drained, except for commits that are due. `abort` works in any phase:
    nothing more is begun or committed. Where nothing is left of the `limit` it drains by itself. `patience_s` is how
    long a full buffer is waited for before partitions are paused. `rate` says when a batch may be written, `writers`
    how many may be written at once.
    """

    def __init__(
        self,
        buffer: Buffer,
        offsets: Offsets,
        *,
        limit: RecordLimit | None = None,
        patience_s: float = PATIENCE_S,
        rate: RateLimit | None = None,
        writers: int = 1,
    ) -> None:
        self._buffer = buffer
        self._offsets = offsets
        self._limit = limit or RecordLimit()
        self._patience_s = patience_s
        self._rate = rate
        self._phase: StatePhase = "running"
        self._drain_trigger: Trigger = "stop"
        self._in_flight = InFlightQueue(writers)
        self._unsettled: list[BatchInFlight] = []
        self._in_question: dict[Partition, int] = {}
        self._commit_due = False
        self._committing = False
        self._releases: dict[Partition, Mapping[int, float]] = {}
        self._paused: frozenset[Partition] = frozenset()
        self._full_since: float | None = None
        self._held = False
        self._halted = False
        self.abandoned_offsets = 0
        """How many offsets had been read and not committed at the abort: they will be read again."""

    @property
    def phase(self) -> StatePhase:
        """Return the phase, which only ever moves forward."""
        return self._phase

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        return self._offsets.owned

    @property
    def commit_due(self) -> bool:
        """Return whether a commit has to be made as soon as possible."""
        return self._commit_due

    def drained(self, now: float) -> bool:
        """Return whether a drain has come to its end: nothing buffered, in flight or waiting for its commit."""
        busy = self._in_flight or self._releases or self._unsettled or self._commit_due or not self._empty(now)
        return self._phase == "draining" and not busy

    # Called by the fetch loop.

    def assign(self, positions: Mapping[Partition, Position]) -> Mapping[Partition, str]:
        """Take over partitions and return those that are not taken, with the reason."""
        refused = self._offsets.assign(positions)
        self._paused -= positions.keys()
        for partition in positions.keys() - refused.keys():
            intents = self._offsets.replays(partition)
            self._buffer.expect(partition, [intent.range.last for intent in intents])
            self._commit_due |= bool(intents)
        return refused

    def hold(self, *, held: bool) -> None:
        """Read and write nothing until it is said otherwise; what is being written comes to its end.

        A drain that has begun goes on all the same, and a stop while it is held writes nothing more.
        """
        self._held = held and self._phase == "running"

    def replays(self, partitions: Collection[Partition]) -> list[str]:
        """Return the announced ranges that are to be written again, as text."""
        return [str(intent.range) for partition in partitions for intent in self._offsets.replays(partition)]

    def next_read(self, now: float) -> ReadPlan:
        """Return what to do in this round. The plan counts as carried out."""
        commit = self.take_commit()
        release = self.take_releases()
        if self._waits_for_room(now):
            return ReadPlan(release, commit, True, frozenset(), frozenset(), 0, 0, COMMIT_POLL_S)
        pause, resume = self._balanced()
        max_records, max_bytes = FETCH_RECORDS, self._buffer.free_bytes
        if self._buffer.replaying:
            # Whether it is full or not, but by no more than this at once.
            max_bytes = REPLAY_FETCH_BYTES
        elif self._limit.left is not None:
            max_records = max(1, min(max_records, self._limit.left))
        timeout_s = self._fetch_timeout_s(now)
        return ReadPlan(release, commit, False, pause, resume, max_records, max_bytes, timeout_s, bool(self._paused))

    def take_commit(self) -> Mapping[Partition, Position]:
        """Return the positions to commit, with their intents, of the partitions that are ours."""
        if not self._commit_due:
            return {}
        self._commit_due = False
        wanted = {} if self._phase == "aborted" else self._offsets.wanted()
        self._committing = bool(wanted)
        return wanted

    def take_releases(self) -> Releases:
        """Return the records to give back to their queue. After `take_commit`: then none is missing below it."""
        taken, self._releases = self._releases, {}
        return {} if self._phase == "aborted" else taken

    def fetched(
        self,
        runs: Iterable[Records],
        reached: Mapping[Partition, int],
        now: float,
        *,
        exhausted: bool = False,
        saturated: bool = False,
    ) -> list[Records]:
        """Add fetched records to the buffer and return those that were new; none are new once a drain has begun.

        Nothing more will come below the offsets in `reached`, which completes announced ranges. The drain begins with
        `exhausted`, or after the last record that is wanted. With `saturated` what waits is due at once.
        """
        if self._phase != "running":
            return []
        fresh = [new for run in runs if (new := self._offsets.admit(run)) is not None]
        if fresh:
            self._buffer.extend(fresh, now)
        self._buffer.hurried = saturated
        self._limit.take(sum(map(len, fresh)))
        replaying = bool(self._buffer.replaying)
        if replaying:
            self._buffer.reached(reached)
        if (self._limit.left == 0 and not replaying) or (exhausted and not self._held):
            self.drain("end", now)
        return fresh

    def begin_revoke(self, partitions: Collection[Partition], now: float) -> None:
        """Drop what waits of these partitions: nothing more of them is begun, since nothing is fetched meanwhile.

        What was begun and not yet offered to the target is dropped as well, where it is in batches of its own or
        intents are kept. Other batches are written with all that is in them.
        """
        self._buffer.forget(partitions)
        self._drop_unwritten(frozenset(partitions), now)
        self._commit_due = True

    def busy(self, partitions: Collection[Partition]) -> bool:
        """Return whether one of these partitions is in flight or waits for a commit."""
        if self._phase == "aborted":
            return False
        return self._in_flight.touching(partitions) or any(
            partition in one.epochs for one in self._unsettled for partition in partitions
        )

    def forget(self, partitions: Collection[Partition]) -> int:
        """Give partitions up, with all their state, and return how many buffered records were dropped."""
        dropped = self._buffer.forget(partitions)
        self._offsets.forget(partitions)
        self._paused -= frozenset(partitions)
        self._releases = {part: some for part, some in self._releases.items() if part not in partitions}
        self._settle()
        return dropped

    def committed(self, positions: Mapping[Partition, Position], sent_at: float) -> None:
        """Note that positions were committed by a request that was sent at `sent_at`."""
        self._committing = False
        self._offsets.commit({part: at for part, at in positions.items() if part in self._offsets.owned}, sent_at)
        self._settle()

    def unconfirmed(self, partitions: Collection[Partition], now: float) -> None:
        """Note that it is not known whether a commit was stored: it is wanted again.

        Where intents are kept, it is wanted with another mark. Otherwise reading back the later one, which may have
        been refused, could find the earlier one.
        """
        self._committing = False
        self._commit_due = True
        if self._offsets.announces:
            self._offsets.ask_for_lease(self._offsets.owned.intersection(partitions), now)

    # Called by the decode loop.

    def next_decode(self, now: float) -> BatchInFlight | None:
        """Take the next batch to decode; None when none is due."""
        if self._phase == "aborted" or self._in_flight.ahead:
            return None
        self._seal(now)
        return self._in_flight.next_to_decode()

    def decoded(self, which: BatchInFlight, prepared: Prepared) -> None:
        """Hand over a batch that is decoded."""
        self._in_flight.decoded(which, prepared)

    def decode_due_in_s(self, now: float) -> float | None:
        """Return the seconds until there is something to decode; None while that is not known."""
        if self._in_flight.ahead:
            return None
        if self._in_flight.decodable() is not None:
            return 0.0
        due_in_s = self._buffer.due_in_s(now, self._in_flight.waiting)
        return 0.0 if due_in_s is not None and self._phase == "draining" else due_in_s

    def all_decoded(self, now: float) -> bool:
        """Return whether nothing will ever be left to decode."""
        # A batch in flight may come back in parts where intents are kept.
        final = not self._offsets.announces or not self._in_flight
        return self._phase == "draining" and not self._in_flight.waiting and self._empty(now) and final

    # Called by the write loops.

    def next_write(self, now: float) -> BatchInFlight | None:
        """Take the next batch to write; None when there is none yet.

        No batch of its partitions is being written, nor is one before it in flight. A batch whose partitions have all
        changed hands meanwhile is dropped: their new owner reads it.
        """
        self.ask_for_next_leases(now)
        while (one := self._writable(now)) is not None:
            if self._offsets.ours(one):
                one.stage = "writing"
                if self._rate is not None:
                    self._rate.begin(one.batch.rows, now)
                return one
            self._drop(one)
        return None

    def write_due(self, now: float) -> bool:
        """Return whether `next_write` has a batch, or the target has to be looked at first."""
        return self._writable(now) is not None or bool(self.unchecked()[0])

    def write_wait_s(self, now: float) -> float | None:
        """Return the seconds until the rate lets a batch be written; None where something else holds it up."""
        if self._rate is None or self._next_ready(now) is None:
            return None
        return self._rate.wait_s(now)

    def all_written(self, now: float) -> bool:
        """Return whether nothing will ever be left to write."""
        return self._phase == "draining" and not self._in_flight and self._empty(now)

    def unchecked(self) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
        """Return where new records begin in partitions that the target was not asked about, and their epochs."""
        found = self._offsets.unchecked()
        epochs = self._offsets.epochs(found.keys())
        mine = {part: epoch for part, epoch in epochs.items() if self._in_question.get(part) != epoch}
        return {part: found[part] for part in mine}, mine

    def take_unchecked(self) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
        """Return the same. Whoever takes them asks the target; the other write loops go on meanwhile."""
        found, epochs = self.unchecked()
        self._in_question.update(epochs)
        return found, epochs

    def mark_checked(self, epochs: Mapping[Partition, int]) -> None:
        """Note that new records of these partitions may be announced."""
        self._in_question = {part: at for part, at in self._in_question.items() if epochs.get(part) != at}
        self._offsets.mark_checked(epochs)
        self._commit_due = True

    def ask_for_lease(self, epochs: Mapping[Partition, int], now: float) -> None:
        """Ask for a commit that says which of these partitions are still ours, see `confirmed`."""
        self._offsets.ask_for_lease(self._offsets.unchanged(epochs), now)
        self._commit_due = True

    def confirmed(self, epochs: Mapping[Partition, int], since: float) -> frozenset[Partition] | None:
        """Return which of these are still ours, by a commit sent at `since` or later; None while that is not known."""
        ours = self._offsets.unchanged(epochs)
        return ours if self._offsets.leased(ours, since) else None

    def held(self, which: BatchInFlight, now: float) -> bool | None:
        """Return whether a batch is ours to write; None while that is not certain, and then a commit is on its way.

        Where intents are kept, all of it has to be ours, by a commit not older than LEASE_S. Otherwise some is enough.
        """
        ours = self._offsets.ours(which)
        if not ours or (self._offsets.announces and len(ours) < len(which.epochs)):
            return False
        if self._leased(which, now):
            return True
        self._renew([which], now)
        return None

    def hand_back(self, which: BatchInFlight, now: float) -> None:
        """Give up writing a batch of which a partition changed hands; what is still ours comes again, as replays."""
        if self._halted:
            self._drop(which)
            return
        ours = self._offsets.ours(which)
        self._in_flight.split(now, lambda one: self._kept(one, ours, replayed=True) if one is which else None)

    def finished(self, which: BatchInFlight, now: float, releases: Releases | None = None) -> None:
        """Note that a batch is durable, let go of its memory and ask for its commit.

        Those of its records that are in `releases` are given back to their queue before.
        """
        if self._in_flight.pop(which):
            self._buffer.release(which.batch)
        if self._phase != "aborted":
            ours = self._offsets.ours(which)
            for partition, some in (releases or {}).items():
                if partition in ours:
                    self._releases[partition] = {**self._releases.get(partition, {}), **some}
            self._offsets.finish(which)
            self._unsettled.append(which)
            self._settle()
            self._commit_due = True
            # This is done at once, so that the commit carries the intent of the next batch.
            self._seal(now)

    def scale(self, factor: int) -> None:
        """Make the batches that are still to be cut this many times as large as the settings say."""
        self._buffer.scale(factor)

    def flush(self) -> None:
        """Make everything that waits due at once, whatever the policy says."""
        self._buffer.flush()

    def resize(self, memory_bytes: int) -> None:
        """Hold this many bytes from now on, see `Buffer.resize`."""
        self._buffer.resize(memory_bytes)

    # The end.

    def drain(self, trigger: Trigger, now: float) -> None:
        """Stop reading and bring everything buffered to its end. Later calls change nothing."""
        if self._phase == "running" and self._held:
            self._held = False
            self.halt()
        elif self._phase == "running":
            self._phase = "draining"
            self._drain_trigger = trigger
            if self._rate is not None and trigger == "stop":
                waiting = sum(one.batch.rows for one in self._in_flight if one.stage != "writing")
                self._rate.hurry(self._buffer.rows + waiting, now)

    def halt(self, failed: BatchInFlight | None = None) -> None:
        """Begin nothing more and drop what waits; what is durable may still be committed.

        What is being written comes to its end, but for the batch that `failed`.
        """
        if self._phase != "aborted":
            self._phase = "draining"
            self._halted = True
            self._buffer.clear()
            for one in list(self._in_flight):
                if one.stage != "writing":
                    self._offsets.cancel(one, one.epochs)
                    self._drop(one)
                elif one is failed:
                    self._drop(one)

    def abort(self) -> None:
        """Begin and commit nothing more."""
        if self._phase != "aborted":
            self._phase = "aborted"
            self.abandoned_offsets = self._offsets.uncommitted

    def snapshot(self, now: float) -> Snapshot:
        """Return what is going on, all of one moment; nothing follows from the question."""
        first, writing = self._in_flight.first, self._in_flight.writing
        return Snapshot(
            phase=self._phase,
            rows=self._buffer.rows,
            nbytes=self._buffer.nbytes,
            limit_bytes=self._buffer.memory_bytes,
            age_s=self._buffer.age_s(now),
            due_in_s=self._buffer.due_in_s(now),
            in_flight=first.batch if first is not None else None,
            in_flight_s=now - first.begun_at if first is not None else 0.0,
            writing=tuple((one.batch, now - one.begun_at) for one in writing),
            writers=self._in_flight.writers,
            awaits_commit=not self._held
            and not writing
            and first is not None
            and first.stage == "decoded"
            and self._next_ready(now) is None,
            held=self._held,
            rate_wait_s=self.write_wait_s(now) or 0.0,
            replaying=self._buffer.replaying,
            paused=self._paused,
            read=self._offsets.read(),
            committed=self._offsets.committed(),
        )

    # Reading.

    def _waits_for_room(self, now: float) -> bool:
        running = self._phase == "running" and not self._buffer.replaying and not self._held
        if self._paused or not running or not self._buffer.above_high_watermark:
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since < self._patience_s

    def _balanced(self) -> tuple[frozenset[Partition], frozenset[Partition]]:
        """Return which partitions to pause and which to resume."""
        nothing: frozenset[Partition] = frozenset()
        if self._held:
            fresh = self._offsets.owned - self._paused
            self._paused |= fresh
            return fresh, nothing
        # An announced range is written whole or not at all, so what is missing of it is read in any case.
        needed = self._buffer.replaying if self._phase == "running" else nothing
        # Paused when the range before was complete: if its records alone fill the memory, nothing else resumes it.
        again = self._paused & needed
        self._paused -= again
        if self._buffer.above_high_watermark or self._phase != "running":
            fresh = self._offsets.owned - self._paused - needed
            self._paused |= fresh
            return fresh, again
        if self._paused and self._buffer.below_low_watermark:
            again |= self._paused & self._offsets.owned
            self._paused = nothing
        return nothing, again

    def _fetch_timeout_s(self, now: float) -> float:
        """Return how long records may be waited for: not beyond the moment at which a commit may be wanted."""
        if self._phase != "running" or self._in_flight or self._unsettled or self._commit_due:
            return COMMIT_POLL_S
        due_in_s = self._buffer.due_in_s(now)
        # A batch that is due is announced first: a lone record would wait for the end of a long fetch.
        return POLL_S if due_in_s is None else min(POLL_S, max(COMMIT_POLL_S, due_in_s))

    # Writing.

    def ask_for_next_leases(self, now: float) -> None:
        """Ask for a commit that says which of the next batches are ours, where only that keeps one from its write."""
        if not self._crowded:
            self._renew(self._in_flight.ready(), now)

    @property
    def _crowded(self) -> bool:
        """Return whether no batch may be begun to be written before others are committed."""
        most = MAX_ANNOUNCED_UNCOMMITTED if self._offsets.announces else MAX_UNCOMMITTED
        return len(self._unsettled) + len(self._in_flight.writing) >= most + self._in_flight.writers - 1

    def _empty(self, now: float) -> bool:
        return self._buffer.due_in_s(now) is None

    def _writable(self, now: float) -> BatchInFlight | None:
        """Return the batch to write, or to drop, now; None where there is none or it has to wait."""
        one = self._next_ready(now)
        if one is not None and self._rate is not None and self._rate.wait_s(now) > 0 and self._offsets.ours(one):
            return None
        return one

    def _next_ready(self, now: float) -> BatchInFlight | None:
        """Return the same, whatever the rate allows."""
        if self._phase == "aborted" or self._held:
            return None
        crowded = self._crowded
        for one in self._in_flight.ready():
            if not self._offsets.ours(one) or (not crowded and self._leased(one, now)):
                return one
        return None

    def _leased(self, which: BatchInFlight, now: float) -> bool:
        """Return whether a batch is announced and the source has lately confirmed us as the owner."""
        ours = self._offsets.ours(which)
        return self._offsets.announced(which) and self._offsets.leased(ours, now - LEASE_S)

    def _renew(self, batches: Iterable[BatchInFlight], now: float) -> None:
        """Ask for a commit that says which of these are ours, unless one is on its way."""
        if self._phase == "aborted" or self._commit_due or self._committing:
            return
        late = [one for one in batches if self._offsets.announced(one) and not self._leased(one, now)]
        if late:
            self._offsets.ask_for_lease({partition for one in late for partition in self._offsets.ours(one)}, now)
            self._commit_due = True

    def _seal(self, now: float) -> None:
        """Begin every batch that is due, unless some are left from last time; one commit announces them all.

        What is left because batches of its partitions are before it holds up no others.
        """
        if self._in_flight.decodable() is not None:
            return
        for partition, last in self._buffer.skip_vanished(now):
            self._offsets.skip(partition, last)
            self._commit_due = True
        waiting = self._in_flight.waiting
        batches = self._buffer.take(now, waiting)
        if not batches and self._phase == "draining":
            batches = self._buffer.take_rest(self._drain_trigger, now, waiting)
        if batches:
            self._in_flight.add([self._offsets.begin(batch) for batch in batches], now)
            self._commit_due |= self._offsets.announces

    def _settle(self) -> None:
        self._unsettled = [one for one in self._unsettled if not self._offsets.settled(one)]

    def _drop(self, which: BatchInFlight) -> None:
        if self._in_flight.pop(which):
            self._buffer.release(which.batch)

    def _drop_unwritten(self, partitions: frozenset[Partition], now: float) -> None:
        def divide(one: BatchInFlight) -> Iterable[BatchInFlight] | None:
            if one.stage == "writing" or partitions.isdisjoint(one.epochs):
                return None
            kept = self._offsets.ours(one) - partitions
            if kept and not self._offsets.announces:
                return None
            self._offsets.cancel(one, partitions)
            return self._kept(one, kept, replayed=one.batch.replayed)

        self._in_flight.split(now, divide)

    def _kept(self, one: BatchInFlight, kept: Collection[Partition], *, replayed: bool) -> list[BatchInFlight]:
        """Return the batches that replace one: one for each partition kept, under its old intent."""
        batch = one.batch
        self._buffer.release(batch)
        parts = []
        for intent in batch.intents:
            if intent.range.partition in kept:
                runs = tuple(run for run in batch.runs if run.partition == intent.range.partition)
                part = replace(batch, runs=runs, intents=(intent,), replayed=replayed, nbytes=-1)
                self._buffer.hold(part)
                parts.append(self._offsets.begin_again(part))
        return parts
