"""Read Kafka up to an end, for a run that loads a part of the log beside a group that is loading all of it.

The two never write the same record. What the other group has committed it does not write again, and an end that is
behind its commits is moved to them: what comes there is its own to load. What both have is asked for in the target
(`SourceInfo.overlaps`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow.compute as pc
import structlog

from batcher.errors import ConfigurationError
from batcher.protocols import PartitionListener, Source, SourceInfo
from batcher.protocols.source import Offering, offering
from batcher.records import Partition, Position, Records
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.window import LogReader
from batcher.sources.starts import GivenOffsets

log = structlog.get_logger(__name__)

Ends = Mapping[Partition, int]
"""For each partition the offset before which a run ends."""


def ends_of(options: KafkaOptions, beside: str) -> Ends:
    """Return where a run of these options ends, given that the group `beside` loads the same topics.

    Raise ConfigurationError for an end that the log does not have, and as `LogReader` does.
    """
    reader = LogReader(replace(options, group=beside or options.group))
    try:
        partitions = reader.open()
        theirs = reader.committed(partitions) if beside else {}
        ends = {one: _end_of(reader, options, one) for one in partitions}
    finally:
        reader.close()
    own = {one: at.next_offset for one, at in theirs.items() if at.next_offset < ends[one]}
    if own:
        log.info(
            "end_moved",
            group=beside,
            ends={str(one): offset for one, offset in sorted(own.items())},
            hint="what comes behind these offsets is for that group to load",
        )
    return {**ends, **own}


def _end_of(reader: LogReader, options: KafkaOptions, partition: Partition) -> int:
    end = options.end
    _, high = reader.watermarks(partition)
    if isinstance(options.start, GivenOffsets) and options.start.of(*partition) is None:
        return 0
    if isinstance(end, GivenOffsets):
        offset = end.of(*partition)
        if offset is not None and offset > high:
            raise ConfigurationError(
                f"--kafka.end: {partition} ends at {high}, and {offset} is not there yet; give an offset up to {high}"
            )
        return offset or 0
    if isinstance(end, int):
        found = reader.at_time(partition, end)
        return high if found is None else found
    return high


class BoundedSource:
    """Deliver what a source has before the ends that `find_ends` returns, and then count as exhausted.

    `find_ends` is called by `open`. Lag is counted to the ends, not to those of the log. See `protocols.Source`.
    """

    def __init__(self, source: Source, find_ends: Callable[[], Ends]) -> None:
        self._source = source
        self._find_ends = find_ends
        self._ends: Ends = {}
        self._committed: dict[Partition, int] = {}
        self._resting: set[Partition] = set()
        self._assigned_once = False

    def open(self, listener: PartitionListener) -> SourceInfo:
        self._ends = self._find_ends()
        info = self._source.open(_BoundedListener(listener, self._assigned, self._gone))
        return replace(info, overlaps=True, capabilities=info.capabilities | {"lag"})

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        runs = [part for run in self._source.fetch(max_records, max_bytes, timeout_s) for part in self._before_end(run)]
        reached = self._source.reached
        done = {one for one, offset in reached.items() if offset >= self._end(one)} - self._resting
        if done:
            self._source.pause(done)
            self._resting |= done
        return runs

    def pause(self, partitions: Collection[Partition]) -> None:
        self._source.pause(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._source.resume([one for one in partitions if one not in self._resting])

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        self._source.commit(positions, timeout_s)
        self._committed.update({one: at.next_offset for one, at in positions.items() if one in self._committed})

    @property
    def reached(self) -> Mapping[Partition, int]:
        # A range ends with the run: what was read behind the end was not delivered.
        return {one: min(offset, max(self._end(one), self._first(one))) for one, offset in self._source.reached.items()}

    @property
    def exhausted(self) -> bool:
        return self._assigned_once and all(offset >= self._end(one) for one, offset in self._source.reached.items())

    def lag(self) -> Mapping[Partition, int]:
        """Return how many offsets before the ends are not committed, for each partition owned. Any thread."""
        return {one: max(self._end(one) - offset, 0) for one, offset in dict(self._committed).items()}

    def offer(self, partitions: Collection[Partition]) -> None:
        """Offer partitions again (see `Offering`)."""
        self._offering.offer(partitions)

    def ignore(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing more from partitions (see `Offering`)."""
        self._offering.ignore(partitions)
        self._gone(partitions)

    def close(self) -> None:
        self._source.close()

    @property
    def _offering(self) -> Offering:
        return offering(self._source)

    def _end(self, partition: Partition) -> int:
        # A topic or partition that came later is not part of the run.
        return self._ends.get(partition, 0)

    def _first(self, partition: Partition) -> int:
        return self._committed.get(partition, 0)

    def _before_end(self, run: Records) -> Iterator[Records]:
        end = self._end(run.partition)
        if run.last_offset < end:
            yield run
        elif run.first_offset < end:
            yield run.slice(0, pc.sum(pc.less(run.offsets, end)).as_py())

    def _assigned(self, positions: Mapping[Partition, Position]) -> None:
        self._assigned_once = True
        self._resting.difference_update(positions)
        self._committed.update({one: at.next_offset for one, at in positions.items()})

    def _gone(self, partitions: Collection[Partition]) -> None:
        self._resting.difference_update(partitions)
        for one in partitions:
            self._committed.pop(one, None)


class _BoundedListener:
    """Tell a source's own listener, and what stands before the source, about partitions that come and go."""

    def __init__(
        self,
        listener: PartitionListener,
        assigned: Callable[[Mapping[Partition, Position]], None],
        gone: Callable[[Collection[Partition]], None],
    ) -> None:
        self._listener = listener
        self._assigned = assigned
        self._gone = gone

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        self._assigned(positions)
        untaken = self._listener.on_assigned(positions)
        self._gone(untaken)
        return untaken

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        self._listener.on_revoked(partitions)
        self._gone(partitions)

    def on_lost(self, partitions: Collection[Partition]) -> None:
        self._listener.on_lost(partitions)
        self._gone(partitions)
