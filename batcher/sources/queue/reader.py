"""Read parts of an embedded queue again, without being a member of a group."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from batcher.errors import DataGap, SourceLost
from batcher.records import Partition, Position, Range, Records
from batcher.sources.position_note import position_of
from batcher.sources.queue import file as queue_file
from batcher.sources.queue import places
from batcher.sources.queue.columns import COLUMNS, to_records
from batcher.sources.queue.file import QueueFile, offset_of, place_of
from batcher.sources.queue.membership import Membership

FETCH: Final = 10_000
"""Messages read at a time."""


class QueueReader:
    """Read the queue of a file; `group` is whose positions are asked for (see `ReadableLog`)."""

    def __init__(self, path: Path, group: str) -> None:
        self._path = path
        self._group = group
        self._file: QueueFile | None = None

    def open(self) -> Sequence[Partition]:
        """Open the file and return its lanes. Raise Unreachable or ConfigurationError."""
        self._file = queue_file.opened(self._path)
        return [self._file.shape.partition(lane) for lane in sorted(self._file.ends())]

    def close(self) -> None:
        """Let go of the file. A second call is harmless."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        """Return what the group has committed."""
        file = self._open_file
        with file.answering():
            rows = file.db.execute("SELECT lane, next, note FROM cursor WHERE readers = ?", (self._group,)).fetchall()
        found = {file.shape.partition(lane): position_of(file.shape.partition(lane), *rest) for lane, *rest in rows}
        return {partition: found[partition] for partition in partitions if partition in found}

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of a lane and its next."""
        ends = self._open_file.ends()[partition.number]
        return ends.first, ends.next

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        """Return the first offset of a time or later; None where no message is that young."""
        return places.at_time(self._open_file, partition.number, time_ms)

    def members(self) -> int:
        """Return how many living members the group has."""
        file = self._open_file
        return len(Membership(file, self._group, 0.0).look().members)

    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        """Return the offsets of a range that have a message, and which of them have no value (see `ReadableLog`)."""
        numbers: list[Any] = [pa.array([], pa.int64())]
        nulls: list[Any] = [pa.array([], pa.bool_())]
        for rows in self._rows("place, value IS NULL", asked):
            places_, absent = zip(*rows, strict=True)
            numbers.append(pa.array(map(offset_of, places_), pa.int64()))
            nulls.append(pa.array(map(bool, absent), pa.bool_()))
        return pa.concat_arrays(numbers), pa.concat_arrays(nulls)

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the messages of a range, ascending (see `ReadableLog`)."""
        for rows in self._rows(COLUMNS, asked):
            yield to_records(asked.partition, rows)

    def _rows(self, columns: str, asked: Range) -> Iterator[Sequence[Any]]:
        file, partition, first = self._open_file, asked.partition, asked.first
        query = f"SELECT {columns} FROM message WHERE place >= ? AND place < ? ORDER BY place LIMIT ?"  # noqa: S608
        while True:
            with file.answering():
                bounds = (place_of(partition.number, first), place_of(partition.number, asked.next_offset))
                rows = file.db.execute(query, (*bounds, FETCH)).fetchall()
            if first < self.watermarks(partition)[0]:
                raise DataGap(f"{partition}: offset {first} was removed meanwhile; start again")
            if rows:
                yield rows
                first = offset_of(rows[-1][0]) + 1
            if len(rows) < FETCH:
                return

    @property
    def _open_file(self) -> QueueFile:
        if self._file is None:
            raise SourceLost("the reader is not open")
        return self._file
