"""Several states are one to the fetch loop, and each stays by itself."""

from __future__ import annotations

from collections.abc import Mapping

from batcher.core.offsets import Offsets
from batcher.core.state import FETCH_RECORDS, PATIENCE_S
from batcher.engine.dispatcher import LEAST_FETCH_BYTES, Dispatcher, Found
from batcher.engine.fetch_loop import FetchLoop
from batcher.records import Partition, Position
from batcher.telemetry.events import Events
from batcher.testing.sources import MemoryLog, MemorySource
from batcher.testing.values import make_records
from tests.harness.hand_engine import HandEngine

A, B, C = Partition("a", 0), Partition("b", 0), Partition("c", 0)


class Two:
    """Two states, of the topics a and b, and whatever a test adds."""

    def __init__(self, *, memory_bytes: int | None = None) -> None:
        self.a, self.b = HandEngine(offsets=Offsets("a")), HandEngine(offsets=Offsets("b"))
        self.of: dict[str, Found] = {"a": self.a.shared, "b": self.b.shared}
        self.dispatcher = Dispatcher(lambda topic: self.of.get(topic, "no target"), memory_bytes)
        self.dispatcher.add(self.a.shared)
        self.dispatcher.add(self.b.shared)

    def assign(self, *partitions: Partition) -> Mapping[Partition, str]:
        return self.dispatcher.assign({partition: Position(0) for partition in partitions})[0]

    def fetched(self, *counts: tuple[Partition, int], exhausted: bool = False) -> int:
        runs = [make_records([str(n) for n in range(count)], partition=part) for part, count in counts]
        return sum(map(len, self.dispatcher.fetched(runs, {}, exhausted=exhausted)))


def finish_one(engine: HandEngine) -> None:
    one = engine.begin()
    assert one is not None
    engine.ready(one)
    assert engine.head() is one
    engine.finish(one)


def test_records_go_to_the_state_of_their_topic_and_commits_come_from_all_of_them() -> None:
    two = Two()
    assert two.assign(A, B) == {}

    assert two.fetched((A, 5), (B, 5)) == 10
    finish_one(two.a)
    finish_one(two.b)

    assert [set(two.a.owned), set(two.b.owned)] == [{A}, {B}]
    wanted = two.dispatcher.take_commit()
    assert wanted == {A: Position(5), B: Position(5)}
    two.dispatcher.committed(wanted, [B], 0.0)
    assert two.a.snapshot().committed == {A: 5}
    assert two.b.owned == frozenset()


def test_what_is_asked_of_the_source_is_what_every_state_can_take() -> None:
    two = Two()
    two.assign(A, B)
    two.a.buffer.resize(10)
    two.fetched((A, 5))

    two.dispatcher.next_read(0.0)
    plan = two.dispatcher.next_read(PATIENCE_S)

    # What is full is paused, and does not make the fetches of the other small.
    assert plan.pause == {A}
    assert plan.max_bytes == max(LEAST_FETCH_BYTES, two.b.buffer.free_bytes)
    assert not plan.waits
    assert not plan.paused


def test_a_state_that_is_nearly_full_still_lets_the_others_fetch() -> None:
    two = Two()
    two.assign(A, B)
    two.a.buffer.resize(200)
    two.fetched((A, 1))
    assert two.dispatcher.next_read(0.0).max_bytes == LEAST_FETCH_BYTES


def test_the_memory_is_shared_out_anew_when_a_target_comes() -> None:
    two = Two(memory_bytes=300)
    assert (two.a.buffer.memory_bytes, two.b.buffer.memory_bytes) == (150, 150)
    third = HandEngine()
    two.dispatcher.add(third.shared)
    assert {engine.buffer.memory_bytes for engine in (two.a, two.b, third)} == {100}


def test_a_partition_without_a_target_is_refused_and_offered_once_there_is_one() -> None:
    two = Two()
    assert two.assign(A, C) == {C: "no target"}
    assert two.dispatcher.waits(C)
    assert list(two.dispatcher.to_offer()) == []
    third = HandEngine()
    two.dispatcher.add(third.shared)
    two.of["c"] = third.shared

    assert list(two.dispatcher.to_offer()) == [C]
    # The source may not be able to hand it over at once.
    assert list(two.dispatcher.to_offer()) == [C]
    assert two.assign(C) == {}
    assert list(two.dispatcher.to_offer()) == []
    assert third.owned == {C}


def test_a_partition_that_is_taken_away_while_it_waits_is_not_offered() -> None:
    two = Two()
    two.assign(C)
    two.dispatcher.forget([C])
    two.of["c"] = two.a.shared
    assert list(two.dispatcher.to_offer()) == []


def test_a_failed_target_is_left_once_what_is_durable_of_it_is_committed_and_not_before() -> None:
    two = Two()
    two.assign(A, B)
    two.fetched((A, 5))
    finish_one(two.a)
    two.fetched((A, 7))
    two.a.halt()
    two.dispatcher.fail(two.a.shared, "broken")

    assert two.dispatcher.phase == "running"
    assert two.dispatcher.to_ignore() == {}
    wanted = two.dispatcher.take_commit()
    assert wanted == {A: Position(5)}
    assert two.dispatcher.to_ignore() == {}
    two.dispatcher.committed(wanted, [], 0.0)
    assert two.dispatcher.to_ignore() == {A: "broken"}
    assert two.dispatcher.to_ignore() == {}
    assert two.assign(A) == {A: "broken"}


def test_a_target_that_comes_during_a_drain_or_after_an_abort_takes_part_in_it() -> None:
    for end in ("drain", "abort"):
        two = Two()
        if end == "drain":
            two.dispatcher.drain("stop")
        else:
            two.dispatcher.abort()
        late = HandEngine()
        two.dispatcher.add(late.shared)
        assert late.phase == ("draining" if end == "drain" else "aborted")


def test_the_end_is_known_to_states_for_which_nothing_came() -> None:
    two = Two()
    two.assign(A, B)
    two.fetched((A, 1), exhausted=True)
    assert (two.a.phase, two.b.phase, two.dispatcher.phase) == ("draining", "draining", "draining")


def test_the_fetch_loop_leaves_the_partitions_of_a_failed_target_to_the_source() -> None:
    log = MemoryLog([A, B])
    log.produce(A, ["1"] * (FETCH_RECORDS + 1))
    source = MemorySource(log, until_eof=True, waits=False)
    two = Two()
    two.a.buffer.resize(1 << 30)
    loop = FetchLoop(source, Events(), clock=two.a.clock)
    loop.open()
    loop.begin(two.dispatcher)
    loop.step()
    two.a.halt()
    two.dispatcher.fail(two.a.shared, "broken")

    loop.step()

    assert source.owned == {B}
    assert loop.stopped == {A: "broken"}
    # Nothing of it keeps the others from their end.
    loop.step()
    assert two.b.phase == "draining"
