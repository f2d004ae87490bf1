"""What the consumer thread and the flusher share, and the one lock that guards it.

    consumer thread                     exchange                   decoder             flusher
    put(records)  ───────────────►  buffer  ─────────────────►  begin() → batch
                                    flights  ◄───────────────  ready(decoded) ──►  head() → decoded
    commit_wanted() → positions ◄─  ledger  ◄───────────────────────────────────── finish(receipt)
    committed(positions) ────────►  ledger

The flusher decides a commit, the consumer thread executes it: a commit from another thread while the owner sits
in a rebalance callback never returns. Every method is short and none waits, except those named `wait_…`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from batcher.core.buffer import BoundedBuffer
from batcher.core.in_flight import Flight, Flights
from batcher.core.offsets import Ledger, Receipt
from batcher.records import Batch, Partition, Position, Prepared, Records, Trigger
from batcher.telemetry.status import BufferStatus

Phase = Literal["running", "draining", "aborted"]

MAX_UNCOMMITTED: Final = 2
"""Batches that may be written, or about to be, and not yet committed. One would make the flusher wait for each commit;
many would be written again after a crash."""

MAX_ANNOUNCED_UNCOMMITTED: Final = 32
"""The same where intents are on: then nothing is written twice, and many small batches share one commit."""

LEASE_S: Final = 5.0
"""How old the last accepted commit of a partition may be when a batch of it is offered to the target. Below the
shortest session timeout that brokers allow (6 s): a member that was frozen longer first asks whether it still is."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Say what is going on in an exchange at one moment."""

    phase: Phase
    buffer: BufferStatus
    full: bool
    in_flight: Batch | None
    in_flight_s: float
    awaits_commit: bool
    """The next batch has to wait for a commit: of batches before it, or of its own intent."""
    replaying: frozenset[Partition]
    """Partitions of which an announced range has not been read to its end."""
    read: Mapping[Partition, int]
    committed: Mapping[Partition, int]


class Exchange:
    """Guard the buffer, the ledger and the flights, and say in which phase the pipeline is.

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
        self._flights = Flights()
        self._unsettled: list[Receipt] = []
        self._commit_due = False
        self._committing = False
        self._max_unsettled = MAX_ANNOUNCED_UNCOMMITTED if ledger.announces else MAX_UNCOMMITTED
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
            busy = self._flights or self._unsettled or self._commit_due or not self._buffer_empty()
            return self._phase == "draining" and not busy

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
    def replaying(self) -> frozenset[Partition]:
        """Return the partitions that have to be read on although the buffer may be full."""
        with self._changed:
            return self._buffer.replaying

    @property
    def commit_near(self) -> bool:
        """Tell whether a commit is wanted or may be soon, so that the consumer thread keeps its waits short."""
        return bool(self._flights or self._unsettled or self._commit_due)

    @property
    def due_in_s(self) -> float | None:
        """Return the seconds until a batch is due, as far as is known now; None while nothing is buffered."""
        with self._changed:
            return self._buffer.due_in_s(self._clock())

    def assign(self, positions: Mapping[Partition, Position]) -> Mapping[Partition, str]:
        """Take over partitions and return those that are not taken, with the reason.

        Called on the consumer thread, as all of the following up to `committed`.
        """
        with self._changed:
            refused = self._ledger.assign(positions)
            for partition in positions.keys() - refused.keys():
                claims = self._ledger.replays(partition)
                self._buffer.expect(partition, [claim.range.last for claim in claims])
                self._commit_due |= bool(claims)
            self._changed.notify_all()
            return refused

    def replays(self, partitions: Collection[Partition]) -> list[str]:
        """Return the announced ranges that are to be written again, as text."""
        with self._changed:
            return [str(claim.range) for partition in partitions for claim in self._ledger.replays(partition)]

    def put(self, runs: Iterable[Records]) -> list[Records]:
        """Add fetched records to the buffer and return those that were new; none are once a drain has begun."""
        with self._changed:
            if self._phase != "running":
                return []
            fresh = [new for run in runs if (new := self._ledger.admit(run)) is not None]
            if fresh:
                before = self._due_in_s()
                self._buffer.extend(fresh, self._clock())
                after = self._due_in_s()
                # Not each time: whoever wakes up takes the interpreter lock from the thread that fetches.
                if (after is not None and (before is None or after <= 0 < before)) or self._ledger.uncleared():
                    self._changed.notify_all()
            return fresh

    def reached(self, offsets: Mapping[Partition, int]) -> None:
        """Learn below which offsets there is nothing more to come: completes announced ranges."""
        with self._changed:
            self._buffer.reached(offsets)
            self._changed.notify_all()

    def begin_revoke(self, partitions: Collection[Partition]) -> None:
        """Drop what waits of these partitions: nothing more of them is begun, since nothing is fetched meanwhile.

        What was begun and not yet offered to the target is dropped as well, where it is in batches of its own or
        intents are on; other batches are written with all that is in them.
        """
        with self._changed:
            self._buffer.forget(partitions)
            self._drop_unwritten(frozenset(partitions))
            self._commit_due = True
            self._changed.notify_all()

    def busy(self, partitions: Collection[Partition]) -> bool:
        """Tell whether one of these partitions is in delivery or waits for a commit."""
        with self._changed:
            if self._phase == "aborted":
                return False
            return self._flights.touching(partitions) or any(
                partition in receipt.epochs for receipt in self._unsettled for partition in partitions
            )

    def forget(self, partitions: Collection[Partition]) -> int:
        """Give partitions up, with everything about them, and return how many buffered records were dropped."""
        with self._changed:
            dropped = self._buffer.forget(partitions)
            self._ledger.forget(partitions)
            self._settle()
            self._changed.notify_all()
            return dropped

    def commit_wanted(self) -> Mapping[Partition, Position]:
        """Return the positions to commit, with their intents; those of partitions that are ours."""
        if not self._commit_due:
            return {}
        with self._changed:
            self._commit_due = False
            wanted = {} if self._phase == "aborted" else self._ledger.wanted()
            self._committing = bool(wanted)
            return wanted

    def committed(self, positions: Mapping[Partition, Position], sent_at: float) -> None:
        """Note that positions were committed by a request that was sent at `sent_at`."""
        with self._changed:
            self._committing = False
            self._ledger.commit({part: at for part, at in positions.items() if part in self._ledger.owned}, sent_at)
            self._settle()
            self._changed.notify_all()

    def unconfirmed(self, partitions: Collection[Partition]) -> None:
        """Note that it is not known whether a commit was stored: it is wanted again.

        In other words, where intents are on: otherwise reading back the later one, which may have been
        refused, could find the earlier one.
        """
        with self._changed:
            self._committing = False
            self._commit_due = True
            if self._ledger.announces:
                self._ledger.renew(self._ledger.owned.intersection(partitions), self._clock())
            self._changed.notify_all()

    def begin(self) -> Receipt | None:
        """Take the next batch to decode; None when none is due. Called on the decoder, as `ready`."""
        with self._changed:
            if self._phase == "aborted" or self._flights.ahead:
                return None
            self._seal()
            flight = self._flights.next_to_decode()
            return flight.receipt if flight is not None else None

    def ready(self, receipt: Receipt, decoded: Prepared) -> None:
        """Hand over a batch that is decoded."""
        with self._changed:
            self._flights.decoded(receipt, decoded)
            self._changed.notify_all()

    def head(self) -> tuple[Receipt, Prepared] | None:
        """Take the next batch to write; None when there is none yet. Called on the flusher, as all up to `finish`.

        A batch whose partitions have all changed hands meanwhile is dropped: their new owner reads it.
        """
        with self._changed:
            self._ask_for_owner()
            while (flight := self._writable()) is not None:
                if self._ledger.ours(flight.receipt):
                    assert flight.decoded is not None
                    flight.stage = "writing"
                    return flight.receipt, flight.decoded
                self._drop(flight.receipt)
            return None

    def newcomers(self) -> tuple[Mapping[Partition, int], Mapping[Partition, int]]:
        """Return where new records begin in partitions that the target was not asked about, and their epochs."""
        with self._changed:
            found = self._ledger.uncleared()
            return found, self._ledger.epochs(found.keys())

    def wait_confirmed(self, epochs: Mapping[Partition, int]) -> frozenset[Partition]:
        """Wait until a commit from now on says which of these partitions are still ours, and return them."""
        with self._changed:
            now = self._clock()
            self._ledger.renew(self._ledger.unchanged(epochs), now)
            self._commit_due = True
            while self._phase != "aborted":
                ours = self._ledger.unchanged(epochs)
                if self._ledger.vouched(ours, now):
                    return ours
                self._changed.wait()
            return frozenset()

    def cleared(self, epochs: Mapping[Partition, int]) -> None:
        """Note that new records of these partitions may be announced."""
        with self._changed:
            self._ledger.clear(epochs)
            self._commit_due = True
            self._changed.notify_all()

    def wait_held(self, receipt: Receipt) -> bool:
        """Wait until it is certain that a batch is ours to write, and tell whether it is; False also after an abort.

        Where intents are on, all of it has to be ours, by a commit that is not older than LEASE_S; else some of it.
        """
        with self._changed:
            while self._phase != "aborted":
                ours = self._ledger.ours(receipt)
                if not ours or (self._ledger.announces and len(ours) < len(receipt.epochs)):
                    return False
                if self._vouched(receipt):
                    return True
                self._renew(receipt)
                self._changed.wait()
            return False

    def hand_back(self, receipt: Receipt) -> None:
        """Give up writing a batch of which something changed hands; what is still ours comes again, as replays."""
        with self._changed:
            ours = self._ledger.ours(receipt)
            self._flights.split(self._clock(), lambda flight: self._kept(flight, ours, receipt, replayed=True))
            self._changed.notify_all()

    def finish(self, receipt: Receipt) -> None:
        """Note that a batch is durable, let go of its memory and ask for its commit."""
        with self._changed:
            if self._flights.pop(receipt):
                self._buffer.release(receipt.batch)
            if self._phase != "aborted":
                self._ledger.finish(receipt)
                self._unsettled.append(receipt)
                self._settle()
                self._commit_due = True
                # At once, so that the commit carries the intent of the batch that comes next.
                self._seal()
            self._changed.notify_all()

    def stretch(self, factor: int) -> None:
        """Have the batches that are still to be cut made this many times as large as the settings say."""
        with self._changed:
            self._buffer.stretch(factor)
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
                for flight in list(self._flights):
                    if flight.stage != "writing":
                        self._ledger.cancel(flight.receipt, flight.receipt.epochs)
                        self._drop(flight.receipt)
                    elif writing_failed:
                        self._drop(flight.receipt)
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
                if self._writable() is not None or self._ledger.uncleared():
                    return True
                if self._phase == "draining" and not self._flights and self._buffer_empty():
                    return False
                self._ask_for_owner()
                self._changed.wait()
            return False

    def wait_due(self) -> bool:
        """Wait until `begin` may have a batch; False when there will never be one again. For the decoder."""
        with self._changed:
            while self._phase != "aborted":
                if self._phase == "draining" and not self._flights.sealed and self._buffer_empty() and self._final():
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
            if not self._commit_due:
                self._changed.wait(timeout_s)

    def snapshot(self) -> Snapshot:
        """Return what is going on, all of one moment; nothing follows from the question. Any thread."""
        with self._changed:
            now = self._clock()
            first = self._flights.first
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
                in_flight=first.receipt.batch if first is not None else None,
                in_flight_s=now - first.begun_at if first is not None else 0.0,
                awaits_commit=first is not None and first.stage == "decoded" and self._writable() is None,
                replaying=self._buffer.replaying,
                read=self._ledger.read(),
                committed=self._ledger.committed(),
            )

    def _buffer_empty(self) -> bool:
        return self._buffer.due_in_s(self._clock()) is None

    def _final(self) -> bool:
        """Tell whether no batch can come back to be decoded again."""
        return not self._ledger.announces or not self._flights

    def _writable(self) -> Flight | None:
        flight = self._flights.first
        if self._phase == "aborted" or flight is None or flight.decoded is None:
            return None
        if not self._ledger.ours(flight.receipt):
            return flight
        if len(self._unsettled) >= self._max_unsettled or not self._vouched(flight.receipt):
            return None
        return flight

    def _vouched(self, receipt: Receipt) -> bool:
        """Tell whether a batch is announced and the broker lately took us for the owner."""
        ours = self._ledger.ours(receipt)
        return self._ledger.announced(receipt) and self._ledger.vouched(ours, self._clock() - LEASE_S)

    def _ask_for_owner(self) -> None:
        """Have the broker asked whether the next batch is still ours, where only that keeps it from being written."""
        flight = self._flights.first
        if flight is not None and flight.decoded is not None and len(self._unsettled) < self._max_unsettled:
            self._renew(flight.receipt)

    def _renew(self, receipt: Receipt) -> None:
        if self._phase == "aborted" or not self._ledger.announced(receipt) or self._vouched(receipt):
            return
        if not self._commit_due and not self._committing:
            self._ledger.renew(self._ledger.ours(receipt), self._clock())
            self._commit_due = True

    def _due_in_s(self) -> float | None:
        if self._flights.ahead:
            return None
        due_in_s = self._buffer.due_in_s(self._clock())
        if self._flights.sealed or (due_in_s is not None and self._phase == "draining"):
            return 0.0
        return due_in_s

    def _seal(self) -> None:
        """Claim every batch that is due, unless some are left from last time: one intent announces them all."""
        if self._flights.sealed:
            return
        now = self._clock()
        for partition, last in self._buffer.skip_vanished(now):
            self._ledger.skip(partition, last)
            self._commit_due = True
        batches = self._buffer.take(now)
        if not batches and self._phase == "draining":
            batches = self._buffer.take_rest(self._drain_trigger, now)
        if batches:
            self._flights.add([self._ledger.begin(batch) for batch in batches], now)
            self._commit_due |= self._ledger.announces

    def _settle(self) -> None:
        self._unsettled = [receipt for receipt in self._unsettled if not self._ledger.settled(receipt)]

    def _drop(self, receipt: Receipt) -> None:
        if self._flights.pop(receipt):
            self._buffer.release(receipt.batch)
            self._changed.notify_all()

    def _drop_unwritten(self, partitions: frozenset[Partition]) -> None:
        def divide(flight: Flight) -> Iterable[Receipt] | None:
            if flight.stage == "writing" or partitions.isdisjoint(flight.receipt.epochs):
                return None
            kept = self._ledger.ours(flight.receipt) - partitions
            if kept and not self._ledger.announces:
                return None
            self._ledger.cancel(flight.receipt, partitions)
            return self._kept(flight, kept, flight.receipt, replayed=flight.receipt.batch.replayed)

        self._flights.split(self._clock(), divide)

    def _kept(
        self, flight: Flight, kept: Collection[Partition], receipt: Receipt, *, replayed: bool
    ) -> list[Receipt] | None:
        """Return the batches that take the place of a flight: one for each partition kept, under its old claim."""
        if flight.receipt is not receipt:
            return None
        batch = receipt.batch
        self._buffer.release(batch)
        parts = []
        for run, claim in zip(batch.runs, batch.claims, strict=True):
            if run.partition in kept:
                part = replace(batch, runs=(run,), claims=(claim,), replayed=replayed)
                self._buffer.hold(part)
                parts.append(self._ledger.begin_again(part))
        return parts
