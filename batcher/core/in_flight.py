"""The batches between their intent and their durable end.

    sealed ─► decoding ─► decoded ─► writing ─► durable

Batches that have a partition in common are written one after the other, in the order of the queue. Batches that have
none may be written at the same time, and in any order. So a batch waits for its own partitions and for no others.

Pure: the caller (`state.py`) is guarded by the engine's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

from batcher.records import Batch, Partition, Prepared

Stage = Literal["sealed", "decoding", "decoded", "writing"]

MAX_AHEAD: Final = 2
"""Batches that may be decoded or in writing, for each writer, and of one partition: one is decoded while the one before
it is written. A partition that does not get on takes up no more than that, and the others go on."""


class BatchInFlight:
    """Hold a batch that was begun, its stage, and the epoch of each of its partitions at that moment.

    Identity counts: two of them are never the same, whatever they hold.
    """

    __slots__ = ("batch", "begun_at", "epochs", "prepared", "stage")

    def __init__(self, batch: Batch, epochs: Mapping[Partition, int]) -> None:
        self.batch = batch
        self.epochs = epochs
        self.begun_at = 0.0
        self.stage: Stage = "sealed"
        self.prepared: Prepared | None = None

    def join(self) -> Batch:
        """Join the runs of the batch and return it. Called by the decode loop without the lock, because this copies."""
        self.batch = self.batch.joined()
        return self.batch


class InFlightQueue:
    """Keep the batches in flight in the order in which those of a partition are written, by `writers` at once."""

    def __init__(self, writers: int = 1) -> None:
        self.writers = writers
        self._queue: deque[BatchInFlight] = deque()
        # Those that are no longer only sealed. They stand at the front, so what looks for them stops after the last.
        self._begun = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[BatchInFlight]:
        return iter(self._queue)

    @property
    def first(self) -> BatchInFlight | None:
        """Return the batch that has been in flight longest."""
        return self._queue[0] if self._queue else None

    @property
    def writing(self) -> list[BatchInFlight]:
        """Return the batches that are being written."""
        return [one for one, _ in self._begun_ones() if one.stage == "writing"]

    @property
    def ahead(self) -> bool:
        """Return whether the limit of batches that are decoded or being decoded is reached."""
        # Whatever the limit says, the first is decoded: what is behind it may have to wait for it.
        full = self._begun >= MAX_AHEAD * self.writers
        return full and self._queue[0].stage != "sealed"

    @property
    def waiting(self) -> frozenset[Partition]:
        """Return the partitions of the batches that wait to be decoded."""
        return frozenset(partition for one in self._queue if one.stage == "sealed" for partition in one.epochs)

    def add(self, batches: Iterable[BatchInFlight], now: float) -> None:
        """Put batches at the end of the queue."""
        for one in batches:
            one.begun_at = now
            self._queue.append(one)

    def decodable(self) -> BatchInFlight | None:
        """Return the batch that is decoded next, now or when others are done; None where none may be.

        It is the first that is only sealed and has few enough of its partitions before it.
        """
        before: list[BatchInFlight] = []
        for one in self._queue:
            if one.stage == "sealed" and sum(_common(one, other) for other in before) < MAX_AHEAD:
                return one
            before.append(one)
        return None

    def next_to_decode(self) -> BatchInFlight | None:
        """Take the batch to decode; None when there is none, or when enough are decoded."""
        one = None if self.ahead else self.decodable()
        if one is not None:
            one.stage = "decoding"
            self._begun += 1
        return one

    def decoded(self, which: BatchInFlight, prepared: Prepared) -> None:
        """Note that a batch is decoded, unless it was dropped meanwhile."""
        if which in self._queue:
            which.stage, which.prepared = "decoded", prepared

    def ready(self) -> Iterator[BatchInFlight]:
        """Yield the decoded batches that have no partition in common with one before them, in order."""
        for one, before in self._begun_ones():
            if one.stage == "decoded" and not any(_common(one, other) for other in before):
                yield one

    def pop(self, which: BatchInFlight) -> bool:
        """Take a batch out and return whether it was there."""
        if which not in self._queue:
            return False
        self._queue.remove(which)
        self._begun -= which.stage != "sealed"
        return True

    def split(self, now: float, divide: Callable[[BatchInFlight], Iterable[BatchInFlight] | None]) -> None:
        """Replace some batches by others; `divide` returns None for a batch that stays as it is."""
        queue: deque[BatchInFlight] = deque()
        for one in self._queue:
            parts = divide(one)
            if parts is None:
                queue.append(one)
                continue
            for part in parts:
                part.begun_at = now
                queue.append(part)
        self._queue = queue
        self._begun = sum(one.stage != "sealed" for one in queue)

    def touching(self, partitions: Collection[Partition]) -> bool:
        """Return whether one of these partitions is in a batch."""
        return any(partition in one.epochs for one in self._queue for partition in partitions)

    def _begun_ones(self) -> Iterator[tuple[BatchInFlight, Sequence[BatchInFlight]]]:
        """Yield those that are no longer only sealed, in order, each with all that stand before it."""
        before: list[BatchInFlight] = []
        left = self._begun
        for one in self._queue:
            if not left:
                return
            if one.stage != "sealed":
                left -= 1
                yield one, before
            before.append(one)


def _common(one: BatchInFlight, other: BatchInFlight) -> bool:
    """Return whether two batches have a partition in common, in whichever ownership of it."""
    return not one.epochs.keys().isdisjoint(other.epochs)
