"""Messages that become visible later: they wait beside the log, and are appended to their lane once they are due.

So the offsets of a lane ascend in the order in which messages are read, and a position means what it always means.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from batcher.sources.queue.file import QueueBusy, QueueFile, place_of

MOVED_AT_ONCE: Final = 1_000
"""Messages appended in one transaction: others wait for the write lock meanwhile."""

LOOK_S: Final = 0.1
"""Between two looks for messages that are due: how late they become visible where nothing else happens."""


def delayed_id(number: int) -> str:
    """Return the id of a delayed message to which its publisher gave none; it keeps it in the log."""
    return f"d{number}"


class Delays:
    """Append what is due. Every reader of a queue does that for all of them."""

    def __init__(self, file: QueueFile, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._looked_at = float("-inf")

    def move_due(self) -> int:
        """Append the messages that are due by now; return how many. Where the queue is busy they come next time."""
        now_ms = int(self._clock() * 1000)
        moved = 0
        while self._waiting(now_ms):
            try:
                moved += self._move(now_ms)
            except QueueBusy:
                break
        return moved

    def move_due_soon(self) -> int:
        """Do the same, unless it was done a moment ago."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return 0
        self._looked_at = now
        return self.move_due()

    def _waiting(self, now_ms: int) -> bool:
        with self._file.answering():
            return (
                self._file.db.execute("SELECT 1 FROM delayed WHERE due_ms <= ? LIMIT 1", (now_ms,)).fetchone()
                is not None
            )

    def _move(self, now_ms: int) -> int:
        with self._file.changing() as db:
            nexts = dict(db.execute("SELECT number, next FROM lane"))
            due = db.execute(
                "SELECT number, lane, id, key, value, type, headers FROM delayed WHERE due_ms <= ? "
                "ORDER BY due_ms, number LIMIT ?",
                (now_ms, MOVED_AT_ONCE),
            ).fetchall()
            rows = []
            for _, lane, *rest in due:
                rows.append((place_of(lane, nexts[lane]), now_ms, *rest))
                nexts[lane] += 1
            db.executemany("DELETE FROM delayed WHERE number = ?", [(one[0],) for one in due])
            db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            db.executemany("UPDATE lane SET next = ? WHERE number = ?", [(end, lane) for lane, end in nexts.items()])
        return len(due)
