"""The intent: which ranges are about to be written, kept in the metadata of a partition's committed offset.

Written before the first byte goes to the target, so that whoever owns the partition after a crash cuts the same
ranges again, writes them under the same names, and leaves no second copy. The log has no other place where a reader
may leave a note, and needs none: the note is stored with the offset, by the same request, and is refused with it when
the writer is no longer the owner. The idea is that of eBay's Block Aggregator.

    {"v":1,"s":1000,"r":[[1999,1763700000000],[2999,1763700001000,"9f86d081884c7d65…"]],"w":"5e1f09-0"}

`s` is where the first range begins, each entry of `r` is a range's last offset, the timestamp of its first record and,
for a batch of several partitions, the name of its write. Each range begins where the one before it ended. `w` says who
wrote the note, for how manieth time: two processes never write the same one.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from batcher.errors import BatcherError
from batcher.records import Claim, Partition, Range

VERSION: Final = 1

MAX_CLAIMS: Final = 8
"""Ranges in one note. Each takes at most 80 bytes, so a note stays below 1 KB; brokers take 4,096 bytes at most."""

MAX_NOTE: Final = 1024

_WRITE_ID: Final = re.compile(r"[0-9a-f]{0,32}")
_MAX_OFFSET: Final = (1 << 63) - 1


class IntentUnreadable(BatcherError):
    """Report a note that this version does not understand: what it announced is not known."""

    exit_code = 78


def render(claims: Sequence[Claim], writer: str, next_offset: int = 0) -> str:
    """Return the note that announces these ranges of one partition, ascending, at most MAX_CLAIMS.

    Without any it only says who wrote it, at which offset: to have a commit accepted or refused.
    """
    return _rendered(tuple(claims), writer, claims[0].range.first if claims else next_offset)


# Asked for at each commit, of every partition that has a claim: with 256 of them it was most of what a commit cost.
@functools.lru_cache(maxsize=1024)
def _rendered(claims: tuple[Claim, ...], writer: str, first: int) -> str:
    ranges = [[claim.range.last, claim.first_ms, *([claim.write_id] if claim.write_id else [])] for claim in claims]
    note = {"v": VERSION, "s": first, "r": ranges, "w": writer}
    return json.dumps(note, separators=(",", ":"))


def parse(partition: Partition, note: str) -> tuple[Claim, ...]:
    """Return the ranges that a note announces; none for an empty one. Raise IntentUnreadable."""
    if not note:
        return ()
    try:
        found = json.loads(note) if len(note) <= MAX_NOTE else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise IntentUnreadable(f"{partition}: the metadata of the committed offset is no intent of batcher")
    if type(found.get("v")) is not int or found["v"] != VERSION:
        raise IntentUnreadable(f"{partition}: the intent has version {found.get('v')!r:.20}, this is for {VERSION}")
    first: Any = found.get("s")
    ranges: Any = found.get("r")
    if not _offset(first) or not isinstance(ranges, list) or len(ranges) > MAX_CLAIMS:
        raise IntentUnreadable(f"{partition}: the intent is damaged")
    claims: list[Claim] = []
    for entry in ranges:
        if not _valid(entry) or entry[0] < first:
            raise IntentUnreadable(f"{partition}: the intent is damaged")
        claim = Claim(Range(partition, first, entry[0]), entry[1], *entry[2:])
        claims.append(claim)
        first = claim.range.next_offset
    return tuple(claims)


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
