"""From rows of the log to columns: no Python object is made for a message besides those that SQLite's driver makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.records import HEADERS_TYPE, Headers, Partition, Records
from batcher.sources.queue.file import offset_of

COLUMNS: Final = "place, published_ms, id, key, value, type, headers"
"""What `to_records` takes, as the list of a SELECT."""

Row = tuple[int, int, str | None, bytes | None, bytes | None, str | None, bytes | None]

MESSAGE_TYPE: Final = "message_type"
"""The header that carries the type of a message."""


def to_records(partition: Partition, rows: Sequence[Row]) -> Records:
    """Return rows of one lane, ascending and at least one, as a run."""
    places, times, ids, keys, values, types, headers = zip(*rows, strict=True)
    first, last = offset_of(places[0]), offset_of(places[-1])
    if last - first + 1 == len(rows):
        offsets = pa.arange(first, last + 1)
    else:
        offsets = pc.bit_wise_and(pa.array(places, pa.int64()), offset_of(-1))
    return Records(
        partition,
        offsets,
        pa.array(times, pa.int64()),
        _column(keys),
        pa.array(values, pa.binary()),
        _headers(types, headers),
        _ids(partition, offsets, ids),
    )


def message_id(lane: int, offset: int) -> str:
    """Return the id of a message to which its publisher gave none."""
    return f"{lane}-{offset}"


def packed(headers: Headers) -> bytes | None:
    """Return headers as they are stored."""
    return msgspec.msgpack.encode(headers) if headers else None


def unpacked(stored: bytes | None) -> Headers:
    """Return headers that were stored."""
    return () if stored is None else msgspec.msgpack.decode(stored, type=Headers)


def all_headers(kind: str | None, stored: bytes | None) -> Headers:
    """Return the headers of a message, its type included."""
    return ((MESSAGE_TYPE, kind.encode()), *unpacked(stored)) if kind is not None else unpacked(stored)


def _column(values: Sequence[bytes | None]) -> Any:
    # Most queues have no keys: to see that is cheaper than to look at each value.
    return pa.nulls(len(values), pa.binary()) if _absent(values) else pa.array(values, pa.binary())


def _absent(values: Sequence[object]) -> bool:
    return values.count(None) == len(values)


def _ids(partition: Partition, offsets: Any, ids: Sequence[str | None]) -> Any:
    made = pc.binary_join_element_wise(str(partition.number), offsets.cast(pa.string()), "-")
    return made if _absent(ids) else pc.coalesce(pa.array(ids, pa.string()), made)


def _headers(types: Sequence[str | None], headers: Sequence[bytes | None]) -> Any:
    if not _absent(headers):
        found = [all_headers(*one) for one in zip(types, headers, strict=True)]
        listed = [[{"key": key, "value": value} for key, value in one] or None for one in found]
        return pa.array(listed, HEADERS_TYPE)
    if _absent(types):
        return None
    kinds = pa.array(types, pa.string())
    there = kinds.is_valid()
    # One header for each message that has a type: the lists end one further after each of these.
    ends = pc.cumulative_sum(there.cast(pa.int32()))
    starts = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    content = kinds.drop_null().cast(pa.binary())
    names = pa.array([MESSAGE_TYPE], pa.string()).take(pa.array(bytes(len(content)), pa.int8()))
    pairs = pa.StructArray.from_arrays([names, content], fields=list(HEADERS_TYPE.value_type))
    made: Any = pa.ListArray.from_arrays(starts, pairs)
    return pc.if_else(there, made, pa.scalar(None, made.type)).cast(HEADERS_TYPE)
