"""How many workers there should be for what is left to do. Pure: `now` is an argument, in seconds of one clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

DOWN_AFTER_S: Final = 60.0
"""How long fewer workers have to be enough before one is drained: each that comes or goes costs the others a moment."""


class Backlog(NamedTuple):
    """Say what one worker knows of the records that are left; `whole` where it sees those of all, as with a queue."""

    records: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ScalePolicy:
    """Say between which numbers there may be workers, and for how many records of backlog one is there."""

    least: int
    most: int
    records_each: int


class Scaler:
    """Say how many workers there should be: more at once, one fewer after a minute in which that would have done."""

    def __init__(self, policy: ScalePolicy) -> None:
        self._policy = policy
        self._calm_since: float | None = None

    def wanted(self, backlogs: Iterable[Backlog], running: int, now: float) -> int:
        """Return the number for what the workers have said; as many as there are where none has said anything."""
        known = list(backlogs)
        if not known:
            return running
        shares = sum(one.records for one in known if not one.whole)
        records = max([shares, *(one.records for one in known if one.whole)])
        enough = -(-records // self._policy.records_each)
        enough = min(max(enough, self._policy.least), self._policy.most)
        if enough >= running:
            self._calm_since = None
            return enough
        if self._calm_since is None:
            self._calm_since = now
        if now - self._calm_since < DOWN_AFTER_S:
            return running
        self._calm_since = now
        return running - 1
