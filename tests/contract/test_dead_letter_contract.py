"""The laws every dead-letter queue keeps, the one in memory included."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

import batcher.dead_letters
from batcher.dead_letters.directory import DirectoryDeadLetterQueue, read_letters
from batcher.dead_letters.encoding import from_fields
from batcher.dead_letters.kafka import KafkaDeadLetterQueue, letter_of
from batcher.embedded.mock_cluster import ApiKey, MockCluster
from batcher.errors import DeadLetterFailed
from batcher.protocols import DeadLetterQueue
from batcher.records import DeadLetter, Headers, Partition, Record
from batcher.testing.dead_letters import MemoryDeadLetterQueue

TOPIC = "events.dlq"
TOPIC_AUTHORIZATION_FAILED = 29


@dataclass
class Case:
    """Hold a queue with the means to look into it, to break it and to mend it."""

    queue: DeadLetterQueue
    stored: Callable[[], Sequence[DeadLetter]]
    break_it: Callable[[], object]
    mend_it: Callable[[], object]


def memory_case(_request: pytest.FixtureRequest) -> Case:
    queue = MemoryDeadLetterQueue()
    return Case(
        queue,
        lambda: queue.letters,
        lambda: setattr(queue, "broken", True),
        lambda: setattr(queue, "broken", False),
    )


def directory_case(request: pytest.FixtureRequest) -> Case:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    path = tmp_path / "letters"
    kept: list[DeadLetter] = []

    def stored() -> list[DeadLetter]:
        return kept + [from_fields(fields) for fields in read_letters(path)]

    def break_it() -> None:
        kept.extend(stored())
        shutil.rmtree(path)
        path.write_bytes(b"")

    return Case(DirectoryDeadLetterQueue(str(path), "loaders"), stored, break_it, path.unlink)


def kafka_case(request: pytest.FixtureRequest) -> Case:
    cluster: MockCluster = request.getfixturevalue("mock_cluster")
    cluster.create_topic(TOPIC)

    def stored() -> list[DeadLetter]:
        consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader", "enable.auto.commit": False})
        try:
            partition = TopicPartition(TOPIC, 0, 0)
            _, end = consumer.get_watermark_offsets(partition, timeout=10)
            consumer.assign([partition])
            found: list[DeadLetter] = []
            while len(found) < end:
                found += [letter_of(message) for message in consumer.consume(end - len(found), 10)]
            return found
        finally:
            consumer.close()

    return Case(
        KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, {"group.id": "loaders"}, "loaders"),
        stored,
        lambda: cluster.push_errors(ApiKey.PRODUCE, [TOPIC_AUTHORIZATION_FAILED]),
        lambda: cluster.clear_errors(ApiKey.PRODUCE),
    )


CASES: dict[type, Callable[[pytest.FixtureRequest], Case]] = {
    MemoryDeadLetterQueue: memory_case,
    DirectoryDeadLetterQueue: directory_case,
    KafkaDeadLetterQueue: kafka_case,
}


def implementations() -> set[type]:
    names = [module.name for module in pkgutil.walk_packages(batcher.dead_letters.__path__, "batcher.dead_letters.")]
    return {
        thing
        for name in [*names, "batcher.testing.dead_letters"]
        for thing in vars(importlib.import_module(name)).values()
        if isinstance(thing, type)
        and thing.__module__ == name
        and all(map(thing.__dict__.get, ("open", "send", "close")))
    }


@pytest.fixture(params=CASES.values(), ids=[kind.__name__ for kind in CASES])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    built: Case = request.param(request)
    built.queue.open()
    yield built
    built.queue.close()


def letter(
    offset: int = 7,
    *,
    key: bytes | None = b"user-1",
    value: bytes | None = b'{"id": "x"}',
    headers: Headers = (),
    timestamp_ms: int | None = 1_700_000_000_123,
    partition: Partition = Partition("events", 3),  # noqa: B008  a NamedTuple is immutable
    message: str = "field id: not a number",
    path: str | None = "id",
) -> DeadLetter:
    record = Record(partition, offset, timestamp_ms, key, value, headers)
    return DeadLetter(record, "decode", "type", message, path)


def test_every_implementation_is_held_to_the_laws() -> None:
    assert implementations() == set(CASES)


@pytest.mark.parametrize(
    "sent",
    [
        letter(),
        letter(key=None, value=None, timestamp_ms=None, path=None),
        letter(key=b"", value=b""),
        letter(key=b"\xff\xfe", value=b"\x80\x00\x81"),
        letter(timestamp_ms=0),
        letter(timestamp_ms=-62_135_596_800_000),
        letter(headers=(("a", b"1"), ("a", None), ("", b""), ("trace", b"\xff\x00"))),
        letter(headers=(("__connect.errors.topic", b"elsewhere"), ("batcher.stage", b"sink"))),
        letter(offset=2**62, partition=Partition("events", 2**31 - 1)),
        DeadLetter(letter().record, "sink", "overflow", "column n: 300 does not fit UInt8", "n"),
    ],
    ids=["plain", "nulls", "empty", "bytes", "epoch", "before-epoch", "headers", "put-aside-twice", "high", "sink"],
)
def test_a_sent_letter_can_be_read_back_whole(case: Case, sent: DeadLetter) -> None:
    case.queue.send([sent])
    assert list(case.stored()) == [sent]


def test_letters_are_stored_in_the_order_they_were_sent(case: Case) -> None:
    letters = [letter(offset) for offset in range(300)]
    case.queue.send(letters[:100])
    case.queue.send(letters[100:])
    assert list(case.stored()) == letters


def test_sending_no_letters_stores_none(case: Case) -> None:
    case.queue.send([])
    assert list(case.stored()) == []


def test_a_letter_sent_twice_carries_the_same_coordinates(case: Case) -> None:
    case.queue.send([letter(41), letter(42)])
    case.queue.send([letter(42)])
    assert [(one.record.partition, one.record.offset) for one in case.stored()] == [
        (Partition("events", 3), 41),
        (Partition("events", 3), 42),
        (Partition("events", 3), 42),
    ]


@pytest.mark.parametrize(
    "sent",
    [
        letter(partition=Partition("a\r\n\x1b[2Jb", 0)),
        letter(key=b"\r\n\x1b[31m\x00\xc2\x9b", value=b'line\r\nline\x00{"offset": 1}\n'),
        letter(headers=(("x\r\ny\x1b[0m", b"\x00\n"),)),
        letter(value=bytes(range(256)) * 3906),
        letter(key=b"k" * 500_000, value=b"v" * 1_000_000),
        letter(path="ä.世"),
    ],
    ids=["topic", "key-and-value", "header", "1-MB", "large-key", "field-name"],
)
def test_hostile_content_is_kept_and_hides_no_other_letter(case: Case, sent: DeadLetter) -> None:
    case.queue.send([letter(1), sent, letter(2)])
    assert list(case.stored()) == [letter(1), sent, letter(2)]


def test_a_letter_that_cannot_be_stored_is_an_error_that_shows_no_payload(case: Case) -> None:
    case.break_it()
    with pytest.raises(DeadLetterFailed) as failed:
        case.queue.send([letter(key=b"the-key", value=b"the-value", headers=(("h", b"the-header"),))])
    case.mend_it()
    assert "\n" not in str(failed.value)
    assert not any(secret in str(failed.value) for secret in ("the-key", "the-value", "the-header"))


def test_a_queue_goes_on_after_a_failure(case: Case) -> None:
    case.queue.send([letter(1)])
    case.break_it()
    with pytest.raises(DeadLetterFailed):
        case.queue.send([letter(2)])
    case.mend_it()
    case.queue.send([letter(2), letter(3)])
    assert {one.record.offset for one in case.stored()} == {1, 2, 3}


def test_closing_twice_is_harmless(case: Case) -> None:
    case.queue.send([letter()])
    case.queue.close()
    case.queue.close()
    assert len(case.stored()) == 1


def test_a_queue_that_never_opened_can_be_closed(request: pytest.FixtureRequest) -> None:
    for build in CASES.values():
        build(request).queue.close()
