"""Records at a steady rate, and how old each was when its commit was seen."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from batcher.generate.events import EventGenerator
from batcher.testing.kafka import Broker

TICK_S: Final = 0.02

LOOK_EVERY_S: Final = 0.003
"""Between two questions for the committed offsets, which take one or two milliseconds themselves."""

ANSWER_S: Final = 30.0

VALUES: Final = 20_000
"""Different values; making each anew would cost as much as sending it."""

Marks = Mapping[int, Sequence[tuple[int, float]]]
"""For each partition, ascending: an offset, and the epoch second at which everything below it was so far."""

Ages = list[tuple[float, int]]
"""Seconds, and how many records were that old; ascending."""


class Steady:
    """Produce orders to a topic that nobody else fills, on a thread of its own, in the `with` block or until `stop`.

    `rate` is in records a second, over all partitions. `stamps` are the records' own timestamps; `sent` counts.
    """

    def __init__(self, broker: Broker, topic: str, partitions: int, rate: float) -> None:
        self.stamps: dict[int, list[tuple[int, float]]] = {number: [] for number in range(partitions)}
        self.sent = 0
        self.seconds = 0.0
        self._topic = topic
        self._rate = rate
        self._producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap,
                # Offsets are counted, not asked for: nothing may be repeated or overtaken.
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                "log_level": 3,
            }
        )
        self._values = itertools.cycle(EventGenerator(seed=1).take(VALUES))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def stop(self) -> None:
        """Produce no more; raise RuntimeError unless everything arrives within a while."""
        self._stop.set()
        self._thread.join()
        if left := self._producer.flush(ANSWER_S):
            raise RuntimeError(f"{left} records not delivered within {ANSWER_S:.0f} s")

    def _run(self) -> None:
        began = time.monotonic()
        partitions = len(self.stamps)
        while not self._stop.wait(TICK_S):
            due = int((time.monotonic() - began) * self._rate) - self.sent
            stamp_ms = time.time_ns() // 1_000_000
            for number in range(partitions):
                # Record after record in turns, as if each partition had a producer of its own.
                count = (self.sent + due - number + partitions - 1) // partitions
                count -= (self.sent - number + partitions - 1) // partitions
                if count:
                    self._produce(number, count, stamp_ms)
            self.sent += due
            self.seconds = time.monotonic() - began
            self._producer.poll(0)

    def _produce(self, number: int, count: int, stamp_ms: int) -> None:
        for value in itertools.islice(self._values, count):
            while True:
                try:
                    self._producer.produce(self._topic, value, partition=number, timestamp=stamp_ms)
                    break
                except BufferError:
                    self._producer.poll(0.01)
        marks = self.stamps[number]
        marks.append(((marks[-1][0] if marks else 0) + count, stamp_ms / 1000))


class CommitWatch:
    """Ask for a group's committed offsets every few milliseconds, on a thread of its own, in the `with` block.

    `seen` says when a committed offset was first seen: never too early, and late by some milliseconds.
    """

    def __init__(self, broker: Broker, group: str, topic: str, partitions: int) -> None:
        self.seen: dict[int, list[tuple[int, float]]] = {number: [] for number in range(partitions)}
        self._asked = [TopicPartition(topic, number) for number in range(partitions)]
        self._consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "log_level": 3})
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commit-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    @property
    def committed(self) -> int:
        """Return the sum of the committed offsets."""
        with self._changed:
            return sum(marks[-1][0] for marks in self.seen.values() if marks)

    def wait(self, total: int, timeout_s: float) -> float:
        """Return the epoch second at which the committed offsets were seen to add up to so many.

        Raise TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._sum() >= total, timeout_s):
                raise TimeoutError(f"{self._sum()} of {total} records committed after {timeout_s:.0f} s")
            return max(marks[-1][1] for marks in self.seen.values() if marks)

    def _sum(self) -> int:
        return sum(marks[-1][0] for marks in self.seen.values() if marks)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            try:
                answered = self._consumer.committed(self._asked, ANSWER_S)
            except KafkaException:  # a new group's coordinator is still being chosen; asked again in a moment
                continue
            now = time.time()
            with self._changed:
                for one in answered:
                    marks = self.seen[one.partition]
                    if one.offset > (marks[-1][0] if marks else 0):
                        marks.append((one.offset, now))
                self._changed.notify_all()


def ages(stamps: Marks, seen: Marks, since: float, until: float) -> Ages:
    """Return how old the records with timestamps from `since` to `until` were when their commits were seen.

    Those whose commit was not seen are left out.
    """
    found: Ages = []
    for partition, stamped in stamps.items():
        first = 0
        commits = iter(seen[partition])
        committed, at = next(commits, (0, 0.0))
        for end, stamp in stamped:
            while first < end:
                while committed <= first:
                    step = next(commits, None)
                    if step is None:
                        break
                    committed, at = step
                if committed <= first:
                    break
                last = min(end, committed)
                if since <= stamp < until:
                    found.append((at - stamp, last - first))
                first = last
    return sorted(found)


def percentile(found: Ages, share: float) -> float:
    """Return the age that this share of the records did not exceed; raise ValueError where there are none."""
    wanted = share * sum(count for _, count in found)
    counted = 0
    for age, count in found:
        counted += count
        if counted >= wanted:
            return age
    raise ValueError("no record was committed")


def fill(broker: Broker, topic: str, values: Iterable[bytes], partitions: int, block: int = 500) -> int:
    """Fill a topic evenly, a block for each partition in turn, and return the number of bytes."""
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
            "delivery.report.only.error": True,
            "log_level": 3,
        }
    )
    nbytes = 0
    for number, value in enumerate(values):
        nbytes += len(value)
        while True:
            try:
                producer.produce(topic, value, partition=number // block % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(4 * ANSWER_S):
        raise RuntimeError(f"{left} records not delivered")
    return nbytes
