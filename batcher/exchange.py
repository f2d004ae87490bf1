"""What the consumer thread and the flusher share, and the one lock that guards it.

    consumer thread                     exchange                   decoder             flusher
    put(records)  ───────────────►  buffer  ─────────────────►  begin() → batch
                                    in flight  ◄──────────────  ready(decoded) ──►  head() → decoded
    commit_wanted() → receipts  ◄─  mailbox  ◄──────────────────────────────────── finish(receipt)
    committed / refused ────────►  ledger

The flusher decides a commit, the consumer thread executes it: a commit from another thread while the owner sits
in a rebalance callback never returns. Every method is short and none waits, except those named `wait_…`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from batcher.buffer import BoundedBuffer
from batcher.ledger import Ledger, Receipt
from batcher.records import Batch, Partition, Position, Prepared, Records, Trigger
from batcher.status import BufferStatus

Phase = Literal["running", "draining", "aborted"]

MAX_IN_FLIGHT: Final = 2
"""Batches that may be begun and not yet written: one is decoded while the one before it is written."""

MAX_UNCOMMITTED: Final = 2
"""Batches that may be written, or about to be, and not yet committed. One would make the flusher wait for each commit;
many would be written again after a crash."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Say what is going on in an exchange at one moment."""

    phase: Phase
    buffer: BufferStatus
    full: bool
    in_flight: Batch | None
    in_flight_s: float
    uncommitted_batches: int
    read: Mapping[Partition, int]
    committed: Mapping[Partition, int]


@dataclass(slots=True)
class _Flight:
    """Hold a batch from `begin` to `finish`."""

    receipt: Receipt
    begun_at: float
    decoded: Prepared | None = None
    writing: bool = False


class Exchange:
    """Guard the buffer, the ledger and the mailbox of commits, and say in which phase the pipeline is.

    `running` until `drain`, then `draining`: nothing more is read, everything buffered is sealed, delivered and
    committed. `halt` from any phase: as if drained, but for commits that are due. `abort` from any phase: nothing more
    is begun or committed. `aborting` is the event that waits elsewhere (retries) listen to.
    """

    def __init__(self, buffer: BoundedBuffer, ledger: Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self._buffer = buffer
        self._ledger = ledger
        self._clock = clock
        self._changed = threading.Condition()
        self._phase: Phase = "running"
        self._drain_trigger: Trigger = "stop"
        self._flights: deque[_Flight] = deque()
        self._mailbox: deque[Receipt] = deque()
        self._uncommitted = 0
        self.aborting = threading.Event()
        self.abandoned_offsets = 0
        """How many offsets had been read and not committed at the abort: what will be read again."""

    @property
    def phase(self) -> Phase:
        """Return the phase, which only ever moves forward."""
        return self._phase

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        with self._changed:
            return self._ledger.owned

    @property
    def drained(self) -> bool:
        """Tell whether a drain has come to its end: nothing buffered, in delivery or waiting for its commit."""
        with self._changed:
            return self._phase == "draining" and self._idle()

    @property
    def full(self) -> bool:
        """Tell whether reading has to pause."""
        with self._changed:
            return self._buffer.full

    @property
    def roomy(self) -> bool:
        """Tell whether reading may resume after a pause."""
        with self._changed:
            return self._buffer.roomy

    @property
    def room_bytes(self) -> int:
        """Return the bytes that may still be put in."""
        with self._changed:
            return self._buffer.room_bytes

    @property
    def commit_near(self) -> bool:
        """Tell whether a commit is wanted or may be soon, so that the consumer thread keeps its waits short."""
        return bool(self._flights or self._mailbox)

    def assign(self, positions: Mapping[Partition, Position]) -> None:
        """Take over partitions. Called on the consumer thread, as all of the following up to `committed`."""
        with self._changed:
            self._ledger.assign(positions)

    def put(self, runs: Iterable[Records]) -> list[Records]:
        """Add fetched records to the buffer and return those that were new; none are once a drain has begun."""
        with self._changed:
            if self._phase != "running":
                return []
            fresh = [new for run in runs if (new := self._ledger.admit(run)) is not None]
            if fresh:
                self._buffer.extend(fresh, self._clock())
                self._changed.notify_all()
            return fresh

    def begin_revoke(self, partitions: Collection[Partition]) -> None:
        """Drop what waits of these partitions: nothing more of them is begun, since nothing is fetched meanwhile."""
        with self._changed:
            self._buffer.forget(partitions)

    def busy(self, partitions: Collection[Partition]) -> bool:
        """Tell whether one of these partitions is in delivery or waits for a commit."""
        with self._changed:
            if self._phase == "aborted":
                return False
            pending = [*self._mailbox, *(flight.receipt for flight in self._flights)]
            return any(partition in partitions for receipt in pending for partition in receipt.epochs)

    def forget(self, partitions: Collection[Partition]) -> int:
        """Give partitions up, with everything about them, and return how many buffered records were dropped."""
        with self._changed:
            dropped = self._buffer.forget(partitions)
            self._ledger.forget(partitions)
            self._changed.notify_all()
            return dropped

    def commit_wanted(self) -> tuple[list[Receipt], Mapping[Partition, Position]]:
        """Take what is in the mailbox: the receipts, and the highest position of each partition still ours."""
        with self._changed:
            if self._phase == "aborted":
                return [], {}
            receipts = list(self._mailbox)
            self._mailbox.clear()
            positions: dict[Partition, Position] = {}
            for receipt in receipts:
                positions.update(self._ledger.due(receipt))
            return receipts, positions

    def committed(self, receipts: Collection[Receipt], positions: Mapping[Partition, Position]) -> None:
        """Note that the positions taken with these receipts are committed, except refused ones."""
        with self._changed:
            self._ledger.commit({part: at for part, at in positions.items() if part in self._ledger.owned})
            self._uncommitted -= len(receipts)
            self._changed.notify_all()

    def begin(self) -> Receipt | None:
        """Seal and take the next due batch; None when none is. Called on the decoder, as `ready`."""
        with self._changed:
            if self._phase == "aborted" or len(self._flights) >= MAX_IN_FLIGHT:
                return None
            batch = self._take()
            if batch is None:
                return None
            receipt = self._ledger.begin(batch)
            self._flights.append(_Flight(receipt, self._clock()))
            return receipt

    def ready(self, receipt: Receipt, decoded: Prepared) -> None:
        """Hand over a batch that is decoded."""
        with self._changed:
            for flight in self._flights:
                if flight.receipt is receipt:
                    flight.decoded = decoded
            self._changed.notify_all()

    def head(self) -> tuple[Receipt, Prepared] | None:
        """Take the next batch to write; None when there is none yet. Called on the flusher, as `finish`.

        A batch whose partitions have all changed hands meanwhile is dropped: their new owner reads it.
        """
        with self._changed:
            while (flight := self._writable()) is not None:
                if self._ledger.due(flight.receipt):
                    flight.writing = True
                    assert flight.decoded is not None
                    return flight.receipt, flight.decoded
                self._buffer.release(self._flights.popleft().receipt.batch)
                self._changed.notify_all()
            return None

    def finish(self, receipt: Receipt) -> None:
        """Note that a batch is durable, let go of its memory and ask for its commit."""
        with self._changed:
            self._buffer.release(receipt.batch)
            if self._flights and self._flights[0].receipt is receipt:
                self._flights.popleft()
            if self._phase != "aborted":
                self._ledger.finish(receipt)
                self._mailbox.append(receipt)
                self._uncommitted += 1
            self._changed.notify_all()

    def drain(self, trigger: Trigger) -> None:
        """Stop reading and bring everything buffered to its end. Once is enough; later calls change nothing."""
        with self._changed:
            if self._phase == "running":
                self._phase = "draining"
                self._drain_trigger = trigger
                self._changed.notify_all()

    def halt(self, *, writing_failed: bool) -> None:
        """Begin nothing more and drop what waits; what is durable may still be committed.

        What is being written comes to its end, unless that is what failed.
        """
        with self._changed:
            if self._phase != "aborted":
                self._phase = "draining"
                self._buffer.clear()
                kept = [flight for flight in self._flights if flight.writing and not writing_failed]
                self._flights = deque(kept)
            self._changed.notify_all()

    def abort(self) -> None:
        """Begin and commit nothing more, and wake everybody who waits."""
        with self._changed:
            if self._phase != "aborted":
                self._phase = "aborted"
                self.abandoned_offsets = self._ledger.uncommitted
            self._changed.notify_all()
        self.aborting.set()

    def wait_ready(self) -> bool:
        """Wait until `head` may have a batch; False when there will never be one again. For the flusher."""
        with self._changed:
            while self._phase != "aborted":
                if self._writable() is not None:
                    return True
                if self._phase == "draining" and not self._flights and self._buffer_empty():
                    return False
                self._changed.wait()
            return False

    def wait_due(self) -> bool:
        """Wait until `begin` may have a batch; False when there will never be one again. For the decoder."""
        with self._changed:
            while self._phase != "aborted":
                if self._phase == "draining" and self._buffer_empty():
                    # The flusher may be waiting for a batch that will not come.
                    self._changed.notify_all()
                    return False
                due_in_s = self._due_in_s()
                if due_in_s is not None and due_in_s <= 0:
                    return True
                self._changed.wait(due_in_s)
            return False

    def wait_changed(self, timeout_s: float) -> None:
        """Wait until something happened, at most `timeout_s`. For the consumer thread when it must not fetch."""
        with self._changed:
            if not self._mailbox:
                self._changed.wait(timeout_s)

    def snapshot(self) -> Snapshot:
        """Return what is going on, all of one moment."""
        with self._changed:
            now = self._clock()
            return Snapshot(
                phase=self._phase,
                buffer=BufferStatus(
                    rows=self._buffer.rows,
                    bytes=self._buffer.nbytes,
                    limit_bytes=self._buffer.memory_bytes,
                    age_s=self._buffer.age_s(now),
                    due_in_s=self._buffer.due_in_s(now),
                ),
                full=self._buffer.full,
                in_flight=self._flights[0].receipt.batch if self._flights else None,
                in_flight_s=now - self._flights[0].begun_at if self._flights else 0.0,
                uncommitted_batches=self._uncommitted,
                read=self._ledger.read(),
                committed=self._ledger.committed(),
            )

    def _idle(self) -> bool:
        return not self._flights and not self._uncommitted and self._buffer_empty()

    def _buffer_empty(self) -> bool:
        return self._buffer.due_in_s(self._clock()) is None

    def _writable(self) -> _Flight | None:
        if self._phase == "aborted" or self._uncommitted >= MAX_UNCOMMITTED or not self._flights:
            return None
        return self._flights[0] if self._flights[0].decoded is not None else None

    def _due_in_s(self) -> float | None:
        if len(self._flights) >= MAX_IN_FLIGHT:
            return None
        due_in_s = self._buffer.due_in_s(self._clock())
        return 0.0 if due_in_s is not None and self._phase == "draining" else due_in_s

    def _take(self) -> Batch | None:
        now = self._clock()
        batch = self._buffer.take(now)
        if batch is None and self._phase == "draining":
            batch = self._buffer.take_rest(self._drain_trigger)
        return batch
