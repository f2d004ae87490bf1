"""Builders for the values of `batcher.records`, short enough to read inside a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from batcher.records import (
    COORDINATES,
    HEADERS_TYPE,
    MAX_INTENTS,
    Batch,
    Block,
    Headers,
    Intent,
    Partition,
    Position,
    Range,
    Records,
    Trigger,
)

EVENTS_0: Final = Partition("events", 0)


def make_records(
    values: Sequence[bytes | str | None],
    *,
    partition: Partition = EVENTS_0,
    first_offset: int = 0,
    offsets: Sequence[int] | None = None,
    timestamp_ms: int = 1_700_000_000_000,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers | None] | None = None,
) -> Records:
    """Return a run of records with the given values; timestamps advance by a millisecond from `timestamp_ms`."""
    raw = [value.encode() if isinstance(value, str) else value for value in values]
    count = len(raw)
    listed = None
    if headers is not None:
        listed = pa.array(
            [None if one is None else [{"key": k, "value": v} for k, v in one] for one in headers], HEADERS_TYPE
        )
    return Records(
        partition,
        pa.array(offsets if offsets is not None else range(first_offset, first_offset + count), pa.int64()),
        pa.array(range(timestamp_ms, timestamp_ms + count), pa.int64()),
        pa.array(keys if keys is not None else [None] * count, pa.binary()),
        pa.array(raw, pa.binary()),
        listed,
    )


def make_batch(*runs: Records, trigger: Trigger = "rows", replayed: bool = False) -> Batch:
    """Return a batch of the runs."""
    return Batch(runs, trigger, replayed=replayed)


def make_block(
    table: pa.Table,
    *,
    partition: Partition = EVENTS_0,
    first_offset: int = 0,
    token: str | None = None,
    coordinates: Sequence[str] = (),
) -> Block:
    """Return a block whose row i is the record at `first_offset + i`, with the named coordinate columns appended."""
    count = table.num_rows
    columns = {
        "_topic": [partition.topic] * count,
        "_partition": [partition.number] * count,
        "_offset": list(range(first_offset, first_offset + count)),
        "_timestamp": [1_700_000_000_000 + i for i in range(count)],
        "_key": [None] * count,
        "_headers": [None] * count,
        "_message_id": [None] * count,
        "_attempt": [None] * count,
        "_value": [b"{}"] * count,
    }
    for name in coordinates:
        field = COORDINATES.field(name)
        table = table.append_column(field, pa.array(columns[name], field.type))
    run = make_records([b"{}"] * count, partition=partition, first_offset=first_offset)
    ranges = make_batch(run).ranges
    return Block(
        table.combine_chunks(),
        pa.array(range(count), pa.int64()),
        token or f"test|{ranges[0]}",
        ranges,
    )


def make_position(partition: Partition, next_offset: int, mark: str = "test-0-0") -> Position:
    """Return a position with the largest announcement that is possible: all ranges, each with the name of a write."""
    first, intents = next_offset, []
    for number in range(MAX_INTENTS):
        last = (1 << 62) + number
        intents.append(Intent(Range(partition, first, last), -(1 << 62), "f" * 32))
        first = last + 1
    return Position(next_offset, tuple(intents), mark)
