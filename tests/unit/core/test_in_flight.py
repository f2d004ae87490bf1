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
    assert not flights.waiting


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


def of(writers: int, *batches: BatchInFlight) -> InFlightQueue:
    flights = InFlightQueue(writers)
    flights.add(batches, 0.0)
    return flights


def decode_all(flights: InFlightQueue) -> list[BatchInFlight]:
    found = []
    while (one := flights.next_to_decode()) is not None:
        flights.decoded(one, decoded(one))
        found.append(one)
    return found


def test_a_batch_is_ready_once_none_before_it_has_a_partition_of_its_own() -> None:
    first, second, other, both = begun(0), begun(5), begun(0, B), begun(9, A, B)
    flights = of(3, first, second, other, both)
    decode_all(flights)

    assert list(flights.ready()) == [first, other]
    first.stage = other.stage = "writing"
    assert list(flights.ready()) == []
    assert flights.writing == [first, other]
    flights.pop(first)
    assert list(flights.ready()) == [second]
    flights.pop(second)
    flights.pop(other)
    decode_all(flights)
    assert list(flights.ready()) == [both]


def test_a_partition_that_does_not_get_on_has_one_batch_decoded_ahead_and_others_are_decoded_past_it() -> None:
    mine, others = [begun(i) for i in range(4)], [begun(i, B) for i in range(2)]
    flights = of(2, *mine, *others)

    assert decode_all(flights) == [*mine[:2], *others]
    assert (flights.ahead, flights.waiting) == (True, frozenset({A}))
    flights.pop(others[0])
    # There is room, and nothing that may be decoded.
    assert (flights.ahead, flights.decodable()) == (False, None)


def test_the_first_batch_is_decoded_whatever_else_is_ahead_of_it() -> None:
    whole, later = begun(0, A, B), [begun(9, Partition("events", number)) for number in range(2, 4)]
    flights = of(1, whole, *later)
    decode_all(flights)
    parts = [begun(0), begun(0, B)]
    flights.split(1.0, lambda one: parts if one is whole else None)
    later[1].stage = "decoded"
    flights._begun = 2

    assert decode_all(flights) == [parts[0]]
