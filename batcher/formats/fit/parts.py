"""What is inside lists and maps as one column, and which row each part belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

Why = TypeVar("Why")


@dataclass(frozen=True, slots=True)
class HeldValues:
    """Hold the items of a column of lists, without gaps: those of row i from `offsets[i]` to `offsets[i + 1]`."""

    values: pa.Array
    offsets: pa.Int32Array

    @property
    def rows(self) -> pa.Int64Array:
        """Return the row of each item."""
        return pc.list_parent_indices(pa.ListArray.from_arrays(self.offsets, self.values)).cast(pa.int64())

    def first_of(self, items: Mapping[int, Why]) -> dict[int, Why]:
        """Return for each row what is said of the first of its items of which something is said."""
        found: dict[int, Why] = {}
        if items:
            numbers = sorted(items)
            for row, item in zip(self.rows.take(pa.array(numbers, pa.int64())).to_pylist(), numbers, strict=True):
                found.setdefault(row, items[item])
        return found

    def any_of(self, items: pa.BooleanArray) -> pa.BooleanArray:
        """Return for each row whether any of its items is meant."""
        length = len(self.offsets) - 1
        return pc.is_in(pa.arange(0, length), value_set=self.rows.filter(pc.fill_null(items, False)))


def items_of(column: pa.Array) -> HeldValues:
    """Return the items of lists of any kind; null lists have none."""
    return HeldValues(column.flatten(), _offsets(pc.fill_null(pc.list_value_length(column), 0)))


def entries_of(column: pa.MapArray) -> tuple[HeldValues, pa.Array, pa.Array]:
    """Return the keys of maps as parts, the keys, and the values; null maps have none."""
    # What a slice or a null hides is still in the children; taking all rows leaves it behind.
    column = column.take(pa.arange(0, len(column)))
    keys, values = column.keys, column.items
    return HeldValues(keys, column.offsets.cast(pa.int32())), keys, values


def repeated_keys(entries: HeldValues, names: pa.Array) -> list[int]:
    """Return the rows in which a key occurs twice."""
    table = pa.table({"row": entries.rows, "name": names})
    counted = table.group_by(["row", "name"]).aggregate([([], "count_all")])
    if len(counted) == len(table):
        return []
    return counted.filter(pc.greater(counted["count_all"], 1))["row"].to_pylist()  # type: ignore[no-any-return]


def _offsets(lengths: pa.Array) -> pa.Int32Array:
    start = pa.array([0], pa.int32())
    return pa.concat_arrays([start, pc.cumulative_sum(lengths.cast(pa.int32()))])
