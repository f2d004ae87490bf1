"""The source and its rights, and the newest record's time. Nothing is joined, committed or sent."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.doctor.finding import HealthFinding, doubtful, fine, wrong
from batcher.cli.support.spans import plural, span
from batcher.plugins import registry_of
from batcher.settings import Settings, section_of
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from batcher.records import Partition

TIMEOUT_S: Final = 10.0

AHEAD: Final = timedelta(minutes=1)
"""How far the newest record may be in the future before a clock is wrong."""


def source(settings: Settings) -> Iterator[HealthFinding]:
    """Look whether the source answers, and for Kafka at the rights on its topics and its group."""
    from batcher.cli.support import wiring

    if getattr(registry_of("source").find(settings.source).make, "reader", None) is None:
        yield doubtful("source", f"{settings.source} is only asked when it is read; --max-records 1 tries it")
        return
    reader = wiring.reader_of(settings)
    began = time.monotonic()
    try:
        partitions = reader.open()
        took_ms = (time.monotonic() - began) * 1000
        topics = sorted({one.topic for one in partitions})
        kafka = section_of(settings, "source")[1]
        where = kafka.brokers if isinstance(kafka, Kafka) else settings.source
        names = f"{', '.join(topics[:5])}{' …' if len(topics) > 5 else ''}"
        if partitions:
            yield fine(
                "source", f"{where} answers in {took_ms:.0f} ms; {names}: {plural(len(partitions), 'partition')}"
            )
        else:
            yield doubtful("source", f"{where} answers in {took_ms:.0f} ms; no topic matches yet")
        if isinstance(kafka, Kafka) and settings.source == "kafka":
            yield from _rights(settings, topics, partitions)
    finally:
        reader.close()


def _rights(settings: Settings, topics: Sequence[str], partitions: Sequence[Partition]) -> Iterator[HealthFinding]:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from batcher.cli.support import wiring

    properties: dict[str, Any] = wiring.kafka_options_of(wiring.as_run(settings)).librdkafka()
    properties.pop("group.instance.id", None)
    client = AdminClient({**properties, "statistics.interval.ms": "0", "log_level": "0"})
    letters = [settings.dlq.topic] if settings.dlq.topic else []
    yield from topic_rights(client, topics, letters)
    yield from group_rights(client, properties["group.id"])
    try:
        yield from newest(client, partitions)
    except (KafkaException, TimeoutError):
        return


def topic_rights(client: AdminClient, topics: Collection[str], letters: Collection[str]) -> Iterator[HealthFinding]:
    """Yield whether the topics may be read, and the topic of dead letters be written to."""
    from confluent_kafka import KafkaException, TopicCollection
    from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

    wanted = {**dict.fromkeys(topics, AclOperation.READ), **dict.fromkeys(letters, AclOperation.WRITE)}
    if not wanted:
        return
    asked = client.describe_topics(
        TopicCollection(list(wanted)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    good, unsaid = [], []
    for name, answer in asked.items():
        what = "dead letters" if name in letters else "rights"
        try:
            allowed = answer.result(2 * TIMEOUT_S).authorized_operations
        except (KafkaException, TimeoutError) as error:
            yield wrong(what, f"topic {name}: {_said(error)}; create it, or give the right DESCRIBE", _code(error))
            continue
        right = wanted[name]
        if not allowed:
            unsaid.append(name)
        elif right in allowed or AclOperation.ALL in allowed:
            good.append(f"{right.name} on topic {name}")
        else:
            yield wrong(what, f"topic {name}: {right.name} is not allowed; have an ACL added for this user")
    if good:
        yield fine("rights", "; ".join(good[:8]) + (" …" if len(good) > 8 else ""))
    if unsaid:
        yield doubtful("rights", f"the broker does not say what is allowed on {', '.join(unsaid[:8])}")


def group_rights(client: AdminClient, group: str) -> Iterator[HealthFinding]:
    """Yield whether the group may be joined."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AclOperation  # type: ignore[attr-defined]

    from batcher.sources.kafka.errors import GROUP_UNKNOWN

    asked = client.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=TIMEOUT_S)
    try:
        found = asked[group].result(2 * TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        if isinstance(error, KafkaException) and error.args[0].code() in GROUP_UNKNOWN:
            yield fine("group", f"{group} is new")
            return
        yield wrong("group", f"{group}: {_said(error)}; have READ on the group allowed for this user", _code(error))
        return
    allowed = found.authorized_operations
    if allowed and AclOperation.READ not in allowed and AclOperation.ALL not in allowed:
        yield wrong("group", f"{group}: READ is not allowed; have an ACL added for this user")
    else:
        members = plural(len(found.members), "member")
        yield fine("group", f"{group}: {members}{'' if allowed else ', and the broker does not say what is allowed'}")


def newest(client: AdminClient, partitions: Sequence[Partition]) -> Iterator[HealthFinding]:
    """Yield whether the newest record is from the future: then the clock of a producer, or this one, is wrong."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

    spec = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    asked = client.list_offsets({TopicPartition(*one): spec for one in partitions}, request_timeout=TIMEOUT_S)
    times_ms = [answer.result(2 * TIMEOUT_S).timestamp for answer in asked.values()]
    newest_ms = max(times_ms, default=-1)
    if newest_ms < 0:
        return
    ahead_s = newest_ms / 1000 - time.time()
    if ahead_s > AHEAD.total_seconds():
        yield doubtful(
            "clock", f"the newest record is {span(ahead_s)} in the future: set this clock, or the producers'"
        )
    else:
        yield fine("clock", f"the newest record is {span(max(-ahead_s, 0))} old")


def _said(error: Exception) -> str:
    return str(error.args[0].str()) if error.args and hasattr(error.args[0], "str") else "no answer"


def _code(error: Exception) -> int:
    return 69 if isinstance(error, TimeoutError) else 78
