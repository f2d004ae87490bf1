"""A clock that stands still until it is told otherwise."""

from __future__ import annotations


class ManualClock:
    """Count seconds by hand. Call it for the time; `sleep` and `advance` move it forward at once."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass and remember how much was asked for."""
        self.sleeps.append(seconds)
        self.advance(seconds)
