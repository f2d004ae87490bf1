"""What tests do to any broker: make topics, fill them, cut them, look at a group."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from batcher.records import Headers, Partition, Position
from batcher.sources.kafka.errors import COMMIT_RETRIED
from batcher.sources.kafka.metadata import StoredPosition, pack, unpack

REQUEST_TIMEOUT_S: Final = 30.0
"""A broker that has just started, on a machine that is busy, needs some seconds for its first answers."""

COMPACTED: Final[Mapping[str, str]] = {
    "cleanup_policy": "compact",
    "segment_ms": "100",
    "min_cleanable_dirty_ratio": "0.0",
    "delete_retention_ms": "0",
    "min_compaction_lag_ms": "0",
}
"""Settings of a topic that is compacted as soon as its broker checks it."""

CLEANED_WITHIN_S: Final = 60.0
"""A broker that is not ours checks every 15 s."""

ASKED_AGAIN_S: Final = 0.1


def committed_offsets(
    consumer: Consumer, asked: list[TopicPartition], timeout_s: float = REQUEST_TIMEOUT_S
) -> list[TopicPartition]:
    """Return what the group of a consumer has committed; the client itself asks only once.

    The coordinator of a new group is still being chosen, and the first answers may say so. Raise KafkaException.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return consumer.committed(asked, timeout_s)
        except KafkaException as error:
            if error.args[0].code() not in COMMIT_RETRIED or time.monotonic() > deadline:
                raise
        time.sleep(ASKED_AGAIN_S)


class Broker:
    """Hold the address of a running broker. Subclasses start and stop one; this one only uses it.

    `shortest_session_ms` is the shortest session timeout that it takes for a classic group.
    """

    shortest_session_ms: int = 6000

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._admin_client: AdminClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Release the broker. A second call is harmless."""
        self._admin_client = None

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> None:
        """Create a topic and wait until every partition has a leader.

        `config` are topic settings with `_` for `.`, as in `cleanup_policy="compact"`.
        """
        topic = NewTopic(name, num_partitions=partitions, config={k.replace("_", "."): v for k, v in config.items()})
        self._admin.create_topics([topic])[name].result(REQUEST_TIMEOUT_S)
        self._wait_for_leaders(name, partitions)

    def delete_topic(self, name: str) -> None:
        """Delete a topic."""
        self._admin.delete_topics([name])[name].result(REQUEST_TIMEOUT_S)

    def create_anew(self, name: str) -> None:
        """Delete a topic and create another of its name, with one partition."""
        self.delete_topic(name)
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            # The deletion goes on after it was confirmed.
            try:
                return self.create_topic(name)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def add_partitions(self, topic: str, total: int) -> None:
        """Give a topic more partitions, up to `total`, and wait until they have leaders."""
        self._admin.create_partitions([NewPartitions(topic, total)])[topic].result(REQUEST_TIMEOUT_S)
        self._wait_for_leaders(topic, total)

    def delete_records(self, partition: Partition, before_offset: int) -> None:
        """Expire everything below an offset, as retention would."""
        target = TopicPartition(partition.topic, partition.number, before_offset)
        self._admin.delete_records([target])[target].result(REQUEST_TIMEOUT_S)

    def records(self, topic: str) -> list[Message]:
        """Return every record that a topic without holes has now, each partition in its order.

        Raise TimeoutError when a record does not come, KafkaException when the broker says why.
        """
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "reader", "enable.auto.commit": False})
        try:
            spans = self._watermarks(consumer, topic)
            consumer.assign([TopicPartition(*partition, low) for partition, (low, _) in spans.items()])
            left = sum(high - low for low, high in spans.values())
            found: list[Message] = []
            while len(found) < left:
                came = consumer.consume(left - len(found), REQUEST_TIMEOUT_S)
                if not came:
                    raise TimeoutError(f"{len(found)} of {left} records of {topic} within {REQUEST_TIMEOUT_S:.0f} s")
                for message in came:
                    if (error := message.error()) is not None:
                        raise KafkaException(error)
                found += came
            return found
        finally:
            consumer.close()

    def ends(self, topic: str) -> dict[Partition, int]:
        """Return the offset at which the next record of each partition will be written."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "batcher-testing-ends"})
        try:
            return {partition: high for partition, (_, high) in self._watermarks(consumer, topic).items()}
        finally:
            consumer.close()

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, Position]:
        """Return what a group has committed, with its intents; partitions without a commit are not in it."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        try:
            found = committed_offsets(consumer, [TopicPartition(*p) for p in partitions])
            places = [(Partition(tp.topic, tp.partition), tp) for tp in found if tp.offset >= 0]
            return {part: unpack(part, tp.offset, tp.metadata).position for part, tp in places}
        finally:
            consumer.close()

    def commit(self, group: str, positions: Mapping[Partition, Position]) -> None:
        """Commit for a group that has no members, as an operator does to rewind one."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group, "enable.auto.commit": False})
        try:
            offsets = [TopicPartition(*p, q.next_offset, pack(StoredPosition(q))) for p, q in positions.items()]
            consumer.assign(offsets)
            consumer.commit(offsets=offsets, asynchronous=False)
        finally:
            consumer.close()

    def produce(self, topic: str, values: Iterable[bytes | str | None], **options: Any) -> int:
        """Produce to this broker: see `produce`."""
        return produce(self.bootstrap, topic, values, **options)

    @staticmethod
    def _watermarks(consumer: Consumer, topic: str) -> dict[Partition, tuple[int, int]]:
        numbers = consumer.list_topics(topic, REQUEST_TIMEOUT_S).topics[topic].partitions
        return {
            Partition(topic, number): consumer.get_watermark_offsets(TopicPartition(topic, number), REQUEST_TIMEOUT_S)
            for number in numbers
        }

    @property
    def _admin(self) -> AdminClient:
        if self._admin_client is None:
            # It outlives brokers that tests kill, and would log that twice a second.
            self._admin_client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})
        return self._admin_client

    def _wait_for_leaders(self, topic: str, partitions: int) -> None:
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while time.monotonic() < deadline:
            found = self._admin.list_topics(topic, REQUEST_TIMEOUT_S).topics[topic]
            led = [number for number, one in found.partitions.items() if one.leader >= 0 and one.error is None]
            if len(led) >= partitions:
                return
            time.sleep(0.05)
        raise TimeoutError(f"topic {topic} got no leaders within {REQUEST_TIMEOUT_S:.0f} s")


def produce(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes | str | None],
    *,
    partition: int | Sequence[int] | None = None,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers | None] | None = None,
    timestamps_ms: Sequence[int] | None = None,
    compression: str = "none",
    properties: Mapping[str, str] | None = None,
) -> int:
    """Produce the values in order and return how many there were; then every one of them is in the log.

    `keys`, `headers` and `timestamps_ms` have one entry for each value, and `partition` where it is not one for all.
    Without it the partitioner decides. Each call takes half a second: an idempotent producer waits so long for its id.
    Raise KafkaException with the first delivery error, TimeoutError after a minute.
    """
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": compression,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
            # Successful reports are only counted, and flush() does that: no Python call for each record.
            "delivery.report.only.error": True,
            "on_delivery": on_delivery,
            # A fresh broker makes every first producer wait for its id, and librdkafka warn about it.
            "log_level": 3,
            **(properties or {}),
        }
    )
    count = 0
    for value in values:
        extra: dict[str, Any] = {}
        if partition is not None:
            extra["partition"] = partition if isinstance(partition, int) else partition[count]
        if keys is not None:
            extra["key"] = keys[count]
        if headers is not None:
            extra["headers"] = list(headers[count] or ())
        if timestamps_ms is not None:
            extra["timestamp"] = timestamps_ms[count]
        _enqueue(producer, topic, value, extra)
        count += 1
    left = producer.flush(60.0)
    if failures:
        raise KafkaException(failures[0])
    if left:
        raise TimeoutError(f"{left} of {count} records for {topic} not delivered within 60 s")
    return count


def _enqueue(producer: Producer, topic: str, value: bytes | str | None, extra: dict[str, Any]) -> None:
    while True:
        try:
            producer.produce(topic, value, **extra)
        except BufferError:
            producer.poll(0.1)
        else:
            return
