"""What `batcher produce` asks of a queue that it fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from batcher.records import Headers


class Outgoing(NamedTuple):
    """Hold a message to send. `delay_s` and `priority` are for queues that know them, and refused by others."""

    value: bytes
    key: bytes | None = None
    headers: Headers = ()
    delay_s: float = 0.0
    priority: int = 0


class Publisher(Protocol):
    """Send messages to one queue. Called by one thread.

    A source offers one by an attribute `publisher` of its plug-in: a function `publisher(options, *, create)` that
    takes the source's own options, makes the queue where `create` says so, and returns this. It raises
    ConfigurationError or Unreachable.
    """

    @property
    def target(self) -> str:
        """Return the name of the queue, for people."""

    @property
    def batch(self) -> int:
        """Return how many messages are best sent at a time."""

    def publish(self, messages: Sequence[Outgoing], timeout_s: float) -> Sequence[str]:
        """Send some messages, at most `batch`; return why those that were refused were, one line for each.

        Returning means that the queue has stored all others. Raise Unreachable when it does not answer in time: how
        many of these were stored is not known then.
        """

    def close(self) -> None:
        """Let go of the connection. A second call is harmless."""
