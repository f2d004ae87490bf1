"""Keep count of what the threads did, for the summary, the status and the metrics.

Each method is called by one thread only (named in its docstring), once a fetch or a batch, so plain integers do;
readers on other threads may see one number a moment before another.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from batcher.records import Batch, Delivered, Records
from batcher.telemetry.status import Counts, LastError

if TYPE_CHECKING:  # it loads Prometheus, which most runs do without
    from batcher.telemetry.metrics import CommitOutcome, Metrics, Phase, RebalanceKind


class Observer:
    """Hear what happens and remember it. `metrics` None counts without Prometheus."""

    def __init__(self, metrics: Metrics | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
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

    def consumed(self, run: Records) -> None:
        """Count records that went into the buffer. Consumer thread."""
        rows, nbytes = len(run), run.nbytes
        self._consumed += rows
        self._consumed_bytes += nbytes
        if self._metrics is not None:
            self._metrics.consumed(run.partition, rows, nbytes)

    def spent(self, phase: Phase, seconds: float) -> None:
        """Add to the time spent in a phase. The thread whose phase it is."""
        if self._metrics is not None:
            self._metrics.spent(phase, seconds)

    def rebalanced(self, kind: RebalanceKind) -> None:
        """Count a change of partitions. Consumer thread."""
        self._rebalances += 1
        if self._metrics is not None:
            self._metrics.rebalanced(kind)

    def committed(self, outcome: CommitOutcome) -> None:
        """Count a commit. Consumer thread."""
        if outcome == "ok":
            self._committed_at = self._clock()
        if self._metrics is not None:
            self._metrics.committed(outcome)

    def retried(self, error: BaseException) -> None:
        """Count a failed try at the target that is followed by another. Flusher thread."""
        self._retries += 1
        self._attempts += 1
        if self._recovered:
            self._error = (error, self._clock())
            self._recovered = False
        elif self._error is not None:
            self._error = (error, self._error[1])
        if self._metrics is not None:
            self._metrics.retried(type(error).__name__)

    def delivered(self, batch: Batch, delivered: Delivered) -> None:
        """Count a batch whose every record is durable. Flusher thread."""
        self._recovered = True
        self._attempts = 1
        self.spent("decode", delivered.decode_s)
        self.spent("write", delivered.write_s)
        counts = self._delivered
        self._delivered = replace(
            counts,
            written=counts.written + delivered.written,
            dead_lettered=counts.dead_lettered + delivered.dead_lettered,
            skipped=counts.skipped + delivered.skipped,
            duplicates_suppressed=counts.duplicates_suppressed + delivered.suppressed,
            batches=counts.batches + 1,
        )
        # New ones in the place of old ones: other threads read them meanwhile.
        self._reasons = self._reasons + Counter(delivered.reasons)
        self._unknown = self._unknown + Counter(delivered.unknown_fields)
        self._estimated |= bool(delivered.unknown_fields) and delivered.unknown_estimated
        if self._metrics is not None:
            self._metrics.batch_delivered(
                trigger=batch.trigger,
                rows=delivered.rows,
                nbytes=delivered.nbytes,
                written=delivered.written,
                dead_lettered={
                    "decode": delivered.dead_lettered - delivered.refused_by_sink,
                    "sink": delivered.refused_by_sink,
                },
                reasons=delivered.reasons,
                unknown_fields=delivered.unknown_fields,
                skipped={"tombstone": delivered.skipped},
                duplicates_suppressed=delivered.suppressed,
                decode_s=delivered.decode_s,
                write_s=delivered.write_s,
                latency_s=_age_s(batch),
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
        """Tell whether some of these counts were scaled up from samples."""
        return self._estimated

    @property
    def attempts(self) -> int:
        """Return how often the batch in delivery was offered to the target."""
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


def _age_s(batch: Batch) -> float | None:
    # The first record of each partition is as good as its oldest: producers' timestamps ascend but for their jitter.
    firsts = [first for run in batch.runs if (first := run.timestamps_ms[0].as_py()) is not None]
    return time.time() - min(firsts) / 1000 if firsts else None
