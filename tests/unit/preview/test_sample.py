"""Which records a sample has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batcher.preview.sample import Sample, chosen, take
from batcher.records import Partition, Range, Records
from batcher.testing.values import make_records

A, B, C = Partition("a", 0), Partition("a", 1), Partition("b", 0)


class Log:
    """A log whose records begin at offset 100."""

    def __init__(self, sizes: dict[Partition, int], value: str = "1") -> None:
        self.sizes = sizes
        self.value = value
        self.read: list[Range] = []

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        return 100, 100 + self.sizes[partition]

    def records(self, asked: Range) -> Iterator[Records]:
        self.read.append(asked)
        count = asked.next_offset - asked.first
        yield make_records([self.value] * count, partition=asked.partition, first_offset=asked.first)

    def take(self, wanted: int, max_bytes: int = 1 << 30) -> Sample:
        return take(self, sorted(self.sizes), wanted, max_bytes)


def test_a_small_log_is_taken_whole() -> None:
    sample = Log({A: 3, B: 0, C: 2}).take(10)

    assert (sample.rows, sample.log_offsets, sample.topics) == (5, 5, ("a", "b"))
    assert sample.of_topic("b").rows == sample.of_topic("b").log_offsets == 2


def test_of_a_large_log_the_oldest_and_the_newest_records_are_taken() -> None:
    log = Log({A: 1000})

    assert log.take(10).rows == 10
    assert log.read == [Range(A, 100, 104), Range(A, 1095, 1099)]


def test_what_a_small_partition_lacks_is_taken_from_the_others() -> None:
    sample = Log({A: 1000, B: 2, C: 1000}).take(30)

    assert {run.partition: 0 for run in sample.runs}.keys() == {A, B, C}
    assert (sample.rows, sample.of_topic("b").rows) == (30, 14)


def test_one_record_is_the_newest() -> None:
    assert chosen(A, 5, 50, 1) == [Range(A, 49, 49)]
    assert chosen(A, 5, 5, 1) == []


@pytest.mark.parametrize("sizes", [{A: 1000}, {A: 1000, B: 1000, C: 1000}])
def test_large_records_bound_a_sample_by_their_bytes(sizes: dict[Partition, int]) -> None:
    sample = Log(sizes, "x" * 1000).take(900, max_bytes=60_000)

    assert sample.bytes_bound
    assert 30_000 < sample.nbytes <= 61_000
    # Of both ends of every partition.
    for partition in sizes:
        offsets = [run.first_offset for run in sample.runs if run.partition == partition]
        assert min(offsets) == 100
        assert max(offsets) > 500


def test_a_record_that_is_larger_than_the_bound_is_taken_alone() -> None:
    assert Log({A: 3}, "x" * 1000).take(3, max_bytes=10).rows == 1


def test_the_batch_of_a_sample_is_joined() -> None:
    batch = Log({B: 100, A: 100}).take(20).batch

    assert [run.partition for run in batch.runs] == [A, B]
    assert batch.runs[0].offsets.to_pylist() == [*range(100, 105), *range(195, 200)]
