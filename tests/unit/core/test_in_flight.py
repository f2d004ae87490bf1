import pyarrow as pa
import pytest

from batcher.core.in_flight import MAX_AHEAD, Flights
from batcher.core.offsets import Receipt
from batcher.records import Decoded, Partition, Prepared
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)


def receipt(first: int, *partitions: Partition) -> Receipt:
    runs = [make_records(["1"], partition=partition, first_offset=first) for partition in partitions or (A,)]
    return Receipt(make_batch(*runs), dict.fromkeys(partitions or (A,), 1))


def decoded(one: Receipt) -> Prepared:
    return Prepared(one.batch, Decoded(pa.table({}), pa.array([], pa.int64())), 0.0)


def queue(count: int) -> tuple[Flights, list[Receipt]]:
    flights, receipts = Flights(), [receipt(i) for i in range(count)]
    flights.add(receipts, 7.0)
    return flights, receipts


def test_batches_are_decoded_in_order_and_no_more_ahead_than_allowed() -> None:
    flights, receipts = queue(MAX_AHEAD + 1)

    taken = [flight.receipt for _ in receipts if (flight := flights.next_to_decode()) is not None]
    assert taken == receipts[:MAX_AHEAD]
    assert flights.ahead
    flights.pop(receipts[0])
    following = flights.next_to_decode()
    assert following is not None
    assert following.receipt is receipts[MAX_AHEAD]
    assert not flights.sealed


def test_what_was_decoded_is_found_at_its_batch_and_that_of_a_dropped_one_nowhere() -> None:
    flights, receipts = queue(2)
    for _ in receipts:
        flights.next_to_decode()
    assert flights.pop(receipts[0])
    for one in receipts:
        flights.decoded(one, decoded(one))

    assert [(flight.receipt, flight.stage) for flight in flights] == [(receipts[1], "decoded")]


def test_a_batch_is_taken_out_once() -> None:
    flights, receipts = queue(1)

    assert [flights.pop(receipts[0]), flights.pop(receipts[0])] == [True, False]
    assert len(flights) == 0
    assert flights.first is None
    assert flights.next_to_decode() is None


def test_parts_take_the_place_of_the_whole_and_are_decoded_anew() -> None:
    flights, receipts = queue(3)
    flights.next_to_decode()
    parts = [receipt(10), receipt(11)]
    flights.split(9.0, lambda flight: parts if flight.receipt is receipts[0] else None)

    assert [flight.receipt for flight in flights] == [*parts, *receipts[1:]]
    assert [flight.stage for flight in flights] == ["sealed"] * 4
    assert [flight.begun_at for flight in flights] == [9.0, 9.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("asked", "answer"), [([A], True), ([B], True), ([Partition("events", 2)], False), ([], False)]
)
def test_a_partition_is_looked_for_in_every_batch(asked: list[Partition], answer: bool) -> None:
    flights = Flights()
    flights.add([receipt(0, A), receipt(5, A, B)], 0.0)

    assert flights.touching(asked) is answer
