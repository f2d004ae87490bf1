"""Read every commit that a consumer group ever made, in the order in which the broker took them.

Asking a group where it stands, now and then, misses what happens in between. The broker's own topic of offsets does
not: it has each commit with what it announces and its time, and the generations of the group between them.

    log = CommitLog.of(broker.bootstrap, group)
    assert not log.went_back, log.went_back
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

from batcher.records import Partition, Position
from batcher.sources.kafka.metadata import unpack
from batcher.testing.kafka import REQUEST_TIMEOUT_S

OFFSETS_TOPIC: Final = "__consumer_offsets"

# Versions of the keys, as Apache Kafka 4's `coordinator/group` messages have them: 0 and 1 are commits, 2 the members
# of a classic group, 3 the epoch of one of KIP-848.
_COMMITS: Final = frozenset({0, 1})
_GENERATIONS: Final = frozenset({2, 3})


class Commit(NamedTuple):
    """Say where a group put a partition, and when: seconds of the broker's clock."""

    partition: Partition
    position: Position
    at_s: float

    @property
    def next_offset(self) -> int:
        """Return where the group reads on."""
        return self.position.next_offset


class Step(NamedTuple):
    """Name two commits of a partition that follow each other."""

    before: Commit
    after: Commit


@dataclass(frozen=True, slots=True)
class CommitLog:
    """Hold the commits of one group, oldest first. A deletion of an offset is none."""

    commits: Sequence[Commit]
    generations: int
    """How often the group was formed anew: one more than its rebalances."""

    @staticmethod
    def of(bootstrap: str, group: str) -> CommitLog:
        """Read the log up to where it ends now. Raise TimeoutError when the broker does not answer."""
        commits: list[Commit] = []
        generations: set[tuple[int, int]] = set()
        for key, value in _entries(bootstrap):
            fields = _Fields(key)
            kind = fields.int16()
            if kind not in _COMMITS | _GENERATIONS or fields.string() != group or value is None:
                continue
            if kind in _COMMITS:
                commits.append(_commit(Partition(fields.string(), fields.int32()), value))
            else:
                generations.add((kind, _generation(kind, value)))
        return CommitLog(commits, len(generations))

    @property
    def by_partition(self) -> Mapping[Partition, Sequence[Commit]]:
        """Return the commits of each partition, oldest first."""
        found: dict[Partition, list[Commit]] = {}
        for commit in self.commits:
            found.setdefault(commit.partition, []).append(commit)
        return found

    @property
    def steps(self) -> Sequence[Step]:
        """Return what followed what, partition by partition."""
        return [Step(*pair) for commits in self.by_partition.values() for pair in pairwise(commits)]

    @property
    def went_back(self) -> Sequence[Step]:
        """Return the steps to a lower offset: only somebody who is no longer the owner takes one."""
        return [step for step in self.steps if step.after.next_offset < step.before.next_offset]

    @property
    def longest_rest_s(self) -> Mapping[Partition, float]:
        """Return the longest time that each partition stood still between two commits that moved it."""
        rests = {}
        for partition, commits in self.by_partition.items():
            moved_at_s = [commits[0].at_s, *(b.at_s for a, b in pairwise(commits) if b.next_offset > a.next_offset)]
            rests[partition] = max((b - a for a, b in pairwise(moved_at_s)), default=0.0)
        return rests


def _entries(bootstrap: str) -> Iterator[tuple[bytes, bytes | None]]:
    settings = {"bootstrap.servers": bootstrap, "group.id": "batcher-testing-commits", "enable.partition.eof": True}
    consumer = Consumer({**settings, "enable.auto.commit": False, "log_level": 3})
    try:
        for number in consumer.list_topics(OFFSETS_TOPIC, REQUEST_TIMEOUT_S).topics[OFFSETS_TOPIC].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(OFFSETS_TOPIC, number), REQUEST_TIMEOUT_S)
            consumer.assign([TopicPartition(OFFSETS_TOPIC, number, low)])
            position = low
            while position < high:
                message = consumer.poll(REQUEST_TIMEOUT_S)
                if message is None:
                    raise TimeoutError(f"no record of {OFFSETS_TOPIC} within {REQUEST_TIMEOUT_S:.0f} s")
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        break
                    raise RuntimeError(str(error))
                position = (message.offset() or 0) + 1
                yield message.key() or b"", message.value()
    finally:
        consumer.close()


def _commit(partition: Partition, value: bytes) -> Commit:
    fields = _Fields(value)
    version = fields.int16()
    next_offset = fields.int64()
    if version >= 3:
        fields.int32()  # the leader's epoch
    metadata = fields.compact_string() if version >= 4 else fields.string()
    # The Python client counts the zero byte behind them as a part, and takes it off again when it reads.
    position = unpack(partition, next_offset, metadata.removesuffix("\0")).position
    return Commit(partition, position, fields.int64() / 1000)


def _generation(kind: int, value: bytes) -> int:
    fields = _Fields(value)
    fields.int16()
    if kind == 2:
        fields.string()  # the type of protocol
    return fields.int32()


class _Fields:
    """Take Kafka's fields off the front of bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def int16(self) -> int:
        return self._number(">h", 2)

    def int32(self) -> int:
        return self._number(">i", 4)

    def int64(self) -> int:
        return self._number(">q", 8)

    def string(self) -> str:
        return self._text(self.int16())

    def compact_string(self) -> str:
        length = shift = 0
        while True:
            byte = self._number(">B", 1)
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return self._text(length - 1)

    def _number(self, form: str, size: int) -> int:
        (found,) = struct.unpack_from(form, self._data, self._at)
        self._at += size
        return int(found)

    def _text(self, size: int) -> str:
        text = self._data[self._at : self._at + size].decode()
        self._at += size
        return text
