"""Make the blocks that a sink is given: from a whole batch, from some of its rows, from its halves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from batcher.protocols import SinkInfo
from batcher.records import (
    COORDINATES,
    Batch,
    Block,
    Decoded,
    RawColumns,
    attempts_of,
    headers_of,
    ids_of,
    whole_token,
)


def block_of(info: SinkInfo, batch: Batch, decoded: Decoded) -> Block:
    """Return the rows of a joined batch with what a sink asked for: coordinate columns, raw columns."""
    table = decoded.table
    whole = len(decoded.positions) == batch.rows
    for coordinate in info.coordinates:
        column = batch.coordinate(coordinate)
        table = table.append_column(COORDINATES.field(coordinate), column if whole else column.take(decoded.positions))
    raw = _raw(batch) if info.raw else None
    if raw is not None and not whole:
        raw = raw.take(decoded.positions)
    return Block(_contiguous(table), decoded.positions, batch.token, batch.ranges, batch.replayed, raw)


def _raw(batch: Batch) -> RawColumns:
    return RawColumns(
        batch.values(),
        pa.concat_arrays([run.keys for run in batch.runs]),
        pa.concat_arrays([run.timestamps_ms for run in batch.runs]),
        headers_of(batch.runs),
        ids_of(batch.runs),
        attempts_of(batch.runs),
    )


def _contiguous(table: pa.Table) -> pa.Table:
    # One record batch: ClickHouse deduplicates a token block by block, and a different split is a different block.
    combined = table.combine_chunks()
    if combined.num_rows and len(combined.to_batches()) != 1:
        raise ValueError(f"{combined.num_rows} rows do not fit one record batch")
    return combined


def part_of(batch: Batch, block: Block, rows: Sequence[int] | pa.Array) -> Block | None:
    """Return some rows of a block, under a token made from its own and from their records; None for no rows."""
    keep = rows if isinstance(rows, pa.Array) else pa.array(rows, pa.int64())
    if not len(keep):
        return None
    return _derived(batch, block, keep)


def halves_of(batch: Batch, block: Block) -> Iterator[Block]:
    """Return the first and the second half of a block of two rows or more, under tokens of their own."""
    middle = block.rows // 2
    for start, length in ((0, middle), (middle, block.rows - middle)):
        yield _derived(batch, block, pa.array(range(start, start + length), pa.int64()))


def deferred_of(batch: Batch, block: Block, rows: Sequence[int]) -> Block:
    """Return rows of a block that are to come again later, under a token that no earlier attempt at them had.

    It is as long after a thousand deferrals as after one: made of the whole's token and of the one before.
    """
    part = _derived(batch, block, pa.array(rows, pa.int64()))
    digest = hashlib.sha256(part.token.encode()).hexdigest()[:16]
    return replace(part, token=f"{whole_token(block.token)}|{digest}")


def _derived(batch: Batch, block: Block, rows: pa.Int64Array) -> Block:
    positions = block.positions.take(rows)
    return replace(
        block,
        table=_contiguous(block.table.take(rows)),
        positions=positions,
        token=f"{block.token}|{_digest(batch, positions)}",
        raw=None if block.raw is None else block.raw.take(rows),
    )


def _digest(batch: Batch, positions: pa.Int64Array) -> str:
    """Name a choice of records: the same choice has the same name in every process.

    By offsets: compaction may remove a record of the range between two attempts, and all positions behind it move.
    """
    numbers = pa.concat_arrays(
        [pa.repeat(pa.scalar(number, pa.int64()), len(run)) for number, run in enumerate(batch.runs)]
    )
    offsets = pa.concat_arrays([run.offsets for run in batch.runs])
    digest = hashlib.sha256()
    for column in (numbers, offsets):
        digest.update(memoryview(column.take(positions).buffers()[1])[: len(positions) * 8])
    return digest.hexdigest()[:16]
