"""One message after another for a consumer that is no pipeline: pull, acknowledge, give back.

A message that was pulled is in the hands of its consumer until its lease ends, and is pulled again afterwards. Once it
is acknowledged it is done. The cursor of the group follows the messages that are done, without a gap, so that
retention, `stats` and `replay` treat such a group like any other. Several consumers of one group share its messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, cast

from batcher.errors import ConfigurationError
from batcher.sources.queue.columns import COLUMNS, Row
from batcher.sources.queue.delay import Delays
from batcher.sources.queue.envelope import envelope
from batcher.sources.queue.file import QueueFile, lane_of, place_of
from batcher.sources.queue.identity import find_id
from batcher.sources.queue.membership import Membership
from batcher.sources.queue.places import begin

POLL_S: Final = 0.05


class QueueConsumer:
    """Pull for one group. For one thread; there may be others, also in other processes."""

    def __init__(self, file: QueueFile, readers: str, *, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._readers = readers
        self._clock = clock
        self._delays = Delays(file, clock=clock)

    def pull(self, count: int, lease_s: float, wait_s: float = 0.0) -> list[dict[str, Any]]:
        """Return up to `count` envelopes, those of a higher priority first, then the oldest; wait for the first one.

        Raise QueueBusy, and ConfigurationError where pipelines read for the group.
        """
        deadline = time.monotonic() + wait_s
        while True:
            self._delays.move_due()
            found = self._take(count, lease_s)
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(POLL_S)

    def acknowledge(self, ids: Sequence[str]) -> list[str]:
        """Make messages done; return the ids of those that this group does not have in hand. Raise QueueBusy."""
        with self._file.changing() as db:
            foreign = [
                id_
                for id_ in ids
                if not db.execute(
                    "UPDATE taken SET done = 1 WHERE readers = ? AND place = ?",
                    (self._readers, find_id(self._file, id_)),
                ).rowcount
            ]
            self._advance()
        return foreign

    def give_back(self, ids: Sequence[str]) -> list[str]:
        """End the leases of messages, so that they are pulled again; return ids as `acknowledge` does."""
        with self._file.changing() as db:
            return [
                id_
                for id_ in ids
                if not db.execute(
                    "UPDATE taken SET until_ms = 0 WHERE readers = ? AND place = ? AND NOT done",
                    (self._readers, find_id(self._file, id_)),
                ).rowcount
            ]

    def _take(self, count: int, lease_s: float) -> list[dict[str, Any]]:
        begin(self._file, self._readers, "earliest")
        shape = self._file.shape
        now_ms = int(self._clock() * 1000)
        with self._file.changing() as db:
            self._require_no_pipeline()
            rows: list[tuple[Any, ...]] = []
            for lane, next_ in self._cursors().items():
                rows += db.execute(
                    f"SELECT {COLUMNS}, coalesce(attempt, 0) FROM message LEFT JOIN "  # noqa: S608  # our own columns
                    "(SELECT place AS at, until_ms, attempt, done FROM taken WHERE readers = ?) ON at = place "
                    "WHERE place >= ? AND place < ? AND (attempt IS NULL OR (NOT done AND until_ms <= ?)) "
                    "ORDER BY place LIMIT ?",
                    (self._readers, place_of(lane, next_), place_of(lane + 1, 0), now_ms, count),
                ).fetchall()
            rows.sort(key=lambda row: (-shape.priority(lane_of(row[0])), row[1], row[0]))
            rows = rows[:count]
            until_ms = now_ms + round(lease_s * 1000)
            db.executemany(
                "INSERT INTO taken VALUES (?, ?, ?, ?, 0) ON CONFLICT (readers, place) "
                "DO UPDATE SET until_ms = excluded.until_ms, attempt = excluded.attempt",
                [(self._readers, row[0], until_ms, row[-1] + 1) for row in rows],
            )
        return [envelope(shape, _row(row), "in flight", row[-1] + 1) for row in rows]

    def _advance(self) -> None:
        """Move the cursors over what is done, and forget that it was taken."""
        db = self._file.db
        ends = self._file.ends()
        for lane, next_ in self._cursors().items():
            first = max(next_, ends[lane].first)
            done = db.execute(
                "SELECT place FROM taken WHERE readers = ? AND place >= ? AND place < ? AND done ORDER BY place",
                (self._readers, place_of(lane, first), place_of(lane + 1, 0)),
            ).fetchall()
            reached = first
            for (place,) in done:
                if place != place_of(lane, reached):
                    break
                reached += 1
            if reached > next_:
                db.execute("UPDATE cursor SET next = ? WHERE readers = ? AND lane = ?", (reached, self._readers, lane))
                db.execute(
                    "DELETE FROM taken WHERE readers = ? AND place >= ? AND place < ?",
                    (self._readers, place_of(lane, 0), place_of(lane, reached)),
                )

    def _cursors(self) -> dict[int, int]:
        return dict(self._file.db.execute("SELECT lane, next FROM cursor WHERE readers = ?", (self._readers,)))

    def _require_no_pipeline(self) -> None:
        announced = "SELECT 1 FROM cursor WHERE readers = ? AND note <> '' LIMIT 1"
        members = Membership(self._file, self._readers, 0.0).look().members
        if members or self._file.db.execute(announced, (self._readers,)).fetchone():
            raise ConfigurationError(
                f"--queue.group {self._readers}: a pipeline reads for this group; name another one to pull"
            )


def _row(row: Collection[Any]) -> Row:
    return cast("Row", tuple(row)[:7])
