"""Which dead letters are meant: a dead letter as it is kept, and the filter that all commands share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

from batcher.dead_letters.encoding import to_fields
from batcher.records import DeadLetter, Partition, Stage

ATTEMPTS: Final = "batcher.attempts"
"""The header that counts how often a record was sent back to its topic; from then on it belongs to the record."""

KEYS: Final = ("reason", "stage", "topic", "partition")
"""What a filter may name."""


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """Hold a dead letter with what is kept beside it.

    `group` is the pipeline that refused the record, at `failed_at`; None where that cannot be read. `place` names file
    and line, or topic, partition and offset, where the dead letter is kept. `omitted` are the parts of the record that
    were too large to be kept.
    """

    letter: DeadLetter
    group: str
    failed_at: datetime | None
    place: str
    omitted: tuple[str, ...] = ()
    version: str = ""

    @property
    def complete(self) -> bool:
        """Return whether the record is kept whole."""
        return not self.omitted

    @property
    def attempts(self) -> int:
        """Return how often the record was sent back to its topic before."""
        for name, content in reversed(self.letter.record.headers):
            if name == ATTEMPTS:
                return int(content) if content is not None and content.isdigit() and len(content) < 10 else 0
        return 0

    @property
    def nbytes(self) -> int:
        """Return the bytes of key, value and headers."""
        record = self.letter.record
        parts = [record.key, record.value, *(part for name, content in record.headers for part in (name, content))]
        return sum(len(part) for part in parts if part is not None)

    @property
    def id(self) -> str:
        """Return the coordinates of the original record as `topic:partition:offset`."""
        record = self.letter.record
        return f"{record.partition.topic}:{record.partition.number}:{record.offset}"

    def fields(self) -> dict[str, Any]:
        """Return the dead letter as one JSON object, as the files of a directory have it."""
        failed_at = self.failed_at
        made = to_fields(self.letter, self.group, failed_at or datetime.fromtimestamp(0, UTC))
        made["failed_at"] = None if failed_at is None else made["failed_at"]
        made["version"] = self.version
        return {**made, "omitted": list(self.omitted)} if self.omitted else made


@dataclass(frozen=True, slots=True)
class Where:
    """Say which dead letters are meant; what is empty or None does not matter.

    Several values of one kind are alternatives, several kinds have to hold together. `since` is the first moment of
    failing that counts, `before` the first that no longer does. A dead letter without a moment is in neither.
    """

    reasons: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    partitions: frozenset[int] = frozenset()
    since: datetime | None = None
    before: datetime | None = None
    coordinate: tuple[Partition, int] | None = None

    def __call__(self, stored: StoredLetter) -> bool:
        """Return whether a dead letter is meant."""
        letter, partition = stored.letter, stored.letter.record.partition
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.stages or letter.stage in self.stages)
            and (not self.topics or partition.topic in self.topics)
            and (not self.partitions or partition.number in self.partitions)
            and (self.coordinate is None or self.coordinate == (partition, letter.record.offset))
            and self._in_time(stored.failed_at)
        )

    def _in_time(self, failed_at: datetime | None) -> bool:
        if self.since is None and self.before is None:
            return True
        return (
            failed_at is not None
            and (self.since is None or failed_at >= self.since)
            and (self.before is None or failed_at < self.before)
        )

    def during(self, since: datetime | None, before: datetime | None) -> Where:
        """Return the same filter for dead letters of that time."""
        return replace(self, since=since, before=before)


def where(text: str) -> Where:
    """Read `reason=syntax,stage=decode,topic=t,partition=0`; a name may come again. Raise ValueError for others."""
    found: dict[str, list[str]] = {name: [] for name in KEYS}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = pair.partition("=")
        if not separator or name.strip() not in found or not value.strip():
            raise ValueError(f"needs the form NAME=VALUE[,…] with the names {', '.join(KEYS)}")
        found[name.strip()].append(value.strip())
    if not any(found.values()):
        raise ValueError(f"is empty; the names are {', '.join(KEYS)}")
    unknown = set(found["stage"]) - set(get_args(Stage))
    if unknown:
        raise ValueError(f"a stage is one of {', '.join(get_args(Stage))}")
    if not all(number.isdecimal() for number in found["partition"]):
        raise ValueError("a partition is a number")
    return Where(
        frozenset(found["reason"]),
        frozenset(found["stage"]),
        frozenset(found["topic"]),
        frozenset(map(int, found["partition"])),
    )


def coordinate(text: str) -> tuple[Partition, int]:
    """Read `topic:partition:offset`; raise ValueError for anything else."""
    topic, number, offset = text.rsplit(":", 2) if text.count(":") >= 2 else ["", "", ""]
    if not topic or not number.isdecimal() or not offset.isdecimal():
        raise ValueError("needs the form TOPIC:PARTITION:OFFSET of the original record, as `dlq ls` shows it")
    return Partition(topic, int(number)), int(offset)


def each_once(letters: Iterable[StoredLetter]) -> Iterator[StoredLetter]:
    """Yield the first dead letter of each record: a crash before the commit stores it twice."""
    seen: dict[Partition, set[int]] = {}
    for stored in letters:
        record = stored.letter.record
        offsets = seen.setdefault(record.partition, set())
        if record.offset not in offsets:
            offsets.add(record.offset)
            yield stored


@dataclass(frozen=True, slots=True)
class Count:
    """Count the dead letters of one topic that failed in one way: how many, of how many records, from when to when."""

    topic: str
    stage: str
    reason: str
    letters: int
    records: int
    first: datetime | None
    last: datetime | None
    example: str
    """The coordinates of the first that failed, as `StoredLetter.id`; without a time, of the first that was read."""
    message: str
    """The message of that one."""

    def facts(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        shown = {
            name: None if at is None else at.isoformat() for name, at in (("first", self.first), ("last", self.last))
        }
        made = {"topic": self.topic, "stage": self.stage, "reason": self.reason}
        return {
            **made,
            "letters": self.letters,
            "records": self.records,
            **shown,
            "example": self.example,
            "message": self.message,
        }


def counted(letters: Iterable[StoredLetter]) -> list[Count]:
    """Return the counts by topic, stage and reason, in that order."""
    numbers: Counter[tuple[str, str, str]] = Counter()
    records: dict[tuple[str, str, str], set[tuple[int, int]]] = {}
    times: dict[tuple[str, str, str], tuple[datetime, datetime]] = {}
    examples: dict[tuple[str, str, str], StoredLetter] = {}
    for stored in letters:
        letter, record = stored.letter, stored.letter.record
        kind = (record.partition.topic, letter.stage, letter.reason)
        numbers[kind] += 1
        examples.setdefault(kind, stored)
        records.setdefault(kind, set()).add((record.partition.number, record.offset))
        if stored.failed_at is not None:
            first, last = times.get(kind, (stored.failed_at, stored.failed_at))
            if kind not in times or stored.failed_at < first:
                examples[kind] = stored
            times[kind] = (min(first, stored.failed_at), max(last, stored.failed_at))
    made = []
    for (topic, stage, reason), count in sorted(numbers.items()):
        key = (topic, stage, reason)
        span: tuple[datetime | None, datetime | None] = times.get(key, (None, None))
        example = examples[key]
        made.append(Count(topic, stage, reason, count, len(records[key]), *span, example.id, example.letter.message))
    return made
