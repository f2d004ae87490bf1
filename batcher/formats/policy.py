"""What every format does first: pieces of a size, tombstones, and what is too large."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.records import Batch, Rejection

PIECE_BYTES: Final = 8 << 20
"""The bytes that are read in one go. It bounds the memory of the steps in between, which use the same memory again and
again. Much smaller pieces would be slower: after each call the thread waits for the interpreter lock."""

Tombstones = Literal["skip", "reject"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """Hold the values that a format has to read, without nulls, and what became of the others.

    `positions` are those of `values`, `skipped` those of tombstones; both int64 and ascending.
    """

    values: pa.Array
    positions: pa.Int64Array
    rejections: tuple[Rejection, ...]
    skipped: pa.Int64Array


def check_size(max_message_bytes: int) -> None:
    """Raise ConfigurationError for a bound that cannot work."""
    if not 2 <= max_message_bytes <= 1 << 29:
        raise ConfigurationError("--decode.max-message-bytes has to be between 2 bytes and 512 MiB")


def admit(values: pa.Array, *, max_message_bytes: int, tombstones: Tombstones) -> Admitted:
    """Separate tombstones and what is too large."""
    positions = pa.arange(0, len(values))
    skipped: pa.Int64Array = pa.array([], pa.int64())
    rejections: list[Rejection] = []
    if values.null_count:
        null = values.is_null()
        if tombstones == "skip":
            skipped = positions.filter(null)
        else:
            message = "the record is a tombstone (null value)"
            rejections += [Rejection(row, "tombstone", message) for row in positions.filter(null).to_pylist()]
        values, positions = values.drop_null(), positions.filter(pc.invert(null))
    length = pc.binary_length(values)
    if (pc.max(length).as_py() or 0) > max_message_bytes:
        large = pc.greater(length, max_message_bytes)
        for row, size in zip(positions.filter(large).to_pylist(), length.filter(large).to_pylist(), strict=True):
            message = f"the message has {size} bytes, more than --decode.max-message-bytes {max_message_bytes}"
            rejections.append(Rejection(row, "too_large", message))
        keep = pc.invert(large)
        values, positions = values.filter(keep), positions.filter(keep)
    return Admitted(values, positions, tuple(sorted(rejections, key=lambda one: one.position)), skipped)


def piece_rows(values: pa.ChunkedArray, piece_bytes: int = PIECE_BYTES) -> int:
    """Return how many values make a piece: so many bytes in the mean, and one value at least."""
    pieces = max(1, math.ceil(int(values.nbytes) / piece_bytes))
    return max(1, math.ceil(len(values) / pieces))


def with_values(batch: Batch, values: pa.Array | pa.ChunkedArray) -> Batch:
    """Return a batch with other values for its records, in order of position."""
    runs, start = [], 0
    for run in batch.runs:
        runs.append(replace(run, values=values.slice(start, len(run))))
        start += len(run)
    return replace(batch, runs=tuple(runs))
