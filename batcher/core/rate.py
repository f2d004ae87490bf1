"""How fast batches may be begun, so that a target or a person's function gets no more rows a second than it bears.

Pure: `now` is an argument, in seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from batcher.errors import ConfigurationError

BATCH_S: Final = 1.0
"""A batch holds at most what the rate allows in this time: otherwise a target would get bursts, and a stop would wait
for one."""


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """Say how many rows a second may be written on average, and how long a stop may go on keeping to that."""

    rows_s: float
    drain_s: float = 12.5

    def __post_init__(self) -> None:
        if not self.rows_s > 0:
            raise ConfigurationError("--batch.rate must be more than 0; try 1000/s")

    def rows_of_batch(self, most: int) -> int:
        """Return how many rows a batch may have, where it may have `most` without a rate."""
        return max(1, min(most, int(self.rows_s * BATCH_S)))


class RateLimit:
    """Say when the next batch may be begun. A batch pays for its rows afterwards: nothing is saved up while idle."""

    def __init__(self, policy: RatePolicy) -> None:
        self._policy = policy
        self._rows_s = policy.rows_s
        self._free_at = float("-inf")

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next batch may be begun; 0.0 where it may be now."""
        return max(0.0, self._free_at - now)

    def begin(self, rows: int, now: float) -> None:
        """Note that a batch is begun."""
        self._free_at = max(self._free_at, now) + rows / self._rows_s

    def hurry(self, rows: int, now: float) -> None:
        """Let so many rows, the last ones, pass in the time of a stop: as fast as they have to, and no faster."""
        before_s = self.wait_s(now)
        self._rows_s = max(self._rows_s, (rows + before_s * self._rows_s) / self._policy.drain_s)
        self._free_at = min(self._free_at, now + before_s * self._policy.rows_s / self._rows_s)
