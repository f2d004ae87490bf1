"""Count what happened, for the summary and the status.

What the fetch loop publishes is counted in plain integers. The write loops share a lock. Readers on other threads may
see one number a moment before another.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace

from batcher.records import Delivered, Range, Records
from batcher.telemetry.events import (
    BatchWritten,
    CommitAnswered,
    Event,
    Rebalanced,
    RecordsFetched,
    RetriesEnded,
    WriteRetried,
)
from batcher.telemetry.status import Counts, LastError


@dataclass(frozen=True, slots=True)
class Counted:
    """Say what was counted so far."""

    counts: Counts
    dead_letter_reasons: Mapping[str, int]
    """The dead letters, by reason, the most frequent first."""
    unknown_fields: Mapping[str, int]
    """The rows with a value in a field that no column takes, by field, the most frequent first."""
    unknown_fields_estimated: bool
    """Some of these counts were scaled up from samples."""
    last_error: LastError | None
    """What last kept a block from being written, and whether it still does."""
    last_commit_age_s: float | None
    """The seconds since the last commit; None before the first."""


def together(several: Iterable[Counters]) -> Counted:
    """Return what several counters have counted. A failure that goes on comes before one that is over."""
    counts, reasons, unknown, estimated = Counts(), Counter[str](), Counter[str](), False
    errors: list[LastError] = []
    ages: list[float] = []
    for one in several:
        found = one.counted()
        counts = Counts(*(getattr(counts, each.name) + getattr(found.counts, each.name) for each in fields(Counts)))
        reasons.update(found.dead_letter_reasons)
        unknown.update(found.unknown_fields)
        estimated |= found.unknown_fields_estimated
        errors += [found.last_error] if found.last_error is not None else []
        ages += [found.last_commit_age_s] if found.last_commit_age_s is not None else []
    going_on = [error for error in errors if not error.recovered]
    # Of those that go on the oldest is the most urgent, of those that are over the latest is.
    error = max(going_on, key=_since) if going_on else min(errors, key=_since, default=None)
    return Counted(
        counts, dict(reasons.most_common()), dict(unknown.most_common()), estimated, error, min(ages, default=None)
    )


def _since(error: LastError) -> float:
    return error.since_s


class Counters:
    """Count what happens: a subscriber of `events.Events`.

    A pipeline has one for its fetch loop and one for each target.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._consumed = 0
        self._consumed_bytes = 0
        self._rebalances = 0
        self._delivered = Counts()
        self._reasons: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._estimated = False
        self._counting = threading.Lock()
        self._retries = 0
        self._error: BaseException | None = None
        self._failing_since = 0.0
        # How often each batch was tried that is being tried again.
        self._failing: Mapping[Range | None, int] = {}
        self._committed_at: float | None = None

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case RecordsFetched(run):
                self._fetched(run)
            case BatchWritten(batch, delivered):
                with self._counting:
                    self._recovered(batch.ranges[0])
                    self._written(delivered)
            case Rebalanced():
                self._rebalances += 1
            case CommitAnswered("ok"):
                self._committed_at = self._clock()
            case WriteRetried(error, _, span):
                with self._counting:
                    self._retried(error, span)
            case RetriesEnded(span):
                with self._counting:
                    self._recovered(span)
            case _:
                pass

    def _fetched(self, run: Records) -> None:
        self._consumed += len(run)
        self._consumed_bytes += run.nbytes

    def _retried(self, error: BaseException, span: Range | None) -> None:
        self._retries += 1
        if not self._failing:
            self._failing_since = self._clock()
        self._failing = {**self._failing, span: self._failing.get(span, 1) + 1}
        self._error = error

    def _recovered(self, span: Range) -> None:
        if self._failing:
            # What is of no batch has no end of its own.
            self._failing = {one: tries for one, tries in self._failing.items() if one not in (span, None)}

    def _written(self, delivered: Delivered) -> None:
        counts = self._delivered
        self._delivered = replace(
            counts,
            written=counts.written + delivered.written,
            dead_lettered=counts.dead_lettered + delivered.dead_lettered,
            skipped=counts.skipped + delivered.skipped,
            filtered=counts.filtered + delivered.filtered,
            paused=counts.paused + delivered.paused,
            duplicates_suppressed=counts.duplicates_suppressed + delivered.suppressed,
            batches=counts.batches + 1,
            released=counts.released + delivered.released,
        )
        # New objects replace old ones, because other threads read them meanwhile.
        self._reasons = self._reasons + Counter(delivered.reasons)
        self._unknown = self._unknown + Counter(delivered.unknown_fields)
        self._estimated |= bool(delivered.unknown_fields) and delivered.unknown_estimated

    def counted(self) -> Counted:
        """Return what was counted so far. Any thread."""
        return Counted(
            self.counts,
            dict(self._reasons.most_common()),
            dict(self._unknown.most_common()),
            self._estimated,
            self.last_error,
            None if self._committed_at is None else self._clock() - self._committed_at,
        )

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

    def attempts(self, span: Range) -> int:
        """Return how often the batch that begins with a range was offered to the target."""
        return self._failing.get(span, 1)

    @property
    def last_error(self) -> LastError | None:
        """Return what last kept a block from being written, and whether it, or another one, still does."""
        error = self._error
        if error is None:
            return None
        return LastError(type(error).__name__, str(error), self._clock() - self._failing_since, not self._failing)
