"""Steps for lists and maps, whose items stand one behind the other, so that only reading one tells where the next is.

First the items are found: cursors skip them, an item of each list at a time, until few lists are left; those are walked
through one by one, so that a list that is longer than all others costs its own items only. Then all items of all lists
are read at once, as if each were a record.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from batcher.formats.avro.cursors import Cursors, Ints, Single
from batcher.formats.avro.nested import RecordStep
from batcher.formats.avro.numbers import column
from batcher.formats.avro.octets import StringStep
from batcher.formats.avro.step import Step
from batcher.formats.fault import Faulty

FEW: int = 32
"""So many lists cost about the same one by one as all at once."""

_MANY: Final = 2**31
"""More items of no bytes than any record may have: greater counts are not told apart."""

_NO_NUMBER: Final = -(2**63)
"""The one count that has no opposite."""


class _Items:
    """Hold how many items each list has, in `counts`, and where they begin.

    Items of `width` bytes are noted as runs. Of those of no bytes only the count is kept.
    """

    def __init__(self, lists: int, width: int | None) -> None:
        self.counts: Ints = np.zeros(lists, np.int64)
        self._width = width
        self._found: list[tuple[Ints, Ints, Ints, Ints | None]] = []

    def add(self, lists: Ints, starts: Ints, counts: Ints | None = None) -> None:
        """Note items of some lists, each list named once: one each, or runs of `counts`."""
        if self._width != 0:
            self._found.append((lists, self.counts[lists], starts, counts))
        self.counts[lists] += 1 if counts is None else counts

    def extend(self, which: int, starts: array[int], count: int) -> None:
        """Note `count` items of one list; of items of no bytes `starts` has none."""
        if len(starts):
            places = np.arange(self.counts[which], self.counts[which] + count)
            self._found.append((np.full(count, which), places, np.frombuffer(starts, np.int64), None))
        self.counts[which] += count

    def starts(self) -> Ints:
        """Return where items begin, those of a list together and the lists in order."""
        ends = np.cumsum(self.counts)
        firsts = ends - self.counts
        starts = np.empty(ends[-1] if len(ends) else 0, np.int64)
        for lists, places, found, counts in self._found:
            to = firsts[lists] + places
            if counts is None or self._width is None:
                starts[to] = found
                continue
            runs = np.repeat(np.arange(len(counts)), counts)
            inside = np.arange(len(runs)) - (np.cumsum(counts) - counts)[runs]
            starts[to[runs] + inside] = found[runs] + inside * self._width
        return starts


class ListStep(Step):
    """Read blocks of items, each with a count before it, the last with a count of 0.

    A negative count means its opposite, and the size of the block follows it.
    """

    def __init__(self, path: str, item: Step) -> None:
        super().__init__(path)
        self._item = item
        self.type = pa.list_(item.field("item"))
        self._no_count = self.faults.of("overflow", "the count of a block does not fit 64 bits")
        self._negative = self.faults.of("syntax", "the size of a block is negative")
        self._lying = self.faults.of("syntax", "a block does not have the size that it says")
        self._bomb = self.faults.of("too_large", "the record has more list items of no bytes than is allowed")

    def read(self, cursors: Cursors) -> pa.Array:
        offsets, items = self._items(cursors)
        return pa.ListArray.from_arrays(offsets, self._item.read(items), type=self.type)

    def skip(self, cursors: Cursors) -> None:
        self._walk(cursors, None)

    def skip_one(self, single: Single) -> None:
        self._walk_one(single, None)

    def text(self, single: Single) -> str:
        return "[" + ",".join([self._item.text(single) for _ in self._each(single)]) + "]"

    def _each(self, single: Single) -> Iterator[None]:
        """Stop at each item, which is to be read before going on."""
        while True:
            count, until = self._head_one(single)
            if not count:
                return
            if self._item.width == 0:
                single.spend(count, self._bomb)
            for _ in range(count):
                yield
            self._check_end(single, until)

    def _items(self, cursors: Cursors) -> tuple[pa.Array, Cursors]:
        """Return the offsets of the lists in their items, and a cursor at each item."""
        found = _Items(len(cursors), self._item.width)
        self._walk(cursors, found)
        counts = found.counts
        if self._item.width == 0:
            over = cursors.piece.overspent(cursors.rows, counts)
            cursors.refuse(over, self._bomb)
            counts[over] = 0
            starts = np.repeat(cursors.at, counts)
        else:
            starts = found.starts()
        lists = np.repeat(np.arange(len(counts)), counts)
        offsets = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        return column(offsets, pa.int32()), Cursors(cursors.piece, starts, cursors.ends[lists], cursors.rows[lists])

    def _walk(self, cursors: Cursors, found: _Items | None) -> None:
        """Move cursors past their lists, noting the items."""
        lists = np.arange(len(cursors))
        moving = cursors.take(lists)
        left, until = np.zeros(len(lists), np.int64), np.full(len(lists), -1)
        while len(lists) > FEW:
            self._heads(moving, left, until)
            going = left > 0
            if going.all():
                self._step(moving, lists, left, found)
                lying = (left == 0) & (until >= 0) & (until != moving.at)
                moving.refuse(lying, self._lying)
                if not moving.piece.faults:
                    continue
                going = moving.piece.faulty[moving.rows] == 0
            cursors.at[lists] = moving.at
            lists, moving, left, until = lists[going], moving.take(going), left[going], until[going]
        for place, which in enumerate(lists.tolist()):
            single = moving.single(place)
            starts = None if found is None else array("q")
            try:
                count = self._walk_one(single, starts, int(left[place]), int(until[place]))
            except Faulty as faulty:
                cursors.refuse(np.array([which]), faulty.fault)
                continue
            cursors.at[which] = single.at
            if found is not None and starts is not None:
                found.extend(which, starts, count)

    def _step(self, moving: Cursors, lists: Ints, left: Ints, found: _Items | None) -> None:
        """Move cursors past an item of each list, or past all of the block where they have the same size."""
        width = self._item.width
        if found is not None:
            # Steps may write into the array.
            found.add(lists, moving.at.copy(), None if width is None else left.copy())
        if width is None:
            self._item.skip(moving)
            left -= 1
        else:
            # The head has made sure that they are there.
            moving.at = moving.at + left * width
            left[:] = 0

    def _heads(self, moving: Cursors, left: Ints, until: Ints) -> None:
        """Read the head of a block where none is left of the one before; a list that has ended has nothing left."""
        which = np.flatnonzero(left == 0)
        if not len(which):
            return
        heads = moving.take(which)
        counts = heads.numbers(self.faults)
        limits = np.full(len(which), -1)
        backwards = np.flatnonzero(counts < 0)
        if len(backwards):
            sized = heads.take(backwards)
            sizes = sized.numbers(self.faults)
            sized.refuse(counts[backwards] == _NO_NUMBER, self._no_count)
            sized.refuse(sizes < 0, self._negative)
            sized.refuse(sizes > sized.ends - sized.at, self._lying)
            heads.at[backwards] = sized.at
            limits[backwards] = sized.at + sizes
            counts[backwards] = -counts[backwards]
        if self._item.least:
            heads.refuse(counts > (heads.ends - heads.at) // self._item.least, self.faults.truncated)
        else:
            np.minimum(counts, _MANY, out=counts)
        if heads.piece.faults:
            counts[heads.piece.faulty[heads.rows] != 0] = 0
        moving.at[which], left[which], until[which] = heads.at, counts, limits

    def _walk_one(self, single: Single, starts: array[int] | None, left: int = 0, until: int = -1) -> int:
        """Move one cursor past its list and return the items; `left` of them, up to `until`, are in an open block."""
        width, count = self._item.width, 0
        while True:
            if not left:
                left, until = self._head_one(single)
                if not left:
                    return count
            count += left
            if width is not None:
                if width and starts is not None:
                    starts.extend(range(single.at, single.at + left * width, width))
                single.at += left * width
            else:
                self._item.skip_run(single, left, starts)
            left = 0
            self._check_end(single, until)

    def _head_one(self, single: Single) -> tuple[int, int]:
        """Return the count of a block and where it has to end, -1 if anywhere; raise Faulty."""
        count, until = single.number(self.faults), -1
        if count < 0:
            size = single.number(self.faults)
            if count == _NO_NUMBER:
                raise Faulty(self._no_count)
            if size < 0:
                raise Faulty(self._negative)
            if size > single.end - single.at:
                raise Faulty(self._lying)
            count, until = -count, single.at + size
        if not self._item.least:
            return min(count, _MANY), until
        if count > (single.end - single.at) // self._item.least:
            raise Faulty(self.faults.truncated)
        return count, until

    def _check_end(self, single: Single, until: int) -> None:
        if until not in (-1, single.at):
            raise Faulty(self._lying)


class MapStep(ListStep):
    """Read a map, whose items are a key and a value.

    A key that comes twice stays twice; in JSON text the last one holds.
    """

    def __init__(self, path: str, key: StringStep, value: Step) -> None:
        self._pair = RecordStep(path, [("key", key), ("value", value)])
        super().__init__(path, self._pair)
        self._key = key
        self._value = value
        self.type = pa.map_(pa.string(), value.field("value"))

    def read(self, cursors: Cursors) -> pa.Array:
        offsets, items = self._items(cursors)
        keys, values = self._pair.columns(items)
        return pa.MapArray.from_arrays(offsets, keys, values, type=self.type)

    def text(self, single: Single) -> str:
        pairs: dict[str, str] = {}
        for _ in self._each(single):
            key = self._key.text(single)
            pairs[key] = self._value.text(single)
        return "{" + ",".join(f"{key}:{value}" for key, value in pairs.items()) + "}"
