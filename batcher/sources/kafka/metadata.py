"""What stands in the metadata of a committed offset: for which topic it is, and which ranges are about to be written.

It is written before the first byte goes to the target. So the owner of the partition after a crash cuts the same ranges
again, writes them under the same names, and leaves no second copy. The log has no other place where a reader may leave
something, and needs none: the metadata is stored with the offset, by the same request, and is refused with it when the
writer is no longer the owner. The idea is that of eBay's Block Aggregator.

    {"t":"0SGPdqKsRzSjlJSNAu2IPQ"}{"v":1,"s":1000,"r":[[1999,1763700000000],[2999,1763700001000,"9f86d081884c7d65…"]],
    "w":"5e1f09-0-0"}

`t` is the id of the topic: one that was deleted and created anew has the name and the offsets of the one before, and
another id. Metadata of earlier versions has none. `s` is where the first range begins. Each entry of `r` is a range's
last offset, the timestamp of its first record and, for a batch of several partitions, the name of its write. Each range
begins where the one before it ended. `w` is the mark of the commit (`records.Position`).
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Final, NamedTuple

from batcher.records import MAX_INTENTS, Intent, Partition, Position, Range

VERSION: Final = 1

MAX_BYTES: Final = 1024
"""Of the intents alone."""

_TOPIC: Final = re.compile(r'\{"t":"([A-Za-z0-9_-]{22})"\}')
_WRITE_ID: Final = re.compile(r"[0-9a-f]{0,32}")
_MAX_OFFSET: Final = (1 << 63) - 1


class StoredPosition(NamedTuple):
    """Hold what was committed, and the id of the topic it was committed for, if that is known."""

    position: Position
    topic_id: str | None = None


class Damaged(ValueError):
    """Report metadata that this version does not understand: what it announced is not known."""


def pack(stored: StoredPosition) -> str:
    """Return the metadata of a position: the id of the topic, if it is known, before the intents."""
    position, topic_id = stored
    topic = "" if topic_id is None else f'{{"t":"{topic_id}"}}'
    if not position.intents and not position.mark:
        return topic
    first = position.intents[0].range.first if position.intents else position.next_offset
    return topic + _rendered(position.intents, position.mark, first)


def unpack(partition: Partition, next_offset: int, metadata: str | None) -> StoredPosition:
    """Return what was committed for a partition, by this version or an earlier one."""
    text = metadata or ""
    found = _TOPIC.match(text)
    topic_id = None if found is None else found[1]
    note = text if found is None else text[found.end() :]
    if not note:
        return StoredPosition(Position(next_offset), topic_id)
    try:
        return StoredPosition(Position(next_offset, *_parsed(partition, note)), topic_id)
    except Damaged as reason:
        return StoredPosition(Position(next_offset, unreadable=str(reason)), topic_id)


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
