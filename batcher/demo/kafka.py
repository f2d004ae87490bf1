"""The demo's Kafka: librdkafka's mock cluster inside this process, and the orders that are sent to it.

The mock keeps 5 MB for each partition and silently drops what is older. So the orders wait while too many of them are
not yet committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from batcher.demo.log import GROUP, PARTITIONS, TICK_S, TOPIC, DemoOrders
from batcher.embedded.mock_cluster import MockCluster

BACKLOG: Final = 14_000
"""Records of a partition that may wait: at 210 bytes each 56 % of what the mock keeps, if nothing compresses."""

ASK_TIMEOUT_S: Final = 10.0

REJOIN: Final = ("-X", "session.timeout.ms=2000", "-X", "heartbeat.interval.ms=400")
"""A group gives a killed member's partitions away when its session ends: after 45 s by default, too long to watch.
(A static member, --kafka.instance, gets them back at once from a real broker; from the mock after 45 s, measured.)"""


class SmallKafka:
    """Run the cluster with one topic (see `DemoLog`). Raises jars.Unavailable where librdkafka has none."""

    name = "Kafka"
    own_name = "your own Kafka, here on localhost:9092"
    rejoin: Sequence[str] = REJOIN
    own_orders: Sequence[str] = ("-b", "localhost:9092", "-t", "my-orders")
    own_flags: Sequence[str] = (*own_orders, "-g", "my-group")

    def __init__(self) -> None:
        self._cluster = MockCluster()
        self.bootstrap = self._cluster.bootstrap
        self._cluster.create_topic(TOPIC, PARTITIONS)
        self.told = f"Kafka: a small one in this process, {self.bootstrap}, topic {TOPIC}, {PARTITIONS} partitions"
        self.flags: Sequence[str] = ("-b", self.bootstrap, "-t", TOPIC, "-g", GROUP)
        # It never joins the group: it only asks what the pipeline has committed.
        self._group = Consumer({"bootstrap.servers": self.bootstrap, "group.id": GROUP, "log_level": 0})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._group.close()
        self._cluster.stop()

    def committed(self) -> list[int]:
        """Return the next offset of each partition that the pipeline has committed."""
        asked = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
        return [max(at.offset, 0) for at in self._group.committed(asked, timeout=ASK_TIMEOUT_S)]

    def orders(self, count: int, rate: float) -> DemoOrders:
        """Return the orders, not begun."""
        return Orders(self.bootstrap, count, rate, self.committed)


class Orders(DemoOrders):
    """Send made-up orders. `made` counts what was handed to the client."""

    def __init__(self, bootstrap: str, count: int, rate: float, committed: Callable[[], Sequence[int]]) -> None:
        super().__init__(count, rate)
        self.made = 0
        self._committed = committed
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                # A retry of the client must not put a record into the log twice: the count is by coordinates.
                "enable.idempotence": True,
                "linger.ms": 10,
                "compression.type": "lz4",
                "log_level": 0,
            }
        )

    def _append_all(self) -> None:
        try:
            self._send_all()
        except KafkaException as error:
            self.error = str(error.args[0].str())

    def _send_all(self) -> None:
        last = time.monotonic()
        while self.made < self._count and not self._stop.is_set():
            self._producer.poll(TICK_S)
            now = time.monotonic()
            # No more than two ticks' worth: what was not sent during a wait is not made up for in a burst.
            due = int(min(now - last, 2 * TICK_S) * self._rate)
            room = PARTITIONS * BACKLOG - (self.made - sum(self._committed()))
            self.throttled = room < due
            last = now
            self._send(min(due, max(room, 0), self._count - self.made))
        if self._producer.flush(ASK_TIMEOUT_S) and not self._stop.is_set():
            self.error = self.error or "not every order was confirmed in time"

    def _send(self, count: int) -> None:
        first = self.made
        for index, event in enumerate(self._generator.take(count)):
            # In turn, not by key: no partition may get ahead of what the mock keeps.
            self._producer.produce(TOPIC, event, partition=(first + index) % PARTITIONS, on_delivery=self._report)
        self.made += count

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.error = self.error or error.str()
            return
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        self.offsets[partition].append(offset)
