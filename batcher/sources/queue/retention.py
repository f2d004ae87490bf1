"""What is removed from a queue, and when: messages that every group has read, by age, and by size where room is needed.

What a group has not read is never removed by itself. Where it fills the room that a queue may take, publishers are
refused, and told which group is behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from batcher.options import show_size
from batcher.sources.queue.file import Ends, QueueBusy, QueueFile, QueueFull, place_of

REMOVED_AT_ONCE: Final = 5_000
"""Messages removed in one transaction: others wait for the write lock meanwhile."""

LOOK_S: Final = 10.0
"""Between two looks for messages that are too old."""


class Retention:
    """Remove what need not be kept. For one thread; those of several processes get along with each other."""

    def __init__(self, file: QueueFile, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._looked_at = float("-inf")

    def make_room(self, more: int) -> None:
        """See that `more` bytes fit, and remove what is too old; raise QueueFull where they do not fit."""
        self.trim_soon()
        most = self._file.shape.max_bytes
        if most is None:
            return
        while (used := self._file.used_bytes()) + more > most:
            if not self._remove_oldest(None):
                raise QueueFull(
                    f"--queue.path {self._file.path}: the queue is full, {show_size(used)} of {show_size(most)}, and "
                    f"{self._behind()}; nothing was stored"
                )

    def trim_soon(self) -> None:
        """Remove some of what is too old, unless there was nothing a moment ago.

        The rest comes with the next calls: a reader that is away for longer counts as dead.
        """
        kept_ms, now = self._file.shape.retain_ms, time.monotonic()
        if kept_ms is None or now - self._looked_at < LOOK_S:
            return
        try:
            removed = self._remove_oldest(int(self._clock() * 1000) - kept_ms)
        except QueueBusy:  # another time
            removed = 0
        if not removed:
            self._looked_at = now

    def trim_read(self) -> int:
        """Remove the messages that every group has read, whatever their age; return how many. Raise QueueBusy."""
        removed = 0
        while found := self._remove_oldest(None):
            removed += found
        return removed

    def read_by_all(self) -> dict[int, int]:
        """Return for each lane the offset below which every group has read; the lane's first without any group."""
        with self._file.answering():
            return dict(
                self._file.db.execute(
                    "SELECT number, coalesce(min(cursor.next), lane.first) FROM lane "
                    "LEFT JOIN cursor ON cursor.lane = lane.number GROUP BY number"
                )
            )

    def _remove_oldest(self, before_ms: int | None) -> int:
        """Remove some messages from the beginning of each lane that are read, and older where that is asked."""
        removed = 0
        with self._file.changing():
            read = self.read_by_all()
            for lane, ends in self._file.ends().items():
                if removed < REMOVED_AT_ONCE and read[lane] > ends.first:
                    removed += self._remove(lane, ends, min(read[lane], ends.first + REMOVED_AT_ONCE), before_ms)
        return removed

    def _remove(self, lane: int, ends: Ends, end: int, before_ms: int | None) -> int:
        db = self._file.db
        if before_ms is not None:
            young = db.execute(
                "SELECT min(place) FROM message WHERE place >= ? AND place < ? AND published_ms >= ?",
                (place_of(lane, ends.first), place_of(lane, end), before_ms),
            ).fetchone()[0]
            end = end if young is None else young - place_of(lane, 0)
        if end <= ends.first:
            return 0
        places = (place_of(lane, ends.first), place_of(lane, end))
        db.execute("DELETE FROM message WHERE place >= ? AND place < ?", places)
        db.execute("UPDATE lane SET first = ? WHERE number = ?", (end, lane))
        db.execute("DELETE FROM taken WHERE place >= ? AND place < ?", places)
        return end - ends.first

    def _behind(self) -> str:
        with self._file.answering():
            row = self._file.db.execute(
                "SELECT readers, sum(lane.next - cursor.next) AS behind FROM cursor "
                "JOIN lane ON lane.number = cursor.lane GROUP BY readers ORDER BY behind DESC LIMIT 1"
            ).fetchone()
        if row is None:
            return "no group has read anything"
        return f"group {row[0]} has {row[1]} messages to read"
