"""What became of dead letters that were loaded again, and the steps and the speed in which that is done."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batcher.dead_letters.encoding import one_line
from batcher.dead_letters.kit.select import StoredLetter


class Failure(NamedTuple):
    """Name a record that failed again: its coordinates, as `StoredLetter.id`, and why."""

    id: str
    reason: str
    message: str


@dataclass(slots=True)
class ReplayReport:
    """Count what became of dead letters. `failures` has one entry for each that failed again."""

    replayed: int = 0
    already_there: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """Records that have a value in a field that no column takes, by field."""

    @property
    def failed_again(self) -> Counter[str]:
        """Return how many failed again for each reason."""
        return Counter(failure.reason for failure in self.failures)

    @property
    def empty(self) -> bool:
        """Return whether there was no dead letter at all."""
        return not (self.replayed or self.already_there or self.failures or self.skipped.total())

    @property
    def all_there(self) -> bool:
        """Return whether every dead letter is where it belongs: none failed again, none was skipped."""
        return not self.failures and not self.skipped.total()

    def fail(self, stored: StoredLetter, reason: str, message: str) -> None:
        """Count a record that failed again."""
        self.failures.append(Failure(stored.id, reason, one_line(message)))

    def facts(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {
            "replayed": self.replayed,
            "already_there": self.already_there,
            "failed_again": dict(sorted(self.failed_again.items())),
            "skipped": {why: count for why, count in sorted(self.skipped.items()) if count},
            "unknown_fields": dict(self.unknown.most_common()),
            "failed": [failure._asdict() for failure in self.failures],
        }


class Pace:
    """Wait after each step, so that no more than `rate` dead letters a second go through; None is no limit.

    Setting `stop` ends a wait. `clock` returns seconds.
    """

    def __init__(self, rate: float | None, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._stop = stop
        self._clock = clock
        self._started_s = clock()
        self._done = 0

    def step(self, max_rows: int) -> int:
        """Return how many dead letters may go through in one step: those of a second, but at least one."""
        return max_rows if self._rate is None else max(1, min(max_rows, int(self._rate)))

    def passed(self, rows: int) -> None:
        """Wait after a step of `rows` dead letters."""
        if self._rate is None:
            return
        self._done += rows
        left_s = self._done / self._rate - (self._clock() - self._started_s)
        if left_s > 0:
            self._stop.wait(left_s)


def steps(letters: Iterable[StoredLetter], max_rows: int, max_bytes: int) -> Iterator[list[StoredLetter]]:
    """Yield the dead letters in lists of at most `max_rows`, and `max_bytes` of records; a larger one goes alone."""
    step: list[StoredLetter] = []
    nbytes = 0
    for stored in letters:
        if step and (len(step) >= max_rows or nbytes + stored.nbytes > max_bytes):
            yield step
            step, nbytes = [], 0
        step.append(stored)
        nbytes += stored.nbytes
    if step:
        yield step
