"""Read objects that few records have by themselves, beside the rest of the records.

Arrow's reader adds a null to every column for every record, however deep the column is. Events of many kinds in one
topic have a thousand columns and fill fifty: nearly all time goes into nulls. So where a look at a few messages shows
that objects are mostly absent, msgspec finds them, `true` takes their place, and what was in that place is read as
messages of their own, with the columns of that object. A key that occurs twice, a field nobody knows, a value of
another kind: all that is still found by Arrow, here or there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json import reader
from batcher.formats.json.sample import sampled
from batcher.formats.json.shape import has_plain_name, leaves

_SELDOM: Final = 4
"""An object that at most so many of the sample have is read by itself."""

_WORTH: Final = 200
"""The nulls a message that have to be saved: each costs some 0.1 us, and to cut a message apart 10 us."""

_TOGETHER: Final = 32
"""Messages that msgspec sees in one call."""

_MARK: Final = b"true"
_OBJECT: Final = ord("{")
_NULL: Final = ord("n")
_ERRORS: Final = (msgspec.MsgspecError, ValueError, RecursionError)


class SparseReader:
    """Read messages with one schema, as `reader.read` does. Not for several threads at once."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        sizes = {field.name: leaves(field.type) for field in schema if _may_be_cut(field)}
        self._sizes: Mapping[str, int] = sizes if sum(sizes.values()) > _WORTH else {}
        names = {f"f{number}": name for number, name in enumerate(self._sizes)}
        members: list[tuple[str, Any, None]] = [(one, msgspec.Raw, None) for one in names]
        self._places = {name: place for place, name in names.items()}
        self._decoder = msgspec.json.Decoder(msgspec.defstruct("Objects", members, rename=names, gc=False))

    def read(self, texts: pa.Array, *, reject_unknown: bool, block_bytes: int = reader.BLOCK_BYTES) -> list[pa.Array]:
        """Return one array for each field; raise Unreadable as `reader.read` does."""
        seldom = self._seldom(texts) if self._sizes and len(texts) else ()
        if not seldom:
            return reader.read(texts, self._schema, reject_unknown=reject_unknown, block_bytes=block_bytes)
        cut = self._cut(texts, seldom)
        if cut is None:
            # Arrow says what is wrong with which message.
            return reader.read(texts, self._schema, reject_unknown=reject_unknown, block_bytes=block_bytes)
        rest, found = cut
        fields = [pa.field(one.name, pa.bool_()) if one.name in found else one for one in self._schema]
        arrays = reader.read(rest, pa.schema(fields), reject_unknown=reject_unknown, block_bytes=block_bytes)
        for number, field in enumerate(self._schema):
            if field.name in found:
                arrays[number] = _objects(len(texts), found[field.name], field.type, reject_unknown=reject_unknown)
        return arrays

    def _seldom(self, texts: pa.Array) -> tuple[str, ...]:
        """Return the objects that are worth being read by themselves."""
        seen = dict.fromkeys(self._sizes, 0)
        rows = sampled(texts)
        for row in rows:
            try:
                message = msgspec.json.decode(texts[row].as_buffer())
            except _ERRORS:
                continue
            for name in message:
                if name in seen:
                    seen[name] += 1
        seldom = tuple(name for name, count in seen.items() if count <= _SELDOM)
        saved = sum(self._sizes[name] * (len(rows) - seen[name]) for name in seldom)
        return seldom if saved > _WORTH * len(rows) else ()

    def _cut(
        self, texts: pa.Array, seldom: tuple[str, ...]
    ) -> tuple[pa.Array, dict[str, dict[int, memoryview]]] | None:
        """Return the messages without the objects, and of each object the messages that have it with its text.

        None where that is not certain.
        """
        places = [(name, self._places[name]) for name in seldom]
        found: dict[str, dict[int, memoryview]] = {name: {} for name in seldom}
        buffer = reader.join(texts)
        whole, base = memoryview(buffer), buffer.address
        ends = [0, *pc.cumulative_sum(pc.add(pc.binary_length(texts).cast(pa.int64()), 1)).to_pylist()]
        parts: list[bytes | memoryview] = []
        sizes = [0]
        for first in range(0, len(texts), _TOGETHER):
            last = min(first + _TOGETHER, len(texts))
            try:
                lines = self._decoder.decode_lines(whole[ends[first] : ends[last] - 1])
            except _ERRORS:
                return None
            if len(lines) != last - first:
                return None
            for row, line in enumerate(lines, first):
                start, end = ends[row], ends[row + 1] - 1
                size, cuts = end - start, []
                for name, place in places:
                    raw = getattr(line, place)
                    if raw is None:
                        continue
                    value = memoryview(raw)
                    if value[0] == _NULL:
                        continue
                    if value[0] != _OBJECT:
                        return None
                    found[name][row] = value
                    cuts.append((pa.py_buffer(raw).address - base, len(value)))
                cuts.sort()
                for begin, length in cuts:
                    parts += (whole[start:begin], _MARK)
                    start, size = begin + length, size - length + len(_MARK)
                parts.append(whole[start:end])
                sizes.append(sizes[-1] + size)
        return _array(parts, sizes), found


def _may_be_cut(field: pa.Field) -> bool:
    return bool(pa.types.is_struct(field.type)) and has_plain_name(field.name)


def _objects(
    count: int, found: Mapping[int, memoryview], kind: pa.StructType, *, reject_unknown: bool
) -> pa.StructArray:
    """Return a column of so many rows, in which some have an object."""
    if not found:
        return pa.nulls(count, kind)
    sizes = [0]
    for value in found.values():
        sizes.append(sizes[-1] + len(value))
    rows = list(found)
    try:
        children = reader.read(
            _array(list(found.values()), sizes), pa.schema(list(kind)), reject_unknown=reject_unknown
        )
    except reader.Unreadable as failure:
        row = None if failure.row is None else rows[failure.row]
        raise reader.Unreadable(row, unknown=failure.unknown, twice=failure.twice) from failure
    objects = pa.StructArray.from_arrays(children, fields=list(kind))
    where: list[int | None] = [None] * count
    for number, row in enumerate(rows):
        where[row] = number
    return objects.take(pa.array(where, pa.int32()))


def _array(parts: list[Any], sizes: list[int]) -> pa.Array:
    offsets = pa.array(sizes, pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.binary(), len(sizes) - 1, [None, offsets, pa.py_buffer(b"".join(parts))])
