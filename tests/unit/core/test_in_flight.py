import pyarrow as pa
import pytest

from batcher.core.in_flight import MAX_AHEAD, BatchInFlight, InFlightQueue
from batcher.records import Decoded, Partition, Prepared
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)


def begun(first: int, *partitions: Partition) -> BatchInFlight:
    runs = [make_records(["1"], partition=partition, first_offset=first) for partition in partitions or (A,)]
    return BatchInFlight(make_batch(*runs), dict.fromkeys(partitions or (A,), 1))


def decoded(one: BatchInFlight) -> Prepared:
    return Prepared(one.batch, Decoded(pa.table({}), pa.array([], pa.int64())), 0.0)


def queue(count: int) -> tuple[InFlightQueue, list[BatchInFlight]]:
    flights, batches = InFlightQueue(), [begun(i) for i in range(count)]
    flights.add(batches, 7.0)
    return flights, batches


def test_batches_are_decoded_in_order_and_no_more_ahead_than_allowed() -> None:
    flights, batches = queue(MAX_AHEAD + 1)

    taken = [flight for _ in batches if (flight := flights.next_to_decode()) is not None]
    assert taken == batches[:MAX_AHEAD]
    assert flights.ahead
    flights.pop(batches[0])
    following = flights.next_to_decode()
    assert following is not None
    assert following is batches[MAX_AHEAD]
    assert not flights.sealed


def test_what_was_decoded_is_found_at_its_batch_and_that_of_a_dropped_one_nowhere() -> None:
    flights, batches = queue(2)
    for _ in batches:
        flights.next_to_decode()
    assert flights.pop(batches[0])
    for one in batches:
        flights.decoded(one, decoded(one))

    assert [(flight, flight.stage) for flight in flights] == [(batches[1], "decoded")]


def test_a_batch_is_taken_out_once() -> None:
    flights, batches = queue(1)

    assert [flights.pop(batches[0]), flights.pop(batches[0])] == [True, False]
    assert len(flights) == 0
    assert flights.first is None
    assert flights.next_to_decode() is None


def test_parts_take_the_place_of_the_whole_and_are_decoded_anew() -> None:
    flights, batches = queue(3)
    flights.next_to_decode()
    parts = [begun(10), begun(11)]
    flights.split(9.0, lambda flight: parts if flight is batches[0] else None)

    assert list(flights) == [*parts, *batches[1:]]
    assert [flight.stage for flight in flights] == ["sealed"] * 4
    assert [flight.begun_at for flight in flights] == [9.0, 9.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("asked", "answer"), [([A], True), ([B], True), ([Partition("events", 2)], False), ([], False)]
)
def test_a_partition_is_looked_for_in_every_batch(asked: list[Partition], answer: bool) -> None:
    flights = InFlightQueue()
    flights.add([begun(0, A), begun(5, A, B)], 0.0)

    assert flights.touching(asked) is answer


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("fetched", [(A, B), (B, A)])
def test_a_joined_batch_has_one_run_for_each_partition_in_the_order_of_its_ranges(
    fetched: tuple[Partition, Partition], pieces: int
) -> None:
    runs = [
        make_records(["1"], partition=partition, first_offset=piece) for piece in range(pieces) for partition in fetched
    ]
    joined = make_batch(*runs).joined()

    assert [(run.partition, run.offsets.to_pylist()) for run in joined.runs] == [
        (partition, list(range(pieces))) for partition in (A, B)
    ]
    assert [span.partition for span in joined.ranges] == [A, B]
