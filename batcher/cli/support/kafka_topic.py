"""A topic that `produce` fills: the client, and the topic itself, made where that is asked."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from batcher.settings import Settings
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    import logging

    from confluent_kafka import KafkaError, Producer
    from confluent_kafka.admin import AdminClient

    from batcher.generate.limits import TopicLimits
    from batcher.sources.kafka.asking import Complaints

TIMEOUT_S: Final = 30.0
"""How long a broker may take to answer at the start, and a record to be delivered."""

ASKED_S: Final = 5.0
"""How long the settings of a topic are waited for: without them it goes as well."""

KNOWN_S: Final = 10.0
"""How long a broker may not know a topic that another one has just made, or its leaders: the controller tells them one
by one."""

QUEUED: Final = 50_000
"""The most records that wait for the brokers: enough for full batches to many partitions."""

BATCH_BYTES: Final = 1_000_000
"""The size of batches where nothing else is said: that of the client."""

PAUSE_S: Final = 0.1


def producer_of(
    settings: Settings, arguments: argparse.Namespace, complaints: Complaints, limits: TopicLimits | None = None
) -> Producer:
    """Return the client that sends, and tells its complaints. Raise ConfigurationError for refused properties."""
    from confluent_kafka import Producer

    from batcher.dead_letters.kafka import producer_properties
    from batcher.sources.kafka.options import check_properties
    from batcher.sources.kafka.properties import accepted

    kafka = settings.section(Kafka)
    check_properties(kafka.options, allow_insecure=kafka.allow_insecure)
    properties = producer_properties(kafka.brokers or "", kafka.options, TIMEOUT_S)
    properties |= {"compression.type": arguments.compression}
    # Larger batches compress better and cost the brokers less; no one waits for a single record here.
    properties |= {
        "linger.ms": kafka.options.get("linger.ms", "20"),
        # What is queued is what a stop has to wait for.
        "queue.buffering.max.messages": kafka.options.get("queue.buffering.max.messages", str(QUEUED)),
    }
    if limits is not None and limits.max_bytes is not None:
        # A broker refuses a batch as a whole: a record that is too large then stands alone.
        properties |= {"batch.size": max(1, min(limits.max_bytes, BATCH_BYTES))}
    with accepted(properties):
        return Producer({**properties, "error_cb": complaints}, logger=silent_log())


def silent_log() -> logging.Logger:
    """Return where the client's own log goes: to our log at level debug, and so to nowhere as a rule.

    What matters of it is in the errors that it reports.
    """
    import logging

    log = logging.getLogger("librdkafka")
    log.addFilter(_as_debug)
    return log


def _as_debug(record: logging.LogRecord) -> bool:
    import logging

    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger().isEnabledFor(logging.DEBUG)


def require_topic(
    topic: str, producer: Producer, complaints: Complaints, settings: Settings, arguments: argparse.Namespace
) -> None:
    """See that the topic is there, made where that was asked. Raise ConfigurationError or Unreachable."""
    from confluent_kafka import KafkaError, KafkaException

    from batcher.errors import ConfigurationError
    from batcher.sources.kafka.asking import unanswered

    try:
        error = topic_error(topic, producer, complaints)
        if arguments.create and error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            create_topic(topic, settings, arguments)
            error = topic_error(topic, producer, complaints, made=True)
    except KafkaException as failure:
        raise unanswered(failure, f"-b {settings.section(Kafka).brokers}") from failure
    if error is not None:
        absent = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and not arguments.create
        raise ConfigurationError(f"topic {topic}: {error.str()}{'; --create makes it' if absent else ''}")


def require_partition(topic: str, number: int, producer: Producer) -> None:
    """See that a topic that is there has a partition of this number. Raise ConfigurationError or Unreachable."""
    from batcher.errors import ConfigurationError
    from batcher.sources.kafka.asking import asked

    count = len(asked(partial(producer.list_topics, topic), TIMEOUT_S).topics[topic].partitions)
    if number >= count:
        raise ConfigurationError(f"--partition {number}: topic {topic} has the partitions 0 to {count - 1}")


def limits_of(topic: str, settings: Settings) -> TopicLimits:
    """Return what the topic takes; nothing is known where the brokers do not say, for rights or for their age."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

    from batcher.generate.limits import TopicLimits

    resource = ConfigResource(ResourceType.TOPIC, topic)
    client = _admin(settings)  # without a name it would be gone before the answer
    try:
        found = client.describe_configs([resource], request_timeout=ASKED_S)[resource].result(ASKED_S)
    except (KafkaException, TimeoutError):
        return TopicLimits()
    return TopicLimits.of({name: entry.value for name, entry in found.items()})


def _admin(settings: Settings) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    kafka = settings.section(Kafka)
    given: dict[str, Any] = {"log_level": "2", **kafka.options, "bootstrap.servers": kafka.brokers or ""}
    return AdminClient(given, logger=silent_log())


def topic_error(topic: str, producer: Producer, complaints: Complaints, *, made: bool = False) -> KafkaError | None:
    """Return the error of a topic, or None. Raise KafkaException where no broker answers.

    The brokers get time to give a new topic its leaders, and to hear of one that was `made` just now.
    """
    from confluent_kafka import KafkaError as Codes

    from batcher.sources.kafka.asking import asked

    passing = {Codes.LEADER_NOT_AVAILABLE, *([Codes.UNKNOWN_TOPIC_OR_PART] if made else [])}
    deadline_s = time.monotonic() + KNOWN_S
    while True:
        ask, reason = partial(producer.list_topics, topic), complaints.of(producer)
        error: KafkaError | None = asked(ask, TIMEOUT_S, reason=reason).topics[topic].error
        if error is None or error.code() not in passing or time.monotonic() >= deadline_s:
            return error
        time.sleep(PAUSE_S)


def create_topic(topic: str, settings: Settings, arguments: argparse.Namespace) -> None:
    """Make a topic; one that is there is left as it is. Raise ConfigurationError or KafkaException."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewTopic

    from batcher.errors import ConfigurationError

    client = _admin(settings)
    new = NewTopic(topic, num_partitions=arguments.partitions, replication_factor=arguments.replication or -1)
    try:
        client.create_topics([new], request_timeout=TIMEOUT_S)[topic].result()
    except KafkaException as failure:
        code = failure.args[0].code()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        if code in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):  # noqa: SLF001  # librdkafka's own codes
            raise
        raise ConfigurationError(f"--create: topic {topic}: {failure.args[0].str()}") from failure
