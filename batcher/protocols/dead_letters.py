"""What the pipeline asks of a dead-letter queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from batcher.records import DeadLetter


class DeadLetterQueue(Protocol):
    """Keep refused records. `open` is called before any thread is started, the rest by the write loop."""

    def open(self) -> None:
        """Check that letters can be stored. Raise Unreachable, and be called again then, or ConfigurationError."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Store the letters. Returning means every one of them is durable.

        Raise DeadLetterFailed otherwise: all of them come again, in a while, and nothing of their batch is committed
        before. A repeat may store a letter twice; both carry the same coordinates.
        """

    def close(self) -> None:
        """Let go of everything. Twice is harmless."""
