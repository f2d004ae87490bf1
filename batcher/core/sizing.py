"""Fewer and larger batches for a target that cannot merge as fast as it is written to.

Every insert makes a part. A table with too many parts first delays inserts, then refuses them, and trying again with
batches of the same size keeps it there. So batches grow, in rows, bytes and wait, until the target has recovered. Then
they shrink back. Only batches that are still to be cut change: a sealed range never does. Pure.
"""

from __future__ import annotations

from typing import Final

CEILING: Final = 16
"""Batches grow to this many times the settings at most: 16 s where they would be written every second."""

GROW_EVERY_S: Final = 10.0
"""A step needs time to show: merges of small parts take seconds."""

SHRINK_EVERY_S: Final = 120.0
"""This is much slower than growing, or the size would swing with every merge."""

LOOK_EVERY_S: Final = 15.0
"""How often the target is asked while all is well: the answer costs it some milliseconds."""

HIGH: Final = 0.5
"""The share of what a target bears above which batches grow; at 1.0 it slows inserts down by itself."""

LOW: Final = 0.25


class Sizing:
    """Decide the factor by which batches are larger than the settings say. An answer is None where it stays."""

    def __init__(self, now: float) -> None:
        self._changed_at = now
        self._looked_at = now
        self._calm = True
        self.factor = 1

    def refused(self, now: float) -> int | None:
        """Learn that the target had more writes than it can bear, and return the new factor."""
        self._calm = False
        return self._grown(now)

    def look_due(self, now: float) -> bool:
        """Return whether the target is to be asked for its load; it counts as asked then."""
        due = now - self._looked_at >= LOOK_EVERY_S
        if due:
            self._looked_at = now
        return due

    def loaded(self, pressure: float, now: float) -> int | None:
        """Learn the load of the target as a share of what it bears, and return the new factor."""
        self._calm = pressure < LOW
        return self._grown(now) if pressure > HIGH else None

    def silent(self) -> None:
        """Learn that the target does not say how loaded it is: a write that went well has to suffice."""
        self._calm = True

    def wrote(self, now: float) -> int | None:
        """Learn that a batch was written, and return the new factor."""
        if self._calm and self.factor > 1 and now - self._changed_at >= SHRINK_EVERY_S:
            return self._set(self.factor // 2, now)
        return None

    def _grown(self, now: float) -> int | None:
        at_once = self.factor == 1
        if self.factor < CEILING and (at_once or now - self._changed_at >= GROW_EVERY_S):
            return self._set(self.factor * 2, now)
        return None

    def _set(self, factor: int, now: float) -> int:
        self._changed_at = now
        self.factor = factor
        return factor
