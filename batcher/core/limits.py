"""Limits of a run: how many records may be refused, and how many are wanted.

The first protects the dead-letter queue: a bad deploy stops the pipeline, it does not dead-letter the topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from batcher.errors import ConfigurationError, DeadLetterLimitExceeded
from batcher.records import DeadLetter

MIN_SAMPLE: Final = 1000
"""Records before the ratio counts: if the very first record is bad that is one of one, and means nothing."""

MIN_START: Final = 10
"""The same as long as no record could be loaded: a pipeline that was set up wrong refuses everything."""

WINDOW: Final = 1_000_000
"""After this many records older ones count half, so that a day of good records does not hide a bad deploy."""


@dataclass(frozen=True, slots=True)
class DeadLetterPolicy:
    """Say how many records may be refused: a share of all seen lately and of each batch, and a number in a row.

    `max_bisect` bounds the inserts that the search for the refused records of one batch may take; 0 means no search.
    """

    max_ratio: float = 0.5
    max_consecutive: int = 1000
    max_bisect: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.max_ratio <= 1:
            raise ConfigurationError("--dlq.max-ratio must be more than 0 and at most 1")
        if self.max_consecutive < 1:
            raise ConfigurationError("--dlq.max-consecutive must be at least 1")
        if self.max_bisect < 0:
            raise ConfigurationError("--dlq.max-bisect must not be less than 0")


@dataclass(slots=True)
class _Tally:
    """Count since the start, older records by half."""

    seen: int = 0
    refused: int = 0
    in_a_row: int = 0
    loaded: bool = False
    """Something was neither refused nor skipped, in a batch that is durable."""
    reasons: Counter[str] = field(default_factory=Counter)
    halvings: int = 0


@dataclass(slots=True)
class BatchTally:
    """Count one batch, beside others that are written at the same time."""

    rows: int
    skipped: int
    in_a_row_before: int
    halvings: int
    refused: int = 0
    bisected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class DeadLetterLimit:
    """Count refused records and raise before they become too many. Several batches may be counted at the same time."""

    def __init__(self, policy: DeadLetterPolicy) -> None:
        self._policy = policy
        self._tally = _Tally()
        self._examples: dict[str, DeadLetter] = {}

    def observe(self, rows: int, letters: Sequence[tuple[int, DeadLetter]], *, skipped: int = 0) -> BatchTally:
        """Count a batch of `rows` records of which `letters`, by ascending position, cannot be decoded.

        `skipped` of its records have no row by policy; those that a transform read and filtered are not counted there.
        Raise DeadLetterLimitExceeded when too many are refused. Then nothing of this batch may be committed.
        """
        tally = self._tally
        batch = BatchTally(rows, skipped, tally.in_a_row, tally.halvings)
        tally.seen += rows
        expected = 0
        for position, letter in letters:
            if position != expected:
                tally.in_a_row = 0
            expected = position + 1
            self._count(batch, letter)
        if expected != rows:
            tally.in_a_row = 0
        self._check_start(batch)
        if tally.seen > WINDOW:
            tally.seen //= 2
            tally.refused //= 2
            tally.reasons = Counter({reason: count // 2 for reason, count in tally.reasons.items()})
            tally.halvings += 1
        return batch

    def settle(self, batch: BatchTally) -> None:
        """Note that a batch is durable."""
        self._tally.loaded |= batch.rows > batch.refused + batch.skipped

    def take_back(self, batch: BatchTally) -> None:
        """Forget an observed batch: it will come again."""
        tally = self._tally
        halved = tally.halvings - batch.halvings
        tally.seen = max(0, tally.seen - (batch.rows >> halved))
        tally.refused = max(0, tally.refused - (batch.refused >> halved))
        tally.reasons -= Counter({reason: count >> halved for reason, count in batch.reasons.items()})
        # What others counted meanwhile cannot be told apart. It counts less, and the share counts in any case.
        tally.in_a_row = batch.in_a_row_before

    def refuse(self, batch: BatchTally, letters: Sequence[DeadLetter]) -> None:
        """Count records of an observed batch that the sink refused. Raises as `observe` does."""
        for letter in letters:
            self._count(batch, letter)
        self._check_start(batch)

    def bisect(self, batch: BatchTally, what: str, refusal: BaseException) -> None:
        """Count a block of an observed batch that is to be halved, to find what was refused in it: two inserts.

        Raise DeadLetterLimitExceeded, caused by the refusal, when that is too many. `what` names the batch. A search
        that begins anew sets `BatchTally.bisected` to 0.
        """
        batch.bisected += 2
        if batch.bisected > self._policy.max_bisect:
            tried = f" and are not found with {self._policy.max_bisect} inserts" if self._policy.max_bisect else ""
            raise DeadLetterLimitExceeded(
                f"records of {what} were refused{tried}: {refusal}; nothing of that batch is committed. If the table "
                f"is right the data is wrong; to have more looked for raise --dlq.max-bisect"
            ) from refusal

    def _count(self, batch: BatchTally, letter: DeadLetter) -> None:
        tally = self._tally
        tally.refused += 1
        tally.in_a_row += 1
        tally.reasons[letter.reason] += 1
        batch.refused += 1
        batch.reasons[letter.reason] += 1
        self._examples.setdefault(letter.reason, letter)
        if tally.in_a_row > self._policy.max_consecutive:
            self._stop(f"{tally.in_a_row} records in a row were refused", "--dlq.max-consecutive")
        # For one batch as well: after a long good past, half of all seen lately would be a million dead letters.
        for refused, seen in ((tally.refused, tally.seen), (batch.refused, batch.rows)):
            if seen >= MIN_SAMPLE and refused > seen * self._policy.max_ratio:
                self._stop(f"{refused} of the last {seen} records were refused", "--dlq.max-ratio")

    def _check_start(self, batch: BatchTally) -> None:
        tally = self._tally
        everything = not tally.loaded and batch.refused + batch.skipped >= batch.rows
        if everything and tally.refused >= MIN_START and self._policy.max_ratio < 1:
            self._stop(f"every record so far, {tally.refused}, was refused", "--dlq.max-ratio to 1")

    def _stop(self, what: str, flag: str) -> None:
        [(reason, _)] = self._tally.reasons.most_common(1)
        example = self._examples[reason]
        record = example.record
        raise DeadLetterLimitExceeded(
            f"{what}, most of them for {reason}, such as {record.partition} offset {record.offset}: {example.message}; "
            f"nothing of their batch is committed. If the data is right the schema is wrong; to let more through raise "
            f"{flag}"
        )


class RecordLimit:
    """Count down the records that are wanted of a run; None for all. Its targets share one. Fetch loop."""

    def __init__(self, wanted: int | None = None) -> None:
        self.left = wanted

    def take(self, records: int) -> None:
        """Count new records."""
        if self.left is not None:
            self.left = max(0, self.left - records)
