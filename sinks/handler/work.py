"""The calls of one block: who takes which, in which order, and what became of each message.

A *unit* is what one call gets: one row, or several where the handler takes lists. A *lane* is units that follow each
other; lanes do not wait for each other. Without an order each unit is a lane of its own.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Sequence
from typing import Any, Final

from batcher.handler.call import CallOutcome, Result, Results, holds_back
from batcher.handler.message import Message

Row = tuple[Any, ...]
"""The arguments of a `Message`."""

ATTEMPT: Final = 8
"""Where its attempt is."""

UNBEGUN: Final = CallOutcome("retry", "it was not begun")
"""What becomes of a message that was not handed out. It is no attempt."""

RowUnit = Sequence[int]
RowLane = Sequence[RowUnit]


class BlockWork:
    """Hold the calls of a block. Workers take lanes and settle units; `wait` returns when nothing runs any more.

    Each row is settled by the worker that took its lane, so results need no lock. `workers` is how many are told of it.
    """

    def __init__(
        self, rows: Sequence[Row], lanes: Sequence[RowLane], *, ordered: bool, max_attempts: int, workers: int
    ) -> None:
        self.rows = rows
        self.lanes = lanes
        self.ordered = ordered
        self.max_attempts = max_attempts
        self.workers = min(workers, len(lanes))
        self.results: list[Result] = [UNBEGUN] * len(rows)
        self.stopping = False
        """Nothing more is to begin. Read by workers before each call."""
        self._taken = itertools.count()
        self._exhausted = False
        self._lock = threading.Lock()
        self._running = 0
        self._left = 0
        self._over = threading.Event()

    @property
    def running(self) -> int:
        """Return how many workers take part now. Any thread."""
        return self._running

    def take(self) -> RowLane | None:
        """Return a lane that nobody has; None when there is none or nothing more is to begin. A worker that entered."""
        number = next(self._taken)
        if number < len(self.lanes):
            return None if self.stopping else self.lanes[number]
        self._exhausted = True
        return None

    def message_unit(self, unit: RowUnit) -> list[Message]:
        """Return the messages of a call."""
        return [Message(*self.rows[row]) for row in unit]

    def settle(self, unit: RowUnit, results: Results) -> None:
        """Note what became of a unit. The worker that took it."""
        for row, result in zip(unit, results, strict=True):
            self.results[row] = result

    def holds_up(self, unit: RowUnit) -> bool:
        """Return whether the rest of the lane of a settled unit has to wait for it."""
        return self.ordered and any(self.comes_again(row) for row in unit)

    def comes_again(self, row: int) -> bool:
        """Return whether a row that was settled is tried again."""
        return holds_back(self.results[row], self.rows[row][ATTEMPT], self.max_attempts)

    def enter(self) -> None:
        """Take part. A worker, before it takes a lane."""
        with self._lock:
            self._running += 1

    def leave(self) -> None:
        """Have nothing more to do here, also where lanes are left. A worker that entered, once."""
        with self._lock:
            self._running -= 1
            self._left += 1
            if not self._running and (self.stopping or self._exhausted or self._left == self.workers):
                self._over.set()

    def stop(self, *, at_once: bool = False) -> None:
        """Begin nothing more; with `at_once` what runs is not waited for either. Any thread."""
        with self._lock:
            self.stopping = True
            if at_once or not self._running:
                self._over.set()

    def wait(self) -> None:
        """Return when every lane was worked through, or nothing more is to begin and nothing runs."""
        self._over.wait()


def unit_rows(rows: Sequence[int], size: int) -> RowLane:
    """Return rows as units of at most `size`."""
    if size <= 1:
        return [(row,) for row in rows]
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def lanes_of(keys: Sequence[Hashable] | None, count: int, size: int) -> Sequence[RowLane]:
    """Return the lanes of `count` rows: of each key one, in the order of the rows; without keys one for each unit.

    A row whose key is None follows no other.
    """
    if keys is None:
        return [(unit,) for unit in unit_rows(range(count), size)]
    groups: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault((row, None) if key is None else key, []).append(row)
    return [unit_rows(group, size) for group in groups.values()]
