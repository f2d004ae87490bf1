"""Send events to a topic or another queue, at a rate where asked for, and count what was confirmed."""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from batcher.errors import Unreachable
from batcher.generate.limits import TopicLimits
from batcher.generate.shape import SendableBatch
from batcher.generate.skipped import Skipped, SkipReason
from batcher.sources.kafka.errors import FORBIDDEN, GONE

if TYPE_CHECKING:  # `--help` needs no columns
    from batcher.protocols import Publisher
    from batcher.records import Headers

TICK_S: Final = 0.05
"""With a rate, how often something is sent; also how soon a stop is noticed."""

STOP_S: Final = 0.3
"""How long reports are waited for after a stop: a person who presses Ctrl-C waits no longer."""

KINDS: Final = 20
"""The most kinds of failures that are told apart: a queue may word each one differently."""

HOPELESS: Final = FORBIDDEN | GONE | {KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001 - librdkafka's own code
"""What every other record would meet as well."""

LASTING: Final = HOPELESS | {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.POLICY_VIOLATION,
    KafkaError._INVALID_DIFFERENT_RECORD,  # noqa: SLF001 - as above
}
"""What sending the same again would meet as well."""


@dataclass
class DeliveryFailure:
    """Count the records that were refused for one reason, which has a name and the words of who refused them."""

    name: str
    message: str
    count: int = 0


class EventLoad(ABC):
    """Send chunks of events and count what was confirmed. For one thread; `stop` may be set by others.

    `rate` is in events a second; None means as fast as they are taken. `delivered` and `failed` are what was confirmed
    and refused, `nbytes` is the bytes sent, `failures` says why by kind, `lasting`
    that some would fail again. `skipped` counts what is too large to be sent at all.
    """

    def __init__(
        self,
        *,
        headers: Headers = (),
        rate: float | None = None,
        stop: threading.Event | None = None,
        skipped: Skipped | None = None,
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self.nbytes = 0
        self.failures: dict[str, DeliveryFailure] = {}
        self.lasting = False
        self.skipped = skipped or Skipped()
        self._headers = headers
        self._rate = rate
        self._stop = stop or threading.Event()
        self._taken = 0
        self._sent = 0

    @property
    def unsent(self) -> int:
        """Return how many events were taken and not sent, because of a stop or because no other would be delivered."""
        return self._taken - self._sent

    @abstractmethod
    def send(self, chunks: Iterable[SendableBatch], timeout_s: float = 30.0) -> int:
        """Send everything, until stopped; return of how many events nothing is known."""

    def _pieces(self, chunks: Iterable[SendableBatch], most: int | None) -> Iterator[SendableBatch]:
        """Yield chunks, cut where they have more than `most` events, or more than the rate has in a moment."""
        if self._rate is not None:
            most = min(most or sys.maxsize, per_tick(self._rate))
        for chunk in chunks:
            count = len(chunk.values)
            self._taken += count
            if most is None or count <= most:
                yield chunk
            else:
                yield from (chunk.part(start, start + most) for start in range(0, count, most))

    def _failed(self, name: str, message: str) -> None:
        self.failed += 1
        self._note(name, message).count += 1

    def _note(self, name: str, message: str) -> DeliveryFailure:
        if name not in self.failures and len(self.failures) >= KINDS:
            name, message = "other", "other reasons"
        return self.failures.setdefault(name, DeliveryFailure(name, message))


class Load(EventLoad):
    """Send to a topic, and count the delivery report of each event; other arguments are those of `EventLoad`.

    Without `partition` the key decides. What `limits` refuse is skipped. Sending ends early where no record at all can
    be delivered any more.
    """

    def __init__(
        self,
        producer: Producer,
        topic: str,
        *,
        partition: int | None = None,
        limits: TopicLimits | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._producer = producer
        self._topic = topic
        self._limits = limits or TopicLimits()
        self._hopeless = False
        self._extra: dict[str, Any] = {"headers": list(self._headers)} if self._headers else {}
        if partition is not None:
            self._extra["partition"] = partition

    def send(self, chunks: Iterable[SendableBatch], timeout_s: float = 30.0) -> int:
        """Send everything, until stopped, and wait for the reports; return how many did not come in time."""
        started = time.monotonic()
        for piece in self._pieces(chunks, None):
            self._send(piece)
            self._producer.poll(0)
            if self._rate is not None:
                self._rest(started + self._sent / self._rate)
            if self._over:
                break
        return self._settled(timeout_s)

    @property
    def _over(self) -> bool:
        return self._hopeless or self._stop.is_set()

    def _send(self, batch: SendableBatch) -> None:
        produce, topic, report = self._producer.produce, self._topic, self._report
        keys, times_ms, extra = batch.keys, batch.times_ms, dict(self._extra)
        checked = self._limits.keyed or bool(times_ms)
        for index, value in enumerate(batch.values):
            key = keys[index] if keys else None
            if times_ms:
                extra["timestamp"] = times_ms[index]
            if checked and (reason := self._limits.refuses(key, times_ms[index] if times_ms else 0)) is not None:
                self.skipped.add(reason, batch.source, batch.numbers[index])
                continue
            while True:
                try:
                    produce(topic, value, key, on_delivery=report, **extra)
                    break
                except BufferError:  # the queue is full: reports make room
                    self._producer.poll(TICK_S)
                    if self._over:
                        self._sent += index
                        return
                except KafkaException as refusal:
                    self._refused(refusal.args[0], batch, index)
                    break
        self._sent += len(batch.values)
        self.nbytes += sum(len(value or b"") for value in batch.values)

    def _refused(self, error: KafkaError, batch: SendableBatch, index: int) -> None:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:  # by our own bound: it was not sent
            self.skipped.add(SkipReason.TOO_LARGE, batch.source, batch.numbers[index])
        else:
            self._report(error, None)

    def _report(self, error: KafkaError | None, _message: Message | None) -> None:
        if error is None:
            self.delivered += 1
            return
        self._failed(error.name(), error.str())
        self.lasting |= error.code() in LASTING
        self._hopeless |= error.fatal() or error.code() in HOPELESS

    def _rest(self, until_s: float) -> None:
        while not self._over and (left_s := until_s - time.monotonic()) > 0:
            self._producer.poll(min(left_s, TICK_S))

    def _settled(self, timeout_s: float) -> int:
        """Wait for the reports; after a stop only for a moment. The client waits in C, where Python hears no signal."""
        deadline_s, stopped = time.monotonic() + timeout_s, False
        while True:
            left = int(self._producer.flush(max(min(TICK_S, deadline_s - time.monotonic()), 0.0)))
            if self._stop.is_set() and not stopped:
                deadline_s, stopped = min(deadline_s, time.monotonic() + STOP_S), True
            if not left or time.monotonic() >= deadline_s:
                return left


class PublisherLoad(EventLoad):
    """Publish events in batches; the arguments are those of `EventLoad`."""

    def __init__(self, publisher: Publisher, **options: Any) -> None:
        super().__init__(**options)
        self._publisher = publisher

    def send(self, chunks: Iterable[SendableBatch], timeout_s: float = 30.0) -> int:
        """Send everything, until stopped or until the queue does not answer; return of how many nothing is known."""
        from batcher.protocols import Outgoing  # noqa: PLC0415 - as said above

        started, headers = time.monotonic(), self._headers
        for piece in self._pieces(chunks, self._publisher.batch):
            keys = piece.keys or (None,) * len(piece.values)
            messages = [Outgoing(value or b"", key, headers) for value, key in zip(piece.values, keys, strict=True)]
            if not messages:
                continue
            self._sent += len(messages)
            try:
                refused = self._publisher.publish(messages, timeout_s)
            except Unreachable as error:
                self._note(str(error), str(error)).count += len(messages)
                return len(messages)
            self.nbytes += sum(len(message.value) for message in messages)
            self.delivered += len(messages) - len(refused)
            for why in refused:
                self._failed(why, why)
            if len(refused) == len(messages):  # a full disk, for one: the next would not do better
                break
            if self._rate is not None and (left_s := started + self._sent / self._rate - time.monotonic()) > 0:
                self._stop.wait(left_s)
            if self._stop.is_set():
                break
        return 0


def per_tick(rate: float) -> int:
    """Return how many events to send at a time to keep a rate."""
    return max(1, int(rate * TICK_S))
