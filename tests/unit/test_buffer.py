import pytest

from batcher.buffer import BoundedBuffer, FlushPolicy
from batcher.errors import ConfigurationError
from batcher.records import Batch, Partition, Records
from batcher.testing.values import make_records

A, B = Partition("t", 0), Partition("t", 1)


def run(count: int, *, partition: Partition = A, first: int = 0, size: int = 10) -> Records:
    return make_records([b"x" * size] * count, partition=partition, first_offset=first)


def buffer(
    *, rows: int = 100, nbytes: int = 1 << 20, wait: float = 1.0, memory: int = 1 << 22, mixes: bool = True
) -> BoundedBuffer:
    return BoundedBuffer(FlushPolicy(rows, nbytes, wait), memory, mixes_partitions=mixes)


def taken(b: BoundedBuffer, now: float) -> Batch:
    [batch] = b.take(now)
    return batch


def rest_of(b: BoundedBuffer) -> Batch:
    [batch] = b.take_rest("stop", 0.0)
    return batch


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
        assert set(batch.next_offsets) == partitions
        assert batch.rows == 20


def test_the_partition_that_waited_longest_goes_first() -> None:
    b = buffer(rows=10, mixes=False)
    b.extend([run(10, partition=B)], 1.0)
    b.extend([run(10, partition=A)], 2.0)

    assert [list(batch.next_offsets) for batch in b.take(2.0)] == [[B], [A]]


def test_memory_counts_batches_in_delivery_until_they_are_released() -> None:
    b = buffer(rows=10, nbytes=1000, memory=1000)
    b.extend([run(10, size=100)], 0.0)
    assert b.full
    batch = taken(b, 0.0)

    assert b.full
    assert b.room_bytes == 0
    b.release(batch)
    assert b.nbytes == 0
    assert b.roomy


def test_reading_resumes_only_well_below_the_bound() -> None:
    b = buffer(rows=1000, nbytes=10_000, memory=10_000)
    b.extend([run(70, size=100)], 0.0)

    assert not b.full
    assert not b.roomy


def test_a_full_buffer_gives_up_its_largest_lane_although_none_is_due() -> None:
    b = buffer(rows=1000, nbytes=4000, memory=5000, mixes=False)
    b.extend([run(15, size=100), run(30, partition=B, size=100)], 0.0)
    assert b.full

    assert b.due_in_s(0.0) == 0.0
    batch = taken(b, 0.0)
    assert (batch.trigger, list(batch.next_offsets)) == ("memory", [B])


def test_forgotten_partitions_leave_the_others_untouched() -> None:
    b = buffer(mixes=True)
    b.extend([run(3), run(4, partition=B)], 0.0)

    assert b.forget([A]) == 3

    rest = rest_of(b)
    assert list(rest.next_offsets) == [B]
    assert b.due_in_s(0.0) is None


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
