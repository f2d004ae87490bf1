"""The laws every dead-letter queue keeps, the one in memory included."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

import batcher.dead_letters
from batcher.dead_letters.directory import DirectoryDeadLetterQueue, read_letters
from batcher.dead_letters.encoding import from_fields
from batcher.dead_letters.kafka import KafkaDeadLetterQueue, letter_of
from batcher.embedded.mock_cluster import ApiKey, MockCluster
from batcher.records import DeadLetter
from batcher.testing.contract.dead_letters import DeadLetterCase, DeadLetterLaws
from batcher.testing.dead_letters import MemoryDeadLetterQueue

TOPIC = "events.dlq"


TOPIC_AUTHORIZATION_FAILED = 29


def memory_case(_request: pytest.FixtureRequest) -> DeadLetterCase:
    queue = MemoryDeadLetterQueue()
    return DeadLetterCase(
        queue,
        lambda: queue.letters,
        lambda: setattr(queue, "broken", True),
        lambda: setattr(queue, "broken", False),
    )


def directory_case(request: pytest.FixtureRequest) -> DeadLetterCase:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    path = tmp_path / "letters"
    kept: list[DeadLetter] = []

    def stored() -> list[DeadLetter]:
        return kept + [from_fields(fields) for fields in read_letters(path)]

    def break_it() -> None:
        kept.extend(stored())
        shutil.rmtree(path)
        path.write_bytes(b"")

    return DeadLetterCase(DirectoryDeadLetterQueue(str(path), "loaders"), stored, break_it, path.unlink)


def kafka_case(request: pytest.FixtureRequest) -> DeadLetterCase:
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

    return DeadLetterCase(
        KafkaDeadLetterQueue(cluster.bootstrap, TOPIC, {"group.id": "loaders"}, "loaders"),
        stored,
        lambda: cluster.push_errors(ApiKey.PRODUCE, [TOPIC_AUTHORIZATION_FAILED]),
        lambda: cluster.clear_errors(ApiKey.PRODUCE),
    )


CASES: dict[type, Callable[[pytest.FixtureRequest], DeadLetterCase]] = {
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


def test_every_implementation_is_held_to_the_laws() -> None:
    assert implementations() == set(CASES)


def test_a_queue_that_never_opened_can_be_closed(request: pytest.FixtureRequest) -> None:
    for build in CASES.values():
        build(request).queue.close()


class TestEveryDeadLetterQueue(DeadLetterLaws):
    @pytest.fixture(params=CASES.values(), ids=[kind.__name__ for kind in CASES])
    def case(self, request: pytest.FixtureRequest) -> Iterator[DeadLetterCase]:
        built: DeadLetterCase = request.param(request)
        built.queue.open()
        yield built
        built.queue.close()
