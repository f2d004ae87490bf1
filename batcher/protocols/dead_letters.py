"""What the pipeline asks of a dead-letter queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batcher.records import DeadLetter


class DeadLetterQueue(Protocol):
    """Keep refused records. `open` is called before any thread is started, all else by the write loop."""

    def open(self) -> None:
        """Check that dead letters can be stored. Raise ConfigurationError, or Unreachable to be called again."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Store the dead letters. Returning means that every one of them is durable.

        Raise DeadLetterFailed otherwise. Then all of them come again after a while, and nothing of their batch is
        committed before. A repeat may store a dead letter twice; both copies carry the same coordinates.
        """

    def close(self) -> None:
        """Release everything. A second call is harmless."""
