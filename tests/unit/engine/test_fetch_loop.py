from collections.abc import Mapping
from dataclasses import replace

import pytest

from batcher.core.in_flight import BatchInFlight
from batcher.core.offsets import Offsets
from batcher.core.state import COMMIT_POLL_S, LEASE_S, PATIENCE_S, POLL_S
from batcher.engine.report import waiting_for
from batcher.errors import CommitUnconfirmed, SourceLost
from batcher.protocols import PartitionListener, SourceInfo
from batcher.records import Intent, Partition, Position, Range, Records
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.hand_engine import HandEngine

A, B = Partition("events", 0), Partition("events", 1)


class BoundSource(MemorySource):
    """Bound how long a revoke may be held."""

    def __init__(self, log: MemoryLog, drain_timeout_s: float | None) -> None:
        super().__init__(log, waits=False)
        self._drain_timeout_s = drain_timeout_s

    def open(self, listener: PartitionListener) -> SourceInfo:
        return replace(super().open(listener), drain_timeout_s=self._drain_timeout_s)


class Bench:
    """A fetch loop on a memory log; the test plays the other two."""

    def __init__(
        self,
        *,
        memory: int = 1 << 20,
        drain_timeout_s: float = 30.0,
        source_bound_s: float | None = None,
        records: int = 10,
        announces: bool = False,
        committed: Mapping[Partition, Position] | None = None,
        max_records: int | None = None,
    ) -> None:
        self.log = MemoryLog([A, B])
        self.log.committed.update(committed or {})
        self.source = BoundSource(self.log, source_bound_s)
        self.engine = HandEngine(memory=memory, offsets=Offsets(announces=announces), max_records=max_records)
        self.clock = self.engine.clock
        self.counters = self.engine.counters
        self.loop = self.engine.reading(self.source, drain_timeout_s=drain_timeout_s)
        self.log.produce(A, ["1"] * records)
        self.log.produce(B, ["1"] * records)
        self.loop.step()

    def begin(self) -> BatchInFlight:
        one = self.engine.begin()
        assert one is not None
        return one

    def step_until_paused(self) -> None:
        for _ in range(100):
            self.loop.step()
            self.clock.advance(0.1)
            if self.source.paused >= self.source.owned:
                return
        raise AssertionError("reading went on over the memory bound")

    def decode(self, one: BatchInFlight) -> None:
        self.engine.ready(one)

    def being_written(self) -> BatchInFlight:
        one = self.begin()
        self.decode(one)
        self.loop.commit()
        head = self.engine.head()
        assert head is one
        return one

    def committed(self) -> Mapping[Partition, Position]:
        return self.log.committed

    def progress(self) -> Mapping[Partition, int]:
        return {partition: at.next_offset for partition, at in self.log.committed.items() if at.next_offset}


def test_a_finished_batch_is_committed_by_the_next_step_and_not_before() -> None:
    bench = Bench()
    one = bench.begin()
    assert bench.committed() == {}
    bench.engine.finish(one)
    assert bench.committed() == {}

    bench.loop.step()

    assert bench.committed() == {A: Position(5)}


@pytest.mark.parametrize("announces", [False, True])
def test_a_revoked_partition_is_held_until_its_batch_in_flight_is_durable_and_committed(
    announces: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(announces=announces)
    one = bench.being_written()
    assert list(one.epochs) == [A]
    # The fetch loop waits inside the callback; the write loop finishes meanwhile.
    in_flight = [one]

    def finish_once(*_: float, **__: bool) -> None:
        if in_flight:
            bench.engine.finish(in_flight.pop())

    monkeypatch.setattr(bench.engine.shared, "wait_changed", finish_once)

    bench.source.revoke([A])
    bench.loop.step()

    assert bench.committed()[A] == Position(5)
    assert bench.engine.owned == {B}


@pytest.mark.parametrize("announces", [False, True])
def test_a_revoked_partition_is_given_up_after_the_bound_and_its_late_batch_is_not_committed(announces: bool) -> None:
    bench = Bench(drain_timeout_s=0.0, announces=announces)
    one = bench.being_written()
    bench.source.revoke([A])
    bench.loop.step()

    bench.engine.finish(one)
    bench.loop.step()

    assert bench.progress() == {}
    assert [intent.range.last for intent in bench.committed()[A].intents] == [4] if announces else True
    assert not bench.log.trespasses


@pytest.mark.parametrize(("source_bound_s", "held_s"), [(None, 30.0), (3.0, 3.0), (60.0, 30.0)])
def test_a_revoked_partition_is_held_no_longer_than_pipeline_and_source_allow(
    source_bound_s: float | None, held_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(drain_timeout_s=30.0, source_bound_s=source_bound_s)
    bench.being_written()
    monkeypatch.setattr(bench.engine.shared, "wait_changed", lambda *_, **__: bench.clock.advance(1.0))
    began = bench.clock()

    bench.source.revoke([A])
    bench.loop.step()

    assert bench.clock() - began == held_s


@pytest.mark.parametrize("announces", [False, True])
def test_a_batch_that_was_not_offered_to_the_target_is_dropped_at_a_revoke_and_not_waited_for(announces: bool) -> None:
    bench = Bench(announces=announces)
    one = bench.begin()
    bench.decode(one)
    bench.loop.commit()

    bench.source.revoke([A])
    bench.loop.step()

    assert bench.engine.owned == {B}
    assert bench.log.committed.get(A, Position(0)) == Position(0)
    in_flight = bench.engine.snapshot().in_flight
    assert in_flight is not None
    assert [span.partition for span in in_flight.ranges] == [B]


def test_a_lost_partition_is_not_waited_for() -> None:
    bench = Bench()
    one = bench.begin()
    bench.source.lose([A])
    bench.loop.step()
    bench.engine.finish(one)
    bench.loop.step()

    assert bench.committed() == {}


def test_a_refused_commit_gives_the_partition_up_and_leaves_the_others() -> None:
    bench = Bench()
    bench.engine.finish(bench.begin())
    del bench.log.owners[A]
    bench.loop.commit()

    assert bench.engine.owned == {B}
    assert bench.committed() == {}


def test_what_waits_of_a_revoked_partition_is_left_to_the_successor() -> None:
    bench = Bench()
    bench.source.revoke([A])
    bench.loop.step()

    assert bench.engine.snapshot().rows == 10
    assert list(bench.begin().epochs) == [B]


def test_a_full_buffer_pauses_every_partition_and_room_resumes_them() -> None:
    bench = Bench(memory=1000, records=40)
    bench.step_until_paused()
    assert bench.source.paused == {A, B}

    while (one := bench.engine.begin()) is not None:
        bench.engine.finish(one)
        bench.loop.commit()
    bench.loop.step()

    assert bench.source.paused == frozenset()


def test_room_that_comes_soon_does_not_cost_a_pause_and_what_was_prefetched() -> None:
    bench = Bench(memory=1000, records=40)
    while not bench.engine.full:
        bench.loop.step()
    consumed = bench.counters.counts.consumed

    bench.loop.step()
    assert bench.counters.counts.consumed == consumed
    while (one := bench.engine.begin()) is not None:
        bench.engine.finish(one)
        bench.loop.commit()
    bench.clock.advance(PATIENCE_S)
    bench.loop.step()

    assert bench.source.paused == frozenset()
    assert bench.counters.counts.consumed > consumed


def test_partitions_assigned_while_reading_is_paused_are_paused_too() -> None:
    bench = Bench(memory=1000, records=40)
    bench.source.lose([B])
    bench.step_until_paused()
    bench.source.assign([B])
    bench.loop.step()
    assert bench.source.paused == {A}
    bench.loop.step()

    assert bench.source.paused == {A, B}


def test_no_more_than_two_batches_are_written_ahead_of_their_commits() -> None:
    bench = Bench()
    for _ in range(2):
        bench.engine.finish(bench.begin())
    bench.decode(bench.begin())

    assert bench.engine.head() is None
    assert waiting_for(bench.engine.snapshot(), None) == "the broker to store a commit"
    bench.loop.step()
    assert bench.engine.head() is not None


def test_one_batch_is_decoded_ahead_and_no_more() -> None:
    bench = Bench()
    first, second = bench.begin(), bench.begin()
    assert bench.engine.begin() is None

    bench.decode(first)
    bench.decode(second)
    for expected in (first, second):
        head = bench.engine.head()
        assert head is expected
        bench.engine.finish(expected)


def test_a_batch_whose_partition_changed_hands_before_its_write_is_left_to_the_new_owner() -> None:
    bench = Bench()
    one = bench.begin()
    bench.decode(one)
    bench.source.lose(list(one.epochs))
    bench.loop.step()

    assert bench.engine.head() is None
    in_flight = bench.engine.snapshot().in_flight
    assert in_flight is not None
    assert [span.partition for span in in_flight.ranges] == [B]


def test_status_says_why_nothing_is_written() -> None:
    bench = Bench(records=2)
    assert waiting_for(bench.engine.snapshot(), None) == "more records, or 1.0 s to pass"
    bench.clock.advance(1.0)
    assert waiting_for(bench.engine.snapshot(), None) == ""
    bench.engine.finish(bench.begin())
    bench.engine.finish(bench.begin())
    bench.loop.step()
    assert waiting_for(bench.engine.snapshot(), None) == "records"
    bench.source.revoke([A, B])
    bench.loop.step()
    assert waiting_for(bench.engine.snapshot(), None) == "partitions to be assigned"


def test_nothing_is_committed_after_an_abort() -> None:
    bench = Bench()
    bench.engine.finish(bench.begin())
    bench.engine.abort()
    bench.loop.commit()

    assert bench.committed() == {}


def announced(last: int) -> Position:
    return Position(0, (Intent(Range(A, 0, last), 1_700_000_000_000),), "theirs-0")


def test_a_full_buffer_does_not_stop_the_reading_of_an_announced_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.core.state.FETCH_RECORDS", 10)
    bench = Bench(memory=1000, records=100, announces=True, committed={A: announced(79)})
    for _ in range(100):
        bench.loop.step()
        bench.clock.advance(0.1)
        if not bench.engine.replaying:
            break
    bench.step_until_paused()
    one = bench.begin()

    assert (one.batch.replayed, one.batch.ranges[0][1:]) == (True, (0, 79))
    assert bench.source.paused == {A, B}


def test_a_bound_on_the_records_does_not_cut_an_announced_range_short() -> None:
    bench = Bench(records=30, announces=True, committed={A: announced(19)}, max_records=3)
    for _ in range(5):
        bench.loop.step()

    assert bench.engine.phase == "draining"
    assert bench.begin().batch.ranges[0][1:] == (0, 19)


def test_an_announced_range_whose_last_records_are_gone_is_complete_at_the_end_of_the_log() -> None:
    bench = Bench(records=10, announces=True, committed={A: announced(19)})
    assert bench.engine.replaying == {A}
    bench.log.produce(A, ["1"] * 10)
    bench.log.compact(A, range(15, 20))
    bench.loop.step()

    one = bench.begin()
    assert one.batch.ranges[0][1:] == (0, 19)
    assert one.batch.rows == 15


def test_what_a_predecessor_announced_is_announced_again_at_once() -> None:
    bench = Bench(announces=True, committed={A: announced(4)})
    bench.loop.step()

    assert bench.committed()[A] != announced(4)
    assert [intent.range[1:] for intent in bench.committed()[A].intents] == [(0, 4)]


def test_a_partition_with_strange_metadata_is_left_alone_and_named_until_they_are_gone() -> None:
    strange = Position(0, unreadable="the metadata of the committed offset is no intent of batcher")
    bench = Bench(announces=True, committed={A: strange})
    bench.loop.step()

    assert bench.engine.owned == {B}
    assert "no intent of batcher" in bench.loop.stopped[A]
    assert bench.committed()[A] == strange
    bench.log.committed[A] = Position(0)
    bench.source.revoke([A])
    bench.source.assign([A])
    bench.loop.step()
    assert bench.loop.stopped == {}
    assert bench.engine.owned == {A, B}


def test_what_is_said_of_stopped_partitions_can_be_read_while_one_of_them_begins_to_be_read() -> None:
    strange = Position(0, unreadable="the metadata of the committed offset is no intent of batcher")
    bench = Bench(announces=True, committed={A: strange, B: strange})
    reading = iter(bench.loop.stopped)
    first = next(reading)

    bench.log.committed[A] = Position(0)
    bench.source.revoke([A])
    bench.source.assign([A])
    bench.loop.step()

    assert {first, *reading} == {A, B}


def test_a_commit_proves_ownership_from_when_it_was_sent_and_not_from_its_answer() -> None:
    bench = Bench(announces=True)
    bench.decode(bench.begin())
    bench.log.before_commit = lambda _: bench.clock.advance(LEASE_S + 1)
    bench.loop.commit()
    assert bench.engine.head() is None
    bench.log.before_commit = lambda _: None
    bench.loop.commit()

    assert bench.engine.head() is not None


@pytest.mark.parametrize("stored", [False, True])
def test_a_commit_without_an_answer_is_sent_again_in_other_words_while_records_are_read(stored: bool) -> None:
    bench = Bench(announces=True)
    bench.decode(bench.begin())
    sent: list[Position] = []

    def keep_silent(positions: Mapping[Partition, Position]) -> None:
        sent.append(positions[A])
        raise CommitUnconfirmed("no answer")

    setattr(bench.log, "after_commit" if stored else "before_commit", keep_silent)
    bench.log.produce(B, ["1"] * 3)
    for _ in range(3):
        bench.loop.step()

    assert bench.engine.head() is None
    assert bench.source.reached[B] == 13
    assert len(set(sent)) == 3
    bench.log.before_commit = bench.log.after_commit = lambda _: None
    bench.loop.step()
    assert bench.engine.head() is not None


def test_a_source_that_cannot_tell_at_once_what_came_of_a_commit_is_not_asked_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(drain_timeout_s=1.0)
    bench.engine.finish(bench.being_written())
    asked: list[Mapping[Partition, Position]] = []
    waited: list[float | None] = []

    def keep_silent(positions: Mapping[Partition, Position]) -> None:
        asked.append(positions)
        assert len(asked) < 1000
        raise CommitUnconfirmed("no answer")

    def wait(timeout_s: float | None = None) -> bool:
        waited.append(timeout_s)
        bench.clock.advance(timeout_s or 0.0)
        return False

    bench.log.before_commit = keep_silent
    monkeypatch.setattr(bench.engine.shared._changed, "wait", wait)
    bench.source.revoke([A])
    bench.loop.step()

    assert set(waited) == {COMMIT_POLL_S}
    assert len(waited) <= len(asked) <= len(waited) + 2


def test_commits_that_are_never_answered_end_the_process_after_longer_than_a_group_waits_for_a_member() -> None:
    bench = Bench()
    bench.engine.finish(bench.begin())

    def keep_silent(_: Mapping[Partition, Position]) -> None:
        bench.clock.advance(2.0)
        raise CommitUnconfirmed("no answer")

    bench.log.before_commit = keep_silent
    began = bench.clock()
    while bench.clock() < began + 300:
        bench.loop.step()

    with pytest.raises(SourceLost, match="no answer"):
        bench.step_until_paused()


def test_reading_goes_on_for_the_second_announced_range_though_it_was_paused_at_the_end_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batcher.core.state.FETCH_RECORDS", 60)
    intents = (Intent(Range(A, 0, 39), 1_700_000_000_000), Intent(Range(A, 40, 99), 1_700_000_000_040))
    bench = Bench(memory=1000, records=100, announces=True, committed={A: Position(0, intents, "theirs-0")})
    bench.step_until_paused()
    for _ in range(20):
        bench.loop.step()
        bench.clock.advance(0.5)
        if bench.engine.begin() is not None:
            bench.engine.finish(bench.engine.in_flight[0])

    assert bench.progress()[A] == 100


def test_a_fetch_ends_when_a_batch_is_due_so_that_it_is_announced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(records=1)
    asked: list[float] = []

    def fetch(_max_records: int, _max_bytes: int, timeout_s: float) -> list[Records]:
        asked.append(timeout_s)
        return []

    monkeypatch.setattr(bench.source, "fetch", fetch)
    for advance_s in (0.0, 0.95, 0.04):
        bench.clock.advance(advance_s)
        bench.loop.step()

    assert asked == pytest.approx([POLL_S, 0.05, COMMIT_POLL_S])
