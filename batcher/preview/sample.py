"""Read some records of each partition: the oldest and the newest, since what producers write changes over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa

from batcher.protocols import Format
from batcher.records import Batch, Decoded, Partition, Range, Records

MAX_BYTES: Final = 64 << 20
"""Raw records of a sample at most, whatever their number."""


class SampleSource(Protocol):
    """Read parts of a log."""

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of the log and the one after the last that may be read."""

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold records of several partitions, each partition's ascending."""

    runs: tuple[Records, ...]
    held: Mapping[Partition, int]
    """How many offsets the log has of each partition."""
    bytes_bound: bool = False
    """Fewer records were taken than wanted, because they are large."""

    @property
    def log_offsets(self) -> int:
        """Return how many offsets the log has."""
        return sum(self.held.values())

    @property
    def rows(self) -> int:
        """Return the number of records."""
        return sum(map(len, self.runs))

    @property
    def nbytes(self) -> int:
        """Return the bytes of the raw records."""
        return sum(run.nbytes for run in self.runs)

    @property
    def topics(self) -> tuple[str, ...]:
        """Return the topics that records came from, sorted."""
        return tuple(sorted({run.partition.topic for run in self.runs}))

    @property
    def batch(self) -> Batch:
        """Return the records as one batch, with one run for each partition."""
        return Batch(self.runs, "range").joined()

    def of_topic(self, topic: str) -> Sample:
        """Return the records of one topic."""
        held = {partition: count for partition, count in self.held.items() if partition.topic == topic}
        return Sample(tuple(run for run in self.runs if run.partition.topic == topic), held)


def take(source: SampleSource, partitions: Sequence[Partition], wanted: int, max_bytes: int = MAX_BYTES) -> Sample:
    """Read about `wanted` records, as many of each partition as there are, or an equal share. Raise as the source.

    Half of a share are the oldest records and half the newest ones.
    """
    places = {partition: source.watermarks(partition) for partition in partitions}
    runs: list[Records] = []
    bound = False
    # The small partitions first: what they lack goes to the others.
    waiting = sorted(partitions, key=lambda one: (places[one][1] - places[one][0], one))
    while waiting:
        share, bytes_share = -(-wanted // len(waiting)), max_bytes // len(waiting)
        partition = waiting.pop(0)
        taken: list[Records] = []
        for asked in chosen(partition, *places[partition], share):
            room = bytes_share // 2 if asked.next_offset < places[partition][1] else bytes_share
            fits, whole = _within(source.records(asked), room - sum(run.nbytes for run in taken))
            taken += fits
            bound |= not whole
        runs += taken
        wanted -= sum(map(len, taken))
        max_bytes -= sum(run.nbytes for run in taken)
    return Sample(tuple(runs), {partition: end - first for partition, (first, end) in places.items()}, bound)


def decoded(batch: Batch, format_: Format, schema: pa.Schema) -> tuple[pa.Schema, Decoded]:
    """Return what becomes of a batch, and the schema with types for fields that have their first value in it."""
    found = format_.decoder(schema).decode(batch)
    while found.outgrown:
        schema = format_.grow(schema, batch)
        found = format_.decoder(schema).decode(batch)
    return schema, found


def chosen(partition: Partition, first: int, end: int, share: int) -> list[Range]:
    """Return the ranges of offsets to read: all of them, or the first half and the last half of a share."""
    if end <= first or share <= 0:
        return []
    if end - first <= share:
        return [Range(partition, first, end - 1)]
    oldest = share // 2
    newest = Range(partition, end - (share - oldest), end - 1)
    return [Range(partition, first, first + oldest - 1), newest] if oldest else [newest]


def _within(runs: Iterator[Records], room: int) -> tuple[list[Records], bool]:
    """Return runs of at most `room` bytes together, or one record, and whether these are all."""
    taken: list[Records] = []
    for run in runs:
        if run.nbytes <= room:
            taken.append(run)
            room -= run.nbytes
            continue
        # As many as fit if all were of the same size.
        fit = max(0 if taken else 1, len(run) * max(0, room) // max(1, run.nbytes))
        if fit:
            taken.append(run.slice(0, fit))
        return taken, False
    return taken, True
