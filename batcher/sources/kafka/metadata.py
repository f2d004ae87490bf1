"""What stands in the metadata of a committed offset: for which topic it is, and which ranges are about to be written.

It is written before the first byte goes to the target. So the owner of the partition after a crash cuts the same ranges
again, writes them under the same names, and leaves no second copy. The log has no other place where a reader may leave
something, and needs none: the metadata is stored with the offset, by the same request, and is refused with it when the
writer is no longer the owner. The idea is that of eBay's Block Aggregator.

    {"t":"0SGPdqKsRzSjlJSNAu2IPQ"}{"v":1,"s":1000,"r":[…],"w":"5e1f09-0-0"}

`t` is the id of the topic: one that was deleted and created anew has the name and the offsets of the one before, and
another id. Metadata of earlier versions has none. The rest is the note of `sources.position_note`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from batcher.records import Partition, Position
from batcher.sources.position_note import note_of, position_of

_TOPIC: Final = re.compile(r'\{"t":"([A-Za-z0-9_-]{22})"\}')


class StoredPosition(NamedTuple):
    """Hold what was committed, and the id of the topic it was committed for, if that is known."""

    position: Position
    topic_id: str | None = None


def pack(stored: StoredPosition) -> str:
    """Return the metadata of a position: the id of the topic, if it is known, before the intents."""
    position, topic_id = stored
    topic = "" if topic_id is None else f'{{"t":"{topic_id}"}}'
    return topic + note_of(position)


def unpack(partition: Partition, next_offset: int, metadata: str | None) -> StoredPosition:
    """Return what was committed for a partition, by this version or an earlier one."""
    text = metadata or ""
    found = _TOPIC.match(text)
    note = text if found is None else text[found.end() :]
    return StoredPosition(position_of(partition, next_offset, note), None if found is None else found[1])
