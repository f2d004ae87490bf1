"""Choose records to show, and decode each as a pipeline would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from batcher.preview.sample import SampleSource
from batcher.protocols import Format
from batcher.records import PLACEHOLDER, Batch, Partition, Range, Record, Records, Rejection

CHUNK: Final = 1000
"""Offsets read at a time where records are shown in their order."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Hold a record with its columns, or the reason why it has none; neither for one that is skipped."""

    record: Record
    row: Mapping[str, Any] | None = None
    rejection: Rejection | None = None


def newest(source: SampleSource, places: Mapping[Partition, tuple[int, int]], count: int) -> list[Records]:
    """Return the newest records of all partitions together, ordered by time, each as a run of one.

    Raise as the source.
    """
    found: list[Records] = []
    for partition, (first, end) in sorted(places.items()):
        if end > first:
            found += source.records(Range(partition, max(first, end - count), end - 1))
    single = [run.slice(row, 1) for run in found for row in range(len(run))]
    single.sort(key=lambda run: (run.timestamps_ms[0].as_py() or 0, run.partition, run.first_offset))
    return single[-count:]


def in_order(source: SampleSource, partition: Partition, first: int, end: int) -> Iterator[Records]:
    """Yield the records of a partition from one offset to before another, ascending. Raise as the source."""
    while first < end:
        last = min(end, first + CHUNK) - 1
        yield from source.records(Range(partition, first, last))
        first = last + 1


def decoded(runs: Sequence[Records], format_: Format) -> list[Shown]:
    """Return records with the columns that fit them all, in the order of `runs`."""
    batch = Batch(tuple(sorted(runs, key=lambda run: (run.partition, run.first_offset))), "range").joined()
    schema = format_.infer(batch)
    # Without a schema no record has columns, and each has a reason.
    outcome = format_.decoder(PLACEHOLDER if schema is None else schema).decode(batch)
    refused = {one.position: one for one in outcome.rejections}
    columns: dict[int, Mapping[str, Any]] = {}
    if schema is not None:
        columns = dict(zip(outcome.positions.to_pylist(), outcome.table.to_pylist(), strict=True))
    by_place = {}
    for position in range(batch.rows):
        record = batch.record(position)
        by_place[record.partition, record.offset] = Shown(record, columns.get(position), refused.get(position))
    return [by_place[run.partition, offset] for run in runs for offset in run.offsets.to_pylist()]
