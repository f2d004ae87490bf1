"""A share group as a queue with receipts.

The broker hands a record to one reader, under a lock that nobody can extend (30 s, a setting of the group), and hands
out nothing more to a reader before each record of the last turn is acknowledged or released. So a turn is a batch, or a
part of one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, Message, ShareConsumer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from batcher.errors import CommitUnconfirmed, ConfigurationError, SourceLost, Unreachable
from batcher.sources.kafka.asking import Complaints, asked
from batcher.sources.kafka.errors import AWAY, COMMIT_NEVER, COMMIT_RETRIED, FORBIDDEN, error_of, forbidden, text_of
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.receipts.gateway import QueueInfo, Receipt, Received

log = structlog.get_logger(__name__)

MAX_HELD: Final = 100_000
"""More than a turn has; the broker bounds it."""

ASK_S: Final = 10.0
"""How long a broker may take to answer at the start."""

GIVE_BACK_S: Final = 2.0

JOIN_S: Final = 30.0
"""How long a new member may wait for its first records: some seconds even where there are many."""

_CHOSEN: Final = frozenset({"group.id", "bootstrap.servers", "share.acknowledgement.mode", "enable.auto.commit"})
"""Properties that are not the user's to choose."""

_OF_CONSUMERS: Final = ("group.", "partition.assignment", "session.timeout", "heartbeat.interval", "auto.")
"""Beginnings of properties that only members of ordinary groups know."""


class LogPlace(NamedTuple):
    """Name a record that is held."""

    topic: str
    partition: int
    offset: int


class ShareGateway:
    """Read one topic as a member of a share group."""

    def __init__(self, options: KafkaOptions) -> None:
        self._options = options
        self._consumer: Any = None
        self._inbox: deque[Received] = deque()
        self._open: set[Receipt] = set()
        """Records of the last turn that were neither acknowledged nor released."""
        self._stopped = False
        self._trouble = ""
        self._joined_at = 0.0
        self._begun = False

    @property
    def _topic(self) -> str:
        return self._options.topics[0]

    def open(self) -> QueueInfo:
        """See that the topic is there, and join the group. A new group starts where `--kafka.start` says."""
        options = self._options
        properties: dict[str, Any] = {
            **{name: text for name, text in options.properties.items() if not name.startswith(_OF_CONSUMERS)},
            "bootstrap.servers": options.brokers,
        }
        log.warning("share_group_preview", group=options.group, hint="share groups are a preview of Kafka's client")
        complaints = Complaints()
        asking: dict[str, Any] = {**properties, "error_cb": complaints}
        admin = AdminClient(asking)
        try:
            ask = partial(admin.list_topics, self._topic)
            found = asked(ask, ASK_S, reason=complaints.of(admin)).topics[self._topic]
            if found.error is not None:
                raise self._refused(KafkaException(found.error), f"topic {self._topic}")
            self._choose_start(admin)
            mine = {name: text for name, text in properties.items() if name not in _CHOSEN - {"bootstrap.servers"}}
            self._consumer = ShareConsumer(
                {**mine, "group.id": options.group, "share.acknowledgement.mode": "explicit"}
            )
            self._consumer.subscribe([self._topic])
            self._joined_at = time.monotonic()
        except KafkaException as error:
            raise self._refused(error, options.brokers) from error
        return QueueInfo(self._topic, None, MAX_HELD, delays=False, in_turns=True)

    def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> Sequence[Received]:
        """Return records of the last turn, or of another one where nothing of the last is open."""
        if not self._inbox and not self._open and not self._stopped:
            self._poll(timeout_s)
        elif not self._inbox:
            time.sleep(timeout_s)
        found: list[Received] = []
        nbytes = 0
        while self._inbox and len(found) < max_messages and (not found or nbytes < max_bytes):
            found.append(self._inbox.popleft())
            nbytes += len(found[-1].value)
        return found

    def stop_receiving(self) -> None:
        self._stopped = True

    def start_receiving(self) -> None:
        self._stopped = False

    def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Do nothing: the broker knows no way to."""
        del receipts
        return ()

    def acknowledge(self, receipts: Sequence[Receipt], timeout_s: float) -> Sequence[Receipt]:
        """Accept records. Where the lock of one has ended, all of its partition come again."""
        return self._settled(receipts, AcknowledgeType.ACCEPT, timeout_s)

    def release(self, delays_s: Mapping[Receipt, float]) -> None:
        """Release records, at once: a share group knows no delay."""
        self._settled(list(delays_s), AcknowledgeType.RELEASE, GIVE_BACK_S)

    def held_back(self) -> Sequence[Receipt]:
        found = [one.receipt for one in self._inbox]
        self._inbox.clear()
        return found

    def depth(self) -> int | None:
        """Return that it is not known; raise as long as the group may not have handed out its first records yet."""
        if not self._begun and time.monotonic() - self._joined_at < JOIN_S:
            raise CommitUnconfirmed(f"group {self._options.group} has not handed out anything yet")
        return None

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _poll(self, timeout_s: float) -> None:
        try:
            messages = list(self._consumer.poll(timeout_s))
        except KafkaException as error:
            raise self._lost(error_of(error)) from error
        for message in messages:
            trouble = message.error()
            if trouble is None:
                received = _received(message)
                self._inbox.append(received)
                self._begun = True
                self._open.add(received.receipt)
            else:
                self._troubled(trouble)

    def _settled(self, receipts: Sequence[Receipt], kind: Any, timeout_s: float) -> Sequence[Receipt]:
        """Say what becomes of records, and return those that were not ours any more."""
        places = [one for one in receipts if isinstance(one, LogPlace)]
        for place in places:
            if place in self._open:
                # Whatever the answer is, the client takes no other word for it. Without one the record comes again.
                self._open.discard(place)
                self._say(place, kind)
        try:
            answers = self._consumer.commit_sync(timeout_s)
        except KafkaException as error:
            answers = dict.fromkeys(places, error)
        lapsed: set[tuple[str, int]] = set()
        for at, why in answers.items():
            if why is None:
                continue
            code = error_of(why).code()
            if code in COMMIT_NEVER:
                raise self._refused(why, f"group {self._options.group}")
            if code in COMMIT_RETRIED:
                raise CommitUnconfirmed(f"group {self._options.group}: {text_of(error_of(why))}")
            lapsed.add((at.topic, at.partition))
        return [one for one in places if (one.topic, one.partition) in lapsed]

    def _say(self, place: LogPlace, kind: Any) -> None:
        try:
            self._consumer.acknowledge_offset(place.topic, place.partition, place.offset, kind)
        except KafkaException as error:  # it is not in flight any more: it comes again
            log.debug("acknowledged_in_vain", error=text_of(error_of(error)))

    def _choose_start(self, admin: AdminClient) -> None:
        """Let a group that has read nothing yet start where it was said; it takes the end otherwise."""
        entry = ConfigEntry(
            "share.auto.offset.reset", str(self._options.start), incremental_operation=AlterConfigOpType.SET
        )
        group = ConfigResource(ResourceType.GROUP, self._options.group, incremental_configs=[entry])
        [answer] = admin.incremental_alter_configs([group], request_timeout=ASK_S).values()
        answer.result()

    def _troubled(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in FORBIDDEN:
            raise self._lost(error)
        if error.name() != self._trouble:
            self._trouble = error.name()
            log.warning("kafka_trouble", error=text_of(error))

    def _lost(self, error: KafkaError) -> Exception:
        if error.code() in FORBIDDEN:
            return forbidden(error, f"group {self._options.group}")
        return SourceLost(f"group {self._options.group}: {text_of(error)}; start again")

    def _refused(self, error: KafkaException, what: str) -> Exception:
        found = error_of(error)
        if found.code() in FORBIDDEN:
            return forbidden(found, what)
        if found.code() in AWAY or found.code() in COMMIT_RETRIED:
            return Unreachable(f"{what} does not answer: {text_of(found)}")
        return ConfigurationError(f"{what}: {text_of(found)}; correct -t, -g or the rights of the user")


def _received(message: Message) -> Received:
    """Return a record as a delivery; one without a value is an empty message, as a queue has it."""
    place = LogPlace(message.topic() or "", message.partition() or 0, message.offset() or 0)
    kind, timestamp_ms = message.timestamp()
    headers: Any = message.headers() or []
    return Received(
        place,
        f"{place.partition}-{place.offset}",
        _bytes(message.value()) or b"",
        max(1, message.delivery_count() or 1),
        timestamp_ms if kind else None,
        _bytes(message.key()),
        tuple((str(name), _bytes(value)) for name, value in headers),
    )


def _bytes(value: Any) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
