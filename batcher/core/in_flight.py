"""The batches between their intent and their durable end, in the order in which they are written.

    sealed ─► decoding ─► decoded ─► writing ─► durable

Pure: the caller (`state.py`) is guarded by the engine's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, Literal

from batcher.records import Batch, Partition, Prepared

Stage = Literal["sealed", "decoding", "decoded", "writing"]

MAX_AHEAD: Final = 2
"""Batches that may be decoded or in writing: one is decoded while the one before it is written."""


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
    """Keep the batches in flight in the order in which they are written."""

    def __init__(self) -> None:
        self._queue: deque[BatchInFlight] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[BatchInFlight]:
        return iter(self._queue)

    @property
    def first(self) -> BatchInFlight | None:
        """Return the batch that is written next, or is being written."""
        return self._queue[0] if self._queue else None

    @property
    def sealed(self) -> bool:
        """Return whether a batch waits to be decoded."""
        return any(one.stage == "sealed" for one in self._queue)

    @property
    def ahead(self) -> bool:
        """Return whether the limit of batches that are decoded or being decoded is reached."""
        return sum(one.stage != "sealed" for one in self._queue) >= MAX_AHEAD

    def add(self, batches: Iterable[BatchInFlight], now: float) -> None:
        """Put batches at the end of the queue."""
        for one in batches:
            one.begun_at = now
            self._queue.append(one)

    def next_to_decode(self) -> BatchInFlight | None:
        """Take the first batch that is only sealed; None when there is none, or when enough are decoded."""
        if self.ahead:
            return None
        for one in self._queue:
            if one.stage == "sealed":
                one.stage = "decoding"
                return one
        return None

    def decoded(self, which: BatchInFlight, prepared: Prepared) -> None:
        """Note that a batch is decoded, unless it was dropped meanwhile."""
        if which in self._queue:
            which.stage, which.prepared = "decoded", prepared

    def pop(self, which: BatchInFlight) -> bool:
        """Take a batch out and return whether it was there."""
        if which not in self._queue:
            return False
        self._queue.remove(which)
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

    def touching(self, partitions: Collection[Partition]) -> bool:
        """Return whether one of these partitions is in a batch."""
        return any(partition in one.epochs for one in self._queue for partition in partitions)
