from collections.abc import Iterator

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from batcher.embedded.mock_cluster import MockCluster
from batcher.records import HEADERS_TYPE, Partition
from batcher.sources.kafka.columns import to_records
from batcher.sources.kafka.headers import UNREADABLE
from batcher.testing.kafka import produce


def message(offset: int, partition: int = 0, topic: str = "t", **fields: object) -> Message:
    defaults: dict[str, object] = {"value": b"v%d" % offset, "key": None, "timestamp": (1, 1000 + offset)}
    return Message(topic=topic, partition=partition, offset=offset, **{**defaults, **fields})  # type: ignore[arg-type]


def test_a_run_has_every_column_of_its_messages() -> None:
    [run], _ = to_records([message(5, key=b"k", value=b"x"), message(9, value=None)], "t")

    assert run.partition == Partition("t", 0)
    assert run.offsets.to_pylist() == [5, 9]
    assert run.keys.to_pylist() == [b"k", None]
    assert run.values.to_pylist() == [b"x", None]
    assert run.timestamps_ms.to_pylist() == [1005, 1009]
    assert run.headers is None
    assert [column.type for column in (run.offsets, run.timestamps_ms, run.keys, run.values)] == [
        pa.int64(),
        pa.int64(),
        pa.binary(),
        pa.binary(),
    ]


def test_a_record_without_a_timestamp_has_none() -> None:
    [run], _ = to_records([message(1, timestamp=(0, -1)), message(2)], "t")

    assert run.timestamps_ms.to_pylist() == [None, 1002]


def test_headers_keep_their_order_and_their_repeats() -> None:
    headers = [("a", b"1"), ("a", b""), ("b", None)]
    [run], _ = to_records([message(1), message(2, headers=headers)], "t")

    assert run.headers is not None
    assert run.headers.type == HEADERS_TYPE
    assert run.record(0).headers == ()
    assert run.record(1).headers == tuple(headers)


@pytest.fixture
def consumed(mock_cluster: MockCluster) -> Iterator[list[Message]]:
    """Yield the messages of a topic in which the headers of every other record have a name that is no text."""
    mock_cluster.create_topic("t")
    names = [b"plain", b"\xff\xfe", b"line\r\n\x1b[2Kend", b"caf\xe9", "läuft".encode(), b"\xed\xa0\x80", b""]
    for name in names:
        mock_cluster.produce_raw("t", b"{}", [(b"first", b"1"), (name, b"\x00\xff"), (b"last", b"3")])
    consumer = Consumer({"bootstrap.servers": mock_cluster.bootstrap, "group.id": "g", "log_level": 0})
    consumer.assign([TopicPartition("t", 0, 0)])
    found: list[Message] = []
    while len(found) < len(names):
        found += consumer.consume(len(names) - len(found), 10)
    yield found
    consumer.close()


def test_a_header_with_a_name_that_is_no_text_stops_nothing_and_says_so(consumed: list[Message]) -> None:
    # The client raises SystemError for such a record, and crashes the process when it is asked again.
    runs, _ = to_records(consumed, "t")
    found = [run.record(row).headers for run in runs for row in range(len(run))]

    def whole(name: str) -> tuple[tuple[str, bytes], ...]:
        return (("first", b"1"), (name, b"\x00\xff"), ("last", b"3"))

    assert found == [
        whole("plain"),
        UNREADABLE,
        whole("line\r\n\x1b[2Kend"),
        UNREADABLE,
        whole("läuft"),
        UNREADABLE,
        whole(""),
    ]
    assert [run.values.to_pylist() for run in runs] == [[b"{}"] * 7]


def test_headers_stay_with_their_message_wherever_the_first_and_the_bad_ones_are(consumed: list[Message]) -> None:
    bare = message(100)
    # Each message is asked once in this test, but for the first with headers: asking a bad one again is fatal.
    runs, _ = to_records([bare, bare, consumed[1], bare, consumed[0], consumed[3], consumed[5], bare, consumed[2]], "t")
    found = [run.record(row).headers for run in runs for row in range(len(run))]
    assert [len(headers) for headers in found] == [0, 0, 1, 0, 3, 1, 1, 0, 3]
    assert [headers == UNREADABLE for headers in found] == [False, False, True, False, False, True, True, False, False]


@pytest.mark.parametrize("topic", ["t", None])
def test_partitions_become_runs_of_their_own(topic: str | None) -> None:
    messages = [message(1), message(2), message(7, partition=3), message(3)]

    runs, _ = to_records(messages, topic)

    assert [(run.partition.number, run.offsets.to_pylist()) for run in runs] == [(0, [1, 2]), (3, [7]), (0, [3])]


@pytest.mark.parametrize("topic", ["t", None])
def test_many_short_runs_are_joined_in_order(topic: str | None) -> None:
    messages = [message(offset, partition=offset % 3) for offset in range(300)]

    runs, _ = to_records(messages, topic)

    assert sorted(run.partition.number for run in runs) == [0, 1, 2]
    for run in runs:
        assert run.offsets.to_pylist() == list(range(run.partition.number, 300, 3))
        assert run.values.to_pylist() == [b"v%d" % offset for offset in range(run.partition.number, 300, 3)]


def test_a_record_of_a_quiet_partition_does_not_keep_the_rest_of_its_fetch_in_memory() -> None:
    busy = [message(offset, value=b"x" * 1000) for offset in range(1000)]

    runs, _ = to_records([*busy, message(1, partition=1, value=b"quiet")], "t")

    [quiet] = [run for run in runs if run.partition.number == 1]
    assert quiet.values.get_total_buffer_size() < 1000
    assert quiet.values.to_pylist() == [b"quiet"]


def test_partitions_of_the_same_number_in_two_topics_are_kept_apart() -> None:
    runs, _ = to_records([message(1, topic="a"), message(1, topic="b"), message(2, topic="b")])

    assert [(run.partition, len(run)) for run in runs] == [(Partition("a", 0), 1), (Partition("b", 0), 2)]


def test_events_are_set_apart_and_the_records_around_them_kept() -> None:
    event = message(3, value=b"no more", timestamp=(0, -1), error=KafkaError(KafkaError.UNKNOWN))

    runs, events = to_records([message(1), event, message(2)], "t")

    assert events == [event]
    assert [run.offsets.to_pylist() for run in runs] == [[1, 2]]
    assert to_records([event], "t") == ([], [event])


@pytest.mark.parametrize("milliseconds", [-5, -1, -(10**15), 10**18, 0])
def test_a_record_of_any_time_is_told_from_the_events_beside_it(milliseconds: int) -> None:
    event = message(3, value=b"no more", timestamp=(0, -1), error=KafkaError(KafkaError.UNKNOWN))
    odd = message(7, partition=1, timestamp=(1, milliseconds))

    runs, events = to_records([message(1), event, odd, message(2)], "t")

    assert events == [event]
    assert [run.offsets.to_pylist() for run in runs] == [[1], [7], [2]]
    assert [run.timestamps_ms.to_pylist() for run in runs] == [[1001], [milliseconds], [1002]]


def test_what_the_client_says_of_the_end_of_a_log_is_an_event_beside_any_record(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("t")
    times = [-5, -1, 10**18, 1]
    produce(mock_cluster.bootstrap, "t", [b"%d" % time for time in times], timestamps_ms=times)
    consumer = Consumer(
        {"bootstrap.servers": mock_cluster.bootstrap, "group.id": "g", "log_level": 0, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition("t", 0, 0)])
    found: list[Message] = []
    while len(found) < len(times) + 1:
        found += consumer.consume(100, 1.0)
    consumer.close()

    runs, events = to_records(found, "t")
    assert [error.code() for event in events if (error := event.error())] == [KafkaError._PARTITION_EOF]
    assert [time for run in runs for time in run.timestamps_ms.to_pylist()] == times
    assert to_records(events, "t") == ([], events)


def test_gaps_in_the_offsets_are_kept() -> None:
    [run], _ = to_records([message(1), message(2), message(5)], "t")

    assert run.offsets.to_pylist() == [1, 2, 5]


def test_partitions_beyond_a_byte_keep_their_number() -> None:
    runs, _ = to_records([message(1, partition=255), message(1, partition=256), message(1, partition=70_000)], "t")

    assert [run.partition.number for run in runs] == [255, 256, 70_000]
