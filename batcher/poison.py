"""The limit that protects the dead-letter queue: a bad deploy stops the pipeline, it does not dead-letter the topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from batcher.errors import ConfigurationError, PoisonLimitExceeded
from batcher.records import DeadLetter

MIN_SAMPLE: Final = 1000
"""Records before the ratio counts: the first record ever being bad is one of one, and means nothing."""

WINDOW: Final = 1_000_000
"""Records after which older ones count half, so that a day of good records does not hide a bad deploy."""


@dataclass(frozen=True, slots=True)
class PoisonPolicy:
    """Say how many records may be refused: a share of all seen lately and of each batch, and so many in a row.

    `max_bisect` bounds the inserts that finding the refused records of one batch may take; 0 has none looked for.
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


class PoisonLimit:
    """Count refused records and raise before they become too many."""

    def __init__(self, policy: PoisonPolicy) -> None:
        self._policy = policy
        self._seen = 0
        self._refused = 0
        self._in_a_row = 0
        self._batch = 0
        self._batch_refused = 0
        self._bisected = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, DeadLetter] = {}

    def observe(self, rows: int, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        """Count a batch of `rows` records of which `letters`, by ascending position, cannot be decoded.

        Raise PoisonLimitExceeded when that is too many; nothing of this batch may be committed then.
        """
        self._seen += rows
        self._batch, self._batch_refused, self._bisected = rows, 0, 0
        expected = 0
        for position, letter in letters:
            if position != expected:
                self._in_a_row = 0
            expected = position + 1
            self._count(letter)
        if expected != rows:
            self._in_a_row = 0
        if self._seen > WINDOW:
            self._seen //= 2
            self._refused //= 2
            self._reasons = Counter({reason: count // 2 for reason, count in self._reasons.items()})

    def refuse(self, letters: Sequence[DeadLetter]) -> None:
        """Count records of an observed batch that the sink refused. Raises as `observe` does."""
        for letter in letters:
            self._count(letter)

    def bisect(self, what: str, refusal: BaseException) -> None:
        """Count a block of an observed batch that is to be halved, to find what was refused in it: two inserts.

        Raise PoisonLimitExceeded, for the refusal, when that is too many. `what` names the batch.
        """
        self._bisected += 2
        if self._bisected > self._policy.max_bisect:
            tried = f" and are not found with {self._policy.max_bisect} inserts" if self._policy.max_bisect else ""
            raise PoisonLimitExceeded(
                f"records of {what} were refused{tried}: {refusal}; nothing of that batch is committed. If the table "
                f"is right the data is wrong; to have more looked for raise --dlq.max-bisect"
            ) from refusal

    def _count(self, letter: DeadLetter) -> None:
        self._refused += 1
        self._in_a_row += 1
        self._batch_refused += 1
        self._reasons[letter.reason] += 1
        self._examples.setdefault(letter.reason, letter)
        if self._in_a_row > self._policy.max_consecutive:
            self._stop(f"{self._in_a_row} records in a row were refused", "--dlq.max-consecutive")
        # Of one batch as well: after a long good past, half of all seen lately would be a million dead letters.
        for refused, seen in ((self._refused, self._seen), (self._batch_refused, self._batch)):
            if seen >= MIN_SAMPLE and refused > seen * self._policy.max_ratio:
                self._stop(f"{refused} of the last {seen} records were refused", "--dlq.max-ratio")

    def _stop(self, what: str, flag: str) -> None:
        [(reason, _)] = self._reasons.most_common(1)
        example = self._examples[reason]
        record = example.record
        raise PoisonLimitExceeded(
            f"{what}, most of them for {reason}, such as {record.partition} offset {record.offset}: {example.message}; "
            f"nothing of their batch is committed. If the data is right the schema is wrong; to let more through raise "
            f"{flag}"
        )
