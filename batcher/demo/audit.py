"""Compare what was produced with what a target and the dead letters hold, by the coordinates of every record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_OFFSET_BITS = 44
"""Partition and offset share one 64-bit number: room for 17 million million records in each partition."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Say where the produced records are. Rows and dead letters are counted once each, however often they occur.

    `lost` are in neither place, `poison` were made unreadable. `duplicated` and `dead_letters_duplicated` count copies.
    """

    produced: int
    poison: int
    written: int
    dead_lettered: int
    lost: int
    duplicated: int
    dead_letters_duplicated: int

    @property
    def fits(self) -> bool:
        """Return whether every record is in exactly one place, which is the right one, and no row is there twice.

        With nothing lost, `produced == written + dead_lettered` leaves no room for a record in both places or for one
        that was never produced. A dead letter may be there twice: both copies carry the same coordinates.
        """
        complete = self.lost == 0 and self.produced == self.written + self.dead_lettered
        return complete and self.dead_lettered == self.poison and self.duplicated == 0


def audit(
    produced: Sequence[Sequence[int]], poison: int, rows: pa.Table, letters: Iterable[Mapping[str, object]]
) -> Sums:
    """Count where the produced records are.

    `produced` has the confirmed offsets of each partition, `rows` the columns `_partition` and `_offset` of every row
    of the target. `letters` is what `read_letters` yields.
    """
    sent = pc.unique(
        pa.concat_arrays([_keys(pa.array([number] * len(run)), run) for number, run in enumerate(produced)])
    )
    there = _keys(rows["_partition"].combine_chunks(), rows["_offset"].combine_chunks())
    written = pc.unique(there)
    found = list(letters)
    refused = pc.unique(_keys([one["partition"] for one in found], [one["offset"] for one in found]))
    placed = pc.or_(pc.is_in(sent, value_set=written), pc.is_in(sent, value_set=refused))
    return Sums(
        produced=len(sent),
        poison=poison,
        written=len(written),
        dead_lettered=len(refused),
        lost=len(sent) - (pc.sum(placed).as_py() or 0),
        duplicated=len(there) - len(written),
        dead_letters_duplicated=len(found) - len(refused),
    )


def _keys(partitions: object, offsets: object) -> pa.Int64Array:
    numbers, positions = pa.array(partitions).cast(pa.int64()), pa.array(offsets).cast(pa.int64())
    return pc.bit_wise_or(pc.shift_left(numbers, _OFFSET_BITS), positions)
