"""The consumer thread: the only one that touches the source.

It fills the buffer, pauses and resumes, carries out the commits that the flusher has decided, and answers rebalances.
It never stops polling while it is a member, so a slow sink does not cost the membership.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import structlog

from batcher.engine.shared import Exchange
from batcher.engine.start import Patience
from batcher.errors import CommitRefused, CommitUnconfirmed, RecordUnreadable, SourceLost, Unreachable
from batcher.protocols import Source
from batcher.records import Partition, Position, Records
from batcher.telemetry.observer import Observer

log = structlog.get_logger(__name__)

FETCH_RECORDS: Final = 4_000
"""Records asked for at once. `consume()` keeps the interpreter lock while it makes its messages, half a microsecond
each, and the flusher waits for the lock after every call into Arrow: with 10,000 the pipeline was a quarter slower."""

POLL_S: Final = 0.1
"""The longest wait for records: how late a stop or a due commit may be noticed."""

PATIENCE_S: Final = 1.0
"""How long a full buffer is waited for before partitions are paused: pausing throws away what librdkafka has
prefetched, and a sink that is merely slower than Kafka makes room many times a second. Well below any poll interval."""

REPLAY_FETCH_BYTES: Final = 16 << 20
"""About what one fetch may bring while an announced range is read, which the memory bound does not hold back."""

COMMIT_POLL_S: Final = 0.02
"""The longest wait for records while a commit is wanted: it delays the flusher by that much."""

COMMIT_ATTEMPT_S: Final = 2.0
"""How long an answer to a commit is waited for before the source is polled again. Below the patience of the pipeline
with a thread that is to leave (5 s)."""

COMMIT_PATIENCE_S: Final = 330.0
"""How long commits may go unanswered. A group answers nothing while it waits for one of its members to join, and it
waits for librdkafka's default `max.poll.interval.ms` (300 s), or for the session of one that died (45 s)."""


class Consumer:
    """Run the source. `step` does one round; `run` does rounds until the pipeline has drained or aborted.

    `drain_timeout_s` bounds how long a revoked partition is held back for the batch in flight; it has to stay well
    below the session timeout. `start_timeout_s` is how long brokers that do not answer are waited for.
    """

    def __init__(
        self,
        source: Source,
        exchange: Exchange,
        observer: Observer,
        *,
        max_records: int | None = None,
        drain_timeout_s: float = 20.0,
        start_timeout_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._exchange = exchange
        self._observer = observer
        self._left = max_records
        self._drain_timeout_s = drain_timeout_s
        self._start_timeout_s = start_timeout_s
        self._clock = clock
        self._paused: set[Partition] = set()
        self._full_since: float | None = None
        self._opened = False
        self._patience: Patience | None = None
        self._joined = False
        self._unconfirmed_since: float | None = None
        self._unreadable: RecordUnreadable | None = None
        self.stopped: dict[Partition, str] = {}
        """Partitions that nothing is read from because their intent cannot be understood, with the reason."""
        self._record_bytes = 1024.0
        self._stepped_at = clock()

    @property
    def paused(self) -> frozenset[Partition]:
        """Return the partitions that deliver nothing now, because the buffer is full or a stop is under way."""
        return frozenset(self._paused)

    @property
    def opened(self) -> bool:
        """Tell whether the source was opened."""
        return self._opened

    def remind(self) -> None:
        """Have the log say what is waited for while opening takes long. Any thread."""
        if self._patience is not None and not self._opened:
            self._patience.remind()

    @property
    def unopened(self) -> str:
        """Return why the source is not open yet, in words; empty where it is, or nothing has failed."""
        return self._patience.reason if self._patience is not None and not self._opened else ""

    @property
    def joined(self) -> bool:
        """Tell whether the group has given us our partitions, be it none."""
        return self._joined

    @property
    def silent_s(self) -> float:
        """Return the seconds since the last round began: grows when the thread hangs."""
        return self._clock() - self._stepped_at

    def open(self) -> None:
        """Open the source, which will call back into this object; wait for brokers that do not answer yet.

        Raise Unreachable when they still do not after `start_timeout_s`, DrainTimeout when a stop came first.
        """
        patience = Patience("the brokers", self._start_timeout_s, lambda: self._exchange.phase != "running")
        self._patience = patience
        while not self._opened:
            self._stepped_at = self._clock()
            try:
                self._source.open(self)
                self._opened = True
            except Unreachable as error:
                patience.after(error)

    def run(self) -> None:
        """Open the source and run until the pipeline has drained or aborted. `leave` follows, whatever happens.

        Raise RecordUnreadable, once all before it is committed, and whatever else the source raises.
        """
        self.open()
        while self._exchange.phase != "aborted" and not self._exchange.drained:
            self.step()
        if self._unreadable is not None and self._exchange.phase != "aborted":
            raise self._unreadable

    def leave(self) -> None:
        """Leave the group. Rebalance callbacks run inside: after a failure, abort the exchange first."""
        self._source.close()

    def step(self) -> None:
        """Carry out wanted commits, pause or resume, and fetch once unless there is no room for the moment."""
        self._stepped_at = self._clock()
        self.commit()
        if self._waiting_for_room():
            self._exchange.wait_changed(COMMIT_POLL_S)
            self._observer.spent("backpressure", self._clock() - self._stepped_at)
            return
        self._balance()
        draining = self._exchange.phase != "running"
        timeout_s = self._patience_s(draining=draining)
        began = self._clock()
        try:
            runs = self._source.fetch(self._appetite(), timeout_s)
        except RecordUnreadable as error:
            # Not thrown away with what is in memory: a new start would come no further.
            log.error("record_unreadable", error=str(error))
            self._unreadable = self._unreadable or error
            self._exchange.drain("stop")
            return
        self._observer.spent("backpressure" if self._paused else "fetch", self._clock() - began)
        if not draining:
            self._keep(runs)
            replaying = self._exchange.replaying
            if replaying:
                self._exchange.reached(self._source.reached)
            if (self._left == 0 and not replaying) or self._source.exhausted:
                self._exchange.drain("end")

    def commit(self) -> None:
        """Carry out the commit that is wanted, if one is."""
        positions = self._exchange.commit_wanted()
        if not positions:
            return
        refused: Mapping[Partition, str] = {}
        began = self._clock()
        try:
            self._source.commit(positions, COMMIT_ATTEMPT_S)
            self._observer.committed("ok")
            self._observer.spent("commit", self._clock() - began)
        except CommitUnconfirmed as error:
            self._observer.committed("unconfirmed")
            self._keep_asking(positions, error)
            return
        except SourceLost:
            self._observer.committed("failed")
            raise
        except CommitRefused as error:
            refused = error.reasons
            self._observer.committed("refused")
            log.warning("commit_refused", error=str(error))
            self._exchange.forget(refused)
        if self._unconfirmed_since is not None:
            log.info("commit_confirmed", after_s=round(self._clock() - self._unconfirmed_since, 1))
            self._unconfirmed_since = None
        self._exchange.committed({part: at for part, at in positions.items() if part not in refused}, began)

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Take over partitions (see PartitionListener)."""
        log.info("partitions_assigned", positions={str(part): at.next_offset for part, at in sorted(positions.items())})
        self._observer.rebalanced("assigned")
        self._joined = True
        refused = self._exchange.assign(positions)
        self._paused -= set(positions)
        for partition, reason in sorted(refused.items()):
            log.error(
                "partition_stopped",
                partition=str(partition),
                reason=reason,
                hint="the others go on; --ignore-intents starts at the committed offset whatever was announced",
            )
        self.stopped.update(refused)
        for partition in positions.keys() - refused.keys():
            self.stopped.pop(partition, None)
        if replays := self._exchange.replays(positions):
            log.info("replaying", ranges=replays)
        return refused.keys()

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Finish and commit the batch in flight within a bound, forget the rest (see PartitionListener)."""
        self._exchange.begin_revoke(partitions)
        deadline = self._clock() + self._drain_timeout_s
        while self._exchange.busy(partitions) and self._clock() < deadline:
            self.commit()
            self._exchange.wait_changed(COMMIT_POLL_S)
        self.commit()
        self._observer.rebalanced("revoked")
        self._give_up(partitions, "partitions_revoked")

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Forget partitions that are already foreign (see PartitionListener)."""
        self._observer.rebalanced("lost")
        self._give_up(partitions, "partitions_lost")

    def _keep_asking(self, positions: Mapping[Partition, Position], error: CommitUnconfirmed) -> None:
        now = self._clock()
        if self._unconfirmed_since is None:
            self._unconfirmed_since = now
            log.warning("commit_unconfirmed", error=str(error), hint="it is sent again")
        if now - self._unconfirmed_since > COMMIT_PATIENCE_S:
            raise error
        self._exchange.unconfirmed(positions.keys())

    def _give_up(self, partitions: Collection[Partition], event: str) -> None:
        dropped = self._exchange.forget(partitions)
        self._paused -= set(partitions)
        for partition in partitions:
            self.stopped.pop(partition, None)
        log.info(event, partitions=[str(part) for part in sorted(partitions)], left_to_successor=dropped)

    def _waiting_for_room(self) -> bool:
        running = self._exchange.phase == "running" and not self._exchange.replaying
        if self._paused or not running or not self._exchange.full:
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = self._clock()
        return self._clock() - self._full_since < PATIENCE_S

    def _balance(self) -> None:
        # An announced range is written as a whole or not at all: what is missing of it is read in any case.
        needed = self._exchange.replaying if self._exchange.phase == "running" else frozenset()
        if again := self._paused & needed:
            # Paused when the range before was complete: if its records alone fill the memory, nobody else resumes it.
            self._source.resume(again)
            self._paused -= again
        if self._exchange.full or self._exchange.phase != "running":
            if fresh := self._exchange.owned - self._paused - needed:
                if not self._paused:
                    log.debug("reading_paused")
                self._source.pause(fresh)
                self._paused |= fresh
        elif self._paused and self._exchange.roomy:
            log.debug("reading_resumed")
            self._source.resume(self._paused & self._exchange.owned)
            self._paused.clear()

    def _patience_s(self, *, draining: bool) -> float:
        """Return how long records may be waited for: not beyond the moment at which a commit may be wanted."""
        if draining or self._exchange.commit_near:
            return COMMIT_POLL_S
        due_in_s = self._exchange.due_in_s
        # A batch that is due is announced first: a lone record would wait for the end of a long fetch.
        return POLL_S if due_in_s is None else min(POLL_S, max(COMMIT_POLL_S, due_in_s))

    def _appetite(self) -> int:
        """Return how many records to ask for, so that large ones do not overrun the memory in one fetch."""
        if self._exchange.replaying:
            # Full or not, but not by more than this at once.
            return min(FETCH_RECORDS, max(64, int(REPLAY_FETCH_BYTES / self._record_bytes)))
        wanted = min(FETCH_RECORDS, max(1, int(self._exchange.room_bytes / self._record_bytes)))
        return wanted if self._left is None else max(1, min(wanted, self._left))

    def _keep(self, runs: Iterable[Records]) -> None:
        for kept in self._exchange.put(runs):
            self._observer.consumed(kept)
            if self._left is not None:
                self._left = max(0, self._left - len(kept))
            # Larger records count at once, or they overrun the memory; smaller ones after some ten fetches.
            record_bytes = kept.nbytes / len(kept)
            self._record_bytes = max(record_bytes, self._record_bytes + (record_bytes - self._record_bytes) * 0.2)
