"""Sets of offsets as ascending Arrow columns, and the runs in which people read them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batcher.records import Partition, Range

WINDOW: Final = 1_000_000
"""Offsets checked together: some 100 MB with everything that is made from them."""

NONE: Final = pa.array([], pa.int64())


class Span(NamedTuple):
    """Name a run of offsets, both ends included, and how many of the offsets in it are meant."""

    first: int
    last: int
    offsets: int


@dataclass(frozen=True, slots=True)
class Spans:
    """Hold runs of offsets in columns of the same length, int64, ascending: see `Span`."""

    firsts: pa.Int64Array
    lasts: pa.Int64Array
    counts: pa.Int64Array

    def __len__(self) -> int:
        return len(self.firsts)

    def listed(self, limit: int | None = None) -> list[Span]:
        """Return the runs, at most `limit` of them, as values for people and statements."""
        columns = [column.slice(0, limit).to_pylist() for column in (self.firsts, self.lasts, self.counts)]
        return [Span(*one) for one in zip(*columns, strict=True)]


def windows(partition: Partition, first: int, next_offset: int, size: int = WINDOW) -> Iterator[Range]:
    """Yield ranges of at most `size` offsets that cover `first` to `next_offset`, the latter not included."""
    for start in range(first, next_offset, size):
        yield Range(partition, start, min(start + size, next_offset) - 1)


def inside(offsets: pa.Int64Array, first: int, last: int) -> pa.Int64Array:
    """Return those of ascending offsets that are in a range, both ends included, without copying."""
    start, end = place(offsets, first), place(offsets, last + 1)
    return offsets.slice(start, end - start)


def place(offsets: pa.Int64Array, offset: int) -> int:
    """Return how many of ascending offsets are less than another."""
    if not len(offsets):
        return 0
    return int(pc.search_sorted(offsets, pa.scalar(offset, pa.int64()), side="left").as_py())


def less(offsets: pa.Int64Array, others: pa.Int64Array) -> pa.Int64Array:
    """Return the offsets that are not among the others."""
    return offsets.filter(pc.invert(pc.is_in(offsets, value_set=others)))


def common(offsets: pa.Int64Array, others: pa.Int64Array) -> pa.Int64Array:
    """Return the offsets that are among the others."""
    return offsets.filter(pc.is_in(offsets, value_set=others))


def union(offsets: pa.Int64Array, others: pa.Int64Array) -> pa.Int64Array:
    """Return the offsets of both, ascending, each once."""
    return ascending(pa.concat_arrays([offsets, others]))


def ascending(offsets: pa.Int64Array) -> pa.Int64Array:
    """Return offsets in ascending order, each once."""
    found = pc.unique(offsets)
    return found.take(pc.sort_indices(found))


def spans(offsets: pa.Int64Array, among: pa.Int64Array) -> Spans:
    """Return ascending offsets as runs of neighbours.

    Two of them are neighbours when no other of `among`, which is ascending and has all of them, lies in between.
    """
    runs: Any = pc.run_end_encode(pc.is_in(among, value_set=offsets), run_end_type=pa.int64())
    ends = runs.run_ends
    starts = pa.concat_arrays([pa.array([0], pa.int64()), ends])[: len(ends)]
    starts, ends = starts.filter(runs.values), ends.filter(runs.values)
    return Spans(among.take(starts), among.take(pc.subtract(ends, 1)), pc.subtract(ends, starts))


class Runs:
    """Gather the runs of one partition, window by window and ascending; runs that touch become one.

    Only the first `limit` runs are kept, the others are counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: list[Span] = []
        self._open = False
        self.ranges = 0
        self.offsets = 0

    @property
    def kept(self) -> tuple[Span, ...]:
        """Return the first runs."""
        return tuple(self._kept)

    def add(self, offsets: pa.Int64Array, among: pa.Int64Array) -> None:
        """Take the offsets of the next window; `among` as in `spans`."""
        if not len(among):
            return
        found = spans(offsets, among)
        if not len(found):
            self._open = False
            return
        touches = self._open and found.firsts[0].as_py() == among[0].as_py()
        for number, one in enumerate(found.listed(self._limit + 1)):
            if number == 0 and touches:
                if self.ranges <= self._limit:
                    before = self._kept.pop()
                    self._kept.append(Span(before.first, one.last, before.offsets + one.offsets))
            elif len(self._kept) < self._limit:
                self._kept.append(one)
        self.ranges += len(found) - touches
        self.offsets += len(offsets)
        self._open = bool(found.lasts[len(found) - 1].as_py() == among[len(among) - 1].as_py())
