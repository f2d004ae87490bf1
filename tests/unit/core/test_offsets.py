from collections.abc import Sequence

import pytest

from batcher.core.in_flight import BatchInFlight
from batcher.core.offsets import LawBroken, Offsets, named
from batcher.errors import DataGap
from batcher.records import MAX_INTENTS, Batch, Intent, Partition, Position, Range
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)
MS = 1_700_000_000_000
START = Position(0)


def batch(first: int, count: int, partition: Partition = A) -> Batch:
    return make_batch(make_records([b"{}"] * count, partition=partition, first_offset=first))


def kept(*partitions: Partition) -> Offsets:
    found = Offsets()
    found.assign({partition: Position(0) for partition in partitions or (A,)})
    return found


def announcing(position: Position = START, *, writer: str = "ours", ignores_intents: bool = False) -> Offsets:
    found = Offsets("group", announces=True, writer=writer, ignores_intents=ignores_intents)
    assert found.assign({A: position}) == {}
    return found


def sealed(found: Offsets, offsets: Sequence[int], *, replayed: bool = False, timestamp_ms: int = MS) -> BatchInFlight:
    run = make_records([b"{}"] * len(offsets), offsets=offsets, timestamp_ms=timestamp_ms)
    found.admit(run)
    return found.begin(make_batch(run, replayed=replayed))


def noted(at: int, *ends: int, first: int = 0, writer: str = "theirs", first_ms: int | None = MS) -> Position:
    """Return a position where ranges were announced that end there."""
    intents = []
    for last in ends:
        intents.append(Intent(Range(A, first, last), first_ms))
        first = last + 1
    return Position(at, tuple(intents), f"{writer}-0")


def spans(at: Position) -> list[tuple[int, int]]:
    return [(intent.range.first, intent.range.last) for intent in at.intents]


def read(found: Offsets, first: int, count: int, partition: Partition = A) -> None:
    found.admit(make_records([b"{}"] * count, partition=partition, first_offset=first))


def test_a_finished_batch_entitles_to_the_offset_after_its_last_record() -> None:
    found = kept()
    read(found, 0, 5)
    one = found.begin(batch(0, 5))
    found.finish(one)

    assert found.wanted() == {A: Position(5)}


def test_a_commit_before_the_batch_is_durable_is_a_broken_law() -> None:
    found = kept()
    read(found, 0, 5)
    found.begin(batch(0, 5))

    assert found.wanted() == {}
    with pytest.raises(LawBroken, match="committed 5"):
        found.commit({A: Position(5)})


def test_a_commit_never_goes_back() -> None:
    found = kept()
    read(found, 0, 9)
    for first, count in ((0, 5), (5, 4)):
        one = found.begin(batch(first, count))
        found.finish(one)
        found.commit(found.wanted())

    with pytest.raises(LawBroken):
        found.commit({A: Position(5)})


def test_what_an_earlier_ownership_wrote_is_not_committed_in_a_later_one() -> None:
    found = kept()
    read(found, 0, 5)
    one = found.begin(batch(0, 5))
    found.forget([A])
    found.assign({A: Position(2)})
    found.finish(one)

    assert not found.ours(one)
    assert found.wanted() == {}
    assert found.committed() == {A: 2}


def test_a_batch_that_overlaps_an_earlier_one_is_a_broken_law() -> None:
    found = kept()
    read(found, 0, 9)
    found.begin(batch(0, 5))

    with pytest.raises(LawBroken, match="begins below 5"):
        found.begin(batch(4, 5))


def test_a_batch_of_a_foreign_partition_is_a_broken_law() -> None:
    with pytest.raises(LawBroken, match="not ours"):
        kept(A).begin(batch(0, 1, B))


def test_records_read_again_are_dropped_and_new_ones_kept() -> None:
    found = kept()
    read(found, 0, 5)

    assert found.admit(make_records([b"{}"] * 5)) is None
    rest = found.admit(make_records([b"{}"] * 5, first_offset=3))
    assert rest is not None
    assert (rest.first_offset, rest.last_offset) == (5, 7)


def test_records_of_partitions_that_are_not_ours_are_dropped() -> None:
    assert kept(A).admit(make_records([b"{}"], partition=B)) is None


def test_gaps_between_offsets_are_no_fault() -> None:
    found = kept()
    run = make_records([b"{}"] * 3, offsets=[10, 20, 30])
    assert found.admit(run) is run
    one = found.begin(make_batch(run))
    found.finish(one)

    assert found.wanted() == {A: Position(31)}


def test_intents_touch_each_other_whatever_offsets_the_log_has() -> None:
    found = announcing(Position(3))
    batches = [sealed(found, offsets) for offsets in ([5, 7], [20], [21, 30])]

    assert [intent.range[1:] for one in batches for intent in one.batch.intents] == [(3, 7), (8, 20), (21, 30)]


def test_the_first_intent_begins_at_the_committed_offset_or_where_the_announced_ranges_end() -> None:
    assert sealed(announcing(Position(4)), [9]).batch.ranges == (Range(A, 4, 9),)
    found = announcing(noted(4, 5, 7, first=4))
    sealed(found, [4, 5], replayed=True)
    sealed(found, [6, 7], replayed=True)

    assert sealed(found, [9]).batch.ranges == (Range(A, 8, 9),)


def test_a_intent_is_announced_with_the_position_below_it_before_it_is_durable() -> None:
    found = announcing()
    one = sealed(found, [0, 1])
    assert not found.announced(one)

    wanted = found.wanted()
    assert wanted[A].next_offset == 0
    assert spans(wanted[A]) == [(0, 1)]
    found.commit(wanted)
    assert found.announced(one)
    assert found.wanted() == {}


def test_one_commit_moves_on_and_announces_what_comes_next() -> None:
    found = announcing()
    first = sealed(found, [0, 1])
    found.commit(found.wanted())
    second = sealed(found, [2, 3])
    found.finish(first)

    wanted = found.wanted()
    assert wanted[A].next_offset == 2
    assert spans(wanted[A]) == [(2, 3)]
    found.commit(wanted)
    assert found.settled(first)
    assert found.announced(second)
    found.finish(second)
    assert found.wanted() == {A: Position(4)}


def test_no_more_intents_are_announced_than_a_commit_holds_and_the_next_ones_follow() -> None:
    found = announcing()
    batches = [sealed(found, [i]) for i in range(MAX_INTENTS + 2)]
    found.commit(found.wanted())
    assert [found.announced(one) for one in batches] == [True] * MAX_INTENTS + [False] * 2

    found.finish(batches[0])
    found.commit(found.wanted())
    assert [found.announced(one) for one in batches] == [True] * (MAX_INTENTS + 1) + [False]


def test_intents_that_become_durable_out_of_order_are_committed_in_order() -> None:
    found = announcing()
    batches = [sealed(found, [i]) for i in range(3)]
    found.finish(batches[1])
    assert found.wanted()[A].next_offset == 0
    assert spans(found.wanted()[A]) == [(0, 0), (1, 1), (2, 2)]

    found.finish(batches[0])
    assert found.wanted()[A].next_offset == 2
    assert spans(found.wanted()[A]) == [(2, 2)]


def test_a_range_keeps_its_name_though_one_before_it_vanished() -> None:
    found = announcing(noted(0, 4, 9, 14))
    sealed(found, range(5), replayed=True)
    found.skip(A, 9)
    last = sealed(found, range(10, 15), replayed=True)

    successor = announcing(found.wanted()[A])
    assert [intent.range[1:] for intent in successor.replays(A)] == [(0, 4), (5, 9), (10, 14)]
    assert successor.replays(A)[-1] == last.batch.intents[0]


def test_without_intents_nothing_of_ours_is_announced() -> None:
    found = kept()
    one = sealed(found, [0, 1])

    assert found.announced(one)
    assert found.wanted() == {}
    found.finish(one)
    assert found.wanted() == {A: Position(2)}


def test_exactly_the_announced_ranges_are_replayed_in_their_order() -> None:
    found = announcing(noted(0, 4, 5, 9))
    assert [intent.range[1:] for intent in found.replays(A)] == [(0, 4), (5, 5), (6, 9)]

    for offsets, span in (([0, 1, 2, 3, 4], (0, 4)), ([5], (5, 5)), ([6, 9], (6, 9))):
        assert sealed(found, offsets, replayed=True).batch.ranges[0][1:] == span
    assert found.replays(A) == ()


@pytest.mark.parametrize("left", [[1, 2, 3], [0, 2, 3], [2], [0, 4], [4]])
def test_a_replay_keeps_its_range_and_its_token_though_compaction_took_records_from_it(left: list[int]) -> None:
    before = sealed(announcing(), [0, 1, 2, 3, 4])

    found = announcing(noted(0, 4))
    after = sealed(found, left, replayed=True, timestamp_ms=MS + left[0])

    assert after.batch.intents == before.batch.intents
    assert after.batch.token == before.batch.token != ""
    found.finish(after)
    assert found.wanted() == {A: Position(5)}


def test_a_replay_of_which_the_beginning_expired_keeps_its_range() -> None:
    found = announcing(noted(3, 4, 9))
    one = sealed(found, [3, 4], replayed=True, timestamp_ms=MS + 3)

    assert one.batch.ranges == (Range(A, 0, 4),)
    assert found.wanted()[A].next_offset == 3
    found.commit(found.wanted())
    found.finish(one)
    assert found.wanted()[A].next_offset == 5


def test_announced_ranges_that_expired_as_a_whole_are_not_replayed() -> None:
    found = announcing(noted(7, 4, 9))

    assert [intent.range[1:] for intent in found.replays(A)] == [(5, 9)]
    assert announcing(noted(10, 4, 9)).replays(A) == ()


def test_an_announced_range_without_any_record_is_skipped_and_the_position_moves_over_it() -> None:
    found = announcing(noted(0, 4, 9))
    found.skip(A, 4)
    assert found.wanted()[A].next_offset == 5
    assert spans(found.wanted()[A]) == [(5, 9)]

    with pytest.raises(LawBroken, match="skipped"):
        found.skip(A, 7)
    found.skip(A, 9)
    assert found.wanted() == {A: Position(10)}
    with pytest.raises(LawBroken, match="skipped"):
        found.skip(A, 9)


def test_what_another_process_announced_is_announced_again_in_our_own_words_before_it_is_written() -> None:
    found = announcing(noted(0, 4))
    one = sealed(found, range(5), replayed=True)
    assert not found.announced(one)

    wanted = found.wanted()
    assert spans(wanted[A]) == [(0, 4)]
    assert wanted[A].mark != noted(0, 4).mark
    found.commit(wanted)
    assert found.announced(one)


def test_two_processes_never_make_the_same_mark() -> None:
    notes = set()
    for _ in range(50):
        found = Offsets(announces=True)
        found.assign({A: Position(0)})
        sealed(found, [0])
        notes.add(found.wanted()[A].mark)

    assert len(notes) == 50


def test_an_announcement_is_renewed_in_other_words_and_with_the_same_ranges() -> None:
    found = announcing()
    sealed(found, [0, 1])
    found.commit(found.wanted(), 10.0)
    assert found.leased([A], 10.0)
    assert not found.leased([A], 10.1)

    before = found.wanted()
    found.ask_for_lease([A], 15.0)
    assert before == {}
    assert spans(found.wanted()[A]) == [(0, 1)]
    found.commit(found.wanted(), 20.0)
    assert found.leased([A], 20.0)


def test_a_partition_that_comes_back_with_our_own_mark_is_announced_again() -> None:
    found = announcing()
    sealed(found, range(5))
    stored = found.wanted()
    found.commit(stored, 10.0)
    found.forget([A])
    found.assign(stored)
    one = sealed(found, range(5), replayed=True)

    again = found.wanted()
    assert spans(again[A]) == [(0, 4)]
    found.commit(again, 20.0)
    assert found.announced(one)


def test_the_lease_of_a_new_ownership_is_not_confirmed_by_a_commit_of_the_one_before() -> None:
    found = announcing()
    sealed(found, [0])
    stored = found.wanted()
    found.commit(stored, 10.0)
    found.forget([A])
    found.assign(stored)
    one = sealed(found, [0], replayed=True)

    assert not found.leased([A], 0.0)
    assert not found.announced(one)


def test_intents_that_were_never_offered_to_the_target_are_taken_back_with_all_behind_them() -> None:
    found = announcing()
    batches = [sealed(found, [i]) for i in range(3)]
    found.commit(found.wanted())
    found.cancel(batches[1], [A])

    assert spans(found.wanted()[A]) == [(0, 0)]
    found.finish(batches[0])
    assert found.wanted() == {A: Position(1)}
    assert found.begin(batch(1, 2)).batch.ranges == (Range(A, 1, 2),)


def test_an_announced_range_of_a_predecessor_is_never_taken_back() -> None:
    found = announcing(noted(0, 4))
    one = sealed(found, range(5), replayed=True)
    found.cancel(one, [A])

    assert spans(found.wanted()[A]) == [(0, 4)]
    found.finish(one)
    assert found.wanted() == {A: Position(5)}


def test_a_batch_of_several_partitions_is_announced_in_each_with_the_name_of_its_write() -> None:
    found = Offsets("group", announces=True)
    found.assign({A: Position(0), B: Position(7)})
    runs = [make_records([b"{}"], partition=A), make_records([b"{}"], partition=B, first_offset=9)]
    for run in runs:
        found.admit(run)
    one = found.begin(make_batch(*runs))

    [of_a], [of_b] = (found.wanted()[part].intents for part in (A, B))
    assert (of_a, of_b) == one.batch.intents
    assert (of_a.range, of_b.range) == (Range(A, 0, 0), Range(B, 7, 9))
    assert of_a.write_id == of_b.write_id != ""
    found.commit({A: found.wanted()[A]}, 10.0)
    assert not found.announced(one)
    assert found.leased([A], 10.0)
    assert not found.leased([A, B], 10.0)
    found.commit({B: found.wanted()[B]})
    assert found.announced(one)


def test_without_intents_one_that_was_found_is_kept_until_it_is_done() -> None:
    found = Offsets("group", writer="ours")
    found.assign({A: noted(0, 4, 9)})
    first = sealed(found, range(5), replayed=True)
    found.finish(first)
    assert found.wanted()[A].next_offset == 5
    assert spans(found.wanted()[A]) == [(5, 9)]
    found.commit(found.wanted())

    second, third = sealed(found, range(5, 10), replayed=True), sealed(found, range(10, 12))
    assert found.wanted() == {}
    found.finish(second)
    assert found.wanted() == {A: Position(10)}
    found.finish(third)
    assert found.wanted() == {A: Position(12)}


def test_a_partition_whose_intent_cannot_be_understood_is_not_taken_and_the_others_are() -> None:
    found = Offsets("group", announces=True)
    refused = found.assign({A: Position(3, unreadable="the intent has version 2"), B: Position(0)})

    assert list(refused) == [A]
    assert "version 2" in refused[A]
    assert found.owned == {B}
    assert found.admit(make_records([b"{}"], partition=A, first_offset=3)) is None


def test_an_intent_that_begins_behind_the_committed_offset_is_not_understood() -> None:
    found = Offsets("group", announces=True)

    assert "begins at 5" in found.assign({A: noted(4, 9, first=5)})[A]


@pytest.mark.parametrize("stored", [Position(0, unreadable="it is damaged"), noted(0, 4)])
def test_ignored_intents_are_neither_replayed_nor_refused_and_the_next_ones_are_ours(stored: Position) -> None:
    found = announcing(stored, ignores_intents=True)

    assert found.replays(A) == ()
    assert found.wanted() == {A: Position(0)}
    one = sealed(found, [0, 1])
    assert spans(found.wanted()[A]) == [(0, 1)]
    found.commit(found.wanted())
    assert found.announced(one)


def test_a_topic_made_anew_under_a_pending_intent_is_a_gap_and_not_a_repeat() -> None:
    found = announcing(noted(0, 4))

    with pytest.raises(DataGap, match=r"events\[0\] 0-4 .*made anew.*--ignore-intents"):
        sealed(found, range(5), replayed=True, timestamp_ms=MS + 1)


def test_an_intent_without_a_timestamp_is_replayed_all_the_same() -> None:
    found = announcing(noted(0, 4, first_ms=None))

    assert sealed(found, range(5), replayed=True).batch.ranges == (Range(A, 0, 4),)


def test_no_ordinary_batch_comes_before_the_announced_ones_and_no_replay_without_one() -> None:
    found = announcing(noted(0, 4))
    with pytest.raises(LawBroken, match="begins below"):
        sealed(found, [0, 1])
    with pytest.raises(LawBroken, match="none is due"):
        sealed(announcing(), [0, 1], replayed=True)


@pytest.mark.parametrize("offsets", [[3, 4, 5], [5, 6], [0, 1, 2, 3, 4, 5]])
def test_a_replay_cut_elsewhere_is_a_broken_law(offsets: list[int]) -> None:
    with pytest.raises(LawBroken, match="as a replay of"):
        sealed(announcing(noted(0, 4)), offsets, replayed=True)


def test_a_batch_that_is_finished_twice_is_a_broken_law() -> None:
    found = announcing()
    one = sealed(found, [0])
    found.finish(one)

    with pytest.raises(LawBroken, match="not begun"):
        found.finish(one)


def test_a_token_is_the_same_for_the_same_ranges_and_differs_for_any_other() -> None:
    tokens = {
        named(
            name,
            make_batch(*(make_records([b"{}"] * n, partition=p, first_offset=f, timestamp_ms=ts) for p, f, n in runs)),
        ).token
        for name in ("group", "other")
        for ts in (1_700_000_000_000, 1_700_000_000_001)
        for runs in (
            [(A, 0, 5)],
            [(A, 0, 6)],
            [(A, 1, 5)],
            [(B, 0, 5)],
            [(A, 0, 5), (B, 0, 5)],
            [(A, 0, 5), (B, 0, 6)],
        )
    }

    assert len(tokens) == 2 * 2 * 6
    assert named("group", batch(0, 5)).token == named("group", batch(0, 5)).token
