"""The laws every source keeps, the in-memory one included.

A source takes part with a `SourceCase`: a log of two partitions, a way to fill it, and sources that read it for
one group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from batcher.embedded.mock_cluster import MockCluster
from batcher.native import Choice
from batcher.protocols import Source
from batcher.protocols.publisher import Outgoing
from batcher.records import Partition
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.sources.queue.file import QueueShape, create, opened
from batcher.sources.queue.publisher import QueuePublisher
from batcher.sources.queue.source import QueueOptions, QueueSource
from batcher.testing.contract.source import SourceCase, SourceLaws
from batcher.testing.kafka import Broker, produce
from batcher.testing.sources import MemoryLog, MemorySource

A, B = Partition("topic", 0), Partition("topic", 1)


class MemoryCase(SourceCase):
    def __init__(self) -> None:
        self.log = MemoryLog([A, B])

    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        self.log.produce(partition, values)

    def source(self, *, until_eof: bool = False) -> Source:
        return MemorySource(self.log, until_eof=until_eof)


class KafkaCase(SourceCase):
    def __init__(self, bootstrap: str, topic: str, **properties: str) -> None:
        self.bootstrap = bootstrap
        self.native: Choice = "auto"
        self.properties = {name.replace("_", "."): value for name, value in properties.items()}
        self.partitions = (Partition(topic, 0), Partition(topic, 1))

    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        produce(self.bootstrap, partition.topic, values, partition=partition.number)

    def source(self, *, until_eof: bool = False) -> Source:
        topics = (self.partitions[0].topic,)
        return KafkaSource(
            KafkaOptions(
                self.bootstrap, topics, "group", properties=self.properties, until_eof=until_eof, native=self.native
            )
        )


class QueueCase(SourceCase):
    """A queue of two lanes, of which the second has the higher priority: a priority names the lane to publish to."""

    partitions = (Partition("orders", 0), Partition("orders", 1))

    def __init__(self, path: Path) -> None:
        self.path = path
        create(path, QueueShape("orders", lanes=1, priorities=2)).close()

    def produce(self, partition: Partition, values: Sequence[bytes]) -> None:
        publisher = QueuePublisher(opened(self.path))
        assert not publisher.publish([Outgoing(value, priority=partition.number) for value in values], 10.0)
        publisher.close()

    def source(self, *, until_eof: bool = False) -> Source:
        return QueueSource(QueueOptions(self.path, "loaders", until_eof=until_eof))


def mock_case(request: pytest.FixtureRequest, protocol: str, native: Choice = "auto") -> SourceCase:
    cluster: MockCluster = request.getfixturevalue("mock_cluster")
    cluster.create_topic("topic", 2)
    # A member that left a classic group holds up the next one until its session is over.
    timeouts = {} if protocol == "consumer" else {"session_timeout_ms": "2000", "heartbeat_interval_ms": "300"}
    case = KafkaCase(cluster.bootstrap, "topic", group_protocol=protocol, **timeouts)
    case.native = native
    return case


def broker_case(request: pytest.FixtureRequest, **properties: str) -> SourceCase:
    broker: Broker = request.getfixturevalue("broker")
    topic = request.getfixturevalue("new_topic")(2)
    case = KafkaCase(broker.bootstrap, topic, **properties)
    group = request.getfixturevalue("new_group")()
    case.source = lambda *, until_eof=False: KafkaSource(  # type: ignore[method-assign]
        KafkaOptions(broker.bootstrap, (topic,), group, properties=case.properties, until_eof=until_eof)
    )
    return case


Build = Callable[[pytest.FixtureRequest], SourceCase]


CASES: Final[dict[str, Build]] = {
    "memory": lambda _: MemoryCase(),
    "queue": lambda request: QueueCase(request.getfixturevalue("tmp_path") / "orders.db"),
    "kafka:mock": lambda request: mock_case(request, "classic"),
    "kafka:mock-kip848": lambda request: mock_case(request, "consumer"),
    # The others fetch by the native extension, where it is built.
    "kafka:mock-python": lambda request: mock_case(request, "classic", "off"),
    # Members hear of a rebalance with a heartbeat, every 3 s by default.
    "kafka:cooperative": lambda request: broker_case(request, heartbeat_interval_ms="300"),
    "kafka:range": lambda request: broker_case(
        request, partition_assignment_strategy="range", heartbeat_interval_ms="300"
    ),
    "kafka:kip848": lambda request: broker_case(request, group_protocol="consumer"),
}


class TestEverySource(SourceLaws):
    @pytest.fixture(
        params=[
            pytest.param(
                name, marks=[pytest.mark.broker] if name in {"kafka:cooperative", "kafka:range", "kafka:kip848"} else []
            )
            for name in CASES
        ]
    )
    def case(self, request: pytest.FixtureRequest) -> SourceCase:
        return CASES[request.param](request)
