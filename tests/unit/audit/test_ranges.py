"""Sets of offsets in columns do what sets of numbers do, whatever the windows they come in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.audit.ranges import (
    Runs,
    Span,
    ascending,
    common,
    inside,
    less,
    place,
    spans,
    union,
    windows,
)
from batcher.records import Partition

EVENTS_0 = Partition("events", 0)

sets = st.frozensets(st.integers(0, 40))
pairs_of_sets = st.tuples(sets, sets)


def column(offsets: Collection[int]) -> pa.Int64Array:
    return pa.array(sorted(offsets), pa.int64())


def runs_of(offsets: Collection[int], among: Collection[int]) -> list[Span]:
    """Return the runs as one reads them off a list."""
    found: list[list[int]] = []
    touching = False
    for offset in sorted(among):
        if offset in offsets:
            if touching:
                found[-1].append(offset)
            else:
                found.append([offset])
        touching = offset in offsets
    return [Span(run[0], run[-1], len(run)) for run in found]


@settings(deadline=None)
@given(pairs_of_sets)
def test_difference_intersection_and_union_are_those_of_sets(both: tuple[frozenset[int], frozenset[int]]) -> None:
    one, other = both
    assert less(column(one), column(other)).to_pylist() == sorted(one - other)
    assert common(column(one), column(other)).to_pylist() == sorted(one & other)
    assert union(column(one), column(other)).to_pylist() == sorted(one | other)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_ascending_sorts_and_has_each_once(offsets: list[int]) -> None:
    assert ascending(pa.array(offsets, pa.int64())).to_pylist() == sorted(set(offsets))


@settings(deadline=None)
@given(sets, st.integers(0, 41), st.integers(0, 41))
def test_the_inside_of_a_range_is_what_a_comparison_finds(offsets: frozenset[int], first: int, last: int) -> None:
    if first <= last:
        assert inside(column(offsets), first, last).to_pylist() == [o for o in sorted(offsets) if first <= o <= last]
    assert place(column(offsets), first) == sum(offset < first for offset in offsets)


@settings(deadline=None)
@given(pairs_of_sets)
def test_runs_are_those_one_reads_off_a_list(both: tuple[frozenset[int], frozenset[int]]) -> None:
    offsets, among = both[0], both[0] | both[1]
    assert spans(column(offsets), column(among)).listed() == runs_of(offsets, among)


@settings(deadline=None)
@given(pairs_of_sets, st.lists(st.integers(0, 41)), st.integers(0, 5))
def test_runs_gathered_over_any_windows_are_those_of_the_whole(
    both: tuple[frozenset[int], frozenset[int]], cuts: Sequence[int], limit: int
) -> None:
    offsets, among = both[0], both[0] | both[1]
    runs = Runs(limit)
    edges = sorted({0, 41, *cuts})
    for first, next_offset in pairwise(edges):
        runs.add(*(inside(column(one), first, next_offset - 1) for one in (offsets, among)))

    expected = runs_of(offsets, among)
    assert (runs.ranges, runs.offsets) == (len(expected), len(offsets))
    assert list(runs.kept) == expected[:limit]


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 7))
def test_windows_cover_every_offset_once(first: int, next_offset: int, size: int) -> None:
    found = list(windows(EVENTS_0, first, next_offset, size))
    assert [o for _, a, b in found for o in range(a, b + 1)] == list(range(first, next_offset))
    assert all(one.last - one.first < size for one in found)
