"""The connection: make it, ask what is there, and log when it breaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import ClusterMetadata  # type: ignore[attr-defined]

from batcher.errors import ConfigurationError, Unreachable
from batcher.records import Partition
from batcher.sources.kafka.asking import CHECK, asked
from batcher.sources.kafka.errors import (
    AUTHENTICATION,
    AWAY,
    DOWN,
    FORBIDDEN,
    GONE,
    error_of,
    forbidden,
    refused,
    text_of,
)
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.properties import accepted
from batcher.sources.kafka.subscription import is_expression, matches

log = structlog.get_logger(__name__)

DOWN_AFTER_S: Final = 3.0
"""How long all addresses may refuse: librdkafka reports it after the first address of a name that has two."""


class ConnectionLog:
    """Log trouble with the connection once, not for each of librdkafka's events about it."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.down = False
        """All brokers that are known have refused the connection."""
        self.interrupted = False
        """A connection was lost since this was last set to False."""
        self.refused = False
        """A broker has refused name and password since this was last set to False."""
        self.topic_in_doubt = False
        self.started = False
        """Until then trouble is only remembered: the code that starts the source raises it as an error."""
        self._open = False
        # librdkafka's own lines say the same, several times a second. They are shown at debug level.
        self.logger = logging.getLogger("batcher.librdkafka")
        if logging.getLogger().level > logging.DEBUG and self.logger.level == logging.NOTSET:
            # It logs failed connections as errors, some twenty a second while brokers are away.
            self.logger.setLevel(logging.CRITICAL)

    def on_error(self, error: KafkaError) -> None:
        """Record an error that librdkafka handles by itself."""
        if error.code() in GONE:
            # It also comes for a regular expression that matches nothing, so it is not yet trouble.
            self.topic_in_doubt = True
            return
        self.interrupted |= error.code() in AWAY
        if not self.started:
            self.down |= error.code() in DOWN
            if error.code() not in DOWN or self.last is None:
                # The message that all are down comes after the reason.
                self.last = error
            return
        self.refused |= error.code() in AUTHENTICATION
        if not self._open or (error.code() in FORBIDDEN and (self.last is None or self.last.code() not in FORBIDDEN)):
            log.warning("kafka_trouble", error=text_of(error))
        self._open = True
        self.last = error

    def over(self) -> None:
        """Record that records arrive again."""
        if self._open:
            self._open = False
            log.info("kafka_trouble_over")


def connect(settings: dict[str, Any]) -> Consumer:
    """Return a consumer. Raise SettingRefused or ConfigurationError, as `accepted` does."""
    with accepted(settings):
        return Consumer(settings)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Hold what the subscription stands for at one moment: topics, ascending, and their partitions.

    `controlled` says that there is a broker that answers the questions of an admin client.
    """

    topics: tuple[str, ...]
    partitions: tuple[Partition, ...]
    controlled: bool


def first_look(
    consumer: Consumer,
    options: KafkaOptions,
    incidents: ConnectionLog,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Cluster:
    """Return what the subscription of a consumer stands for, before it has subscribed.

    Raise ConfigurationError as `cluster_of` does, and when the broker refuses the connection. Raise Unreachable when
    none answers, early where nothing listens.
    """
    began = clock()

    def ask(slice_s: float) -> ClusterMetadata:
        try:
            answer: ClusterMetadata = consumer.list_topics(timeout=slice_s)
        except KafkaException as exception:
            # The reason (refused, unknown host, wrong password) comes as an event; the call itself only timed out. Once
            # subscribed, this could swallow a record.
            consumer.poll(0)
            error = incidents.last or error_of(exception)
            if refused(error):
                raise forbidden(error, f"broker {options.brokers} refuses the connection") from exception
            if incidents.down and clock() - began >= DOWN_AFTER_S:
                raise _silent(options, error) from exception
            raise
        return answer

    try:
        found = asked(ask, timeout_s, clock=clock)
    except KafkaException as exception:
        raise _silent(options, incidents.last or error_of(exception)) from exception
    cluster = cluster_of(found, options)
    for wanted in filter(is_expression, options.topics):
        if not matches(wanted, cluster.topics, options.excluded_topics):
            log.warning("no_topic_matches", pattern=wanted, hint="topics are picked up when they are created")
        caught = sorted(matches(wanted, options.excluded_topics & found.topics.keys(), frozenset()))
        if caught:
            log.info("topic_excluded", pattern=wanted, topics=caught, reason="dead letters go there")
    return cluster


def _silent(options: KafkaOptions, error: KafkaError) -> Unreachable:
    return Unreachable(f"broker {options.brokers} does not answer: {text_of(error)}; check -b, {CHECK}")


def cluster_of(found: ClusterMetadata, options: KafkaOptions) -> Cluster:
    """Return what the subscription stands for. Raise ConfigurationError if a topic is missing or forbidden."""
    topics = found.topics
    names: set[str] = set()
    for wanted in options.topics:
        if is_expression(wanted):
            names.update(matches(wanted, topics, options.excluded_topics))
        else:
            error = topics[wanted].error if wanted in topics else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            if error is not None and error.code() in FORBIDDEN:
                raise forbidden(error, f"no access to topic {wanted}")
            if error is not None and error.code() in GONE:
                raise ConfigurationError(f"topic {wanted} does not exist on {options.brokers}; create it or check -t")
            names.add(wanted)
    partitions = sorted(Partition(name, number) for name in names for number in topics[name].partitions)
    return Cluster(tuple(sorted(names)), tuple(partitions), found.controller_id in found.brokers)


class _PartitionStatistics(msgspec.Struct):
    consumer_lag: int = -1


class _TopicStatistics(msgspec.Struct):
    partitions: dict[str, _PartitionStatistics] = {}


class _Statistics(msgspec.Struct):
    """Hold the part of librdkafka's statistics that is wanted; msgspec skips the rest without building it."""

    topics: dict[str, _TopicStatistics] = {}


_statistics: Final = msgspec.json.Decoder(_Statistics)


def lag_of(document: str) -> dict[Partition, int]:
    """Return the lag of each partition in a statistics document; unknown ones (-1) are not in it."""
    return {
        Partition(topic, int(number)): partition.consumer_lag
        for topic, found in _statistics.decode(document).topics.items()
        for number, partition in found.partitions.items()
        if partition.consumer_lag >= 0
    }
