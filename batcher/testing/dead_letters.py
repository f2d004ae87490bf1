"""A dead-letter queue in memory."""

from __future__ import annotations

from collections.abc import Sequence

from batcher.errors import DeadLetterFailed
from batcher.records import DeadLetter, Partition


class MemoryDeadLetterQueue:
    """Keep dead letters in a list; refuse them all while `broken`, and as often as `failures` says."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.broken = False
        self.failures = 0

    def open(self) -> None:
        """Do nothing: memory is always there."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Keep the dead letters."""
        if self.broken or self.failures:
            self.failures = max(0, self.failures - 1)
            raise DeadLetterFailed("the dead-letter queue in memory is broken; repair it and start again")
        self.letters.extend(letters)

    def close(self) -> None:
        """Do nothing."""

    def coordinates(self) -> set[tuple[Partition, int]]:
        """Return where the dead letters came from."""
        return {(letter.record.partition, letter.record.offset) for letter in self.letters}
