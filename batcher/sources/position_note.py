"""How a source writes down what a position announces, beside the offset: one line of JSON.

    {"v":1,"s":1000,"r":[[1999,1763700000000],[2999,1763700001000,"9f86d081884c7d65…"]],"w":"5e1f09-0-0"}

`s` is where the first range begins. Each entry of `r` is a range's last offset, the timestamp of its first record and,
for a batch of several partitions, the name of its write. Each range begins where the one before it ended. `w` is the
mark of the commit (`records.Position`).
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Final

from batcher.records import MAX_INTENTS, Intent, Partition, Position, Range

VERSION: Final = 1

MAX_BYTES: Final = 1024

_WRITE_ID: Final = re.compile(r"[0-9a-f]{0,32}")
_MAX_OFFSET: Final = (1 << 63) - 1


class Damaged(ValueError):
    """Report a note that this version does not understand: what it announced is not known."""


def note_of(position: Position) -> str:
    """Return what a position announces as text; empty where it announces nothing."""
    if not position.intents and not position.mark:
        return ""
    first = position.intents[0].range.first if position.intents else position.next_offset
    return _rendered(position.intents, position.mark, first)


def position_of(partition: Partition, next_offset: int, note: str) -> Position:
    """Return the position that was stored with this note; it is `unreadable` where the note cannot be understood."""
    if not note:
        return Position(next_offset)
    try:
        return Position(next_offset, *_parsed(partition, note))
    except Damaged as reason:
        return Position(next_offset, unreadable=str(reason))


# Asked for at each commit, of every partition that has an intent: with 256 of them it was most of what a commit cost.
@functools.lru_cache(maxsize=1024)
def _rendered(intents: tuple[Intent, ...], mark: str, first: int) -> str:
    ranges = [[one.range.last, one.first_ms, *([one.write_id] if one.write_id else [])] for one in intents]
    return json.dumps({"v": VERSION, "s": first, "r": ranges, "w": mark}, separators=(",", ":"))


def _parsed(partition: Partition, note: str) -> tuple[tuple[Intent, ...], str]:
    try:
        found = json.loads(note) if len(note) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Damaged("the metadata of the committed offset is no intent of batcher")
    if type(found.get("v")) is not int or found["v"] != VERSION:
        raise Damaged(f"the intent has version {found.get('v')!r:.20}, this is for {VERSION}")
    first: Any = found.get("s")
    ranges: Any = found.get("r")
    if not _offset(first) or not isinstance(ranges, list) or len(ranges) > MAX_INTENTS:
        raise Damaged("the intent is damaged")
    intents: list[Intent] = []
    for entry in ranges:
        if not _valid(entry) or entry[0] < first:
            raise Damaged("the intent is damaged")
        intent = Intent(Range(partition, first, entry[0]), entry[1], *entry[2:])
        intents.append(intent)
        first = intent.range.next_offset
    mark = found.get("w")
    return tuple(intents), mark if isinstance(mark, str) else ""


def _offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_OFFSET


def _valid(entry: Any) -> bool:
    if not isinstance(entry, list) or not 2 <= len(entry) <= 3 or not _offset(entry[0]):
        return False
    milliseconds = (
        isinstance(entry[1], int) and not isinstance(entry[1], bool) and -_MAX_OFFSET - 1 <= entry[1] <= _MAX_OFFSET
    )
    named = len(entry) < 3 or (isinstance(entry[2], str) and _WRITE_ID.fullmatch(entry[2]) is not None)
    return named and (milliseconds or entry[1] is None)
