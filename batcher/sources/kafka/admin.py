"""What a broker tells only an admin client: ids of topics, open transactions at the end of a log, what has no owner.

It has a connection of its own, made with the first question. Not every broker answers: simulated ones have no
controller, old ones no ids, and rights may be missing. That is logged once. Then the questions are answered with
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import structlog
from confluent_kafka import ConsumerGroupState, IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from batcher.records import Partition
from batcher.sources.kafka.errors import FORBIDDEN, GONE, UNASKABLE, error_of, text_of
from batcher.sources.kafka.options import KafkaOptions

log = structlog.get_logger(__name__)

NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"
"""Sixteen zero bytes: the broker gives topics no ids."""

AS_KAFKA_WRITES: Final = str.maketrans("+/", "-_")
"""The client writes ids in the other base64, and people compare them with the output of Kafka's tools."""

MARGIN_S: Final = 1.0
"""How much longer the answer is waited for than librdkafka waits for it."""


class Admin:
    """Ask the brokers of `options`; `able` is False where no broker could answer."""

    def __init__(self, options: KafkaOptions, *, able: bool = True) -> None:
        self._options = options
        self._able = able
        self._client: AdminClient | None = None
        self._answered = False

    def topic_ids(self, topics: Collection[str], timeout_s: float) -> Mapping[str, str | None] | None:
        """Return the id of each topic, None for one that is not there; those that have none are not in it.

        Return None when no answer comes within the time. Where the first question has no answer, no other is asked. The
        consumer has had its own answer by then, so something keeps only this client from the brokers.
        """
        if not self._able or not topics:
            return {}
        try:
            found = self._topic_ids(topics, timeout_s)
        except TimeoutError:
            return None if self._answered else self._give_up("no answer")
        except KafkaException as exception:
            error = error_of(exception)
            if self._answered and error.code() not in UNASKABLE | FORBIDDEN:
                return None
            return self._give_up(text_of(error))
        self._answered = True
        return found

    def _topic_ids(self, topics: Collection[str], timeout_s: float) -> Mapping[str, str | None]:
        found: dict[str, str | None] = {}
        asked = self._asking.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
        for topic, answer in asked.items():
            try:
                topic_id = str(answer.result(timeout_s + MARGIN_S).topic_id).translate(AS_KAFKA_WRITES)
            except KafkaException as exception:
                if error_of(exception).code() not in GONE:
                    raise
                found[topic] = None
            else:
                if topic_id != NO_ID:
                    found[topic] = topic_id
        return found

    def _give_up(self, error: str) -> Mapping[str, str | None]:
        self._able = False
        log.info(
            "topic_ids_unknown",
            error=error,
            hint="a topic that is deleted and created anew is told by its offsets alone",
        )
        return {}

    def unreadable(self, partitions: Collection[Partition], timeout_s: float) -> Mapping[Partition, tuple[int, int]]:
        """Return where open transactions keep the end of a log from being read: from which offset, and to where.

        Partitions whose end can be read are not in it, nor those for which the brokers do not answer in time.
        """
        if not self._able or not partitions:
            return {}
        try:
            # In this order: what is committed in between makes the gap smaller, never larger.
            last = self._ends(partitions, IsolationLevel.READ_UNCOMMITTED, timeout_s)
            readable = self._ends(partitions, IsolationLevel.READ_COMMITTED, timeout_s)
        except (KafkaException, TimeoutError):
            return {}
        return {one: (readable[one], end) for one, end in last.items() if readable[one] < end}

    def unowned(self, topics: Collection[str], timeout_s: float) -> Collection[Partition] | None:
        """Return the partitions of topics that no member of the group has; None while they are shared out.

        Raise KafkaException or TimeoutError where the brokers do not say it in time.
        """
        if not self._able:
            return ()
        name = self._options.group
        group = self._asking.describe_consumer_groups([name], request_timeout=timeout_s)[name].result(
            timeout_s + MARGIN_S
        )
        if group.state != ConsumerGroupState.STABLE:
            return None
        owned = {
            Partition(one.topic, one.partition) for each in group.members for one in each.assignment.topic_partitions
        }
        known = self._asking.list_topics(timeout=timeout_s).topics
        return {Partition(topic, one) for topic in topics if topic in known for one in known[topic].partitions} - owned

    def set_credentials(self, username: str, password: str) -> None:
        """Use another name and password from the next connection on."""
        if self._client is not None:
            self._client.set_sasl_credentials(username, password)

    @property
    def _asking(self) -> AdminClient:
        if self._client is None:
            settings: dict[str, Any] = self._options.librdkafka()
            # With an instance id the client would be a static member, one that joins.
            settings.pop("group.instance.id", None)
            # Any trouble is reported for the consumer, which uses the same brokers.
            self._client = AdminClient({**settings, "statistics.interval.ms": "0", "log_level": "0"})
        return self._client

    def _ends(
        self, partitions: Collection[Partition], isolation: IsolationLevel, timeout_s: float
    ) -> dict[Partition, int]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(*one): latest for one in partitions}
        asked = self._asking.list_offsets(wanted, isolation_level=isolation, request_timeout=timeout_s)
        return {
            Partition(place.topic, place.partition): answer.result(timeout_s + MARGIN_S).offset
            for place, answer in asked.items()
        }
