"""V(p), the position of a partition in a table: the next offset to load, kept in the transaction that stored the rows.

Every row at or above it is new. A row below it is nearly always there: it was stored, or refused, when the position
passed it. Nearly: `repair` and `dlq replay` bring rows that were refused before. So the position alone never decides
that a row is dropped. The table is asked, which is only a question when something comes a second time.

A partition without a position may have rows all the same: those of a table that was made of files, or filled by others.
So the table is asked before the first block of each partition too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batcher.records import Partition, Range

Positions = Mapping[Partition, int]


def doubtful(ranges: Iterable[Range], held: Positions) -> list[Range]:
    """Return the parts of ranges that lie below the positions held; the whole range where there is none."""
    found = []
    for one in ranges:
        last = min(one.last, held.get(one.partition, one.next_offset) - 1)
        if last >= one.first:
            found.append(Range(one.partition, one.first, last))
    return found


def unwritten(
    rows: pa.Table, ranges: Sequence[Range], held: Positions, present: Callable[[Range], pa.Int64Array]
) -> pa.Table:
    """Return the rows that a table lacks; `rows` have `_topic`, `_partition` and `_offset` of the records.

    `present` is asked for the offsets that the table has of a range, where the range is below the position.
    """
    known = None
    for one in doubtful(ranges, held):
        there = present(one)
        if not len(there):
            continue
        topic, number = one.partition
        here = pc.and_(pc.equal(rows["_partition"], number), pc.equal(rows["_topic"], topic))
        again = pc.and_(here, pc.is_in(rows["_offset"], value_set=there))
        known = again if known is None else pc.or_(known, again)
    return rows if known is None else rows.filter(pc.invert(known))


def advanced(ranges: Iterable[Range], held: Positions) -> dict[Partition, int]:
    """Return the positions after ranges were stored. A position never goes back."""
    found: dict[Partition, int] = {}
    for one in ranges:
        found[one.partition] = max(found.get(one.partition, 0), held.get(one.partition, 0), one.next_offset)
    return found


def above(positions: Positions, held: Positions) -> dict[Partition, int]:
    """Return the highest offset below the position held, of each partition where that is at or above its position."""
    return {one: held[one] - 1 for one, at in positions.items() if held.get(one, 0) > at}
