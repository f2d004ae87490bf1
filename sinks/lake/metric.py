"""What a lake table measures of itself: how long commits take, and how many versions of it there are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from batcher.protocols import Distribution, Measure

BOUNDS_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class CommitTimes:
    """Count commits by their seconds. One thread adds; any may ask, and then sees what was there a moment ago."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._total = 0.0
        self.versions = 0
        """Versions (snapshots) of the table at the last look."""

    def add(self, seconds: float, versions: int) -> None:
        """Count one commit, after which there are so many versions."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._total += seconds
        self.versions = versions

    def measures(self, meaning: str) -> Sequence[Measure]:
        """Return both as measures; `meaning` says what the number of versions is, as the help of the metric."""
        times = Distribution(BOUNDS_S, tuple(self._counts), self._total)
        return (
            Measure("lake_commit_seconds", "Seconds that a commit to the table took.", "histogram", {"": times}),
            Measure("lake_snapshots", meaning, "gauge", {"": float(self.versions)}),
        )
