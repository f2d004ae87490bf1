"""Log which records were refused: often enough to be noticed, seldom enough to be read."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from batcher.records import Batch, DeadLetter

log = structlog.get_logger(__name__)

QUIET_S: Final = 10.0
"""How long a reason that was logged is not logged again; what was refused meanwhile is in the next line."""

MAX_REASONS: Final = 10


class Refusals:
    """Warn about the dead letters of batches. Write loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._total = 0
        self._known: set[str] = set()
        self._pending: Counter[str] = Counter()
        self._first: dict[str, DeadLetter] = {}
        self._said_at: float | None = None

    def tell(self, batch: Batch, letters: Sequence[DeadLetter]) -> None:
        """Name the most frequent reason with the first record it was given for, unless that was just logged."""
        reasons = Counter(letter.reason for letter in letters)
        self._total += len(letters)
        self._pending += reasons
        for letter in letters:
            self._first.setdefault(letter.reason, letter)
        now = self._clock()
        if reasons.keys() <= self._known and self._said_at is not None and now - self._said_at < QUIET_S:
            return
        [(reason, count)] = self._pending.most_common(1)
        example = self._first[reason]
        record = example.record
        log.warning(
            "records_refused",
            reason=reason,
            count=count,
            message=example.message,
            **({"field": example.path} if example.path else {}),
            stage=example.stage,
            topic=record.partition.topic,
            partition=record.partition.number,
            offset=record.offset,
            reasons=dict(self._pending.most_common(MAX_REASONS)),
            total=self._total,
            of_batch=f"{len(letters)} of {batch.rows}",
            ranges=[str(span) for span in batch.ranges[:8]],
        )
        self._said_at = now
        self._known |= reasons.keys()
        self._pending.clear()
        self._first.clear()
