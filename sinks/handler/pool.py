"""What the sink asks of a pool of workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sinks.handler.timers import CallTimer
from sinks.handler.work import BlockWork


class CallPool(Protocol):
    """Call a handler, at most as often at once as there are workers. They are made once."""

    @property
    def timers(self) -> Sequence[CallTimer]:
        """Return how long calls took. Any thread."""

    def start(self) -> None:
        """Make the workers. Raise HandlerFault where the handler cannot be made."""

    def run(self, work: BlockWork) -> None:
        """Work a block through. Returns when nothing of it runs any more, or was given up. One call at a time."""

    def stop(self, work: BlockWork) -> None:
        """Have no further call begin, so that `run` returns when those that run have ended. Any thread."""

    def give_up(self, work: BlockWork) -> None:
        """Let `run` return at once, whatever still runs. Any thread."""

    def close(self) -> None:
        """End the workers, as far as that can be done."""
