"""What the source adds to the metadata of a commit: for which topic of this name the offset is.

A topic that was deleted and created anew has the name and the offsets of the one before, and another id. The id stands
in front of the note, which stays as it is. Metadata of earlier versions have none.

    {"t":"0SGPdqKsRzSjlJSNAu2IPQ"}{"v":1,"s":1000,…
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from batcher.records import Position

_ENVELOPE: Final = re.compile(r'\{"t":"([A-Za-z0-9_-]{22})"\}')


class Stored(NamedTuple):
    """Hold what was committed, and the id of the topic it was committed for, if that is known."""

    position: Position
    topic_id: str | None = None


def pack(stored: Stored) -> Position:
    """Return the position as it is committed: with the id of the topic before its note."""
    position, topic_id = stored
    if topic_id is None:
        return position
    return Position(position.next_offset, f'{{"t":"{topic_id}"}}{position.note}')


def unpack(committed: Position) -> Stored:
    """Return what a position holds that was committed, by this version or an earlier one."""
    found = _ENVELOPE.match(committed.note)
    if found is None:
        return Stored(committed)
    return Stored(Position(committed.next_offset, committed.note[found.end() :]), found[1])
