"""How a run goes now, counted from what its pipeline says: for the live line, and for the log on a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batcher.cli.support.spans import plural, span

if TYPE_CHECKING:
    from batcher.engine.pipeline import Pipeline
    from batcher.telemetry.status import Status

WINDOW_S: Final = 5.0
"""The time over which the rate is taken: long enough for batches of a second, short enough to be the present."""

TREND_S: Final = 20.0
"""The time over which the lag is compared with itself; the client counts it every 5 s."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Say how a run goes. What is not known is None. `share` is how much of a run with an end is done."""

    state: str
    rows: int
    done: int
    rate: float
    dead_letters: int
    lag: int | None = None
    eta_s: float | None = None
    share: float | None = None
    waiting: str = ""

    @property
    def facts(self) -> list[str]:
        """Return the parts of a line for people, each whole in itself."""
        found = [f"{plural(self.rows, 'row')} written", f"{self.rate:,.0f} rows/s"]
        if self.lag is not None:
            found.append(f"lag {self.lag:,}")
        if self.eta_s is not None and self.lag:
            found.append(f"ETA {span(self.eta_s)}")
        if self.dead_letters:
            found.append(plural(self.dead_letters, "dead letter"))
        return found


class RunMeter:
    """Look at a pipeline again and again. With `ends` it is one that stops at the end of what there is.

    One thread only.
    """

    def __init__(self, pipeline: Pipeline, *, ends: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pipeline = pipeline
        self._ends = ends
        self._clock = clock
        self._done: deque[tuple[float, int]] = deque()
        self._lags: deque[tuple[float, int]] = deque()
        self._counted: tuple[int, int] | None = None
        self._total: int | None = None

    def look(self) -> RunProgress:
        """Return how it goes now."""
        status = self._pipeline.status()
        counts, now = status.counts, self._clock()
        done = counts.written + counts.dead_lettered + counts.skipped + counts.duplicates_suppressed + counts.released
        rate = self._rate(now, done)
        lag = self._lag(status, done)
        share, eta_s = None, self._until_caught_up(now, lag)
        if self._ends and lag is not None:
            # What comes in meanwhile is not waited for.
            self._total = done + lag if self._total is None else self._total
            lag = max(self._total - done, 0)
            share = 1.0 if not self._total else min(done / self._total, 1.0)
            eta_s = lag / rate if rate else None
        return RunProgress(
            status.state, counts.written, done, rate, counts.dead_lettered, lag, eta_s, share, _waiting(status)
        )

    def _rate(self, now: float, done: int) -> float:
        self._done.append((now, done))
        while len(self._done) > 2 and now - self._done[1][0] >= WINDOW_S:
            self._done.popleft()
        began, before = self._done[0]
        return (done - before) / (now - began) if now > began else 0.0

    def _lag(self, status: Status, done: int) -> int | None:
        """Return the lag less what was done since the client counted it, which is some seconds ago."""
        found = [one.lag for one in status.partitions.values() if one.lag is not None]
        if not found:
            return None
        counted = sum(found)
        if self._counted is None or self._counted[0] != counted:
            self._counted = (counted, done)
        return max(counted - (done - self._counted[1]), 0)

    def _until_caught_up(self, now: float, lag: int | None) -> float | None:
        if lag is None:
            return None
        self._lags.append((now, lag))
        while len(self._lags) > 2 and now - self._lags[1][0] >= TREND_S:
            self._lags.popleft()
        began, before = self._lags[0]
        if not lag or now - began < WINDOW_S or lag >= before:
            return None
        return lag * (now - began) / (before - lag)


def _waiting(status: Status) -> str:
    """Return what holds a run up, or what it does, in words; never empty."""
    if status.state == "draining":
        return "writing and committing what was read"
    if status.off_switch:
        return status.off_switch
    return f"waiting for {status.waiting_for}" if status.waiting_for else "writing"
