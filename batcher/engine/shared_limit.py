"""Let the write loops of a target count refused records together."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from batcher.core.limits import BatchTally, DeadLetterLimit
from batcher.records import DeadLetter


class SharedLimit:
    """Guard a `DeadLetterLimit`; see there for the methods. Write loops."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._counting = threading.Lock()

    def observe(self, rows: int, letters: Sequence[tuple[int, DeadLetter]], *, skipped: int) -> BatchTally:
        with self._counting:
            return self._limit.observe(rows, letters, skipped=skipped)

    def settle(self, batch: BatchTally) -> None:
        with self._counting:
            self._limit.settle(batch)

    def take_back(self, batch: BatchTally) -> None:
        with self._counting:
            self._limit.take_back(batch)

    def refuse(self, batch: BatchTally, letters: Sequence[DeadLetter]) -> None:
        with self._counting:
            self._limit.refuse(batch, letters)

    def bisect(self, batch: BatchTally, what: str, refusal: BaseException) -> None:
        with self._counting:
            self._limit.bisect(batch, what, refusal)
