"""Count what happened, for the summary and the status.

Each kind of event is published by one thread only, once a fetch or a batch, so plain integers suffice. Readers on other
threads may see one number a moment before another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from batcher.records import Delivered, Records
from batcher.telemetry.events import (
    BatchWritten,
    CommitAnswered,
    Event,
    Rebalanced,
    RecordsFetched,
    WriteRetried,
)
from batcher.telemetry.status import Counts, LastError


class Counters:
    """Count what happens: a subscriber of `events.Events`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._consumed = 0
        self._consumed_bytes = 0
        self._rebalances = 0
        self._delivered = Counts()
        self._reasons: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._estimated = False
        self._retries = 0
        self._error: tuple[BaseException, float] | None = None
        self._recovered = True
        self._attempts = 1
        self._committed_at: float | None = None

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case RecordsFetched(run):
                self._fetched(run)
            case BatchWritten(_, delivered):
                self._written(delivered)
            case Rebalanced():
                self._rebalances += 1
            case CommitAnswered("ok"):
                self._committed_at = self._clock()
            case WriteRetried(error):
                self._retried(error)
            case _:
                pass

    def _fetched(self, run: Records) -> None:
        self._consumed += len(run)
        self._consumed_bytes += run.nbytes

    def _retried(self, error: BaseException) -> None:
        self._retries += 1
        self._attempts += 1
        since = self._clock() if self._recovered or self._error is None else self._error[1]
        self._error = (error, since)
        self._recovered = False

    def _written(self, delivered: Delivered) -> None:
        self._recovered = True
        self._attempts = 1
        counts = self._delivered
        self._delivered = replace(
            counts,
            written=counts.written + delivered.written,
            dead_lettered=counts.dead_lettered + delivered.dead_lettered,
            skipped=counts.skipped + delivered.skipped,
            filtered=counts.filtered + delivered.filtered,
            duplicates_suppressed=counts.duplicates_suppressed + delivered.suppressed,
            batches=counts.batches + 1,
        )
        # New objects replace old ones, because other threads read them meanwhile.
        self._reasons = self._reasons + Counter(delivered.reasons)
        self._unknown = self._unknown + Counter(delivered.unknown_fields)
        self._estimated |= bool(delivered.unknown_fields) and delivered.unknown_estimated

    @property
    def counts(self) -> Counts:
        """Return the counts so far."""
        return replace(
            self._delivered,
            consumed=self._consumed,
            consumed_bytes=self._consumed_bytes,
            retries=self._retries,
            rebalances=self._rebalances,
        )

    @property
    def dead_letter_reasons(self) -> Mapping[str, int]:
        """Return the dead letters so far, by reason, the most frequent first."""
        return dict(self._reasons.most_common())

    @property
    def unknown_fields(self) -> Mapping[str, int]:
        """Return the rows so far with a value in a field that no column takes, by field, the most frequent first."""
        return dict(self._unknown.most_common())

    @property
    def unknown_fields_estimated(self) -> bool:
        """Return whether some of these counts were scaled up from samples."""
        return self._estimated

    @property
    def attempts(self) -> int:
        """Return how often the batch in flight was offered to the target."""
        return self._attempts

    @property
    def last_error(self) -> LastError | None:
        """Return what last kept a block from being written, and whether it still does."""
        if self._error is None:
            return None
        error, since = self._error
        return LastError(type(error).__name__, str(error), self._clock() - since, self._recovered)

    @property
    def last_commit_age_s(self) -> float | None:
        """Return the seconds since the last commit; None before the first."""
        return None if self._committed_at is None else self._clock() - self._committed_at
