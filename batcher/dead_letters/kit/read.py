"""Read dead letters from a directory or a topic, one after the other.

It only reads: no membership of a group, no commit, no file touched. So it can be done while pipelines write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from batcher.dead_letters.directory import SUFFIX
from batcher.dead_letters.encoding import CONNECT, from_fields, from_parts, one_line, parted
from batcher.dead_letters.kit.select import StoredLetter
from batcher.errors import ConfigurationError, SourceLost
from batcher.records import Partition
from batcher.sources.kafka.asking import Complaints, Stopped, asked, unanswered
from batcher.sources.kafka.headers import headers_of
from batcher.sources.kafka.properties import accepted

TIMEOUT_S: Final = 30.0
"""How long a broker may stay silent."""

FETCHED: Final = 500
"""Messages asked for at once: dead letters may be large."""

log = logging.getLogger(__name__)


class Directory:
    """Read the dead letters of a directory, or of one file; the names of the files give the order.

    `found` counts the dead letters that were read, `passed_over` the lines that are none, and `others` files of other
    names. A last line that is not whole is none yet: it is being written, or was by a process that is dead.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.label = f"--dlq.path {path}"
        self.found = self.passed_over = self.others = 0

    @property
    def foreign(self) -> str:
        """Say what else was read where no dead letter was found; empty where one, or nothing at all, was read."""
        if self.found:
            return ""
        if self.passed_over:
            return f"{self.passed_over} lines"
        return f"{self.others} files of other names than *{SUFFIX}" if self.others else ""

    def __iter__(self) -> Iterator[StoredLetter]:
        for file in self.files():
            with suppress(FileNotFoundError):  # removed since it was listed
                yield from self.letters(file)

    def files(self) -> list[Path]:
        """Return the files in their order; raise ConfigurationError when the path cannot be read."""
        try:
            if self._path.is_file():
                return [self._path]
            entries = list(self._path.iterdir())
        except OSError as error:
            raise ConfigurationError(f"{self.label}: {error.strerror}") from error
        ours = sorted(file for file in entries if file.name.endswith(SUFFIX))
        self.others = len(entries) - len(ours)
        return ours

    def letters(self, file: Path) -> Iterator[StoredLetter]:
        """Yield the dead letters of one file; raise ConfigurationError when it may not be read."""
        try:
            lines = file.open("rb")
        except PermissionError as error:
            raise ConfigurationError(f"{file}: {error.strerror}; letters are for the user of the pipeline") from error
        with lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    stored = _of_line(line, f"{file.name}:{number}")
                except (ValueError, TypeError, AttributeError):
                    self.passed_over += 1
                else:
                    self.found += 1
                    yield stored


class Topic:
    """Read the dead letters of a topic, partition after partition, up to where each ended when its turn came.

    `properties` are librdkafka's for a consumer. `found` counts the dead letters that were read, `passed_over` the
    records that are none.
    """

    def __init__(
        self,
        topic: str,
        properties: Mapping[str, Any],
        timeout_s: float = TIMEOUT_S,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._topic = topic
        self._complaints = Complaints()
        self._properties = {**properties, "error_cb": self._complaints}
        self._timeout_s = timeout_s
        self._stopped = stopped
        self.label = f"--dlq.topic {topic}"
        self.found = self.passed_over = 0

    @property
    def foreign(self) -> str:
        """Say what else was read where no dead letter was found; empty where one, or nothing at all, was read."""
        return f"{self.passed_over} records" if self.passed_over and not self.found else ""

    def __iter__(self) -> Iterator[StoredLetter]:
        for message in self.messages():
            stored = self.letter(message)
            if stored is not None:
                yield stored

    def letter(self, message: Message) -> StoredLetter | None:
        """Return the dead letter in a record and count it; None where it is none."""
        try:
            stored = of_message(message)
        except (ValueError, TypeError):
            self.passed_over += 1
            return None
        self.found += 1
        return stored

    def messages(self) -> Iterator[Message]:
        """Yield every record of the topic, dead letter or not.

        Raise ConfigurationError for a topic that is not there and for a refused connection, SettingRefused for refused
        properties, Unreachable when no broker answers, SourceLost when one falls silent on the way, Stopped when
        `stopped` says so during the wait for one.
        """
        with accepted(self._properties, "reader of --dlq.topic"):
            consumer = Consumer(self._properties, logger=log)
        try:
            for partition in self._partitions(consumer):
                yield from self._read(consumer, partition)
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer) -> Sequence[Partition]:
        try:
            ask, reason = partial(consumer.list_topics, self._topic), self._complaints.of(consumer)
            cluster = asked(ask, self._timeout_s, self._stopped, reason=reason)
        except KafkaException as error:
            raise unanswered(error, f"--dlq.topic {self._topic}") from error
        found = cluster.topics[self._topic]
        if found.error is not None:
            raise ConfigurationError(one_line(f"--dlq.topic {self._topic}: {found.error.str()}"))
        return [Partition(self._topic, number) for number in sorted(found.partitions)]

    def _read(self, consumer: Consumer, partition: Partition) -> Iterator[Message]:
        try:
            place = TopicPartition(*partition)
            first, end = asked(partial(consumer.get_watermark_offsets, place), self._timeout_s, self._stopped)
        except KafkaException as error:
            raise self._lost(partition, error.args[0]) from error
        if first >= end:
            return
        consumer.assign([TopicPartition(*partition, first)])
        position, heard_at = first, time.monotonic()
        while position < end:
            messages = self._consumed(consumer)
            if not messages and time.monotonic() - heard_at > self._timeout_s:
                raise self._lost(partition, self._complaints.last)
            for message in messages:
                refusal = message.error()
                offset = cast("int", message.offset())
                if message.partition() != partition.number:
                    continue  # the end of the partition before, which was known already
                if refusal is None and offset < end:
                    yield message
                    position = offset + 1
                elif refusal is None or refusal.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own
                    # The last offsets before the end may be markers of transactions, which are never delivered.
                    position = max(position, offset)
                elif not refusal.retriable():
                    raise self._lost(partition, refusal)
            # The caller may have needed time for the dead letters: silence counts from here.
            heard_at = time.monotonic() if messages else heard_at
        consumer.unassign()

    def _consumed(self, consumer: Consumer) -> Sequence[Message]:
        messages = consumer.consume(FETCHED, 1.0)
        if not messages and self._stopped():
            raise Stopped
        return messages

    def _lost(self, partition: Partition, error: KafkaError | None) -> SourceLost:
        reason = error.str() if error is not None else f"no answer within {self._timeout_s:g} s"
        return SourceLost(one_line(f"reading {partition} failed: {reason}; what was done is done, start again"))


def of_message(message: Message) -> StoredLetter:
    """Return the dead letter in a record of the topic; raise ValueError if it is none."""
    [headers] = headers_of([message]) or [None]
    own, added = parted(headers)
    return StoredLetter(
        from_parts(message.key(), message.value(), own, added),
        added.get(f"{CONNECT}connector.name") or "",
        moment(added.get("batcher.failed_at")),
        f"{message.topic()}[{message.partition()}] offset {message.offset()}",
        tuple(filter(None, (added.get("batcher.omitted") or "").split(","))),
        added.get("batcher.version") or "",
    )


def moment(text: object) -> datetime | None:
    """Return the moment that is written beside a dead letter, or None where it cannot be read."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _of_line(line: bytes, place: str) -> StoredLetter:
    fields = msgspec.json.decode(line, type=dict[str, Any])
    letter = from_fields(fields)
    record = letter.record
    for value, kind in (
        (record.partition.topic, str),
        (record.partition.number, int),
        (record.offset, int),
        (0 if record.timestamp_ms is None else record.timestamp_ms, int),
        (letter.reason, str),
        (letter.message, str),
    ):
        if not isinstance(value, kind):
            raise TypeError("the letter has a field of another type")
    return StoredLetter(
        letter,
        str(fields.get("group", "")),
        moment(fields.get("failed_at")),
        place,
        tuple(fields.get("omitted") or ()),
        str(fields.get("version", "")),
    )
