import pytest

from batcher.core.buffer import ROOM_AT_ONCE, ROOM_SHARE, Buffer, FlushPolicy
from batcher.errors import ConfigurationError
from batcher.records import Batch, Partition, Records
from batcher.testing.values import make_records

A, B = Partition("t", 0), Partition("t", 1)


def run(count: int, *, partition: Partition = A, first: int = 0, size: int = 10) -> Records:
    return make_records([b"x" * size] * count, partition=partition, first_offset=first)


def buffer(
    *, rows: int = 100, nbytes: int = 1 << 20, wait: float = 1.0, memory: int = 1 << 22, mixes: bool = True
) -> Buffer:
    return Buffer(FlushPolicy(rows, nbytes, wait), memory, mixes_partitions=mixes)


def taken(b: Buffer, now: float) -> Batch:
    [batch] = b.take(now)
    return batch


def rest_of(b: Buffer) -> Batch:
    [batch] = b.take_rest("stop", 0.0)
    return batch


def partitions_of(batch: Batch) -> list[Partition]:
    return [span.partition for span in batch.ranges]


def test_nothing_is_due_while_nothing_is_buffered() -> None:
    empty = buffer()

    assert empty.due_in_s(0.0) is None
    assert empty.take(1e9) == []
    assert empty.take_rest("stop", 1e9) == []


def test_rows_trigger_cuts_exactly_max_rows_and_keeps_the_rest_in_order() -> None:
    b = buffer(rows=100)
    b.extend([run(70), run(70, first=70)], 0.0)

    batch = taken(b, 0.0)

    assert (batch.trigger, batch.rows) == ("rows", 100)
    assert batch.ranges[0][1:] == (0, 99)
    assert b.rows == 40
    rest = rest_of(b)
    assert rest.ranges[0][1:] == (100, 139)


def test_bytes_trigger_fires_before_rows() -> None:
    b = buffer(rows=1000, nbytes=5000)
    b.extend([run(40, size=200)], 0.0)

    batch = taken(b, 0.0)

    assert batch.trigger == "bytes"


def test_age_counts_from_the_first_record_and_not_from_the_last_flush() -> None:
    b = buffer(wait=1.0)
    b.extend([run(1)], 5000.0)

    assert b.take(5000.99) == []
    assert b.due_in_s(5000.25) == pytest.approx(0.75)
    batch = taken(b, 5001.0)
    assert batch.trigger == "age"


def test_a_later_record_does_not_make_the_batch_younger() -> None:
    b = buffer(wait=1.0)
    b.extend([run(1)], 0.0)
    b.extend([run(1, first=1)], 0.9)

    batch = taken(b, 1.0)

    assert batch.rows == 2


def test_what_a_cut_leaves_behind_keeps_its_own_age() -> None:
    b = buffer(rows=10, wait=1.0)
    b.extend([run(10)], 0.0)
    b.extend([run(1, first=10)], 0.8)
    assert b.take(0.8)

    assert b.take(1.7) == []
    assert b.take(1.8)


def test_partitions_share_a_batch_only_where_the_target_allows_it() -> None:
    for mixes, partitions in ((True, {A, B}), (False, {A})):
        b = buffer(rows=20, mixes=mixes)
        b.extend([run(10), run(10, partition=B), run(10, first=10)], 0.0)
        batch = taken(b, 0.0)
        assert set(partitions_of(batch)) == partitions
        assert batch.rows == 20


def test_the_partition_that_waited_longest_goes_first() -> None:
    b = buffer(rows=10, mixes=False)
    b.extend([run(10, partition=B)], 1.0)
    b.extend([run(10, partition=A)], 2.0)

    assert [partitions_of(batch) for batch in b.take(2.0)] == [[B], [A]]


def test_memory_counts_batches_in_delivery_until_they_are_released() -> None:
    b = buffer(rows=10, nbytes=1000, memory=1000)
    b.extend([run(10, size=100)], 0.0)
    assert b.above_high_watermark
    batch = taken(b, 0.0)

    assert b.above_high_watermark
    assert b.free_bytes == 0
    b.release(batch)
    assert b.nbytes == 0
    assert b.below_low_watermark


def test_reading_resumes_only_well_below_the_bound() -> None:
    b = buffer(rows=1000, nbytes=10_000, memory=10_000)
    b.extend([run(70, size=100)], 0.0)

    assert not b.above_high_watermark
    assert not b.below_low_watermark


def test_a_full_buffer_gives_up_several_lanes_of_about_one_size_at_once_and_keeps_the_small_ones() -> None:
    parts = [Partition("events", number) for number in range(20)]
    b = buffer(rows=10_000, nbytes=60_000, memory=60_000, mixes=False)
    b.extend([run(30 if number < 17 else 6, partition=part, size=100) for number, part in enumerate(parts)], 0.0)
    assert b.above_high_watermark

    sealed = b.take(0.0)

    assert [partitions_of(batch) for batch in sealed] == [[part] for part in parts[: len(sealed)]]
    assert {batch.trigger for batch in sealed} == {"memory"}
    made = sum(batch.nbytes for batch in sealed)
    assert made <= 60_000 * ROOM_SHARE < made + sealed[0].nbytes
    assert len(sealed) > 1


def test_a_full_buffer_gives_up_no_more_lanes_than_are_written_at_once() -> None:
    parts = [Partition("events", number) for number in range(100)]
    b = buffer(rows=10_000, nbytes=10_000, memory=10_000, mixes=False)
    b.extend([run(1, partition=part, size=100) for part in parts], 0.0)

    assert len(b.take(0.0)) == ROOM_AT_ONCE


def test_a_full_buffer_gives_up_its_largest_lane_although_none_is_due() -> None:
    b = buffer(rows=1000, nbytes=4000, memory=5000, mixes=False)
    b.extend([run(15, size=100), run(30, partition=B, size=100)], 0.0)
    assert b.above_high_watermark

    assert b.due_in_s(0.0) == 0.0
    batch = taken(b, 0.0)
    assert (batch.trigger, partitions_of(batch)) == ("memory", [B])


def test_forgotten_partitions_leave_the_others_untouched() -> None:
    b = buffer(mixes=True)
    b.extend([run(3), run(4, partition=B)], 0.0)

    assert b.forget([A]) == 3

    rest = rest_of(b)
    assert partitions_of(rest) == [B]
    assert b.due_in_s(0.0) is None


def spans(batches: list[Batch]) -> list[tuple[str, int, int]]:
    return [(batch.trigger, batch.ranges[0].first, batch.ranges[0].last) for batch in batches]


@pytest.mark.parametrize("policy", [{"rows": 5}, {"nbytes": 100, "memory": 100}, {"wait": 0.001}, {"rows": 10_000}])
@pytest.mark.parametrize("mixes", [True, False])
def test_an_announced_range_is_cut_at_its_end_whatever_the_policy_says(policy: dict[str, int], mixes: bool) -> None:
    b = buffer(**policy, mixes=mixes)
    b.expect(A, [29])
    b.extend([run(20)], 0.0)
    assert b.due_in_s(100.0) is None
    assert b.take(100.0) == []
    b.extend([run(20, first=20)], 100.0)

    assert b.due_in_s(100.0) == 0.0
    assert spans(b.take(100.0)) == [("range", 0, 29)]
    assert b.rows == 10


def test_each_announced_range_is_a_batch_of_its_own_and_what_is_beyond_goes_on_as_an_ordinary_one() -> None:
    b = buffer(rows=10)
    b.expect(A, [4, 5, 11])
    b.extend([run(25)], 0.0)

    cut = [spans(b.take(0.0)) for _ in range(4)]

    assert cut == [[("range", 0, 4)], [("range", 5, 5)], [("range", 6, 11)], [("rows", 12, 21)]]
    assert spans([rest_of(b)]) == [("stop", 22, 24)]


def test_what_is_beyond_an_announced_range_keeps_its_age() -> None:
    b = buffer(wait=1.0)
    b.expect(A, [4])
    b.extend([run(3)], 0.0)
    b.extend([run(4, first=3)], 5.0)
    assert spans(b.take(5.0)) == [("range", 0, 4)]

    assert b.due_in_s(5.5) == pytest.approx(0.5)
    assert spans(b.take(6.0)) == [("age", 5, 6)]


def test_announced_ranges_of_several_partitions_are_never_put_into_one_batch() -> None:
    b = buffer(mixes=True)
    for partition in (A, B):
        b.expect(partition, [4])
        b.extend([run(5, partition=partition)], 0.0)

    assert sorted(partitions_of(batch) for batch in b.take(0.0)) == [[A], [B]]


def test_other_partitions_do_not_wait_for_an_announced_range() -> None:
    b = buffer(rows=10, mixes=True)
    b.expect(A, [99])
    b.extend([run(50), run(10, partition=B)], 0.0)

    assert partitions_of(taken(b, 0.0)) == [B]


def test_an_announced_range_that_is_not_complete_is_not_written_at_a_drain() -> None:
    b = buffer()
    b.expect(A, [9])
    b.extend([run(9), run(3, partition=B)], 0.0)

    assert [partitions_of(batch) for batch in b.take_rest("stop", 0.0)] == [[B]]
    assert b.due_in_s(0.0) is None
    assert b.rows == 0
    assert b.take_rest("stop", 1e9) == []


def test_an_announced_range_that_is_complete_is_written_at_a_drain_and_the_rest_after_it() -> None:
    b = buffer()
    b.expect(A, [4, 20])
    b.extend([run(9), run(3, partition=B)], 0.0)

    assert spans(b.take_rest("stop", 0.0)) == [("range", 0, 4)]
    assert [partitions_of(batch) for batch in b.take_rest("stop", 0.0)] == [[B]]


def test_a_range_whose_last_record_is_gone_is_complete_when_the_log_was_read_beyond_its_end() -> None:
    b = buffer()
    b.expect(A, [9])
    b.extend([run(8)], 0.0)
    b.reached({A: 9})
    assert b.replaying == {A}
    b.reached({A: 10, B: 99})

    assert b.replaying == frozenset()
    assert spans(b.take(0.0)) == [("range", 0, 7)]


def test_a_record_beyond_the_end_completes_a_range_too() -> None:
    b = buffer()
    b.expect(A, [9])
    b.extend([run(8), run(1, first=50)], 0.0)

    assert spans(b.take(0.0)) == [("range", 0, 7)]


def test_how_far_the_log_was_read_never_goes_back() -> None:
    b = buffer()
    b.expect(A, [9])
    b.extend([run(8)], 0.0)
    b.reached({A: 10})
    b.reached({A: 3})

    assert b.replaying == frozenset()


def test_a_range_without_any_record_is_named_and_dropped_and_the_next_one_is_cut() -> None:
    b = buffer()
    b.expect(A, [4, 9, 12])
    b.extend([run(2, first=8), run(1, first=20)], 0.0)

    assert b.skip_vanished(0.0) == [(A, 4)]
    assert spans(b.take(0.0)) == [("range", 8, 9)]
    assert b.skip_vanished(0.0) == [(A, 12)]
    assert b.skip_vanished(0.0) == []
    assert spans([rest_of(b)]) == [("stop", 20, 20)]


def test_a_range_of_which_nothing_came_yet_has_not_vanished() -> None:
    b = buffer()
    b.expect(A, [4])
    b.reached({A: 4})

    assert b.skip_vanished(0.0) == []
    assert b.replaying == {A}


def test_a_full_buffer_does_not_cut_an_announced_range_short_and_says_that_reading_has_to_go_on() -> None:
    b = buffer(rows=1000, nbytes=1000, memory=1000)
    b.expect(A, [99])
    b.extend([run(50, size=100), run(1, partition=B)], 0.0)
    assert b.above_high_watermark
    assert b.replaying == {A}

    assert [partitions_of(batch) for batch in b.take(0.0)] == [[B]]
    assert b.take(0.0) == []
    b.extend([run(50, first=50, size=100)], 0.0)
    assert spans(b.take(0.0)) == [("range", 0, 99)]


def test_memory_counts_announced_ranges_while_they_are_read_and_while_they_are_delivered() -> None:
    b = buffer()
    b.expect(A, [9])
    b.extend([run(10)], 0.0)
    held = b.nbytes
    assert held > 0
    batch = taken(b, 0.0)

    assert b.nbytes == held
    b.release(batch)
    assert b.nbytes == 0
    b.hold(batch)
    assert b.nbytes == held


def test_a_forgotten_partition_has_no_announced_ranges_any_more() -> None:
    b = buffer()
    b.expect(A, [9])
    b.extend([run(5)], 0.0)

    assert b.forget([A]) == 5
    assert b.replaying == frozenset()
    b.extend([run(20)], 0.0)
    assert spans([rest_of(b)]) == [("stop", 0, 19)]


def test_a_cleared_buffer_holds_nothing() -> None:
    b = buffer()
    b.expect(A, [4])
    b.extend([run(9), run(3, partition=B)], 0.0)
    b.clear()

    assert (b.rows, b.nbytes, b.due_in_s(0.0), b.replaying) == (0, 0, None, frozenset())


@pytest.mark.parametrize(
    ("policy", "flag"),
    [
        ({"max_rows": 0}, "--batch.max-rows"),
        ({"max_bytes": 0}, "--batch.max-bytes"),
        ({"max_bytes": 2 << 30}, "--batch.max-bytes"),
        ({"max_wait_s": 0.0}, "--batch.max-wait"),
    ],
)
def test_impossible_limits_are_refused_with_their_flag(policy: dict[str, float], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        FlushPolicy(**policy)  # type: ignore[arg-type]


def test_memory_below_one_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--batch\.memory"):
        buffer(nbytes=2000, memory=1999)


def test_partitions_that_were_due_at_once_are_due_in_turns_from_then_on_and_never_late() -> None:
    b = buffer(mixes=False, wait=1.0)
    parts = [Partition("t", number) for number in range(4)]

    def refill(now: float) -> None:
        # A steady stream: wherever nothing waits there is a record again at once.
        for part in parts:
            if part not in filled:
                b.extend([run(1, partition=part, first=firsts[part])], now)
                firsts[part] += 1
                filled[part] = now

    firsts, filled = dict.fromkeys(parts, 0), dict[Partition, float]()
    refill(0.0)
    sealed: list[tuple[float, int]] = []
    for tick in range(1, 41):
        now = tick / 8
        batches = b.take(now)
        if batches:
            sealed.append((now, len(batches)))
        for batch in batches:
            [part] = partitions_of(batch)
            assert now - filled.pop(part) <= 1.0
        refill(now)

    assert sealed[0] == (1.0, 4)
    assert {count for _, count in sealed[1:]} == {1}
    assert sum(count for now, count in sealed if 2.0 < now <= 4.0) == 8


def test_the_shorter_wait_after_partitions_were_due_at_once_is_for_one_batch_only() -> None:
    b = buffer(mixes=False, wait=1.0)
    b.extend([run(1, partition=A), run(1, partition=B)], 0.0)
    assert len(b.take(1.0)) == 2
    b.extend([run(1, partition=A, first=1)], 5.0)
    assert len(b.take(5.5)) == 1

    b.extend([run(1, partition=A, first=2)], 9.0)

    assert b.due_in_s(9.0) == 1.0


def test_what_a_full_batch_leaves_behind_waits_all_of_its_time() -> None:
    b = buffer(mixes=False, wait=1.0, rows=100)
    b.extend([run(1, partition=A), run(1, partition=B)], 0.0)
    assert len(b.take(1.0)) == 2

    b.extend([run(150, partition=A, first=1)], 5.0)
    assert taken(b, 5.0).trigger == "rows"

    assert b.due_in_s(5.0) == 1.0


def buffered(rows: int, policy: FlushPolicy = FlushPolicy(10, 1000, 1.0)) -> Buffer:  # noqa: B008  # frozen
    buffer = Buffer(policy, 1000, mixes_partitions=False)
    buffer.extend([make_records(["1"] * rows, partition=Partition("events", 0))], 0.0)
    return buffer


def test_scaled_batches_take_more_rows_and_wait_longer_and_go_back() -> None:
    buffer = buffered(15)
    buffer.scale(2)
    assert buffer.take(1.5) == []
    assert [batch.rows for batch in buffer.take(2.0)] == [15]
    buffer = buffered(25)
    buffer.scale(2)
    assert [batch.rows for batch in buffer.take(0.0)] == [20]
    buffer.scale(1)

    assert [batch.trigger for batch in buffer.take(1.0)] == ["age"]


def test_a_scaled_batch_takes_half_the_memory_at_most() -> None:
    buffer = buffered(10, FlushPolicy(1000, 100, 1.0))
    buffer.scale(16)
    assert buffer.take(0.0) == []
    buffer.extend([make_records(["1"], first_offset=10 + more) for more in range(50)], 0.0)
    batch = buffer.take(0.0)[0]

    assert batch.trigger == "bytes"
    assert 500 <= batch.nbytes < 600


def test_a_smaller_share_of_the_memory_pauses_sooner_and_makes_smaller_batches() -> None:
    buffer = Buffer(FlushPolicy(1000, 400, 1.0), 1000, mixes_partitions=True)
    buffer.resize(200)
    buffer.extend([make_records(["1"], first_offset=number) for number in range(12)], 0.0)

    assert buffer.above_high_watermark
    batch = buffer.take(0.0)[0]
    assert batch.trigger == "bytes"
    assert 100 <= batch.nbytes < 200


def test_more_memory_again_makes_batches_as_large_as_was_asked_for_and_no_larger() -> None:
    buffer = Buffer(FlushPolicy(1000, 400, 1.0), 1000, mixes_partitions=True)
    buffer.resize(200)
    buffer.resize(10_000)
    buffer.extend([make_records(["1"], first_offset=number) for number in range(50)], 0.0)

    assert not buffer.above_high_watermark
    assert 400 <= buffer.take(0.0)[0].nbytes < 500
