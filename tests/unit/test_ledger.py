import pytest

from batcher.ledger import LawBroken, Ledger, token
from batcher.records import Batch, Partition, Position
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)


def batch(first: int, count: int, partition: Partition = A) -> Batch:
    return make_batch(make_records([b"{}"] * count, partition=partition, first_offset=first))


def ledger(*partitions: Partition) -> Ledger:
    found = Ledger()
    found.assign({partition: Position(0) for partition in partitions or (A,)})
    return found


def read(found: Ledger, first: int, count: int, partition: Partition = A) -> None:
    found.admit(make_records([b"{}"] * count, partition=partition, first_offset=first))


def test_a_finished_batch_entitles_to_the_offset_after_its_last_record() -> None:
    found = ledger()
    read(found, 0, 5)
    receipt = found.begin(batch(0, 5))
    found.finish(receipt)

    assert found.wanted() == {A: Position(5)}


def test_a_commit_before_the_batch_is_durable_is_a_broken_law() -> None:
    found = ledger()
    read(found, 0, 5)
    found.begin(batch(0, 5))

    assert found.wanted() == {}
    with pytest.raises(LawBroken, match="committed 5"):
        found.commit({A: Position(5)})


def test_a_commit_never_goes_back() -> None:
    found = ledger()
    read(found, 0, 9)
    for first, count in ((0, 5), (5, 4)):
        receipt = found.begin(batch(first, count))
        found.finish(receipt)
        found.commit(found.wanted())

    with pytest.raises(LawBroken):
        found.commit({A: Position(5)})


def test_what_an_earlier_ownership_wrote_is_not_committed_in_a_later_one() -> None:
    found = ledger()
    read(found, 0, 5)
    receipt = found.begin(batch(0, 5))
    found.forget([A])
    found.assign({A: Position(2)})
    found.finish(receipt)

    assert not found.ours(receipt)
    assert found.wanted() == {}
    assert found.committed() == {A: 2}


def test_a_batch_that_overlaps_an_earlier_one_is_a_broken_law() -> None:
    found = ledger()
    read(found, 0, 9)
    found.begin(batch(0, 5))

    with pytest.raises(LawBroken, match="begins below 5"):
        found.begin(batch(4, 5))


def test_a_batch_of_a_foreign_partition_is_a_broken_law() -> None:
    with pytest.raises(LawBroken, match="not ours"):
        ledger(A).begin(batch(0, 1, B))


def test_records_read_again_are_dropped_and_new_ones_kept() -> None:
    found = ledger()
    read(found, 0, 5)

    assert found.admit(make_records([b"{}"] * 5)) is None
    rest = found.admit(make_records([b"{}"] * 5, first_offset=3))
    assert rest is not None
    assert (rest.first_offset, rest.last_offset) == (5, 7)


def test_records_of_partitions_that_are_not_ours_are_dropped() -> None:
    assert ledger(A).admit(make_records([b"{}"], partition=B)) is None


def test_gaps_between_offsets_are_no_fault() -> None:
    found = ledger()
    run = make_records([b"{}"] * 3, offsets=[10, 20, 30])
    assert found.admit(run) is run
    receipt = found.begin(make_batch(run))
    found.finish(receipt)

    assert found.wanted() == {A: Position(31)}


def test_a_token_is_the_same_for_the_same_ranges_and_differs_for_any_other() -> None:
    tokens = {
        token(
            name,
            make_batch(*(make_records([b"{}"] * n, partition=p, first_offset=f, timestamp_ms=ts) for p, f, n in runs)),
        )
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
    assert token("group", batch(0, 5)) == token("group", batch(0, 5))
