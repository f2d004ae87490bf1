"""What a listing from a name on finds is what the listing of everything finds, with fewer names read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from batcher.records import Partition, Range
from sinks.parquet.files import file_name
from sinks.parquet.inventory import max_offset_above, overlapping
from sinks.parquet.stores import Store

TOPICS = ("events", "events+00000+1", "Ä", "z")


class Names:
    """Hold the names of a root, in the order of their bytes, and count those that are read."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = sorted(names)
        self.read = 0

    def names(self) -> Iterator[str]:
        yield from self._names

    def between(self, spans: Sequence[tuple[str, str]]) -> list[list[str]]:
        found = [[name for name in self._names if low < name <= high] for low, high in spans]
        self.read += sum(map(len, found))
        return found


@st.composite
def roots(draw: st.DrawFn) -> list[Range]:
    """Draw ranges that lie beside each other, some with gaps between them, in several partitions."""
    held = []
    for partition in draw(st.sets(st.builds(Partition, st.sampled_from(TOPICS), st.integers(0, 100_001)), max_size=4)):
        at = draw(st.integers(0, 10**12))
        for length, gap in draw(st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**9)), max_size=6)):
            held.append(Range(partition, at, at + length - 1))
            at += length + gap
    return held


@given(roots(), st.data())
def test_ranges_are_found_wherever_they_begin(held: list[Range], data: st.DataObject) -> None:
    wanted = []
    for partition in {one.partition for one in held} | {Partition("nothing", 0)}:
        ends = [edge for one in held if one.partition == partition for edge in (one.first, one.last)] or [7]
        first = max(0, data.draw(st.sampled_from(ends)) + data.draw(st.integers(-2, 2)))
        wanted.append(Range(partition, first, first + data.draw(st.integers(0, 10**8))))
    store = cast("Store", Names([file_name(one) for one in held]))
    assert sorted(overlapping(store, wanted, flat=True)) == sorted(overlapping(store, wanted, flat=False))
    positions = {one.partition: one.first for one in wanted}
    found = max_offset_above(store, positions, offsets=False, flat=True)
    assert found == max_offset_above(store, positions, offsets=False)


def test_a_root_of_many_files_is_not_read_for_what_comes_behind_the_last() -> None:
    partition = Partition("events", 0)
    held = [Range(partition, number * 100_000, number * 100_000 + 99_999) for number in range(20_000)]
    names = Names([file_name(one) for one in held])
    found = max_offset_above(cast("Store", names), {partition: held[-1].last + 1}, offsets=False, flat=True)
    assert found == {}
    assert names.read <= 16
