"""Where to start reading: decided here in numbers, never by librdkafka's offset reset."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from batcher.errors import ConfigurationError, DataGap, SourceLost
from batcher.records import Partition, Position
from batcher.sources.kafka.asking import asked
from batcher.sources.kafka.errors import FATAL, FORBIDDEN, error_of, fatal, forbidden, text_of
from batcher.sources.kafka.metadata import StoredPosition, unpack
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.starts import GivenOffsets

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOKUP_TIMEOUT_S: Final = 30.0
"""The time for all questions of one assignment together; well below max.poll.interval.ms."""

RETRY_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Say where a partition starts and where its log ended when that was decided.

    `chosen` says why it starts there, if that was decided by policy and is not committed yet.
    """

    position: Position
    end: int
    chosen: str = ""


class StartOffsets:
    """Resolve positions for one consumer.

    A partition without a committed offset starts by `options.start`, except with `latest` where it is *new*: then its
    first records would be skipped. It is new when it did not exist at `survey`, or when the group had by then committed
    for other partitions of its topic.
    """

    def __init__(self, consumer: Consumer, options: KafkaOptions) -> None:
        self._consumer = consumer
        self._options = options
        self._old: frozenset[Partition] = frozenset()

    def survey(self, partitions: Collection[Partition]) -> None:
        """Find out, before joining the group, which partitions there are and which topics the group has read."""
        if self._options.start != "latest" or not partitions:
            return
        committed = self.committed(partitions)
        read = {partition.topic for partition in committed}
        self._old = frozenset(partition for partition in partitions if partition.topic not in read)

    def resolve(
        self, partitions: Collection[Partition], committed: Mapping[Partition, Position]
    ) -> dict[Partition, StartPosition]:
        """Return where each partition starts, given what the group has committed.

        Raise DataGap where the committed offset is not in the log, SourceLost when the broker does not answer.
        """
        found = {}
        for partition in partitions:
            low, high = self.watermarks(partition)
            position = committed.get(partition)
            if position is None:
                offset, why = self._policy(partition, low, high)
                found[partition] = StartPosition(Position(offset), high, why)
            else:
                found[partition] = StartPosition(self.inside(partition, position, low, high), high)
        _say_where_it_starts(found)
        return found

    def inside(self, partition: Partition, position: Position, low: int, high: int) -> Position:
        """Return the position if it is inside the log; else raise DataGap, or skip a gap at the start if told to."""
        if position.next_offset > high:
            raise DataGap(
                f"{partition}: the next offset to read is {position.next_offset}, but the log ends at {high}: offsets "
                f"{high}-{position.next_offset - 1} ({position.next_offset - high}) are gone, the topic was cut or "
                "created anew; reset the group's offsets once the lost records are accounted for"
            )
        if position.next_offset >= low:
            return position
        missing = f"{position.next_offset}-{low - 1}"
        if self._options.on_gap == "halt":
            raise DataGap(
                f"{partition}: offsets {missing} ({low - position.next_offset}) expired before they were read; "
                "--kafka.on-gap skip goes on behind them"
            )
        log.warning("records_expired", partition=str(partition), offsets=missing, count=low - position.next_offset)
        # The ranges that are announced have offsets of their own.
        return position._replace(next_offset=low)

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of the log and the one after the last that may be read."""
        ask = partial(self._consumer.get_watermark_offsets, TopicPartition(*partition))
        return self._answer(ask, f"the watermarks of {partition}")

    def _policy(self, partition: Partition, low: int, high: int) -> tuple[int, str]:
        """Return where a partition without a commit starts, and why."""
        start = self._options.start
        if start == "earliest":
            return low, "--kafka.start earliest: the first record there is"
        if start == "latest" and partition not in self._old:
            return low, "--kafka.start latest, but it came after this process or the group had begun: its first record"
        if start == "latest":
            return high, "--kafka.start latest: behind the last record there is"
        if isinstance(start, GivenOffsets):
            return self._given(partition, start, low, high), "--kafka.start: the offset given there"
        found = self.at_time(partition, start)
        if found is None:
            return high, "--kafka.start: no record is as young as that time; behind the last record there is"
        return found, "--kafka.start: the first record of that time or later"

    def _given(self, partition: Partition, start: GivenOffsets, low: int, high: int) -> int:
        offset = start.of(*partition)
        if offset is None and self._options.end is not None:
            # Nothing is loaded from it.
            return high
        if offset is None:
            raise ConfigurationError(
                f"--kafka.start says nothing about {partition}; add {partition.topic}:{partition.number}=OFFSET"
            )
        return self.inside(partition, Position(offset), low, high).next_offset

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        """Return the first offset whose record is of this time or later; None where no record is that young."""
        ask = partial(self._consumer.offsets_for_times, [TopicPartition(*partition, time_ms)])
        [found] = self._answer(ask, f"the offset of {partition} at a time")
        # Negative: no record is that young.
        return found.offset if found.offset >= 0 else None

    def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, Position]:
        """Return what the group has committed; partitions without a commit are not in it. Raise as `stored` does."""
        return {partition: stored.position for partition, stored in self.stored(partitions).items()}

    def stored(self, partitions: Iterable[Partition]) -> Mapping[Partition, StoredPosition]:
        """Return what the group has committed, and for which topic; partitions without a commit are not in it.

        Raise ConfigurationError for missing rights, SourceLost when the broker does not answer.
        """
        wanted = [TopicPartition(*partition) for partition in partitions]

        def ask(timeout_s: float) -> list[TopicPartition]:
            answered = self._consumer.committed(wanted, timeout_s)
            for one in answered:
                if one.error is not None:
                    raise KafkaException(one.error)
            return answered

        answered = self._answer(ask, f"the committed offsets of group {self._options.group}")
        places = [(Partition(one.topic, one.partition), one) for one in answered if one.offset >= 0]
        return {part: unpack(part, one.offset, one.metadata) for part, one in places}

    def _answer(self, ask: Callable[[float], T], what: str) -> T:
        """Return what the broker answers, asked again where that may help a moment later (a coordinator that moves).

        Raise ConfigurationError for missing rights, SourceLost when there is no answer.
        """
        deadline = time.monotonic() + LOOKUP_TIMEOUT_S
        while True:
            try:
                return asked(ask, LOOKUP_TIMEOUT_S)
            except KafkaException as exception:
                error = error_of(exception)
            if error.code() in FORBIDDEN:
                raise forbidden(error, f"no access to {what}")
            if error.fatal() or error.code() in FATAL:
                raise fatal(error, self._options.instance)
            if time.monotonic() >= deadline:
                # Guessing would lose records or read them twice.
                raise SourceLost(f"{what} could not be had: {text_of(error)}; start again when the broker answers")
            time.sleep(RETRY_PAUSE_S)


def _say_where_it_starts(found: Mapping[Partition, StartPosition]) -> None:
    """Log where partitions without a commit start, one line for each reason."""
    chosen = sorted((at.chosen, partition, at.position.next_offset) for partition, at in found.items() if at.chosen)
    for why, places in groupby(chosen, key=itemgetter(0)):
        log.info("start_chosen", positions={str(partition): offset for _, partition, offset in places}, reason=why)
