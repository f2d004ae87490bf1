import threading
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from batcher.core.buffer import FlushPolicy
from batcher.core.in_flight import BatchInFlight
from batcher.core.offsets import Offsets
from batcher.core.state import LEASE_S, MAX_ANNOUNCED_UNCOMMITTED
from batcher.engine.write_loop import WriteLoop
from batcher.engine.writer import Writer
from batcher.records import Intent, Partition, Position, Range
from batcher.testing.values import make_records
from tests.harness.hand_engine import HandEngine
from tests.harness.patience import wait_for

A, B = Partition("events", 0), Partition("events", 1)
MS = 1_700_000_000_000


class Hall:
    """The state of an engine; the test plays its three loops."""

    def __init__(
        self,
        positions: Mapping[Partition, Position] | None = None,
        *,
        announces: bool = True,
        merges: bool = False,
        checks: bool = False,
        rows: int = 5,
        writers: int = 1,
    ) -> None:
        self.engine = HandEngine(
            policy=FlushPolicy(rows, 1 << 20, 1.0),
            mixes=merges,
            offsets=Offsets("group", announces=announces, checks=checks),
            writers=writers,
        )
        self.clock, self.buffer = self.engine.clock, self.engine.buffer
        self.engine.assign(positions or {A: Position(0), B: Position(0)})
        self.waits = 0

    def put(self, count: int, *, partition: Partition = A, first: int = 0) -> None:
        run = make_records(["1"] * count, partition=partition, first_offset=first, timestamp_ms=MS + first)
        self.engine.put([run])

    def commit(self, refused: Collection[Partition] = ()) -> Mapping[Partition, Position]:
        wanted = self.engine.take_commit()
        self.engine.forget([partition for partition in refused if partition in wanted])
        self.engine.committed({part: at for part, at in wanted.items() if part not in refused}, self.clock())
        return wanted

    def decode(self) -> list[BatchInFlight]:
        found = []
        while (one := self.engine.begin()) is not None:
            self.ready(one)
            found.append(one)
        return found

    def ready(self, one: BatchInFlight) -> None:
        self.engine.ready(one)

    def head(self) -> BatchInFlight:
        """Return the batch that is being written, or take the next."""
        head = next((one for one in self.engine.in_flight if one.stage == "writing"), None) or self.engine.head()
        assert head is not None
        return head

    def being_written(self) -> BatchInFlight:
        self.decode()
        self.commit()
        return self.head()

    def when_waiting(self, happens: Callable[[], object]) -> None:
        """Do something where another thread would get its turn, at most ten times."""

        def wait(timeout: float | None = None) -> bool:
            self.waits += 1
            assert self.waits <= 10, "waits for ever"
            happens()
            return True

        self.engine.shared._changed.wait = wait  # type: ignore[method-assign]

    def in_flight(self) -> list[tuple[str, list[tuple[Partition, int, int]]]]:
        """Return trigger and ranges of every batch on its way, in order."""
        return [
            (
                flight.batch.trigger,
                [(one.partition, one.first, one.last) for one in flight.batch.ranges],
            )
            for flight in self.engine.in_flight
        ]


def play(*moves: Callable[[Hall], object]) -> Callable[[Hall], None]:
    def all_of(hall: Hall) -> None:
        for move in moves:
            move(hall)

    return all_of


def spans(at: Position) -> list[tuple[int, int]]:
    return [intent.range[1:] for intent in at.intents]


def noted(at: int, *ends: int) -> Position:
    """Return a position where ranges were announced that end there."""
    intents, first = [], 0
    for last in ends:
        intents.append(Intent(Range(A, first, last), MS + first))
        first = last + 1
    return Position(at, tuple(intents), "theirs-0")


def test_nothing_is_offered_to_the_target_before_its_intent_is_stored() -> None:
    hall = Hall()
    hall.put(5)
    [one] = hall.decode()
    assert hall.engine.head() is None
    assert hall.engine.snapshot().awaits_commit

    wanted = hall.commit()

    assert (wanted[A].next_offset, spans(wanted[A])) == (0, [(0, 4)])
    assert hall.head() is one


def test_without_intents_a_batch_is_offered_at_once() -> None:
    hall = Hall(announces=False)
    hall.put(5)
    [one] = hall.decode()

    assert hall.engine.take_commit() == {}
    assert hall.head() is one
    assert hall.engine.shared.wait_held(one)


def test_several_due_partitions_share_one_intent_commit() -> None:
    hall = Hall()
    hall.put(5)
    hall.put(5, partition=B)
    hall.decode()

    wanted = hall.commit()

    assert {partition: spans(at) for partition, at in wanted.items()} == {A: [(0, 4)], B: [(0, 4)]}
    hall.engine.finish(hall.head())
    assert hall.head() is not None


def test_one_commit_carries_what_is_finished_and_the_intent_of_what_comes_next() -> None:
    hall = Hall()
    hall.put(5)
    hall.being_written()
    commits = []
    for first in (5, 10):
        hall.put(5, first=first)
        hall.engine.finish(hall.head())
        commits.append(hall.commit())
        hall.decode()
    hall.engine.finish(hall.head())
    commits.append(hall.commit())

    assert [(each[A].next_offset, spans(each[A])) for each in commits] == [(5, [(5, 9)]), (10, [(10, 14)]), (15, [])]


def test_small_batches_are_not_held_up_by_each_others_commits_but_for_a_bound() -> None:
    many = [Partition("events", number) for number in range(MAX_ANNOUNCED_UNCOMMITTED + 1)]
    hall = Hall(dict.fromkeys(many, Position(0)), rows=1)
    for partition in many:
        hall.put(1, partition=partition)
    hall.decode()
    hall.commit()
    for _ in range(MAX_ANNOUNCED_UNCOMMITTED):
        hall.engine.finish(hall.head())
        hall.decode()

    assert hall.engine.head() is None
    hall.commit()
    assert hall.head() is not None


@pytest.mark.parametrize(("age_s", "fresh"), [(LEASE_S, True), (LEASE_S + 0.01, False)])
def test_a_batch_is_offered_only_when_the_broker_lately_took_us_for_the_owner(age_s: float, fresh: bool) -> None:
    hall = Hall()
    hall.put(5)
    hall.decode()
    hall.commit()
    hall.clock.advance(age_s)

    assert (hall.engine.head() is not None) is fresh
    renewed = hall.commit()
    assert (renewed != {}) is not fresh
    if not fresh:
        assert spans(renewed[A]) == [(0, 4)]
        assert hall.head() is not None


def test_an_attempt_waits_until_an_old_lease_is_renewed() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.being_written()
    assert hall.engine.shared.wait_held(one)
    assert hall.waits == 0
    hall.clock.advance(LEASE_S + 1)
    hall.when_waiting(hall.commit)

    assert hall.engine.shared.wait_held(one)
    assert hall.waits == 1


def test_a_commit_that_was_sent_too_long_ago_renews_nothing() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.being_written()
    hall.clock.advance(LEASE_S + 1)

    def slow() -> None:
        wanted, sent_at = hall.engine.take_commit(), hall.clock()
        if hall.waits == 1:
            hall.clock.advance(LEASE_S + 1)
        hall.engine.committed(wanted, sent_at)

    hall.when_waiting(slow)
    assert hall.engine.shared.wait_held(one)
    assert hall.waits == 2


def test_a_refused_renewal_gives_the_batch_up() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.being_written()
    hall.clock.advance(LEASE_S + 1)
    hall.when_waiting(lambda: hall.commit(refused=[A]))

    assert not hall.engine.shared.wait_held(one)
    hall.engine.hand_back(one)
    assert hall.in_flight() == []
    assert hall.buffer.nbytes == 0


def test_what_waits_of_a_partition_that_is_lost_is_dropped_and_counted() -> None:
    hall = Hall()
    hall.put(3)
    hall.put(4, partition=B)

    assert hall.engine.forget([A]) == 3
    assert hall.engine.snapshot().rows == 4


def test_a_partition_that_came_back_is_another_ownership() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.being_written()
    hall.engine.forget([A])
    hall.engine.assign({A: noted(0, 4)})

    assert not hall.engine.shared.wait_held(one)
    hall.engine.finish(one)
    assert hall.engine.snapshot().committed[A] == 0


def merged(*, announces: bool = True) -> Hall:
    hall = Hall(merges=True, announces=announces, rows=6)
    hall.put(3)
    hall.put(3, partition=B)
    return hall


def test_a_batch_of_several_partitions_is_held_only_as_a_whole() -> None:
    for announces in (True, False):
        hall = merged(announces=announces)
        one = hall.being_written()
        assert hall.engine.shared.wait_held(one)
        hall.engine.forget([A])

        assert hall.engine.shared.wait_held(one) is not announces


def test_what_is_left_of_a_batch_that_was_given_up_comes_again_as_a_replay_under_its_intent() -> None:
    hall = merged()
    one = hall.being_written()
    intents = dict(zip((A, B), one.batch.intents, strict=True))
    hall.engine.forget([A])
    hall.engine.hand_back(one)

    [again] = hall.decode()

    assert (again.batch.replayed, again.batch.intents) == (True, (intents[B],))
    assert [run.partition for run in again.batch.runs] == [B]
    assert hall.buffer.nbytes == again.batch.nbytes > 0
    assert hall.head() is again
    hall.engine.finish(again)
    assert hall.commit() == {B: Position(intents[B].range.next_offset)}
    assert hall.buffer.nbytes == 0


def test_a_batch_behind_one_that_was_given_up_keeps_its_place() -> None:
    hall = merged()
    one = hall.being_written()
    hall.put(6, partition=B, first=3)
    hall.decode()
    hall.engine.forget([A])
    hall.engine.hand_back(one)

    first, second = (spans_of for _, spans_of in hall.in_flight())
    assert first[0][0] == B
    assert first[0][2] + 1 == second[0][1]


@pytest.mark.parametrize("stage", ["sealed", "decoding", "decoded", "announced"])
def test_what_was_not_offered_to_the_target_is_dropped_at_a_revoke_and_its_announcement_withdrawn(stage: str) -> None:
    hall = Hall()
    hall.put(5)
    hall.put(5, partition=B)
    one = hall.engine.begin()
    assert one is not None
    if stage in {"decoded", "announced"}:
        hall.ready(one)
    if stage == "announced":
        hall.commit()
    revoked = A if stage != "sealed" else B
    hall.engine.begin_revoke([revoked])

    assert not hall.engine.busy([revoked])
    assert all(revoked != span[0] for _, spans_of in hall.in_flight() for span in spans_of)
    hall.commit()
    assert hall.engine.offsets._accounts[revoked].stored == Position(0)
    hall.ready(one)
    assert hall.engine.forget([revoked]) == 0
    assert hall.buffer.nbytes == sum(flight.batch.nbytes for flight in hall.engine.in_flight)


def test_what_is_being_written_is_waited_for_at_a_revoke_until_it_is_committed() -> None:
    hall = Hall()
    hall.put(10)
    one = hall.being_written()
    hall.engine.begin_revoke([A])

    assert hall.engine.busy([A])
    assert not hall.engine.busy([B])
    hall.engine.finish(one)
    assert hall.engine.busy([A])
    assert hall.commit() == {A: Position(5)}
    assert not hall.engine.busy([A])


def test_an_announced_range_of_a_predecessor_stays_announced_at_a_revoke() -> None:
    hall = Hall({A: noted(0, 4)})
    hall.put(5)
    hall.decode()
    hall.engine.begin_revoke([A])

    assert spans(hall.commit()[A]) == [(0, 4)]


def test_what_is_kept_of_an_unwritten_batch_goes_on_by_itself_under_its_intent() -> None:
    hall = merged()
    [one] = hall.decode()
    intent = one.batch.intents[1]
    hall.commit()
    hall.engine.begin_revoke([A])

    [(trigger, ranges)] = hall.in_flight()
    assert (trigger, ranges) == (one.batch.trigger, [tuple(intent.range)])
    [again] = hall.decode()
    assert again.batch.intents == (intent,)
    hall.commit()
    assert hall.head() is again


def test_without_intents_an_unwritten_batch_of_which_something_is_kept_is_written_whole() -> None:
    hall = merged(announces=False)
    [one] = hall.decode()
    hall.engine.begin_revoke([A])

    assert hall.engine.busy([A])
    assert hall.head() is one


def test_announced_ranges_are_cut_announced_again_and_replayed_before_anything_else() -> None:
    hall = Hall({A: noted(0, 6, 7)})
    assert hall.engine.replaying == {A}
    assert hall.engine.state.replays([A, B]) == ["events[0] 0-6", "events[0] 7-7"]
    hall.put(20)
    batches = hall.decode()
    assert [(one.batch.trigger, one.batch.replayed) for one in batches] == [("range", True)] * 2
    assert [one.batch.ranges[0][1:] for one in batches] == [(0, 6), (7, 7)]
    assert hall.engine.head() is None
    assert spans(hall.commit()[A]) == [(0, 6), (7, 7)]
    for one in batches:
        assert hall.head() is one
        hall.engine.finish(one)

    assert hall.decode()[0].batch.ranges[0][1:] == (8, 12)


def test_an_announced_range_without_any_record_is_stepped_over() -> None:
    hall = Hall({A: noted(0, 6)})
    hall.engine.reached({A: 7})
    assert hall.engine.shared.wait_decode_due()

    assert hall.decode() == []
    assert hall.commit() == {A: Position(7)}


def test_a_partition_that_is_not_taken_is_not_ours() -> None:
    hall = Hall()

    assert list(hall.engine.assign({Partition("events", 2): Position(3, unreadable="it is no intent")})) == [
        Partition("events", 2)
    ]
    assert hall.engine.owned == {A, B}


def test_nothing_new_is_announced_before_the_target_was_looked_at_and_what_was_found_is() -> None:
    hall = Hall({A: noted(0, 4), B: Position(3)}, checks=True)
    hall.put(10)
    hall.put(5, partition=B, first=3)
    hall.decode()
    positions, epochs = hall.engine.unchecked()
    assert positions == {A: 5, B: 3}
    assert spans(hall.commit()[A]) == [(0, 4)]
    hall.engine.finish(hall.head())
    hall.decode()
    assert hall.commit() == {A: Position(5)}
    assert hall.engine.head() is None

    hall.engine.mark_checked(epochs)
    assert {part: spans(at) for part, at in hall.commit().items()} == {A: [(5, 9)], B: [(3, 7)]}
    assert hall.engine.unchecked() == ({}, {})
    assert hall.head() is not None


def test_a_look_at_the_target_counts_for_the_ownership_in_which_it_was_made() -> None:
    hall = Hall(checks=True)
    _, epochs = hall.engine.unchecked()
    hall.engine.forget([A])
    hall.engine.assign({A: Position(4)})
    hall.engine.mark_checked(epochs)

    assert hall.engine.unchecked()[0] == {A: 4}


def test_what_was_found_in_the_target_is_believed_only_of_partitions_that_are_still_ours() -> None:
    hall = Hall(checks=True)
    _, epochs = hall.engine.unchecked()
    hall.when_waiting(lambda: hall.commit(refused=[A]))

    assert hall.engine.shared.wait_confirmed(epochs) == {B}


class Looking:
    """A reconciler of a target that holds more of both partitions than was announced."""

    def __init__(self) -> None:
        self.judged: dict[Partition, int] | None = None

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        return dict.fromkeys(positions, 9)

    def check_existing(self, positions: Mapping[Partition, int], found: Mapping[Partition, int]) -> None:
        self.judged = dict(found)


def test_we_are_not_blamed_for_what_a_new_owner_wrote_while_the_target_was_asked() -> None:
    hall, looking = Hall(checks=True), Looking()
    hall.when_waiting(lambda: hall.commit(refused=[A]))

    writer = cast(Writer, SimpleNamespace(reconciler=looking))
    WriteLoop(hall.engine.shared, writer, hall.engine.events).step()

    assert looking.judged == {B: 9}
    assert hall.engine.unchecked() == ({}, {})


def test_a_commit_that_was_under_way_says_nothing_about_a_later_moment() -> None:
    expired = Position(3, (Intent(Range(B, 0, 2), MS),), "theirs-0")
    hall = Hall({A: noted(0, 4), B: expired}, checks=True)
    _, epochs = hall.engine.unchecked()
    under_way, sent_at = hall.engine.take_commit(), hall.clock()
    hall.clock.advance(0.01)
    hall.when_waiting(
        lambda: hall.engine.committed(under_way, sent_at) if hall.waits == 1 else hall.commit(),
    )

    assert hall.engine.shared.wait_confirmed({B: epochs[B]}) == {B}
    assert hall.waits == 2


def half_read(hall: Hall) -> None:
    hall.engine.assign({A: noted(0, 9)})
    hall.put(4)


def both(hall: Hall) -> None:
    hall.put(8)
    hall.put(5, partition=B)


def finished(hall: Hall) -> None:
    hall.engine.finish(hall.head())


STATES: dict[str, Callable[[Hall], object]] = {
    "nothing is there": play(),
    "something is buffered": lambda hall: hall.put(3),
    "something is sealed": play(both, lambda hall: hall.engine.begin()),
    "something is decoded": play(both, Hall.decode),
    "something is announced": play(both, Hall.decode, Hall.commit),
    "something is written": play(both, Hall.decode, Hall.commit, finished),
    "a part is announced and not read": half_read,
}


@pytest.mark.parametrize("state", STATES)
def test_a_drain_comes_to_its_end_from_every_state_with_everything_read_committed(state: str) -> None:
    hall = Hall()
    STATES[state](hall)
    read = dict(hall.engine.snapshot().read)
    hall.engine.drain("stop")
    for flight in hall.engine.in_flight:
        if flight.stage == "decoding":
            hall.ready(flight)
    for _ in range(10):
        hall.decode()
        hall.commit()
        if any(flight.stage == "writing" for flight in hall.engine.in_flight) or hall.engine.head() is not None:
            assert not hall.engine.drained
            hall.engine.finish(hall.head())

    assert hall.engine.drained
    assert not hall.engine.shared.wait_decode_due()
    assert not hall.engine.shared.wait_write_due()
    if "not read" not in state:
        assert hall.engine.snapshot().committed == read
    assert hall.engine.take_commit() == {}


@pytest.mark.parametrize("state", STATES)
def test_after_an_abort_nothing_is_begun_offered_or_committed_in_any_state(state: str) -> None:
    hall = Hall()
    STATES[state](hall)
    left = hall.engine.offsets.uncommitted
    hall.engine.abort()

    assert hall.engine.shared.aborting.is_set()
    assert hall.engine.state.abandoned_offsets == left
    assert hall.engine.begin() is None
    assert hall.engine.head() is None
    assert hall.engine.take_commit() == {}
    assert not hall.engine.shared.wait_decode_due()
    assert not hall.engine.shared.wait_write_due()
    assert not hall.engine.busy([A, B])


def test_an_attempt_that_waits_is_given_up_at_an_abort() -> None:
    hall = Hall()
    hall.put(5)
    one = hall.being_written()
    hall.clock.advance(LEASE_S + 1)
    hall.when_waiting(hall.engine.abort)

    assert not hall.engine.shared.wait_held(one)
    hall.engine.finish(one)
    assert hall.engine.take_commit() == {}


@pytest.mark.parametrize("writing_failed", [True, False])
def test_after_a_halt_only_what_is_being_written_may_still_be_committed(writing_failed: bool) -> None:
    hall = Hall()
    hall.put(12)
    one = hall.being_written()
    hall.put(5, partition=B)
    hall.decode()
    hall.commit()
    hall.engine.halt(one if writing_failed else None)

    if not writing_failed:
        assert not hall.engine.drained
        hall.engine.finish(one)
    hall.commit()
    stored = {part: hall.engine.offsets._accounts[part].stored for part in (A, B)}
    assert hall.engine.drained
    assert hall.buffer.nbytes == 0
    if writing_failed:
        assert (stored[A].next_offset, spans(stored[A])[0]) == (0, (0, 4))
    else:
        assert stored[A] == Position(5)


def test_a_query_of_the_status_renews_no_lease_and_wants_no_commit() -> None:
    hall = Hall()
    hall.put(5)
    hall.decode()
    hall.commit()
    hall.clock.advance(LEASE_S + 1)

    assert hall.engine.snapshot().awaits_commit
    assert hall.commit() == {}

    assert hall.engine.head() is None
    assert hall.commit() != {}


C = Partition("events", 2)


def several(count: int = 2) -> Hall:
    """Return a hall with so many writers, and three partitions with two batches each, decoded and announced."""
    hall = Hall({part: Position(0) for part in (A, B, C)}, writers=count)
    for partition in (A, B, C):
        hall.put(5, partition=partition)
    hall.decode()
    hall.commit()
    for partition in (A, B, C):
        hall.put(5, partition=partition, first=5)
    hall.decode()
    hall.commit()
    return hall


def starts(batches: Collection[BatchInFlight | None]) -> list[tuple[Partition, int] | None]:
    return [None if one is None else (one.batch.ranges[0].partition, one.batch.ranges[0].first) for one in batches]


def test_each_writer_takes_a_batch_of_partitions_that_no_other_one_has() -> None:
    hall = several(4)
    taken = [hall.engine.head() for _ in range(4)]

    assert starts(taken) == [(A, 0), (B, 0), (C, 0), None]
    assert taken[1] is not None
    hall.engine.finish(taken[1])
    hall.decode()
    hall.commit()
    assert starts([hall.engine.head()]) == [(B, 5)]


def test_what_a_writer_has_done_is_committed_although_an_earlier_batch_of_another_partition_is_not() -> None:
    hall = several()
    first, second = hall.engine.head(), hall.engine.head()
    assert first is not None
    assert second is not None
    hall.engine.finish(second)
    stored = hall.commit()

    assert stored[B].next_offset == 5
    assert hall.engine.snapshot().committed[A] == 0
    assert [batch.ranges[0].partition for batch, _ in hall.engine.snapshot().writing] == [A]


def test_a_partition_that_does_not_get_on_is_cut_no_further_and_the_others_are() -> None:
    hall = several()
    stuck = hall.engine.head()
    assert stuck is not None
    for first in range(10, 40, 5):
        hall.put(5, first=first)
        hall.put(5, partition=B, first=first)
        while (one := hall.engine.head()) is not None:
            hall.engine.finish(one)
        hall.decode()
        hall.commit()
    while (one := hall.engine.head()) is not None:
        hall.engine.finish(one)
        hall.decode()
        hall.commit()

    mine = [one.batch.ranges[0].first for one in hall.engine.in_flight if A in one.epochs]
    assert mine == [0, 5, 10]
    # The rest gathers, to be larger then.
    assert hall.buffer.rows == 25
    assert hall.engine.snapshot().committed[B] == 40


def test_one_commit_asks_for_the_leases_of_all_that_may_be_written_next() -> None:
    hall = several()
    hall.clock.advance(LEASE_S + 1)
    assert hall.engine.head() is None
    hall.commit()

    assert starts([hall.engine.head(), hall.engine.head()]) == [(A, 0), (B, 0)]


def test_after_a_failure_the_other_writers_come_to_their_end_and_nothing_else_is_begun() -> None:
    hall = several()
    failed, going_on = hall.engine.head(), hall.engine.head()
    assert going_on is not None
    hall.engine.halt(failed)
    assert starts(hall.engine.in_flight) == [(B, 0)]
    assert (hall.engine.head(), hall.engine.drained) == (None, False)
    hall.engine.finish(going_on)
    hall.commit()

    assert (hall.engine.drained, hall.buffer.nbytes) == (True, 0)
    assert hall.engine.snapshot().committed == {A: 0, B: 5, C: 0}


def test_what_is_handed_back_after_a_failure_is_left_to_the_next_start() -> None:
    hall = several()
    failed, other = hall.engine.head(), hall.engine.head()
    assert other is not None
    hall.engine.halt(failed)
    hall.engine.hand_back(other)
    hall.commit()

    assert hall.engine.drained
    assert spans(hall.engine.offsets._accounts[B].stored)[0] == (0, 4)


def test_of_new_partitions_one_writer_asks_and_the_others_go_on() -> None:
    hall = Hall(checks=True, writers=2)
    found, epochs = hall.engine.state.take_unchecked()
    assert found.keys() == {A, B}
    assert hall.engine.state.take_unchecked() == ({}, {})
    # It has changed hands: what is asked about it says nothing any more.
    hall.engine.forget([B])
    hall.engine.assign({B: Position(0)})
    assert hall.engine.state.take_unchecked()[0].keys() == {B}
    hall.engine.mark_checked(epochs)
    assert hall.engine.offsets.unchecked().keys() == {B}


def test_idle_writers_are_woken_one_after_the_other_and_all_of_them_at_the_end() -> None:
    hall = Hall({part: Position(0) for part in (A, B, C)}, writers=3)
    taken: list[BatchInFlight] = []

    def run() -> None:
        while hall.engine.shared.wait_write_due():
            if (one := hall.engine.head()) is not None:
                taken.append(one)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for partition in (A, B, C):
        hall.put(5, partition=partition)
    hall.decode()
    hall.commit()
    wait_for(lambda: len(taken) == 3, "three batches")
    hall.engine.drain()
    for one in taken:
        hall.engine.finish(one)
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
