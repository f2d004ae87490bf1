"""Dead letters in a topic of a real Kafka, where size, time and silence have consequences."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from batcher.dead_letters.kafka import KafkaDeadLetterQueue, letter_of
from batcher.errors import ConfigurationError, DeadLetterFailed
from batcher.records import DeadLetter, Partition, Record
from batcher.testing.kafka import Broker
from batcher.testing.real_broker import RealBroker

pytestmark = pytest.mark.broker


def letter(
    offset: int = 1,
    value: bytes | None = b"{}",
    *,
    key: bytes | None = b"\xff",
    timestamp_ms: int | None = 1_700_000_000_000,
) -> DeadLetter:
    record = Record(Partition("events", 3), offset, timestamp_ms, key, value, (("h", b"1"), ("h", None)))
    return DeadLetter(record, "sink", "overflow", "column n: does not fit UInt8", "n")


def opened(broker: Broker, topic: str, timeout_s: float = 30.0) -> KafkaDeadLetterQueue:
    queue = KafkaDeadLetterQueue(broker.bootstrap, topic, {"group.protocol": "consumer"}, "loaders", timeout_s)
    queue.open()
    return queue


def test_letters_come_back_from_a_real_broker_unchanged(broker: Broker, new_topic: Callable[..., str]) -> None:
    topic = new_topic(3, retention_ms="-1")
    sent = [
        letter(offset, timestamp_ms=timestamp) for offset, timestamp in enumerate([None, 0, -1, 1, 1_700_000_000_000])
    ]
    sent += [letter(5, None, key=None), letter(6, b"", key=b""), letter(7, b"\x00\r\n\x1b[31m\xff")]
    sent += [letter(offset) for offset in range(8, 5000)]
    queue = opened(broker, topic)
    queue.send(sent)
    queue.close()
    assert sorted(map(letter_of, broker.records(topic)), key=lambda one: one.record.offset) == sent


def test_only_what_the_topic_cannot_take_is_stored_without_value(broker: Broker, new_topic: Callable[..., str]) -> None:
    topic = new_topic(max_message_bytes="20000")
    sent = [letter(offset, b"x" * (30_000 if offset == 77 else 400)) for offset in range(200)]
    queue = opened(broker, topic)
    queue.send(sent)
    queue.close()
    found = {letter_of(message).record.offset: message for message in broker.records(topic)}
    assert sorted(found) == list(range(200))
    assert [offset for offset, message in found.items() if message.value() is None] == [77]
    assert dict(found[77].headers() or [])["batcher.value.bytes"] == b"30000"


def test_a_time_the_broker_refuses_costs_neither_the_letter_nor_its_neighbours(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic(message_timestamp_after_max_ms="3600000")
    in_a_year_ms = int(time.time() * 1000) + 365 * 86_400_000
    sent = [letter(offset, timestamp_ms=in_a_year_ms if offset == 3 else 1_700_000_000_000) for offset in range(100)]
    queue = opened(broker, topic)
    queue.send(sent)
    queue.close()
    assert sorted(map(letter_of, broker.records(topic)), key=lambda one: one.record.offset) == sent


def test_a_topic_that_wants_keys_is_a_failure_and_not_a_loop(broker: Broker, new_topic: Callable[..., str]) -> None:
    topic = new_topic(cleanup_policy="compact")
    queue = opened(broker, topic)
    with pytest.raises(DeadLetterFailed, match=r"of 3 dead letters .* offset 1:"):
        queue.send([letter(0), letter(1, key=None), letter(2)])
    queue.close()


def test_a_missing_topic_is_not_created_by_looking_for_it(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="create the topic"):
        opened(broker, "no-such-dead-letter-topic")
    assert "no-such-dead-letter-topic" not in Producer({"bootstrap.servers": broker.bootstrap}).list_topics().topics


def test_a_broker_that_falls_silent_fails_the_letters_and_is_used_again_when_back(
    broker: Broker, new_topic: Callable[..., str]
) -> None:
    if not isinstance(broker, RealBroker):
        pytest.skip("only a broker started by the tests can be suspended")
    topic = new_topic()
    queue = opened(broker, topic, timeout_s=3)
    queue.send([letter(1)])
    broker.suspend()
    try:
        with pytest.raises(DeadLetterFailed, match=r"1 of 1 .* events\[3\] offset 2"):
            queue.send([letter(2)])
    finally:
        broker.resume()
    queue.close()
    queue = opened(broker, topic)
    queue.send([letter(2)])
    queue.close()
    assert {letter_of(message).record.offset for message in broker.records(topic)} == {1, 2}
