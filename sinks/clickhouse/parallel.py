"""Write to one table on a server by several threads at a time, each over a connection of its own.

A connection takes one request at a time, and what a sink remembers of its inserts (the tokens it has tried, the version
that the table had) is of one insert after the other. So each thread has a sink of its own. The first takes the one that
was opened; the others are opened when their threads first write, and know of the table what that one knew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from batcher.errors import SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import SinkInfo
from batcher.records import Block, Partition
from sinks.clickhouse.options import ClickHouseOptions
from sinks.clickhouse.sink import ClickHouseSink


class _Mine(threading.local):
    """Know the sink of a thread; None for none yet."""

    sink: ClickHouseSink | None = None


class ParallelClickHouseSink(ClickHouseSink):
    """Write blocks to one table of a server. What the write loops call may be called by several of them at a time."""

    def __init__(self, options: ClickHouseOptions) -> None:
        super().__init__(options)
        self._taking = threading.Lock()
        self._others: list[ClickHouseSink] = []
        self._begin()

    def open(self) -> SinkInfo:
        self._info = super().open()
        self._begin()
        self._first = self._opened()
        return replace(self._info, concurrent=True, remote=True)

    def write(self, block: Block) -> None:
        mine = self._own()
        if mine is self:
            super().write(block)
        else:
            # The decode loop asks for columns through the first one.
            mine.know_added(self._evolved)
            mine.write(block)

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        mine = self._own()
        return super().present(partition, first, last) if mine is self else mine.present(partition, first, last)

    def stored(self, ids: pa.StringArray, times_ms: tuple[int, int] | None) -> pa.StringArray:
        mine = self._own()
        return super().stored(ids, times_ms) if mine is self else mine.stored(ids, times_ms)

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        mine = self._own()
        return super().max_offset_above(positions) if mine is self else mine.max_offset_above(positions)

    def running(self, write_id: str) -> bool:
        mine = self._own()
        return super().running(write_id) if mine is self else mine.running(write_id)

    def pressure(self) -> float:
        mine = self._own()
        return super().pressure() if mine is self else mine.pressure()

    def close(self) -> None:
        with self._taking:
            others, self._others = self._others, []
        for other in others:
            other.close()
        super().close()

    def _begin(self) -> None:
        self._mine = _Mine()
        self._taken = False

    def _own(self) -> ClickHouseSink:
        """Return the sink of this thread. Raise SinkUnavailable or SinkMisconfigured where it cannot be opened now."""
        mine = self._mine.sink
        if mine is None:
            with self._taking:
                first, self._taken = not self._taken, True
            mine = self._mine.sink = self if first else self._another()
        return mine

    def _another(self) -> ClickHouseSink:
        other = ClickHouseSink(self._options)
        try:
            info = other.open()
        except Unreachable as error:
            raise SinkUnavailable(str(error)) from error
        if _essence(info) != _essence(self._info):
            other.close()
            raise SinkMisconfigured(
                f"{info.target}: was altered and cannot keep any more what this run began with ({self._info.reason}); "
                f"now: {info.reason}; undo that, or restart"
            )
        other.take_for_known(self._first)
        with self._taking:
            self._others.append(other)
        return other


def _essence(info: SinkInfo) -> SinkInfo:
    """Return what has to be the same for all: columns may come, and what the server is able to do."""
    return replace(info, schema=None, reason="", capabilities=frozenset())
