"""Who reads which lanes for a group: a fair share each, agreed on in the file itself.

There is no coordinator. Each member looks at the table of members and owners now and then, and each comes to the same
shares: it gives up what is too much, and takes what is free up to its own. A lane changes its owner in a transaction,
and a commit names its owner in the same statement. So a member that was taken for dead stores nothing any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from batcher.records import Position
from batcher.sources.position_note import note_of, position_of
from batcher.sources.queue.file import QueueFile, QueueShape
from batcher.sources.queue.process import has_ended, own_process

HEARTBEATS: Final = 5
"""In the time of a session."""


def share(shape: QueueShape, priority: int, members: int, number: int) -> int:
    """Return how many lanes of a priority the member with this number, from 0, has among so many members.

    What does not divide goes to others with each priority.
    """
    least, more = divmod(shape.lanes, members)
    return least + ((number + priority) % members < more)


@dataclass(frozen=True, slots=True)
class View:
    """Hold what a look has shown: the living members in the order in which they joined, and the owner of each lane.

    Owners that do not live count as none. `next_offsets` is what the group has committed. `stale` says that there is
    something of the dead to clear.
    """

    members: tuple[str, ...]
    owners: Mapping[int, str | None]
    next_offsets: Mapping[int, int]
    stale: bool


class Membership:
    """Be a member of a group. For one thread."""

    def __init__(
        self, file: QueueFile, readers: str, session_s: float, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.id = uuid4().hex
        self._file = file
        self._readers = readers
        self._session_s = session_s
        self._clock = clock
        self._seen_at = float("-inf")

    def look(self) -> View:
        """Return how things are."""
        db, now_ms = self._file.db, int(self._clock() * 1000)
        with self._file.answering():
            rows = db.execute(
                "SELECT id, seen_ms, session_ms, process FROM member WHERE readers = ? ORDER BY joined, id",
                (self._readers,),
            ).fetchall()
            lanes = db.execute("SELECT lane, owner, next FROM cursor WHERE readers = ?", (self._readers,)).fetchall()
        members = tuple(
            id_ for id_, seen_ms, session_ms, process in rows if self._lives(id_, now_ms - seen_ms, session_ms, process)
        )
        owners = {lane: owner if owner in members else None for lane, owner, _ in lanes}
        stale = len(members) < len(rows) or any(owner and not owners[lane] for lane, owner, _ in lanes)
        return View(members, owners, {lane: next_ for lane, _, next_ in lanes}, stale)

    def mine(self, view: View) -> set[int]:
        """Return the lanes that are ours."""
        return {lane for lane, owner in view.owners.items() if owner == self.id}

    def surplus(self, view: View) -> list[int]:
        """Return the lanes of ours that others should have."""
        return [lane for _, extra in self._balance(view) if extra for lane in extra]

    def wanted(self, view: View) -> list[int]:
        """Return the lanes without an owner that we should have."""
        return [lane for more, _ in self._balance(view) for lane in more]

    def due(self, view: View) -> bool:
        """Return whether there is something to write: a sign of life, what the dead left, or lanes to take."""
        silent_s = time.monotonic() - self._seen_at
        return (
            view.stale
            or self.id not in view.members
            or silent_s >= self._session_s / HEARTBEATS
            or bool(self.wanted(view))
        )

    def refresh(self, view: View) -> None:
        """Give a sign of life where one is due. Raise QueueBusy."""
        if self.id in view.members and time.monotonic() - self._seen_at >= self._session_s / HEARTBEATS:
            self.store({})

    def take(self) -> dict[int, tuple[int, str]]:
        """Join or stay, clear what the dead left, and take what is free up to our share; return offsets and notes.

        Raise QueueBusy.
        """
        taken: dict[int, tuple[int, str]] = {}
        with self._file.changing() as db:
            view = self.look()
            marks = ", ".join("?" * len(view.members))
            db.execute(
                f"DELETE FROM member WHERE readers = ? AND id NOT IN ({marks})",  # noqa: S608  # only marks
                (self._readers, *view.members),
            )
            now_ms = int(self._clock() * 1000)
            db.execute(
                "INSERT INTO member VALUES (?, ?, (SELECT coalesce(max(joined), 0) + 1 FROM member), ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET seen_ms = excluded.seen_ms",
                (self.id, self._readers, now_ms, int(self._session_s * 1000), own_process()),
            )
            db.execute(
                "UPDATE cursor SET owner = NULL WHERE readers = ? AND owner NOT IN (SELECT id FROM member)",
                (self._readers,),
            )
            for lane in self.wanted(self.look()):
                [taken[lane]] = db.execute(
                    "UPDATE cursor SET owner = ? WHERE readers = ? AND lane = ? RETURNING next, note",
                    (self.id, self._readers, lane),
                ).fetchall()
        self._seen_at = time.monotonic()
        return taken

    def stored(self, lanes: Iterable[int]) -> dict[int, tuple[int, str]]:
        """Return the offsets and notes of lanes."""
        query = "SELECT next, note FROM cursor WHERE readers = ? AND lane = ?"
        with self._file.answering():
            return {lane: self._file.db.execute(query, (self._readers, lane)).fetchone() for lane in lanes}

    def store(self, positions: Mapping[int, Position]) -> set[int]:
        """Commit positions; return the lanes that are not ours, for which nothing was stored. Raise QueueBusy."""
        foreign = set()
        with self._file.changing() as db:
            for lane, position in positions.items():
                changed = db.execute(
                    "UPDATE cursor SET next = ?, note = ? WHERE readers = ? AND lane = ? AND owner = ?",
                    (position.next_offset, note_of(position), self._readers, lane, self.id),
                )
                if not changed.rowcount:
                    foreign.add(lane)
            db.execute("UPDATE member SET seen_ms = ? WHERE id = ?", (int(self._clock() * 1000), self.id))
        self._seen_at = time.monotonic()
        return foreign

    def release(self, lanes: Collection[int]) -> None:
        """Leave lanes to others. Raise QueueBusy."""
        with self._file.changing() as db:
            db.executemany(
                "UPDATE cursor SET owner = NULL WHERE readers = ? AND lane = ? AND owner = ?",
                [(self._readers, lane, self.id) for lane in lanes],
            )

    def leave(self) -> None:
        """Be a member no more; all lanes are free. Raise QueueBusy."""
        with self._file.changing() as db:
            db.execute("UPDATE cursor SET owner = NULL WHERE owner = ?", (self.id,))
            db.execute("DELETE FROM member WHERE id = ?", (self.id,))

    def position(self, lane: int, stored: tuple[int, str]) -> Position:
        """Return what was stored for a lane."""
        return position_of(self._file.shape.partition(lane), *stored)

    def _lives(self, id_: str, silent_ms: int, session_ms: int, process: str) -> bool:
        # A clock that was set back makes a silence negative.
        return id_ == self.id or (abs(silent_ms) <= session_ms and not has_ended(process))

    def _balance(self, view: View) -> Iterable[tuple[list[int], list[int]]]:
        """Yield for each priority the lanes to take and those to give up."""
        shape = self._file.shape
        # Before it has joined, a member comes last, as it will.
        members = view.members if self.id in view.members else (*view.members, self.id)
        number = members.index(self.id)
        for priority in range(shape.priorities):
            lanes = [shape.lane(priority, at) for at in range(shape.lanes)]
            ours = [lane for lane in lanes if view.owners.get(lane) == self.id]
            free = [lane for lane in lanes if lane in view.owners and view.owners[lane] is None]
            fair = share(shape, priority, len(members), number)
            yield free[: max(0, fair - len(ours))], ours[fair:]
