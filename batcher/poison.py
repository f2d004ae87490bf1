"""The limit that protects the dead-letter queue: a bad deploy stops the pipeline, it does not dead-letter the topic."""

from __future__ import annotations

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
    """Say how many records may be refused: a share of all seen lately, and so many in a row."""

    max_ratio: float = 0.5
    max_consecutive: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.max_ratio <= 1:
            raise ConfigurationError("--dlq.max-ratio must be more than 0 and at most 1")
        if self.max_consecutive < 1:
            raise ConfigurationError("--dlq.max-consecutive must be at least 1")


class PoisonLimit:
    """Count refused records and raise before they become too many."""

    def __init__(self, policy: PoisonPolicy) -> None:
        self._policy = policy
        self._seen = 0
        self._refused = 0
        self._in_a_row = 0

    def observe(self, rows: int, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        """Count a batch of `rows` records of which `letters`, by ascending position, cannot be decoded.

        Raise PoisonLimitExceeded when that is too many; nothing of this batch may be committed then.
        """
        self._seen += rows
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

    def refuse(self, letters: Sequence[DeadLetter]) -> None:
        """Count records of an observed batch that the sink refused. Raises as `observe` does."""
        for letter in letters:
            self._count(letter)

    def _count(self, letter: DeadLetter) -> None:
        self._refused += 1
        self._in_a_row += 1
        if self._in_a_row > self._policy.max_consecutive:
            self._stop(letter, f"{self._in_a_row} records in a row were refused", "--dlq.max-consecutive")
        if self._seen >= MIN_SAMPLE and self._refused > self._seen * self._policy.max_ratio:
            self._stop(letter, f"{self._refused} of the last {self._seen} records were refused", "--dlq.max-ratio")

    def _stop(self, letter: DeadLetter, what: str, flag: str) -> None:
        record = letter.record
        raise PoisonLimitExceeded(
            f"{what}, such as {record.partition} offset {record.offset}: {letter.message}; nothing of their batch is "
            f"committed. If the data is right the schema is wrong; to let more through raise {flag}"
        )
