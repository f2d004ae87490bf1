"""The log in memory does to its readers what a real one does."""

import pytest

from batcher.errors import CommitRefused, DataGap
from batcher.records import Partition, Position
from batcher.testing.listener import RecordingListener, offsets
from batcher.testing.sources import MemoryLog, MemorySource

A, B = Partition("events", 0), Partition("events", 1)


class Crash(BaseException):
    """The process dies here."""


def opened(log: MemoryLog, **options: object) -> tuple[MemorySource, RecordingListener]:
    source, listener = MemorySource(log, waits=False, **options), RecordingListener()  # type: ignore[arg-type]
    source.open(listener)
    return source, listener


def log_of(count: int) -> MemoryLog:
    log = MemoryLog([A])
    log.produce(A, ["1"] * count)
    return log


def test_a_log_is_read_over_its_holes_and_ends_where_it_did() -> None:
    log = log_of(5)
    log.produce(A, ["1"] * 3, gap=2)
    source, _ = opened(log, until_eof=True)
    log.compact(A, [1, 2, 8, 9])

    assert offsets(source.fetch(3, 1 << 24, 0)) == {A: [0, 3, 4]}
    assert source.reached == {A: 5}
    early = source.exhausted
    assert offsets(source.fetch(3, 1 << 24, 0)) == {A: [7]}
    assert source.reached == {A: 10}
    assert (early, source.exhausted) == (False, True)
    assert log.produce(A, ["1"]) == range(10, 11)
    assert source.reached == {A: 8}


def test_an_end_that_is_not_for_readers_is_reached() -> None:
    log = log_of(2)
    log.produce(A, [], gap=3)
    source, _ = opened(log)

    source.fetch(10, 1 << 24, 0)

    assert source.reached == {A: 5}


def test_everything_may_be_compacted_away() -> None:
    log = log_of(3)
    log.compact(A, [0, 1, 2])
    source, _ = opened(log, until_eof=True)

    assert source.fetch(10, 1 << 24, 0) == []
    assert source.reached == {A: 3}
    assert source.exhausted


def test_records_that_expired_stop_the_reader_with_the_exact_gap_each_time() -> None:
    log = log_of(10)
    log.committed[A] = Position(4, (), "note")
    log.expire(A, 7)
    source, listener = opened(log)

    for _ in range(2):
        with pytest.raises(DataGap, match=r"events\[0\]: offsets 4-6 \(3\) expired"):
            source.fetch(10, 1 << 24, 0)
    assert listener.assigned == []
    assert log.owners == {}


def test_records_that_expire_while_reading_stop_the_reader() -> None:
    log = log_of(10)
    source, _ = opened(log)
    source.fetch(3, 1 << 24, 0)
    log.expire(A, 7)

    with pytest.raises(DataGap, match=r"offsets 3-6 \(4\) expired"):
        source.fetch(10, 1 << 24, 0)


def test_expired_records_can_be_skipped_and_the_mark_is_kept() -> None:
    log = log_of(10)
    log.committed[A] = Position(4, (), "note")
    log.expire(A, 7)
    source, listener = opened(log, on_gap="skip")

    assert offsets(source.fetch(10, 1 << 24, 0)) == {A: [7, 8, 9]}
    assert listener.assigned == [{A: Position(7, (), "note")}]


def test_a_group_without_a_commit_starts_behind_what_expired() -> None:
    log = log_of(10)
    log.expire(A, 7)
    source, _ = opened(log)

    assert offsets(source.fetch(10, 1 << 24, 0)) == {A: [7, 8, 9]}


@pytest.mark.parametrize("stored", [False, True])
def test_a_process_may_die_before_and_after_a_commit_is_stored(stored: bool) -> None:
    log = log_of(3)
    source, _ = opened(log)
    source.fetch(10, 1 << 24, 0)

    def die(positions: object) -> None:
        assert positions == {A: Position(3, (), "note")}
        raise Crash

    setattr(log, "after_commit" if stored else "before_commit", die)

    with pytest.raises(Crash):
        source.commit({A: Position(3, (), "note")}, 1.0)
    assert log.committed == ({A: Position(3, (), "note")} if stored else {})


def test_a_partition_that_is_not_taken_is_nobody_elses_and_takes_no_commits_until_it_is() -> None:
    log = MemoryLog([A, B])
    log.produce(A, ["1"] * 3)
    source, listener = opened(log)
    listener.refusing = frozenset({A})
    assert source.fetch(10, 1 << 24, 0) == []

    assert (source.owned, source.untaken, source.paused) == (frozenset({B}), frozenset({A}), frozenset({A}))
    with pytest.raises(CommitRefused):
        source.commit({A: Position(1)}, 1.0)
    assert [partition for partition, _ in log.trespasses] == [A]
    source.revoke([A])
    source.fetch(10, 1 << 24, 0)
    assert A not in log.owners
    assert listener.revoked == []
    listener.refusing = frozenset()
    source.assign([A])
    assert offsets(source.fetch(10, 1 << 24, 0)) == {A: [0, 1, 2]}
    assert source.untaken == frozenset()
