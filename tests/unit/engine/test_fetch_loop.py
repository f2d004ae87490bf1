from collections.abc import Mapping

import pyarrow as pa
import pytest

from batcher.core.buffer import Buffer, FlushPolicy
from batcher.core.intents import parse, render
from batcher.core.offsets import Ledger, Receipt
from batcher.engine.fetch_loop import COMMIT_POLL_S, PATIENCE_S, POLL_S, Consumer
from batcher.engine.pipeline import waiting_for
from batcher.engine.shared import LEASE_S, Exchange
from batcher.errors import CommitUnconfirmed, SourceLost
from batcher.records import Claim, Decoded, Partition, Position, Prepared, Range, Records
from batcher.telemetry.observer import Observer
from batcher.testing.clock import ManualClock
from batcher.testing.sources import MemoryLog, MemorySource

A, B = Partition("events", 0), Partition("events", 1)


class Bench:
    """A consumer on a memory log; the test plays the flusher."""

    def __init__(
        self,
        *,
        memory: int = 1 << 20,
        drain_timeout_s: float = 30.0,
        records: int = 10,
        announces: bool = False,
        committed: Mapping[Partition, Position] | None = None,
        max_records: int | None = None,
    ) -> None:
        self.log = MemoryLog([A, B])
        self.log.committed.update(committed or {})
        self.source = MemorySource(self.log, waits=False)
        buffer = Buffer(FlushPolicy(5, 1000, 1.0), memory, mixes_partitions=False)
        self.clock = ManualClock()
        self.exchange = Exchange(buffer, Ledger(announces=announces), self.clock)
        self.observer = Observer()
        self.consumer = Consumer(
            self.source,
            self.exchange,
            self.observer,
            max_records=max_records,
            drain_timeout_s=drain_timeout_s,
            clock=self.clock,
        )
        self.consumer.open()
        self.log.produce(A, ["1"] * records)
        self.log.produce(B, ["1"] * records)
        self.consumer.step()

    def begin(self) -> Receipt:
        receipt = self.exchange.begin()
        assert receipt is not None
        return receipt

    def step_until_paused(self) -> None:
        for _ in range(100):
            self.consumer.step()
            self.clock.advance(0.1)
            if self.source.paused >= self.source.owned:
                return
        raise AssertionError("reading went on over the memory bound")

    def decode(self, receipt: Receipt) -> None:
        self.exchange.ready(receipt, Prepared(receipt.batch, Decoded(pa.table({}), pa.array([], pa.int64())), 0.0))

    def being_written(self) -> Receipt:
        receipt = self.begin()
        self.decode(receipt)
        self.consumer.commit()
        head = self.exchange.head()
        assert head is not None
        assert head[0] is receipt
        return receipt

    def committed(self) -> Mapping[Partition, Position]:
        return self.log.committed

    def progress(self) -> Mapping[Partition, int]:
        return {partition: at.next_offset for partition, at in self.log.committed.items() if at.next_offset}


def test_a_finished_batch_is_committed_by_the_next_step_and_not_before() -> None:
    bench = Bench()
    receipt = bench.begin()
    assert bench.committed() == {}
    bench.exchange.finish(receipt)
    assert bench.committed() == {}

    bench.consumer.step()

    assert bench.committed() == {A: Position(5)}


@pytest.mark.parametrize("announces", [False, True])
def test_a_revoked_partition_is_held_until_its_batch_in_flight_is_durable_and_committed(
    announces: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(announces=announces)
    receipt = bench.being_written()
    assert list(receipt.epochs) == [A]
    # The consumer waits inside the callback; the flusher finishes meanwhile.
    in_flight = [receipt]

    def finish_once(_: float) -> None:
        if in_flight:
            bench.exchange.finish(in_flight.pop())

    monkeypatch.setattr(bench.exchange, "wait_changed", finish_once)

    bench.source.revoke([A])
    bench.consumer.step()

    assert bench.committed()[A] == Position(5)
    assert bench.exchange.owned == {B}


@pytest.mark.parametrize("announces", [False, True])
def test_a_revoked_partition_is_given_up_after_the_bound_and_its_late_batch_is_not_committed(announces: bool) -> None:
    bench = Bench(drain_timeout_s=0.0, announces=announces)
    receipt = bench.being_written()
    bench.source.revoke([A])
    bench.consumer.step()

    bench.exchange.finish(receipt)
    bench.consumer.step()

    assert bench.progress() == {}
    assert [claim.range.last for claim in parse(A, bench.committed()[A].note)] == [4] if announces else True
    assert not bench.log.trespasses


@pytest.mark.parametrize("announces", [False, True])
def test_a_batch_that_was_not_offered_to_the_target_is_dropped_at_a_revoke_and_not_waited_for(announces: bool) -> None:
    bench = Bench(announces=announces)
    receipt = bench.begin()
    bench.decode(receipt)
    bench.consumer.commit()

    bench.source.revoke([A])
    bench.consumer.step()

    assert bench.exchange.owned == {B}
    assert bench.log.committed.get(A, Position(0)) == Position(0)
    in_flight = bench.exchange.snapshot().in_flight
    assert in_flight is not None
    assert list(in_flight.next_offsets) == [B]


def test_a_lost_partition_is_not_waited_for() -> None:
    bench = Bench()
    receipt = bench.begin()
    bench.source.lose([A])
    bench.consumer.step()
    bench.exchange.finish(receipt)
    bench.consumer.step()

    assert bench.committed() == {}


def test_a_refused_commit_gives_the_partition_up_and_leaves_the_others() -> None:
    bench = Bench()
    bench.exchange.finish(bench.begin())
    del bench.log.owners[A]
    bench.consumer.commit()

    assert bench.exchange.owned == {B}
    assert bench.committed() == {}


def test_what_waits_of_a_revoked_partition_is_left_to_the_successor() -> None:
    bench = Bench()
    bench.source.revoke([A])
    bench.consumer.step()

    assert bench.exchange.snapshot().buffer.rows == 10
    assert list(bench.begin().epochs) == [B]


def test_a_full_buffer_pauses_every_partition_and_room_resumes_them() -> None:
    bench = Bench(memory=1000, records=40)
    bench.step_until_paused()
    assert bench.source.paused == {A, B}

    while (receipt := bench.exchange.begin()) is not None:
        bench.exchange.finish(receipt)
        bench.consumer.commit()
    bench.consumer.step()

    assert bench.source.paused == frozenset()


def test_room_that_comes_soon_does_not_cost_a_pause_and_what_was_prefetched() -> None:
    bench = Bench(memory=1000, records=40)
    while not bench.exchange.full:
        bench.consumer.step()
    consumed = bench.observer.counts.consumed

    bench.consumer.step()
    assert bench.observer.counts.consumed == consumed
    while (receipt := bench.exchange.begin()) is not None:
        bench.exchange.finish(receipt)
        bench.consumer.commit()
    bench.clock.advance(PATIENCE_S)
    bench.consumer.step()

    assert bench.source.paused == frozenset()
    assert bench.observer.counts.consumed > consumed


def test_partitions_assigned_while_reading_is_paused_are_paused_too() -> None:
    bench = Bench(memory=1000, records=40)
    bench.source.lose([B])
    bench.step_until_paused()
    bench.source.assign([B])
    bench.consumer.step()
    assert bench.source.paused == {A}
    bench.consumer.step()

    assert bench.source.paused == {A, B}


def test_no_more_than_two_batches_are_written_ahead_of_their_commits() -> None:
    bench = Bench()
    for _ in range(2):
        bench.exchange.finish(bench.begin())
    bench.decode(bench.begin())

    assert bench.exchange.head() is None
    assert waiting_for(bench.exchange.snapshot(), None) == "the broker to store a commit"
    bench.consumer.step()
    assert bench.exchange.head() is not None


def test_one_batch_is_decoded_ahead_and_no_more() -> None:
    bench = Bench()
    first, second = bench.begin(), bench.begin()
    assert bench.exchange.begin() is None

    bench.decode(second)
    assert bench.exchange.head() is None
    bench.decode(first)
    for expected in (first, second):
        head = bench.exchange.head()
        assert head is not None
        assert head[0] is expected
        bench.exchange.finish(expected)


def test_a_batch_whose_partition_changed_hands_before_its_write_is_left_to_the_new_owner() -> None:
    bench = Bench()
    receipt = bench.begin()
    bench.decode(receipt)
    bench.source.lose(list(receipt.epochs))
    bench.consumer.step()

    assert bench.exchange.head() is None
    in_flight = bench.exchange.snapshot().in_flight
    assert in_flight is not None
    assert list(in_flight.next_offsets) == [B]


def test_status_says_why_nothing_is_written() -> None:
    bench = Bench(records=2)
    assert waiting_for(bench.exchange.snapshot(), None) == "more records, or 1.0 s to pass"
    bench.clock.advance(1.0)
    assert waiting_for(bench.exchange.snapshot(), None) == ""
    bench.exchange.finish(bench.begin())
    bench.exchange.finish(bench.begin())
    bench.consumer.step()
    assert waiting_for(bench.exchange.snapshot(), None) == "records"
    bench.source.revoke([A, B])
    bench.consumer.step()
    assert waiting_for(bench.exchange.snapshot(), None) == "partitions to be assigned"


def test_nothing_is_committed_after_an_abort() -> None:
    bench = Bench()
    bench.exchange.finish(bench.begin())
    bench.exchange.abort()
    bench.consumer.commit()

    assert bench.committed() == {}


def announced(last: int) -> Position:
    return Position(0, render([Claim(Range(A, 0, last), 1_700_000_000_000)], "theirs-0"))


def test_a_full_buffer_does_not_stop_the_reading_of_an_announced_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.engine.fetch_loop.FETCH_RECORDS", 10)
    bench = Bench(memory=1000, records=100, announces=True, committed={A: announced(79)})
    for _ in range(100):
        bench.consumer.step()
        bench.clock.advance(0.1)
        if not bench.exchange.replaying:
            break
    bench.step_until_paused()
    receipt = bench.begin()

    assert (receipt.batch.replayed, receipt.batch.ranges[0][1:]) == (True, (0, 79))
    assert bench.source.paused == {A, B}


def test_a_bound_on_the_records_does_not_cut_an_announced_range_short() -> None:
    bench = Bench(records=30, announces=True, committed={A: announced(19)}, max_records=3)
    for _ in range(5):
        bench.consumer.step()

    assert bench.exchange.phase == "draining"
    assert bench.begin().batch.ranges[0][1:] == (0, 19)


def test_an_announced_range_whose_last_records_are_gone_is_complete_at_the_end_of_the_log() -> None:
    bench = Bench(records=10, announces=True, committed={A: announced(19)})
    assert bench.exchange.replaying == {A}
    bench.log.produce(A, ["1"] * 10)
    bench.log.compact(A, range(15, 20))
    bench.consumer.step()

    receipt = bench.begin()
    assert receipt.batch.ranges[0][1:] == (0, 19)
    assert receipt.batch.rows == 15


def test_what_a_predecessor_announced_is_announced_again_at_once() -> None:
    bench = Bench(announces=True, committed={A: announced(4)})
    bench.consumer.step()

    assert bench.committed()[A] != announced(4)
    assert [claim.range[1:] for claim in parse(A, bench.committed()[A].note)] == [(0, 4)]


def test_a_partition_with_a_strange_note_is_left_alone_and_named_until_it_is_gone() -> None:
    bench = Bench(announces=True, committed={A: Position(0, "written by another tool")})
    bench.consumer.step()

    assert bench.exchange.owned == {B}
    assert "no intent of batcher" in bench.consumer.stopped[A]
    assert bench.committed()[A] == Position(0, "written by another tool")
    bench.log.committed[A] = Position(0)
    bench.source.revoke([A])
    bench.source.assign([A])
    bench.consumer.step()
    assert bench.consumer.stopped == {}
    assert bench.exchange.owned == {A, B}


def test_a_commit_proves_ownership_from_when_it_was_sent_and_not_from_its_answer() -> None:
    bench = Bench(announces=True)
    bench.decode(bench.begin())
    bench.log.before_commit = lambda _: bench.clock.advance(LEASE_S + 1)
    bench.consumer.commit()
    assert bench.exchange.head() is None
    bench.log.before_commit = lambda _: None
    bench.consumer.commit()

    assert bench.exchange.head() is not None


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
        bench.consumer.step()

    assert bench.exchange.head() is None
    assert bench.source.reached[B] == 13
    assert len(set(sent)) == 3
    bench.log.before_commit = bench.log.after_commit = lambda _: None
    bench.consumer.step()
    assert bench.exchange.head() is not None


def test_commits_that_are_never_answered_end_the_process_after_longer_than_a_group_waits_for_a_member() -> None:
    bench = Bench()
    bench.exchange.finish(bench.begin())

    def keep_silent(_: Mapping[Partition, Position]) -> None:
        bench.clock.advance(2.0)
        raise CommitUnconfirmed("no answer")

    bench.log.before_commit = keep_silent
    began = bench.clock()
    while bench.clock() < began + 300:
        bench.consumer.step()

    with pytest.raises(SourceLost, match="no answer"):
        bench.step_until_paused()


def test_reading_goes_on_for_the_second_announced_range_though_it_was_paused_at_the_end_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batcher.engine.fetch_loop.FETCH_RECORDS", 60)
    claims = [Claim(Range(A, 0, 39), 1_700_000_000_000), Claim(Range(A, 40, 99), 1_700_000_000_040)]
    bench = Bench(memory=1000, records=100, announces=True, committed={A: Position(0, render(claims, "theirs-0"))})
    bench.step_until_paused()
    for _ in range(20):
        bench.consumer.step()
        bench.clock.advance(0.5)
        if bench.exchange.begin() is not None:
            bench.exchange.finish(next(iter(bench.exchange._flights)).receipt)

    assert bench.progress()[A] == 100


def test_a_fetch_ends_when_a_batch_is_due_so_that_it_is_announced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(records=1)
    asked: list[float] = []

    def fetch(_max_records: int, timeout_s: float) -> list[Records]:
        asked.append(timeout_s)
        return []

    monkeypatch.setattr(bench.source, "fetch", fetch)
    for advance_s in (0.0, 0.95, 0.04):
        bench.clock.advance(advance_s)
        bench.consumer.step()

    assert asked == pytest.approx([POLL_S, 0.05, COMMIT_POLL_S])
