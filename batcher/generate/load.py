"""Send events to a topic or another queue, at a rate where asked for, and count what was confirmed."""

from __future__ import annotations

import os
import select
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from batcher.errors import Unreachable
from batcher.generate.events import Poison

if TYPE_CHECKING:  # `--help` needs no columns
    from batcher.protocols import Publisher

TICK_S: Final = 0.05
"""With a rate, how often something is sent; also how soon a stop is noticed."""

_READ_BYTES: Final = 1 << 20

Keys = Callable[[bytes], bytes | None]
"""Return the key of an event."""


class EventLoad(ABC):
    """Send chunks of events and count what was confirmed. For one thread; `stop` may be set by others.

    `rate` is in events a second; None means as fast as they are taken. `delivered` and `failed` are what was confirmed
    and refused, `nbytes` is the bytes sent, `first_error` is what the first failure said.
    """

    def __init__(
        self, *, keys: Keys | None = None, rate: float | None = None, stop: threading.Event | None = None
    ) -> None:
        self.delivered = 0
        self.failed = 0
        self.nbytes = 0
        self.first_error = ""
        self._keys = keys
        self._rate = rate
        self._stop = stop or threading.Event()

    @abstractmethod
    def send(self, chunks: Iterable[list[bytes]], timeout_s: float = 30.0) -> int:
        """Send everything, until stopped; return of how many events nothing is known."""

    def _key(self, event: bytes) -> bytes | None:
        return None if self._keys is None else self._keys(event)


class Load(EventLoad):
    """Send to a topic, and count the delivery report of each event; the arguments are those of `EventLoad`."""

    def __init__(
        self,
        producer: Producer,
        topic: str,
        *,
        keys: Keys | None = None,
        rate: float | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(keys=keys, rate=rate, stop=stop)
        self._producer = producer
        self._topic = topic
        self._sent = 0

    def send(self, chunks: Iterable[list[bytes]], timeout_s: float = 30.0) -> int:
        """Send everything, until stopped, and wait for the reports; return how many did not come in time."""
        started = time.monotonic()
        for piece in pieces(chunks, None if self._rate is None else per_tick(self._rate)):
            self._send(piece)
            self._producer.poll(0)
            if self._rate is not None:
                self._rest(started + self._sent / self._rate)
            if self._stop.is_set():
                break
        return int(self._producer.flush(timeout_s))

    def _send(self, events: list[bytes]) -> None:
        produce, topic, keys, report = self._producer.produce, self._topic, self._keys, self._report
        for event in events:
            key = None if keys is None else keys(event)
            while True:
                try:
                    produce(topic, event, key, on_delivery=report)
                    break
                except BufferError:  # the queue is full: reports make room
                    self._producer.poll(0.1)
                except KafkaException as refusal:  # too large, for one
                    self._report(refusal.args[0], None)
                    break
            self.nbytes += len(event)
        self._sent += len(events)

    def _report(self, error: KafkaError | None, _message: Message | None) -> None:
        if error is None:
            self.delivered += 1
            return
        self.failed += 1
        self.first_error = self.first_error or error.str()

    def _rest(self, until_s: float) -> None:
        while not self._stop.is_set() and (left_s := until_s - time.monotonic()) > 0:
            self._producer.poll(min(left_s, TICK_S))


class PublisherLoad(EventLoad):
    """Publish events in batches; the arguments are those of `EventLoad`."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        keys: Keys | None = None,
        rate: float | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(keys=keys, rate=rate, stop=stop)
        self._publisher = publisher

    def send(self, chunks: Iterable[list[bytes]], timeout_s: float = 30.0) -> int:
        """Send everything, until stopped or until the queue does not answer; return of how many nothing is known."""
        from batcher.protocols import Outgoing  # noqa: PLC0415 - as said above

        started, sent = time.monotonic(), 0
        most = self._publisher.batch
        for piece in pieces(chunks, most if self._rate is None else min(most, per_tick(self._rate))):
            try:
                refused = self._publisher.publish([Outgoing(event, self._key(event)) for event in piece], timeout_s)
            except Unreachable as error:
                self.first_error = self.first_error or str(error)
                return len(piece)
            sent += len(piece)
            self.nbytes += sum(map(len, piece))
            self.failed += len(refused)
            self.delivered += len(piece) - len(refused)
            if refused:
                self.first_error = self.first_error or refused[0]
                if len(refused) == len(piece):  # a full disk, for one: the next would not do better
                    break
            if self._rate is not None and (left_s := started + sent / self._rate - time.monotonic()) > 0:
                self._stop.wait(left_s)
            if self._stop.is_set():
                break
        return 0


def pieces(chunks: Iterable[list[bytes]], size: int | None) -> Iterator[list[bytes]]:
    """Yield chunks, cut where they have more than `size` events."""
    for chunk in chunks:
        most = size or len(chunk) or 1
        yield from (chunk[start : start + most] for start in range(0, len(chunk), most))


def per_tick(rate: float) -> int:
    """Return how many events to send at a time to keep a rate."""
    return max(1, int(rate * TICK_S))


def lines(descriptor: int, stop: threading.Event) -> Iterator[list[bytes]]:
    """Yield the lines of a file or pipe that have come so far, again and again, until its end or until stopped.

    What `tail -f` writes into a pipe comes out at once. Empty lines are skipped.
    """
    rest = b""
    while data := _available(descriptor, stop):
        *found, rest = (rest + data).split(b"\n")
        yield [line for line in (one.rstrip(b"\r") for one in found) if line]
    if rest.rstrip(b"\r"):
        yield [rest.rstrip(b"\r")]


def _available(descriptor: int, stop: threading.Event) -> bytes:
    while not stop.is_set():
        if select.select([descriptor], [], [], TICK_S)[0]:
            return os.read(descriptor, _READ_BYTES)
    return b""


def limited(chunks: Iterable[list[bytes]], count: int | None, poison: Poison) -> Iterator[list[bytes]]:
    """Yield chunks up to `count` events in all, None for no limit, with poison put in."""
    left = count
    for chunk in chunks:
        taken = chunk if left is None else chunk[:left]
        poison.spoil(taken)
        yield taken
        if left is not None:
            left -= len(taken)
            if left == 0:
                return
