"""What people do with a queue: count it, set a group back, empty it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from batcher.errors import ConfigurationError
from batcher.sources.queue.file import Ends, QueueFile, lane_of, offset_of, place_of
from batcher.sources.queue.identity import place_of_id
from batcher.sources.queue.membership import Membership
from batcher.sources.queue.places import begin, start_in
from batcher.sources.queue.retention import REMOVED_AT_ONCE, Retention
from batcher.sources.starts import StartPlace


def stats(file: QueueFile) -> dict[str, Any]:
    """Return what a queue holds and how far its groups are, as `queue stats --json` prints it."""
    shape, ends = file.shape, file.ends()
    with file.answering():
        delayed = file.db.execute("SELECT count(*) FROM delayed").fetchone()[0]
        names = [name for (name,) in file.db.execute("SELECT DISTINCT readers FROM cursor ORDER BY readers")]
        hands = dict(file.db.execute("SELECT readers, count(*) FROM taken WHERE NOT done GROUP BY readers").fetchall())
    return {
        "queue": shape.name,
        "messages": sum(one.next - one.first for one in ends.values()),
        "published": sum(one.next for one in ends.values()),
        "delayed": delayed,
        "bytes": file.used_bytes(),
        "max_bytes": shape.max_bytes,
        "lanes": [
            {"lane": lane, "priority": shape.priority(lane), "first": one.first, "next": one.next}
            for lane, one in sorted(ends.items())
        ],
        "groups": [_group(file, name, ends, hands.get(name, 0)) for name in names],
    }


def replay(file: QueueFile, readers: str, start: StartPlace | None, id_: str | None) -> int:
    """Set a group back, or forward, to a place, a time, or the message of an id; return how many messages it has then.

    The other lanes than that of the message begin with the time of that message. Raise ConfigurationError for a group
    that is being read, and for an id that is not there; QueueBusy.
    """
    lane, place = -1, -1
    if id_ is not None:
        place = place_of_id(file, id_)
        lane = lane_of(place)
        with file.answering():
            start = file.db.execute("SELECT published_ms FROM message WHERE place = ?", (place,)).fetchone()[0]
    assert start is not None
    begin(file, readers, "earliest")
    left = 0
    with file.changing() as db:
        if members := Membership(file, readers, 0.0).look().members:
            raise ConfigurationError(
                f"--queue.group {readers}: {len(members)} members read for it: stop them before it is set back"
            )
        for number, ends in file.ends().items():
            offset = offset_of(place) if number == lane else start_in(file, number, ends, start)
            db.execute(
                "UPDATE cursor SET next = ?, note = '' WHERE readers = ? AND lane = ?", (offset, readers, number)
            )
            left += ends.next - offset
        db.execute("DELETE FROM taken WHERE readers = ?", (readers,))
    return left


def purge(file: QueueFile, before_ms: int | None) -> int:
    """Remove all messages, read or not, or those of before a time; return how many. Raise QueueBusy."""
    removed = 0
    for lane, ends in file.ends().items():
        end = ends.next if before_ms is None else start_in(file, lane, ends, before_ms)
        for upto in range(ends.first, end, REMOVED_AT_ONCE):
            last = min(upto + REMOVED_AT_ONCE, end)
            with file.changing() as db:
                bounds = (place_of(lane, 0), place_of(lane, last))
                removed += db.execute("DELETE FROM message WHERE place >= ? AND place < ?", bounds).rowcount
                db.execute("DELETE FROM taken WHERE place >= ? AND place < ?", bounds)
                db.execute(
                    "UPDATE lane SET first = max(first, ?), purged = max(purged, ?) WHERE number = ?",
                    (last, last, lane),
                )
                db.execute(
                    "UPDATE cursor SET next = ? WHERE lane = ? AND next < ? AND owner IS NULL AND note = ''",
                    (last, lane, last),
                )
    if before_ms is None:
        with file.changing() as db:
            removed += db.execute("DELETE FROM delayed").rowcount
    return removed


def purge_read(file: QueueFile) -> int:
    """Remove the messages that every group has read; return how many. Raise QueueBusy."""
    return Retention(file).trim_read()


def forget(file: QueueFile, readers: str) -> bool:
    """Forget a group, so that nothing is kept for it any more; return whether there was one.

    Raise ConfigurationError for one that is being read; QueueBusy.
    """
    with file.changing() as db:
        if Membership(file, readers, 0.0).look().members:
            raise ConfigurationError(f"--queue.group {readers}: members read for it: stop them first")
        db.execute("DELETE FROM taken WHERE readers = ?", (readers,))
        return bool(db.execute("DELETE FROM cursor WHERE readers = ?", (readers,)).rowcount)


def _group(file: QueueFile, name: str, ends: Mapping[int, Ends], in_flight: int) -> dict[str, Any]:
    view = Membership(file, name, 0.0, clock=time.time).look()
    behind = sum(max(0, ends[lane].next - max(next_, ends[lane].first)) for lane, next_ in view.next_offsets.items())
    return {"group": name, "behind": behind, "in_flight": in_flight, "members": len(view.members)}
