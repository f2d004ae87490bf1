"""A topic that `produce` fills: the client, and the topic itself, made where that is asked."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from batcher.settings import Settings
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    import logging

    from confluent_kafka import KafkaError, Producer

    from batcher.sources.kafka.asking import Complaints

TIMEOUT_S: Final = 30.0
"""How long a broker may take to answer at the start, and a record to be delivered."""

KNOWN_S: Final = 10.0
"""How long a broker may not know a topic that another one has just made, or its leaders: the controller tells them one
by one."""

QUEUED: Final = 50_000
"""The most records that wait for the brokers: enough for full batches to many partitions."""

PAUSE_S: Final = 0.1


def producer_of(settings: Settings, arguments: argparse.Namespace, complaints: Complaints) -> Producer:
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
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    from batcher.errors import ConfigurationError

    kafka = settings.section(Kafka)
    client = AdminClient(
        {"log_level": "2", **kafka.options, "bootstrap.servers": kafka.brokers or ""}, logger=silent_log()
    )
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
