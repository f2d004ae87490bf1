"""Produce orders while a test goes on, and keep which of them got which coordinates."""

from __future__ import annotations

import threading
from functools import partial
from random import Random
from typing import Final, Self

from confluent_kafka import KafkaError, Message, Producer

from batcher.generate.events import POISON, EventGenerator
from batcher.records import Partition
from batcher.testing.kafka import Broker
from tests.harness.census import Coordinate

TICK_S: Final = 0.05


class LiveOrders:
    """Produce orders, one in so many of them poison, on a thread of its own until stopped.

    `rate` is in records a second, over all partitions, and varies from tick to tick by up to its double. `ids` are
    those of all records that the broker has confirmed, poison included, by their coordinates; complete after `stop`,
    which raises RuntimeError when the broker refused one.
    """

    def __init__(
        self, broker: Broker, topic: str, partitions: int, *, rate: float, poison_every: int = 97, seed: int = 1
    ) -> None:
        self.topic = topic
        self.ids: dict[Coordinate, int] = {}
        self.poison: set[Coordinate] = set()
        self._partitions = partitions
        self._rate = rate
        self._poison_every = poison_every
        self._generator = EventGenerator(seed=seed)
        self._random = Random(seed)  # nothing here is secret
        self._producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                # Longer than any test keeps the broker away.
                "message.timeout.ms": 180_000,
                # It outlives the broker of some tests, and would say so.
                "log_level": 0,
            }
        )
        self._failure: KafkaError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-orders", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end()

    def stop(self) -> None:
        """Produce no more and wait until everything is confirmed. Twice is harmless."""
        left = self._end()
        if self._failure is not None or left:
            raise RuntimeError(f"{left} orders not confirmed, first failure: {self._failure}")

    def _end(self) -> int:
        self._stop.set()
        self._thread.join()
        return int(self._producer.flush(180.0))

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(TICK_S):
            values = self._generator.take(max(1, int(self._rate * TICK_S * self._random.uniform(0.2, 1.8))))
            for value in values:
                poison = number % self._poison_every == self._poison_every - 1
                spoiled = POISON[number // self._poison_every % len(POISON)][1](value) if poison else value
                self._producer.produce(
                    self.topic,
                    spoiled,
                    partition=number % self._partitions,
                    on_delivery=partial(self._confirmed, number, poison),
                )
                number += 1
            self._producer.poll(0)

    def _confirmed(self, number: int, poison: bool, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = self._failure or error
            return
        place = (Partition(message.topic() or "", message.partition() or 0), message.offset() or 0)
        self.ids[place] = number
        if poison:
            self.poison.add(place)
