"""Remove old dead letters: whole files of a directory, the front of a topic's partitions.

Always in two steps, a plan that can be shown and the act.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from batcher.dead_letters.encoding import one_line
from batcher.dead_letters.kafka import shared_properties
from batcher.dead_letters.kit.read import Directory, Topic
from batcher.errors import ConfigurationError, Unreachable
from batcher.sources.kafka.properties import accepted

QUIET: Final = timedelta(hours=1)
"""A file that was written to within this time may be written to again."""

BEGUN: Final = re.compile(r"letters-(\d{8})T")

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PurgePart:
    """Name something that can be removed: a file, or a partition up to an offset. `letters` counts what goes."""

    place: str
    letters: int
    before_offset: int = 0
    number: int = 0


def old_files(directory: Directory, before: datetime, now: datetime) -> tuple[list[PurgePart], list[Path]]:
    """Return the files whose dead letters all failed before a moment, and that are no longer written to.

    A process begins another file each day (UTC), so today's files are left alone, like those changed within the last
    hour. A file with a line that is no dead letter, or with a dead letter without a moment, stays as well. Where all
    else in it is old, it is in the second list.
    """
    found, kept = [], []
    for file in directory.files():
        begun = BEGUN.match(file.name)
        today = begun is not None and begun[1] >= f"{now:%Y%m%d}"
        if today or datetime.fromtimestamp(file.stat().st_mtime, UTC) > now - QUIET:
            continue
        before_it = directory.passed_over
        times = [stored.failed_at for stored in directory.letters(file)]
        if any(time is not None and time >= before for time in times):
            continue
        if directory.passed_over == before_it and None not in times:
            found.append(PurgePart(str(file), len(times)))
        else:
            kept.append(file)
    return found, kept


def remove(files: list[PurgePart]) -> None:
    """Remove the files of a plan; raise ConfigurationError for one that may not be."""
    for part in files:
        try:
            Path(part.place).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{part.place}: cannot be removed: {error.strerror}") from error


def old_records(topic: Topic, before: datetime) -> list[PurgePart]:
    """Return, for each partition with dead letters, how far it holds nothing that failed at or after a moment.

    What is no dead letter counts by the time of its record. Where there is nothing else, as in a topic that was named
    by mistake, everything stays. A dead letter whose moment cannot be read counts as new.
    """
    found: dict[int, PurgePart] = {}
    ended: set[int] = set()
    for message in topic.messages():
        number, offset = cast("int", message.partition()), cast("int", message.offset())
        stored = topic.letter(message)
        if number in ended:
            continue
        letters = found[number].letters if number in found else 0
        if stored is not None:
            failed_at = stored.failed_at
            letters += 1
        else:
            failed_at = datetime.fromtimestamp(max(message.timestamp()[1], 0) / 1000, UTC)
        if failed_at is None or failed_at >= before:
            ended.add(number)
        else:
            found[number] = PurgePart(f"{message.topic()}[{number}]", letters, offset + 1, number)
    return [found[number] for number in sorted(found) if found[number].letters]


def delete_records(brokers: str, properties: Mapping[str, Any], topic: str, parts: list[PurgePart]) -> None:
    """Delete the records of a plan below their offsets.

    Raise ConfigurationError when the broker refuses (rights, a compacted topic), Unreachable when it does not answer.
    """
    given = {**shared_properties(properties), "bootstrap.servers": brokers}
    with accepted(given, "admin client of --dlq.topic"):
        client = AdminClient(given)
    wanted = [TopicPartition(topic, part.number, part.before_offset) for part in parts]
    for one, done in client.delete_records(wanted, request_timeout=TIMEOUT_S).items():
        try:
            done.result()
        except KafkaException as error:
            refusal = error.args[0]
            text = one_line(f"{topic}[{one.partition}] below {one.offset} was not deleted: {refusal.str()}")
            raise (Unreachable if refusal.retriable() else ConfigurationError)(text) from error
