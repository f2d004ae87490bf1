"""What the topic of dead letters promises beyond the contract, on librdkafka's mock cluster."""

from __future__ import annotations

import ctypes
import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from batcher.dead_letters import kafka
from batcher.dead_letters.encoding import MAX_TEXT, one_line
from batcher.dead_letters.kafka import CONSUMER_ONLY, KafkaDeadLetterQueue, letter_of, producer_properties
from batcher.embedded.mock_cluster import ApiKey, MockCluster
from batcher.errors import ConfigurationError, DeadLetterFailed, SettingRefused, Unreachable
from batcher.records import DeadLetter, Partition, Record

TOPIC = "dlq"


def letter(offset: int = 1, value: bytes | None = b"{}", message: str = "not JSON") -> DeadLetter:
    record = Record(Partition("events", 3), offset, 1_700_000_000_000, b"\xff", value, (("h", b"1"),))
    return DeadLetter(record, "decode", "syntax", message, "a.b")


@pytest.fixture
def cluster(mock_cluster: MockCluster) -> MockCluster:
    mock_cluster.create_topic(TOPIC)
    return mock_cluster


@pytest.fixture
def queue(cluster: MockCluster) -> Iterator[KafkaDeadLetterQueue]:
    queue = KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, group="loaders")
    queue.open()
    yield queue
    queue.close()


@pytest.fixture
def stored(cluster: MockCluster) -> Callable[[], list[Message]]:
    def read() -> list[Message]:
        consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader", "enable.auto.commit": False})
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), timeout=10)
            consumer.assign([TopicPartition(TOPIC, 0, 0)])
            found: list[Message] = []
            while len(found) < end:
                found += consumer.consume(end - len(found), 10)
            return found
        finally:
            consumer.close()

    return read


def headers(message: Message) -> dict[str, Any]:
    return dict(message.headers() or [])


def test_the_headers_are_named_as_kafka_connect_names_them(
    queue: KafkaDeadLetterQueue, stored: Callable[[], list[Message]]
) -> None:
    queue.send([letter()])
    (message,) = stored()
    assert message.timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, 1_700_000_000_000)
    found = headers(message)
    assert found.pop("batcher.failed_at")
    assert found.pop("batcher.version")
    assert found == {
        "h": b"1",
        "__connect.errors.topic": b"events",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"1",
        "__connect.errors.connector.name": b"loaders",
        "__connect.errors.task.id": b"0",
        "__connect.errors.stage": b"VALUE_CONVERTER",
        "__connect.errors.class.name": b"batcher.decode",
        "__connect.errors.exception.class.name": b"batcher.decode.syntax",
        "__connect.errors.exception.message": b"not JSON",
        "batcher.stage": b"decode",
        "batcher.reason": b"syntax",
        "batcher.path": b"a.b",
        "batcher.timestamp_ms": b"1700000000000",
    }


def test_a_failed_delivery_report_is_a_failure_though_nothing_is_left_to_flush(
    queue: KafkaDeadLetterQueue, cluster: MockCluster
) -> None:
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(DeadLetterFailed, match=r"2 of 2 dead letters .* events\[3\] offset 1: TOPIC_AUTH") as failed:
        queue.send([letter(1), letter(2)])
    assert isinstance(failed.value.__cause__, confluent_kafka.KafkaException)


def test_a_fault_that_passes_is_retried_to_success(
    queue: KafkaDeadLetterQueue, cluster: MockCluster, stored: Callable[[], list[Message]]
) -> None:
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_LEADER_FOR_PARTITION])
    queue.send([letter(1)])
    assert [letter_of(message) for message in stored()] == [letter(1)]


def test_a_broker_that_is_down_is_a_failure_within_the_time_limit(cluster: MockCluster) -> None:
    queue = KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, timeout_s=0.5)
    queue.open()
    cluster.down()
    with pytest.raises(DeadLetterFailed, match="offset 5"):
        queue.send([letter(5)])
    cluster.up()
    queue.close()


def test_letters_given_up_are_not_delivered_later(cluster: MockCluster, stored: Callable[[], list[Message]]) -> None:
    queue = KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, timeout_s=5)
    queue.open()
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(DeadLetterFailed):
        queue.send([letter(1)])
    queue.send([letter(2)])
    queue.close()
    assert [letter_of(message).record.offset for message in stored()] == [2]


def test_letters_refused_for_one_of_them_are_stored_all_the_same(
    queue: KafkaDeadLetterQueue, cluster: MockCluster, stored: Callable[[], list[Message]]
) -> None:
    letters = [letter(offset) for offset in range(9)]
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD])
    queue.send(letters)
    assert sorted((letter_of(message) for message in stored()), key=lambda one: one.record.offset) == letters


def test_a_letter_too_large_is_stored_without_its_value(
    queue: KafkaDeadLetterQueue,
    cluster: MockCluster,
    stored: Callable[[], list[Message]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE])
    queue.send([letter(8, b"secret")])
    (message,) = stored()
    found = headers(message)
    assert (message.key(), message.value(), found["h"]) == (b"\xff", None, b"1")
    assert found["batcher.omitted"] == b"value"
    assert found["batcher.value.bytes"] == b"6"
    assert found["batcher.value.sha256"] == hashlib.sha256(b"secret").hexdigest().encode()
    assert letter_of(message).record.offset == 8
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "events[3] offset 8" in warning
    assert "secret" not in warning


def test_a_letter_too_large_without_its_value_loses_key_and_headers_too(
    queue: KafkaDeadLetterQueue, cluster: MockCluster, stored: Callable[[], list[Message]]
) -> None:
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE] * 2)
    queue.send([letter(8)])
    (message,) = stored()
    assert (message.key(), message.value()) == (None, None)
    assert "h" not in headers(message)
    assert headers(message)["batcher.omitted"] == b"value,key,headers"


def test_a_topic_that_takes_not_even_the_coordinates_is_a_failure(
    queue: KafkaDeadLetterQueue, cluster: MockCluster
) -> None:
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE] * 3)
    with pytest.raises(DeadLetterFailed, match="MSG_SIZE_TOO_LARGE"):
        queue.send([letter()])


def test_a_time_the_broker_refuses_is_kept_in_a_header(
    queue: KafkaDeadLetterQueue, cluster: MockCluster, stored: Callable[[], list[Message]]
) -> None:
    cluster.push_errors(ApiKey.PRODUCE, [KafkaError.INVALID_TIMESTAMP])
    queue.send([letter()])
    (message,) = stored()
    assert message.timestamp()[1] > 1_700_000_000_000
    assert letter_of(message) == letter()


def test_a_full_producer_queue_is_waited_for(cluster: MockCluster, stored: Callable[[], list[Message]]) -> None:
    queue = KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, {"queue.buffering.max.messages": "7"})
    queue.open()
    queue.send([letter(offset) for offset in range(100)])
    queue.close()
    assert [letter_of(message).record.offset for message in stored()] == list(range(100))


def test_a_producer_queue_that_stays_full_is_a_failure(cluster: MockCluster) -> None:
    queue = KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, {"queue.buffering.max.messages": "1"}, timeout_s=0.5)
    queue.open()
    cluster.down()
    with pytest.raises(DeadLetterFailed, match="3 of 3"):
        queue.send([letter(1), letter(2), letter(3)])
    queue.close()
    cluster.up()


def test_a_missing_topic_is_a_wrong_setting_and_is_not_created(mock_cluster: MockCluster) -> None:
    queue = KafkaDeadLetterQueue(mock_cluster.bootstrap, "nowhere")
    with pytest.raises(ConfigurationError, match=r"--dlq\.topic nowhere: .*create the topic"):
        queue.open()
    found = Producer({"bootstrap.servers": mock_cluster.bootstrap}).list_topics(timeout=10)
    assert "nowhere" not in found.topics


def test_no_rights_on_the_topic_is_a_wrong_setting(cluster: MockCluster) -> None:
    cluster.set_topic_error(TOPIC, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(ConfigurationError, match="authorization"):
        KafkaDeadLetterQueue(cluster.bootstrap, TOPIC).open()


def test_no_broker_is_unreachable_and_says_why(cluster: MockCluster) -> None:
    queue = KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, timeout_s=0.5)
    cluster.down()
    with pytest.raises(Unreachable, match=f"no broker answers for --dlq.topic {TOPIC}: "):
        queue.open()
    queue.close()


def test_a_property_librdkafka_refuses_is_a_wrong_setting(cluster: MockCluster) -> None:
    with pytest.raises(SettingRefused, match=r"-X no\.such\.property: .*\(producer of --dlq\.topic\)"):
        KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, {"no.such.property": "1"}).open()


def test_properties_of_consumers_are_left_out_and_those_of_security_are_not() -> None:
    given = {"group.protocol": "consumer", "isolation.level": "read_committed", "sasl.mechanism": "PLAIN"}
    assert producer_properties("b:9092", given, 1.0).keys() & given.keys() == {"sasl.mechanism"}


def test_nothing_a_user_passes_weakens_durability() -> None:
    given = {"acks": "0", "enable.idempotence": "false", "transactional.id": "t", "allow.auto.create.topics": "true"}
    made = producer_properties("b:9092", given, 1.0)
    assert (made["acks"], made["enable.idempotence"], made["allow.auto.create.topics"]) == ("all", True, False)
    assert "transactional.id" not in made


def test_every_property_the_library_calls_a_consumers_is_left_out(tmp_path: Path) -> None:
    listed = {
        columns[0].strip()
        for line in property_table(tmp_path / "properties").splitlines()
        if len(columns := line.split("|")) > 2 and columns[1].strip() == "C"
    }
    assert len(listed) > 20
    assert listed <= CONSUMER_ONLY


def property_table(path: Path) -> str:
    """Return librdkafka's own table of its properties, which says whose each one is."""
    bundled = list(Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka*"))
    if not bundled:
        pytest.skip("this build of confluent-kafka bundles no librdkafka")
    c = ctypes.CDLL(None)
    c.fopen.restype, c.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
    c.fclose.argtypes = [ctypes.c_void_p]
    show = ctypes.CDLL(str(bundled[0])).rd_kafka_conf_properties_show
    show.argtypes = [ctypes.c_void_p]
    file = c.fopen(str(path).encode(), b"w")
    show(file)
    c.fclose(file)
    return path.read_text()


def test_messages_are_cut_and_cleaned_for_one_line() -> None:
    assert one_line("a\r\nb\x1b[31m\u2028\ud800c") == "a\\r\\nb\\x1b[31m\\u2028\\ud800c"
    assert one_line("ä 世 ok") == "ä 世 ok"
    assert len(one_line("x" * 5000)) == MAX_TEXT
    assert len(one_line("\x00" * 5000)) == MAX_TEXT


def test_a_record_that_is_no_dead_letter_is_not_taken_for_one(
    cluster: MockCluster, stored: Callable[[], list[Message]]
) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce(TOPIC, b"{}")
    producer.flush(10)
    (message,) = stored()
    with pytest.raises(ValueError, match="no dead-letter headers"):
        kafka.letter_of(message)


def test_a_record_with_a_header_whose_name_is_no_text_is_no_letter(
    cluster: MockCluster, stored: Callable[[], list[Message]]
) -> None:
    cluster.produce_raw(TOPIC, b"{}", [(b"batcher.stage", b"decode"), (b"\xff", b"")])
    (message,) = stored()
    with pytest.raises(ValueError, match="no dead-letter headers"):
        letter_of(message)


def test_a_file_of_a_property_that_is_not_there_is_named() -> None:
    queue = KafkaDeadLetterQueue("b:1", "letters", {"security.protocol": "ssl", "ssl.ca.location": "/absent/ca.pem"})

    with pytest.raises(ConfigurationError, match=r"-X ssl\.ca\.location: '/absent/ca\.pem' cannot be read: No such"):
        queue.open()


def test_a_time_before_1970_stays_and_0_is_told_by_the_header_alone(
    queue: KafkaDeadLetterQueue, stored: Callable[[], list[Message]]
) -> None:
    made = letter()
    queue.send([replace(made, record=replace(made.record, timestamp_ms=time_ms)) for time_ms in (-5, 0)])

    first, second = stored()
    assert first.timestamp()[1] == -5
    assert headers(second)["batcher.timestamp_ms"] == b"0"
