"""Where a record says which schema it was written with, and where its payload begins.

Confluent's serializers name the schema in one of two places. In the *prefix* form the value begins with byte 0 and 4
bytes of id, for Protobuf followed by the way to the message type in its file, and then comes the payload. In the
*header* form the header `__value_schema_id` holds the same, or 01 and a GUID of 16 bytes, and the value is the payload.

Records are told apart by the bytes of their frames, on whole columns: Python sees each frame once, however many records
have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.policy import Tombstones, admit, check_size
from batcher.formats.writer_schema import SchemaKey
from batcher.records import Batch, Rejection, as_one

FramingKind = Literal["none", "confluent", "auto"]
"""`none`: the value is the payload. `confluent`: each record has a frame, in the header or before the payload. `auto`:
a record without a frame is a bare payload."""

HEADER: Final = "__value_schema_id"

KEY_HEADER: Final = "__key_schema_id"
"""The header of a record whose key is framed."""

MAX_INDEXES: Final = 32
"""The deepest message type inside a Protobuf file that is followed; protoc itself stops at about as many."""

_ID: Final = b"\0"
_GUID: Final = b"\1"
_ID_BYTES: Final = 5
_GUID_BYTES: Final = 17
_VARINT_BYTES: Final = 5
_LONGEST: Final = _ID_BYTES + 1 + MAX_INDEXES * _VARINT_BYTES
_TO_THE_END: Final = 2**31 - 1
"""Without an end, `pc.binary_slice` of pyarrow 26 fails on values shorter than the start."""

_PIECE_BYTES: Final = 1 << 30
"""An Arrow array of bytes holds at most 2 GiB."""

_UNFRAMED: Final = "the message has no schema id, neither in header {} nor in its first 5 bytes"
_STRANGE_HEADER: Final = "header {} is neither 00 with 4 bytes of id nor 01 with 16 bytes of GUID"
_ENDS_INSIDE: Final = "the message ends inside its Protobuf message indexes"
_STRANGE_INDEXES: Final = f"the Protobuf message indexes are not up to {MAX_INDEXES} numbers from 0"
_BEHIND: Final = "header {} has bytes behind the schema id"


@dataclass(frozen=True, slots=True)
class Group:
    """Hold the payloads of one schema; the key is None where records have no frame.

    `positions` are int64 and ascending, `payloads` have no nulls.
    """

    key: SchemaKey | None
    positions: pa.Int64Array
    payloads: pa.BinaryArray


@dataclass(frozen=True, slots=True)
class Split:
    """Hold the records of a batch by schema: each position is in exactly one of the three places.

    A key has one group, or several where one array would grow beyond 1 GiB. `rejections` are in ascending order of
    position, `skipped` are the tombstones, ascending int64.
    """

    groups: tuple[Group, ...]
    rejections: tuple[Rejection, ...]
    skipped: pa.Int64Array


@dataclass(frozen=True, slots=True)
class Framing:
    """Say how records carry the name of their schema, and which values are not looked at.

    With `indexes` (Protobuf) message indexes follow the id. Sizes are bytes of the value, frame included. `header` is
    the name of the header in which a frame may stand. Raise ConfigurationError for a limit that cannot work.
    """

    kind: FramingKind = "none"
    indexes: bool = False
    tombstones: Tombstones = "skip"
    max_message_bytes: int = 1 << 20
    header: str = HEADER

    def __post_init__(self) -> None:
        check_size(self.max_message_bytes)

    def split(self, batch: Batch) -> Split:
        """Return the payloads of a joined batch by schema. Never raises because of a record."""
        headers = None if self.kind == "none" else _headers(batch, self.header)
        groups: list[Group] = []
        rejections: list[Rejection] = []
        skipped: list[pa.Array] = [pa.array([], pa.int64())]
        start = 0
        for values in _pieces(batch.values()):
            admitted = admit(values, max_message_bytes=self.max_message_bytes, tombstones=self.tombstones)
            piece = _Piece(self, pc.add(admitted.positions, start), admitted.values)
            piece.rejections += [replace(one, position=one.position + start) for one in admitted.rejections]
            if self.kind != "none":
                if headers is not None:
                    piece.headers(*headers)
                piece.prefixes()
            piece.bare()
            groups += piece.groups()
            rejections += sorted(piece.rejections, key=lambda rejection: rejection.position)
            skipped.append(pc.add(admitted.skipped, start))
            start += len(values)
        return Split(tuple(groups), tuple(rejections), pa.concat_arrays(skipped))


class _Piece:
    """Hold the records that are still open, step by step, and what became of the others."""

    def __init__(self, framing: Framing, positions: pa.Array, values: pa.Array) -> None:
        self._framing = framing
        self._positions = positions
        self._values = values
        self._parts: dict[SchemaKey | None, list[tuple[pa.Array, pa.Array]]] = {}
        self.rejections: list[Rejection] = []

    def headers(self, positions: pa.Array, frames: pa.Array) -> None:
        """Take the records at these positions, whose frames stand in headers."""
        mine = pc.is_in(positions, value_set=self._positions)
        positions, frames = positions.filter(mine), frames.filter(mine)
        if not len(positions):
            return
        _, values = self._take(pc.is_in(self._positions, value_set=positions))
        encoded = frames.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        for code, (some, payloads) in _by_code(encoded.indices, positions, values):
            try:
                self._add(_header_key(distinct[code], self._framing), some, payloads)
            except _Strange as why:
                self._reject(some, "frame", str(why))

    def prefixes(self) -> None:
        """Take the records whose values begin with a frame."""
        framed = pc.and_(pc.starts_with(self._values, _ID), pc.greater_equal(pc.binary_length(self._values), _ID_BYTES))
        if pc.any(framed).as_py():
            length = _ID_BYTES + 1 if self._framing.indexes else _ID_BYTES
            open_ = {length: [self._take(framed)]}
            while open_:
                length, parts = open_.popitem()
                for longer, part in self._prefixed(length, *_joined(parts)):
                    open_.setdefault(longer, []).append(part)

    def bare(self) -> None:
        """Take what is left: payloads without a frame, where that may be."""
        if not len(self._values):
            return
        if self._framing.kind == "confluent":
            self._reject(self._positions, "unframed", _UNFRAMED.format(self._framing.header))
        else:
            self._add(None, self._positions, self._values)

    def groups(self) -> Iterator[Group]:
        for key, parts in self._parts.items():
            positions, payloads = _joined(parts)
            if len(parts) > 1:
                order = pc.sort_indices(positions)
                positions, payloads = positions.take(order), payloads.take(order)
            yield Group(key, positions, payloads)

    def _prefixed(
        self, length: int, positions: pa.Array, values: pa.Array
    ) -> Iterator[tuple[int, tuple[pa.Array, pa.Array]]]:
        """Sort records by their first `length` bytes; yield those whose frame is longer, with how many to look at."""
        encoded = pc.binary_slice(values, 0, length).dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        for code, (some, framed) in _by_code(encoded.indices, positions, values):
            head: bytes = distinct[code]
            try:
                key, end = _prefix_key(head, indexes=self._framing.indexes)
            except _Longer as frame:
                if len(head) < length:
                    self._reject(some, "frame", _ENDS_INSIDE)
                else:
                    # Indexes below 64 have one byte each. For others all that may belong to a frame is looked at.
                    yield (frame.length if length == _ID_BYTES + 1 else _LONGEST), (some, framed)
            except _Strange as why:
                self._reject(some, "frame", str(why))
            else:
                self._add(key, some, pc.binary_slice(framed, end, _TO_THE_END))

    def _take(self, mask: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Remove the records where the mask is true from the open ones, and return them."""
        taken = self._positions.filter(mask), self._values.filter(mask)
        rest = pc.invert(mask)
        self._positions, self._values = self._positions.filter(rest), self._values.filter(rest)
        return taken

    def _add(self, key: SchemaKey | None, positions: pa.Array, payloads: pa.Array) -> None:
        self._parts.setdefault(key, []).append((positions, payloads))

    def _reject(self, positions: pa.Array, reason: str, message: str) -> None:
        self.rejections += [Rejection(position, reason, message) for position in positions.to_pylist()]


class _Strange(Exception):
    """Say what is wrong with a frame."""


class _Longer(Exception):
    """Say that a frame goes on behind the bytes at hand, to `length` at least."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.length = length


def _header_key(frame: bytes, framing: Framing) -> SchemaKey:
    """Return the schema that a header names; raise _Strange when it names none."""
    kind = frame[:1]
    end = {_ID: _ID_BYTES, _GUID: _GUID_BYTES}.get(kind, 0)
    if not end or len(frame) < end:
        raise _Strange(_STRANGE_HEADER.format(framing.header))
    path: tuple[int, ...] = ()
    body = frame[1:end]
    if framing.indexes:
        try:
            path, end = _path(frame, end)
        except _Longer as error:
            raise _Strange(f"header {framing.header} ends inside its Protobuf message indexes") from error
    if end < len(frame):
        raise _Strange(_BEHIND.format(framing.header))
    return SchemaKey(guid=str(UUID(bytes=body)), indexes=path) if kind == _GUID else SchemaKey(_number(body), "", path)


def _prefix_key(head: bytes, *, indexes: bool) -> tuple[SchemaKey, int]:
    """Return the schema that a value begins with, and where the payload begins.

    `head` has 5 bytes at least. Raise _Longer when it ends too soon to tell, _Strange when it names no schema.
    """
    path, end = _path(head, _ID_BYTES) if indexes else ((), _ID_BYTES)
    return SchemaKey(_number(head[1:_ID_BYTES]), "", path), end


def _number(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def _path(frame: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """Return the message indexes that begin at a byte, and where they end; a count of 0 is the first message."""
    count, at = _varint(frame, at, 1)
    if count > MAX_INDEXES:
        raise _Strange(_STRANGE_INDEXES)
    if not count:
        return (0,), at
    path = []
    for left in range(count, 0, -1):
        index, at = _varint(frame, at, left)
        path.append(index)
    return tuple(path), at


def _varint(frame: bytes, at: int, left: int) -> tuple[int, int]:
    """Return a zigzag varint of 32 bits that is not negative, and where it ends; `left` of them are still to come."""
    value = 0
    for number in range(_VARINT_BYTES):
        if at >= len(frame):
            raise _Longer(at + left)
        byte = frame[at]
        value |= (byte & 0x7F) << (7 * number)
        at += 1
        if byte < 0x80:
            if value & 1 or value >= 1 << 32:
                break
            return value >> 1, at
    raise _Strange(_STRANGE_INDEXES)


def _by_code(codes: pa.Array, *columns: pa.Array) -> Iterator[tuple[int, tuple[pa.Array, ...]]]:
    """Yield each code with its rows of the columns, in the order they have.

    One sort, because a batch may have as many codes as rows.
    """
    if pc.max(codes).as_py():
        order = pc.sort_indices(codes)
        columns = tuple(column.take(order) for column in columns)
        codes = codes.take(order)
    runs = pc.run_end_encode(codes)
    start = 0
    for code, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield code, tuple(column.slice(start, end - start) for column in columns)
        start = end


def _joined(parts: list[tuple[pa.Array, pa.Array]]) -> tuple[pa.Array, pa.Array]:
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays([one for one, _ in parts]), pa.concat_arrays([other for _, other in parts])


def _pieces(values: pa.ChunkedArray) -> Iterator[pa.Array]:
    """Yield the values as few arrays, none of which is too large for Arrow."""
    chunks: list[pa.Array] = []
    size = 0
    for chunk in values.chunks:
        if chunks and size + chunk.nbytes > _PIECE_BYTES:
            yield as_one(pa.chunked_array(chunks))
            chunks, size = [], 0
        chunks.append(chunk)
        size += chunk.nbytes
    if chunks:
        yield as_one(pa.chunked_array(chunks))


def _headers(batch: Batch, name: str) -> tuple[pa.Array, pa.Array] | None:
    """Return the positions whose headers name a schema, ascending, and what those headers hold."""
    found = []
    start = 0
    for run in batch.runs:
        if run.headers is not None:
            rows, frames = _named(run.headers, name)
            if len(rows):
                found.append((pc.add(rows, pa.scalar(start, pa.int64())), frames))
        start += len(run)
    return _joined(found) if found else None


def _named(headers: pa.ListArray, name: str) -> tuple[pa.Array, pa.Array]:
    pairs = headers.flatten()
    names, values = pc.struct_field(pairs, [0]), pc.struct_field(pairs, [1])
    named = pc.and_(pc.equal(names, name), pc.is_valid(values))
    rows = pc.list_parent_indices(headers).filter(named).cast(pa.int64())
    frames = values.filter(named)
    if len(rows) > 1:
        # Of several with one name, the last counts, as for Confluent's deserializers for Java.
        last = pa.concat_arrays([pc.not_equal(rows.slice(1), rows.slice(0, len(rows) - 1)), pa.array([True])])
        rows, frames = rows.filter(last), frames.filter(last)
    return rows, frames
