"""How long calls took, by outcome. Each worker has a timer of its own, so that none waits for another."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from batcher.handler.call import KINDS, Result, Results
from batcher.protocols.measure import Distribution

BOUNDS: Final = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: from calls that do nothing to those that a lease hardly outlives."""


class CallTimer:
    """Count the messages of one worker, each with the seconds of its call. Others may read it meanwhile."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {kind: [0] * (len(BOUNDS) + 1) for kind in KINDS}
        self._totals: dict[str, float] = dict.fromkeys(KINDS, 0.0)

    def observe(self, results: Results, seconds: float) -> None:
        """Count a call."""
        bucket = bisect_left(BOUNDS, seconds)
        for result in results:
            kind = kind_of(result)
            self._counts[kind][bucket] += 1
            self._totals[kind] += seconds

    def distribution(self, kind: str) -> Distribution:
        """Return what was counted of one outcome."""
        return Distribution(BOUNDS, tuple(self._counts[kind]), self._totals[kind])


def kind_of(result: Result) -> str:
    """Return the outcome as the metrics name it."""
    return "done" if result is None else result.kind


def distributions(timers: Iterable[CallTimer]) -> dict[str, float | Distribution]:
    """Return what all workers have counted, by outcome."""
    nothing = CallTimer()
    found: dict[str, Distribution] = {kind: nothing.distribution(kind) for kind in KINDS}
    for timer in timers:
        for kind in KINDS:
            found[kind] += timer.distribution(kind)
    return dict(found)
