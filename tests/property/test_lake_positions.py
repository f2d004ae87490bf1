"""Positions of a lake table: whatever comes again, in whichever pieces and order, every row is there once."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batcher.records import Partition, Range
from sinks.lake import position

LAST = 12
PARTITIONS = (Partition("a", 0), Partition("a", 1), Partition("b", 0))

partitions = st.sampled_from(PARTITIONS)
attempts = st.lists(
    st.dictionaries(
        partitions,
        st.tuples(st.integers(0, LAST), st.integers(0, LAST), st.frozensets(st.integers(0, LAST), max_size=4)),
        min_size=1,
    ),
    max_size=12,
)
"""Blocks: for each partition two ends of a range, and offsets in it that were refused."""


class Table:
    """Keep rows and positions as a lake table does: together."""

    def __init__(self) -> None:
        self.rows: list[tuple[Partition, int]] = []
        self.positions: dict[Partition, int] = {}
        self.asked = 0

    def present(self, one: Range) -> pa.Int64Array:
        self.asked += 1
        found = {offset for at, offset in self.rows if at == one.partition and one.first <= offset <= one.last}
        return pa.array(sorted(found), pa.int64())

    def load(self, block: Mapping[Partition, tuple[int, int, frozenset[int]]]) -> None:
        ranges = [Range(at, min(ends[:2]), max(ends[:2])) for at, ends in block.items()]
        offered = [
            (one.partition, offset)
            for one in ranges
            for offset in range(one.first, one.last + 1)
            if offset not in block[one.partition][2]
        ]
        rows = pa.table(
            {
                "_topic": pa.array([at.topic for at, _ in offered], pa.string()),
                "_partition": pa.array([at.number for at, _ in offered], pa.int32()),
                "_offset": pa.array([offset for _, offset in offered], pa.int64()),
            }
        )
        left = position.unwritten(rows, ranges, self.positions, self.present)
        columns = (left[name].to_pylist() for name in ("_topic", "_partition", "_offset"))
        self.rows += [(Partition(topic, number), offset) for topic, number, offset in zip(*columns, strict=True)]
        self.positions |= position.advanced(ranges, self.positions)


@given(attempts)
def test_every_row_that_was_ever_offered_is_there_once(
    blocks: list[dict[Partition, tuple[int, int, frozenset[int]]]],
) -> None:
    table = Table()
    offered = set()
    for block in blocks:
        before = dict(table.positions)
        table.load(block)
        for at, (one, other, refused) in block.items():
            offered |= {(at, offset) for offset in range(min(one, other), max(one, other) + 1) if offset not in refused}
            assert table.positions[at] >= max(before.get(at, 0), max(one, other) + 1)
    assert sorted(table.rows) == sorted(offered)


@given(st.lists(st.tuples(partitions, st.integers(1, 5)), max_size=20))
def test_what_only_comes_once_and_in_order_is_never_asked_for_but_the_first_time(
    blocks: list[tuple[Partition, int]],
) -> None:
    table = Table()
    for at, length in blocks:
        first = table.positions.get(at, 0)
        table.load({at: (first, first + length - 1, frozenset())})
    assert table.asked == len({at for at, _ in blocks})


@given(st.dictionaries(partitions, st.integers(0, LAST)), st.dictionaries(partitions, st.integers(0, LAST)))
def test_only_partitions_whose_position_was_passed_are_named(
    positions: dict[Partition, int], held: dict[Partition, int]
) -> None:
    found = position.above(positions, held)
    assert found == {at: held[at] - 1 for at in positions if at in held and held[at] - 1 >= positions[at]}
