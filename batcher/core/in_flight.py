"""The batches on their way from the buffer to the target, in order: sealed, decoded, being written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from batcher.core.offsets import Receipt
from batcher.records import Partition, Prepared

Stage = Literal["sealed", "decoding", "decoded", "writing"]

MAX_AHEAD: Final = 2
"""Batches that may be decoded or being written: one is decoded while the one before it is written."""


@dataclass(slots=True)
class Flight:
    """Hold a batch from its claim to its durable end."""

    receipt: Receipt
    begun_at: float
    stage: Stage = "sealed"
    decoded: Prepared | None = None


class Flights:
    """Keep the queue. The caller (`shared.py`) guards it."""

    def __init__(self) -> None:
        self._queue: deque[Flight] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._queue)

    @property
    def first(self) -> Flight | None:
        """Return the batch that is written next, or is being written."""
        return self._queue[0] if self._queue else None

    @property
    def sealed(self) -> bool:
        """Tell whether a batch waits to be decoded."""
        return any(flight.stage == "sealed" for flight in self._queue)

    @property
    def ahead(self) -> bool:
        """Tell whether as many batches as may be are decoded, or being so."""
        return sum(flight.stage != "sealed" for flight in self._queue) >= MAX_AHEAD

    def add(self, receipts: Iterable[Receipt], now: float) -> None:
        """Put batches at the end of the queue."""
        self._queue.extend(Flight(receipt, now) for receipt in receipts)

    def next_to_decode(self) -> Flight | None:
        """Take the first batch that is only sealed; None when there is none or enough is decoded."""
        if self.ahead:
            return None
        for flight in self._queue:
            if flight.stage == "sealed":
                flight.stage = "decoding"
                return flight
        return None

    def decoded(self, receipt: Receipt, prepared: Prepared) -> None:
        """Note that a batch is decoded, unless it was dropped meanwhile."""
        for flight in self._queue:
            if flight.receipt is receipt:
                flight.stage, flight.decoded = "decoded", prepared

    def pop(self, receipt: Receipt) -> bool:
        """Take a batch out and tell whether it was there."""
        kept = deque(flight for flight in self._queue if flight.receipt is not receipt)
        found = len(kept) < len(self._queue)
        self._queue = kept
        return found

    def split(self, now: float, divide: Callable[[Flight], Iterable[Receipt] | None]) -> None:
        """Put other batches in the place of some; `divide` returns None for a batch that stays as it is."""
        queue: deque[Flight] = deque()
        for flight in self._queue:
            parts = divide(flight)
            if parts is None:
                queue.append(flight)
            else:
                queue.extend(Flight(part, now) for part in parts)
        self._queue = queue

    def touching(self, partitions: Collection[Partition]) -> bool:
        """Tell whether one of these partitions is in a batch."""
        return any(partition in flight.receipt.epochs for flight in self._queue for partition in partitions)
