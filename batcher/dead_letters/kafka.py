"""Dead letters in a Kafka topic, as Kafka Connect writes them.

Key, value, headers and timestamp stay as they were. Headers behind the record's own say why it was refused and from
where it came (`encoding.added_headers`). The producer is the queue's own and idempotent, and every single delivery
report is awaited: `flush` also returns 0 after everything in the queue has failed.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from batcher.dead_letters.encoding import added_headers, coordinates, from_headers, now, one_line
from batcher.errors import ConfigurationError, DeadLetterFailed
from batcher.records import DeadLetter
from batcher.sources.kafka.asking import Complaints, asked, unanswered
from batcher.sources.kafka.headers import headers_of
from batcher.sources.kafka.properties import accepted

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""What the producer lets through, so that the topic's own `max.message.bytes` decides. Above
`socket.request.max.bytes`, 100 MiB by default, brokers cut the connection without saying which record it was."""

MAX_QUEUE_KBYTES: Final = 128 * 1024
"""The producer's memory, instead of its default of 1 GiB; it has to be larger than one message."""

CONSUMER_ONLY: Final = frozenset(
    """
    group.id group.instance.id group.protocol group.protocol.type group.remote.assignor partition.assignment.strategy
    session.timeout.ms heartbeat.interval.ms coordinator.query.interval.ms max.poll.interval.ms max.poll.records
    enable.auto.commit auto.commit.enable auto.commit.interval.ms enable.auto.offset.store auto.offset.reset
    offset.store.method offset.store.path offset.store.sync.interval.ms queued.min.messages queued.max.messages.kbytes
    fetch.wait.max.ms fetch.queue.backoff.ms fetch.message.max.bytes max.partition.fetch.bytes fetch.max.bytes
    fetch.min.bytes fetch.error.backoff.ms isolation.level consume_cb rebalance_cb offset_commit_cb
    enable.partition.eof check.crcs share.acknowledgement.mode consume.callback.max.messages
    """.split()  # noqa: SIM905  forty names read better as text than one a line
)
"""Properties that librdkafka 2.16 marks as a consumer's: a producer ignores each of them with a warning."""

NOT_OURS: Final = frozenset({"transactional.id", "statistics.interval.ms"})
"""Not handed over either: a transactional producer sends only inside transactions, and its statistics are not read."""

TOO_LARGE: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
"""Refusals that a smaller record gets past."""

BAD_TIME: Final = frozenset({KafkaError.INVALID_TIMESTAMP})
"""Refusals that another timestamp gets past: brokers refuse times too far from their own clock."""

REFUSED: Final = TOO_LARGE | BAD_TIME | {KafkaError.INVALID_RECORD, KafkaError._INVALID_DIFFERENT_RECORD}  # noqa: SLF001
"""Refusals that may be the fault of another record in the same request. The underscore marks librdkafka's own codes."""

OPEN_TIMEOUT_S: Final = 8.0
"""The time for the first answer: less than an attempt at the start may take, so that its reason is heard."""

PARTS: Final = ("value", "key", "headers")
"""The parts of a record, in the order in which they are omitted when the topic takes no record that large."""

log = logging.getLogger(__name__)


class KafkaDeadLetterQueue:
    """Store dead letters in a Kafka topic that already exists.

    `brokers` and `properties` are librdkafka's. Properties of consumers are dropped, so the source's may be handed over
    as they are. `group` tells readers which pipeline refused the record. One `send` takes at most about `timeout_s`
    seconds.

    A record that the topic refuses for its size is stored without its value, if need be without key and headers. Then
    `batcher.omitted` names what is missing, and size and SHA-256 of the value take its place. A record whose time the
    broker refuses gets the broker's time; `batcher.timestamp_ms` always has the original.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        properties: Mapping[str, str] | None = None,
        group: str = "",
        timeout_s: float = 30.0,
    ) -> None:
        self._topic = topic
        self._group = group
        self._timeout_s = timeout_s
        self._properties = producer_properties(brokers, properties or {}, timeout_s)
        self._producer: Producer | None = None
        self._complaints = Complaints()

    def open(self) -> None:
        """Connect and check that the topic is there; it is never created, least of all with default settings.

        Raise Unreachable when no broker answers, ConfigurationError for a missing topic, for rights and for a refused
        connection, SettingRefused for properties that librdkafka refuses.
        """
        with accepted(self._properties, "producer of --dlq.topic"):
            producer = self._connected()
        try:
            ask, reason = partial(producer.list_topics, self._topic), self._complaints.of(producer)
            found = asked(ask, min(self._timeout_s, OPEN_TIMEOUT_S), reason=reason).topics[self._topic].error
        except KafkaException as error:
            self._disconnect()
            raise unanswered(error, f"--dlq.topic {self._topic}") from error
        if found is not None and not found.retriable():
            self._disconnect()
            raise ConfigurationError(
                one_line(
                    f"--dlq.topic {self._topic}: {found.str()}; create the topic, with the retention of the source"
                    " at least, and let this user describe it and write to it"
                )
            )

    def send(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        deadline_s = time.monotonic() + self._timeout_s
        failed_at = now()
        parcels = [_Parcel(letter, added_headers(letter, self._group, failed_at)) for letter in letters]
        delivered: list[_Parcel] = []
        try:
            self._settle(parcels, deadline_s, delivered)
        except _Undelivered as undelivered:
            self._disconnect()
            error = undelivered.error
            raise DeadLetterFailed(
                one_line(
                    f"{len(letters) - len(delivered)} of {len(letters)} dead letters could not be stored in topic"
                    f" {self._topic}, the first from {coordinates(undelivered.letter)}: {error.name()}, {error.str()};"
                    " mend it and start again"
                )
            ) from KafkaException(error)
        reduced = [parcel for parcel in delivered if parcel.omitted]
        if reduced:
            log.warning(
                "%d dead letters were stored without their value: too large for topic %s, the first from %s",
                len(reduced),
                self._topic,
                coordinates(reduced[0].letter),
            )

    def close(self) -> None:
        self._disconnect()

    def _settle(self, parcels: Sequence[_Parcel], deadline_s: float, delivered: list[_Parcel]) -> None:
        """Deliver every parcel, in a lighter form where need be; raise _Undelivered otherwise.

        A request may be refused for one of its records, or for all of them together. Halving finds out, with few
        requests where few records are to blame.
        """
        failures = self._deliver(parcels, deadline_s)
        delivered.extend(parcel for index, parcel in enumerate(parcels) if index not in failures)
        for index in sorted(failures):
            if failures[index].code() not in REFUSED:
                raise _Undelivered(parcels[index].letter, failures[index])
        if not failures:
            return
        refused = [parcels[index] for index in sorted(failures)]
        if len(parcels) == 1:
            lighter = parcels[0].lighter(failures[0])
            if lighter is None:
                raise _Undelivered(parcels[0].letter, failures[0])
            self._settle([lighter], deadline_s, delivered)
            return
        middle = (len(refused) + 1) // 2
        for half in (refused[:middle], refused[middle:]):
            if half:
                self._settle(half, deadline_s, delivered)

    def _deliver(self, parcels: Sequence[_Parcel], deadline_s: float) -> dict[int, KafkaError]:
        """Hand the parcels to the brokers and return the failures by index."""
        try:
            producer = self._connected()
        except KafkaException as error:
            return dict.fromkeys(range(len(parcels)), error.args[0])
        records = [{"topic": self._topic, **parcel.arguments()} for parcel in parcels]
        return deliver(producer, records, deadline_s, self._timeout_s)

    def _connected(self) -> Producer:
        if self._producer is None:
            self._complaints = Complaints()
            self._producer = Producer({**self._properties, "error_cb": self._complaints}, logger=log)
        return self._producer

    def _disconnect(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # None of it is wanted any more: without the purge, closing waits for what cannot be delivered.
            producer.purge()
            producer.flush(1.0)
            producer.close()


class _Undelivered(Exception):
    """Carry the first dead letter that could not be delivered, and why, out of the recursion."""

    def __init__(self, letter: DeadLetter, error: KafkaError) -> None:
        super().__init__(error.str())
        self.letter = letter
        self.error = error


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Hold a dead letter as it is sent, and the parts omitted from it after refusals."""

    letter: DeadLetter
    added: Sequence[tuple[str, bytes | None]]
    omitted: tuple[str, ...] = ()
    timed: bool = True

    def lighter(self, error: KafkaError) -> _Parcel | None:
        """Return what to try next, alone, after a refusal; None when there is nothing left to try."""
        if error.code() in BAD_TIME and self.timed:
            return replace(self, timed=False)
        if error.code() in TOO_LARGE and not self.omitted:
            return replace(self, omitted=PARTS[:1])
        if error.code() in TOO_LARGE and self.omitted != PARTS:
            return replace(self, omitted=PARTS)
        return None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `Producer.produce`."""
        record = self.letter.record
        arguments: dict[str, Any] = {
            "key": None if "key" in self.omitted else record.key,
            "value": None if "value" in self.omitted else record.value,
            "headers": [*(() if "headers" in self.omitted else record.headers), *self.added, *self._replacements()],
        }
        # librdkafka takes 0 for "now": that time is only in the header.
        if self.timed and record.timestamp_ms:
            arguments["timestamp"] = record.timestamp_ms
        return arguments

    def _replacements(self) -> list[tuple[str, bytes]]:
        if not self.omitted:
            return []
        value = self.letter.record.value or b""
        return [
            ("batcher.omitted", ",".join(self.omitted).encode()),
            ("batcher.value.bytes", str(len(value)).encode()),
            ("batcher.value.sha256", hashlib.sha256(value).hexdigest().encode()),
        ]


def deliver(
    producer: Producer, records: Sequence[Mapping[str, Any]], deadline_s: float, timeout_s: float
) -> dict[int, KafkaError]:
    """Produce records, each the arguments of `Producer.produce`, and return the failures by index.

    Reports are awaited until `deadline_s`, of the monotonic clock. A failure for want of one names `timeout_s`.
    """
    reports: dict[int, KafkaError | None] = {}

    def report(index: int, error: KafkaError | None, _message: Message) -> None:
        reports[index] = error

    for index, record in enumerate(records):
        refusal = _refused(producer, {**record, "on_delivery": partial(report, index)}, deadline_s)
        if refusal is not None:
            reports[index] = refusal
    producer.flush(max(deadline_s - time.monotonic(), 0.0))
    # An empty queue proves nothing: it is also empty when everything in it has failed.
    unknown = KafkaError(KafkaError._TIMED_OUT, f"no delivery report within {timeout_s:g} s")  # noqa: SLF001
    outcomes = {index: reports.get(index, unknown) for index in range(len(records))}
    return {index: error for index, error in outcomes.items() if error is not None}


def _refused(producer: Producer, arguments: Mapping[str, Any], deadline_s: float) -> KafkaError | None:
    """Hand over a record, waiting for room in the queue; return why it was not taken, None where it was."""
    while True:
        try:
            producer.produce(**arguments)
        except BufferError:
            if time.monotonic() >= deadline_s:
                return KafkaError(KafkaError._QUEUE_FULL, "the producer's queue stays full")  # noqa: SLF001
            producer.poll(0.1)
        except KafkaException as error:
            refusal: KafkaError = error.args[0]
            return refusal
        else:
            producer.poll(0)
            return None


def shared_properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that were given for all clients, without those that only consumers know."""
    return {name: value for name, value in properties.items() if name not in CONSUMER_ONLY | NOT_OURS}


def producer_properties(brokers: str, properties: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    """Return the configuration of the producer: what was given, without what only consumers know, and ours on top."""
    return {
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.kbytes": MAX_QUEUE_KBYTES,
        # Each failed connection is a line at level 3, twenty a second. What matters is in the exception.
        "log_level": 2,
        **shared_properties(properties),
        "bootstrap.servers": brokers,
        "acks": "all",
        "enable.idempotence": True,
        "allow.auto.create.topics": False,
        "message.timeout.ms": max(int(timeout_s * 1000), 1),
    }


def letter_of(message: Message) -> DeadLetter:
    """Return the dead letter stored in a message of the topic; raise ValueError if it is none of ours."""
    (headers,) = headers_of([message]) or (None,)
    return from_headers(message.key(), message.value(), headers)
