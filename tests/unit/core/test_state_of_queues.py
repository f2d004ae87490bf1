"""What the state decides for sources that take single records back, and that say when nothing more comes."""

from __future__ import annotations

from batcher.core.buffer import FlushPolicy
from batcher.core.in_flight import BatchInFlight
from batcher.records import Partition, Position
from batcher.testing.values import make_records
from tests.harness.hand_engine import HandEngine

A, B = Partition("queue", 0), Partition("queue", 1)


class Hall:
    """The state of an engine with a batch of five records."""

    def __init__(self) -> None:
        self.engine = HandEngine(policy=FlushPolicy(5, 1 << 20, 60.0))
        self.state = self.engine.state
        self.engine.assign({A: Position(100), B: Position(100)})

    def put(self, count: int, partition: Partition = A, first: int = 100, *, saturated: bool = False) -> None:
        run = make_records(["1"] * count, partition=partition, first_offset=first)
        self.engine.shared.fetched([run], {}, exhausted=False, saturated=saturated)

    def written(self) -> BatchInFlight:
        one = self.engine.begin()
        assert one is not None
        self.engine.ready(one)
        head = self.engine.head()
        assert head is one
        return one


def test_a_record_is_given_back_in_the_round_of_the_commit_above_it_and_once() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.written()
    assert hall.engine.next_read().release == {}
    hall.state.finished(one, hall.engine.clock(), {A: {101: 5.0, 103: 0.0}})
    plan = hall.engine.next_read()

    assert plan.release == {A: {101: 5.0, 103: 0.0}}
    assert plan.commit == {A: Position(105)}
    assert hall.engine.next_read().release == {}


def test_records_of_two_batches_are_given_back_together() -> None:
    hall = Hall()
    hall.put(5)
    hall.put(5, first=105)
    for first in (100, 105):
        hall.state.finished(hall.written(), hall.engine.clock(), {A: {first: 1.0}})

    assert hall.state.take_commit() == {A: Position(110)}
    assert hall.state.take_releases() == {A: {100: 1.0, 105: 1.0}}


def test_a_drain_does_not_end_before_everything_is_given_back() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.written()
    hall.engine.drain()
    hall.state.finished(one, hall.engine.clock(), {A: {100: 1.0}})
    wanted = hall.state.take_commit()
    hall.engine.committed(wanted, hall.engine.clock())
    assert not hall.engine.drained
    hall.state.take_releases()

    assert hall.engine.drained


def test_nothing_is_given_back_of_partitions_that_are_not_ours_nor_after_an_abort() -> None:
    lost, gone, aborted = Hall(), Hall(), Hall()
    for hall in (lost, gone, aborted):
        hall.put(5)
    one, two, three = lost.written(), gone.written(), aborted.written()
    lost.engine.forget([A])
    lost.state.finished(one, 0.0, {A: {100: 1.0}})
    gone.state.finished(two, 0.0, {A: {100: 1.0}})
    gone.engine.forget([A])
    aborted.state.finished(three, 0.0, {A: {100: 1.0}})
    aborted.engine.abort()

    assert lost.state.take_releases() == gone.state.take_releases() == aborted.state.take_releases() == {}


def test_what_waits_is_sealed_at_once_when_nothing_more_comes() -> None:
    hall = Hall()
    hall.put(3)
    assert hall.engine.begin() is None
    hall.put(1, first=103, saturated=True)
    one = hall.engine.begin()

    assert one is not None
    assert (one.batch.rows, one.batch.trigger) == (4, "saturated")


def test_a_source_that_has_room_again_lets_what_waits_wait() -> None:
    hall = Hall()
    hall.put(3, saturated=True)
    assert hall.engine.begin() is not None
    hall.put(1, first=103)

    assert hall.engine.begin() is None
    assert hall.engine.snapshot().due_in_s == 60.0
