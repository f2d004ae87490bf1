"""Kafka sources of one consumer group, opened for a test and closed at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Producer

from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import REQUEST_TIMEOUT_S, Broker
from batcher.testing.listener import RecordingListener

PROTOCOLS: Final[Mapping[str, Mapping[str, str]]] = {
    "cooperative-sticky": {"heartbeat.interval.ms": "300"},
    "range": {"partition.assignment.strategy": "range", "heartbeat.interval.ms": "300"},
    "kip848": {"group.protocol": "consumer"},
}
"""The properties for each way in which a group shares out partitions. Members hear of a rebalance by a heartbeat, which
takes librdkafka 3 s by default."""

Opened = tuple[KafkaSource, RecordingListener]


class Readers:
    """Open sources of `group` while in the `with` block."""

    def __init__(self, broker: Broker, group: str) -> None:
        self.broker = broker
        self.group = group
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, topic: str, **changes: object) -> Opened:
        """Open a source of a topic; `changes` are fields of `KafkaOptions`."""
        source, listener = KafkaSource(self.options(topic, **changes)), RecordingListener()
        source.open(listener)
        self._stack.callback(source.close)
        return source, listener

    def options(self, topic: str, **changes: object) -> KafkaOptions:
        """Return the options of a source of a topic."""
        chosen: dict[str, object] = {"brokers": self.broker.bootstrap, "topics": (topic,), "group": self.group}
        return KafkaOptions(**{**chosen, **changes})  # type: ignore[arg-type]

    @property
    def poll_s(self) -> float:
        """Return after how many seconds without a poll a member with `short_poll` is taken for dead."""
        # With less, a busy machine is taken for a dead one.
        return max(3.0, self.broker.shortest_session_ms / 1000)

    def short_poll(self, protocol: str) -> dict[str, str]:
        """Return the properties of a protocol, with which a member that does not poll is soon missed."""
        milliseconds = f"{self.poll_s * 1000:.0f}"
        given = {**PROTOCOLS[protocol], "max.poll.interval.ms": milliseconds}
        return given if protocol == "kip848" else {**given, "session.timeout.ms": milliseconds}


def share(one: Opened, other: Opened, count: int, timeout_s: float = 60.0) -> None:
    """Fetch from both, dropping what comes, until each owns `count` partitions; raise TimeoutError."""
    until(lambda: len(one[1].owned) == len(other[1].owned) == count, one[0], other[0], timeout_s=timeout_s)


def until(done: Callable[[], bool], *sources: KafkaSource, timeout_s: float = 60.0) -> None:
    """Fetch from the sources in turn, dropping what comes, until `done`; raise TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {timeout_s:g} s")
        for source in sources:
            source.fetch(1000, 1 << 24, 0.05)


def transaction(broker: Broker, topic: str, values: Mapping[bytes, bytes | None], *, commit: bool) -> None:
    """Write records with these keys to partition 0 in one transaction, which leaves a control record behind."""
    with open_transaction(broker, topic, values, commit=commit):
        pass


@contextmanager
def open_transaction(
    broker: Broker, topic: str, values: Mapping[bytes, bytes | None], *, commit: bool
) -> Iterator[None]:
    """Write records with these keys to partition 0 and end their transaction after the `with` block."""
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "transactional.id": f"{topic}-{commit}", "log_level": 3}
    )
    producer.init_transactions(REQUEST_TIMEOUT_S)
    producer.begin_transaction()
    for key, value in values.items():
        producer.produce(topic, value, key=key, partition=0)
    producer.flush(REQUEST_TIMEOUT_S)
    yield
    (producer.commit_transaction if commit else producer.abort_transaction)(REQUEST_TIMEOUT_S)
