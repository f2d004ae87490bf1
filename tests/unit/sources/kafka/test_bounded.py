"""A source with an end delivers what is before it, rests there, and then counts as exhausted."""

from __future__ import annotations

from collections.abc import Mapping

from batcher.protocols import SourceInfo
from batcher.records import Partition, Position
from batcher.sources.kafka.bounded import BoundedSource
from batcher.testing.listener import RecordingListener
from batcher.testing.sources import MemoryLog, MemorySource

A, B = Partition("t", 0), Partition("t", 1)


def opened(ends: Mapping[Partition, int], records: int = 10) -> tuple[BoundedSource, SourceInfo, MemorySource]:
    log = MemoryLog([A, B])
    for partition in (A, B):
        log.produce(partition, [str(number) for number in range(records)])
    inner = MemorySource(log, waits=False)
    source = BoundedSource(inner, lambda: ends)
    return source, source.open(RecordingListener()), inner


def read(source: BoundedSource, rounds: int = 8) -> dict[Partition, list[int]]:
    found: dict[Partition, list[int]] = {A: [], B: []}
    for _ in range(rounds):
        for run in source.fetch(3, 1 << 20, 0.0):
            found[run.partition] += run.offsets.to_pylist()
    return found


def test_nothing_is_delivered_from_an_end_on_and_the_source_is_exhausted_there() -> None:
    source, info, _ = opened({A: 4, B: 10})
    assert info.overlaps
    before = source.exhausted
    assert read(source) == {A: [0, 1, 2, 3], B: list(range(10))}
    assert (before, source.exhausted) == (False, True)
    assert source.reached[A] == 4


def test_a_partition_without_an_end_is_not_part_of_the_run() -> None:
    source, _, _ = opened({A: 2})
    assert read(source) == {A: [0, 1], B: []}
    assert source.exhausted


def test_a_partition_at_its_end_is_not_read_on_when_the_engine_resumes_all() -> None:
    source, _, inner = opened({A: 2, B: 10})
    read(source)
    source.resume([A, B])
    source.fetch(100, 1 << 20, 0.0)
    assert inner.reached[A] < 10


def test_lag_is_counted_to_the_ends_and_goes_down_with_commits() -> None:
    source, _, _ = opened({A: 4, B: 6})
    read(source)
    assert source.lag() == {A: 4, B: 6}
    source.commit({A: Position(4)}, 1.0)
    assert source.lag() == {A: 0, B: 6}
    source.close()
    assert source.lag() == {}
