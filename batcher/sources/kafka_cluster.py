"""The connection itself: making it, asking what is there, and telling people when it breaks."""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException

from batcher.errors import ConfigurationError, Unreachable
from batcher.records import Partition
from batcher.sources.kafka_errors import FORBIDDEN, GONE, bad_property, error_of, forbidden, text_of
from batcher.sources.kafka_options import KafkaOptions

log = structlog.get_logger(__name__)


class Incidents:
    """Log trouble with the connection once, not once for each of librdkafka's events about it."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.topic_in_doubt = False
        self.started = False
        """Until then trouble is only noted: who starts the source raises it as an error."""
        self._open = False
        # librdkafka's own lines say the same, several times a second; at debug level for those who look for them.
        self.logger = logging.getLogger("batcher.librdkafka")
        if logging.getLogger().level > logging.DEBUG and self.logger.level == logging.NOTSET:
            # Failed connections are errors to it, some twenty a second while brokers are away.
            self.logger.setLevel(logging.CRITICAL)

    def on_error(self, error: KafkaError) -> None:
        """Note an error that librdkafka deals with by itself."""
        if error.code() in GONE:
            # Also said of a regular expression that matches nothing, so it is not yet trouble.
            self.topic_in_doubt = True
            return
        if not self.started:
            self.last = error
            return
        if not self._open or (error.code() in FORBIDDEN and (self.last is None or self.last.code() not in FORBIDDEN)):
            log.warning("kafka_trouble", error=text_of(error))
        self._open = True
        self.last = error

    def over(self) -> None:
        """Note that records arrive again."""
        if self._open:
            self._open = False
            log.info("kafka_trouble_over")


def connect(settings: dict[str, Any]) -> Consumer:
    """Return a consumer. Raise ConfigurationError, naming the property, for what librdkafka does not accept."""
    try:
        return Consumer(settings)
    except (KafkaException, TypeError, ValueError) as error:
        raise bad_property(error) from error


def describe(consumer: Consumer, options: KafkaOptions, timeout_s: float) -> list[Partition]:
    """Return the partitions of the subscription. Raise ConfigurationError if a topic is missing or forbidden.

    Raises KafkaException when no broker answers.
    """
    topics = consumer.list_topics(timeout=timeout_s).topics
    partitions = []
    for wanted in options.topics:
        if wanted.startswith("^"):
            found = [name for name in topics if re.search(wanted, name)]
            if not found:
                log.warning("no_topic_matches", pattern=wanted, hint="topics are picked up when they are created")
        else:
            error = topics[wanted].error if wanted in topics else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            if error is not None and error.code() in FORBIDDEN:
                raise forbidden(error, f"no access to topic {wanted}")
            if error is not None and error.code() in GONE:
                raise ConfigurationError(f"topic {wanted} does not exist on {options.brokers}; create it or check -t")
            found = [wanted]
        partitions += [Partition(name, number) for name in found for number in topics[name].partitions]
    return partitions


def unanswered(
    exception: KafkaException, consumer: Consumer, options: KafkaOptions, incidents: Incidents
) -> ConfigurationError | Unreachable:
    """Return the error for brokers that did not answer a consumer that has not subscribed yet."""
    # The reason (refused, unknown host, wrong password) comes as an event; the call itself only timed out.
    # Once subscribed, this could swallow a record.
    consumer.poll(0)
    error = incidents.last or error_of(exception)
    if error.code() in FORBIDDEN:
        return forbidden(error, f"broker {options.brokers} refuses the connection")
    return Unreachable(f"broker {options.brokers} does not answer: {text_of(error)}; check -b and that it is running")


class _PartitionStatistics(msgspec.Struct):
    consumer_lag: int = -1


class _TopicStatistics(msgspec.Struct):
    partitions: dict[str, _PartitionStatistics] = {}


class _Statistics(msgspec.Struct):
    """The part of librdkafka's statistics that is wanted; msgspec skips the rest without building it."""

    topics: dict[str, _TopicStatistics] = {}


_statistics: Final = msgspec.json.Decoder(_Statistics)


def lag_of(document: str) -> dict[Partition, int]:
    """Return the lag of each partition in a statistics document; unknown ones (-1) are left out."""
    return {
        Partition(topic, int(number)): partition.consumer_lag
        for topic, found in _statistics.decode(document).topics.items()
        for number, partition in found.partitions.items()
        if partition.consumer_lag >= 0
    }
