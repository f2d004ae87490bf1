"""Limits of a run: how many records may be refused, and how many are wanted.

The first protects the dead-letter queue: a bad deploy stops the pipeline, it does not dead-letter the topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
    """Something was neither refused nor skipped, in an earlier batch."""
    reasons: Counter[str] = field(default_factory=Counter)


class DeadLetterLimit:
    """Count refused records and raise before they become too many."""

    def __init__(self, policy: DeadLetterPolicy) -> None:
        self._policy = policy
        self._tally = _Tally()
        self._before = _Tally()
        self._batch = 0
        self._batch_refused = 0
        self._batch_skipped = 0
        self._bisected = 0
        self._examples: dict[str, DeadLetter] = {}

    def observe(self, rows: int, letters: Sequence[tuple[int, DeadLetter]], *, skipped: int = 0) -> None:
        """Count a batch of `rows` records of which `letters`, by ascending position, cannot be decoded.

        `skipped` of its records have no row by policy; those that a transform read and filtered are not counted there.
        Raise DeadLetterLimitExceeded when too many are refused. Then nothing of this batch may be committed.
        """
        tally = self._tally
        tally.loaded |= self._batch > self._batch_refused + self._batch_skipped
        self._before = replace(tally, reasons=tally.reasons.copy())
        tally.seen += rows
        self._batch, self._batch_refused, self._batch_skipped, self._bisected = rows, 0, skipped, 0
        expected = 0
        for position, letter in letters:
            if position != expected:
                tally.in_a_row = 0
            expected = position + 1
            self._count(letter)
        if expected != rows:
            tally.in_a_row = 0
        self._check_start()
        if tally.seen > WINDOW:
            tally.seen //= 2
            tally.refused //= 2
            tally.reasons = Counter({reason: count // 2 for reason, count in tally.reasons.items()})

    def take_back(self) -> None:
        """Forget the batch that was observed last: it will come again."""
        self._tally = self._before
        self._batch = self._batch_refused = self._batch_skipped = 0

    def refuse(self, letters: Sequence[DeadLetter]) -> None:
        """Count records of an observed batch that the sink refused. Raises as `observe` does."""
        for letter in letters:
            self._count(letter)
        self._check_start()

    def search(self) -> None:
        """Begin to look for refused records in a block: `bisect` counts from here on."""
        self._bisected = 0

    def bisect(self, what: str, refusal: BaseException) -> None:
        """Count a block of an observed batch that is to be halved, to find what was refused in it: two inserts.

        Raise DeadLetterLimitExceeded, caused by the refusal, when that is too many. `what` names the batch.
        """
        self._bisected += 2
        if self._bisected > self._policy.max_bisect:
            tried = f" and are not found with {self._policy.max_bisect} inserts" if self._policy.max_bisect else ""
            raise DeadLetterLimitExceeded(
                f"records of {what} were refused{tried}: {refusal}; nothing of that batch is committed. If the table "
                f"is right the data is wrong; to have more looked for raise --dlq.max-bisect"
            ) from refusal

    def _count(self, letter: DeadLetter) -> None:
        tally = self._tally
        tally.refused += 1
        tally.in_a_row += 1
        self._batch_refused += 1
        tally.reasons[letter.reason] += 1
        self._examples.setdefault(letter.reason, letter)
        if tally.in_a_row > self._policy.max_consecutive:
            self._stop(f"{tally.in_a_row} records in a row were refused", "--dlq.max-consecutive")
        # For one batch as well: after a long good past, half of all seen lately would be a million dead letters.
        for refused, seen in ((tally.refused, tally.seen), (self._batch_refused, self._batch)):
            if seen >= MIN_SAMPLE and refused > seen * self._policy.max_ratio:
                self._stop(f"{refused} of the last {seen} records were refused", "--dlq.max-ratio")

    def _check_start(self) -> None:
        tally = self._tally
        everything = not tally.loaded and self._batch_refused + self._batch_skipped >= self._batch
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
