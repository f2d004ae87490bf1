"""Where a group reads in a queue: where it starts, whether that is still there, and the first message of a time."""

from __future__ import annotations

from typing import Literal

import structlog

from batcher.errors import DataGap
from batcher.records import Partition, Position
from batcher.sources.queue.file import Ends, QueueFile, offset_of, place_of
from batcher.sources.starts import StartPlace

log = structlog.get_logger(__name__)


def begin(file: QueueFile, readers: str, start: StartPlace) -> None:
    """Give a group its place in each lane in which it has none. Raise QueueBusy."""
    with file.answering():
        known = {lane for (lane,) in file.db.execute("SELECT lane FROM cursor WHERE readers = ?", (readers,))}
    if known >= file.ends().keys():
        return
    with file.changing() as db:
        for lane, ends in file.ends().items():
            offset = start_in(file, lane, ends, start)
            db.execute(
                "INSERT INTO cursor (readers, lane, next) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (readers, lane, offset),
            )


def start_in(file: QueueFile, lane: int, ends: Ends, start: StartPlace) -> int:
    """Return the offset at which a new group starts in a lane."""
    if start == "earliest":
        return ends.first
    found = None if start == "latest" else at_time(file, lane, start)
    return ends.next if found is None else found


def at_time(file: QueueFile, lane: int, time_ms: int) -> int | None:
    """Return the first offset of a lane that is of this time or later; None where no message is that young."""
    with file.answering():
        found = file.db.execute(
            "SELECT min(place) FROM message WHERE place >= ? AND place < ? AND published_ms >= ?",
            (place_of(lane, 0), place_of(lane + 1, 0), time_ms),
        ).fetchone()[0]
    return None if found is None else offset_of(found)


def inside(partition: Partition, position: Position, ends: Ends, on_gap: Literal["halt", "skip"]) -> Position:
    """Return a position that is in the log; raise DataGap where messages are gone, unless that was wanted."""
    if position.next_offset > ends.next:
        raise DataGap(
            f"{partition}: the next offset to read is {position.next_offset}, but the log ends at {ends.next}: the "
            "file is older than what was read from it; use another group once the lost messages are accounted for"
        )
    if position.next_offset >= ends.first:
        return position
    missing, count = f"{position.next_offset}-{ends.first - 1}", ends.first - position.next_offset
    if ends.purged >= ends.first:
        log.warning("messages_purged", partition=str(partition), offsets=missing, count=count)
    elif on_gap == "halt":
        raise DataGap(
            f"{partition}: offsets {missing} ({count}) are gone and were not read; --queue.on-gap skip goes on "
            "behind them"
        )
    else:
        log.warning("messages_missing", partition=str(partition), offsets=missing, count=count)
    # The ranges that are announced have offsets of their own.
    return position._replace(next_offset=ends.first)
