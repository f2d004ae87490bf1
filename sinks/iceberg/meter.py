"""What a table measures of its commits, for the metrics and the status."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

from batcher.protocols.measure import Distribution, Measure

BOUNDS_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class CommitMeter:
    """Count commits by how long they took. One thread writes; any may ask."""

    def __init__(self) -> None:
        self._seconds = Distribution(BOUNDS_S, (0,) * (len(BOUNDS_S) + 1), 0.0)
        self._snapshots = 0

    def took(self, seconds: float) -> None:
        """Count a commit, its files included."""
        counts = list(self._seconds.counts)
        counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._seconds = Distribution(BOUNDS_S, tuple(counts), self._seconds.total + seconds)

    def kept(self, snapshots: int) -> None:
        """Take note of how many snapshots the table has."""
        self._snapshots = snapshots

    def measures(self) -> Sequence[Measure]:
        """Return the seconds of commits and the number of snapshots."""
        return (
            Measure(
                "lake_commit_seconds", "Seconds that a commit took, files included.", "histogram", {"": self._seconds}
            ),
            Measure("lake_versions", "Snapshots that the table keeps.", "gauge", {"": float(self._snapshots)}),
        )
