"""Put what Arrow's reader cannot read into a form that it can: maps, JSON kept as text, text that may be any value.

Arrow knows no maps, and gives no value as its text. So the values of such columns, and nothing else of a record, are
replaced before the block is read: a map by a list of `{"k":…,"v":…}`, a value that is kept as text by a JSON string.
All else stays byte for byte what it was, and is judged by Arrow, by `columns.py` and in the end by `strict.py`, as in
any block: keys that occur twice, unknown fields, values of another kind.

msgspec finds the values in one pass and makes no Python object of anything beside them. They are views of the buffer,
so their addresses tell where they stand. msgspec has checked that each is JSON, but for UTF-8 (`guard.py`). What it
does not tell is a key that occurs twice inside a value, and half a surrogate pair: where either is possible, the exact
parser reads that one value. Nothing is refused here. A record that is not certain is left to `strict.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json import reader
from batcher.formats.json.limits import MAX_DEPTH, Refused
from batcher.formats.json.shape import has_plain_name, inner_path, is_raw, is_text, item_path
from batcher.formats.json.syntax import Pairs, compact, parse_object, quote

_LINES: Final = 32
"""Messages that msgspec sees in one call: a bad one affects few others."""

_LARGEST: Final = 2**31 - 1
"""The bytes that one array holds."""

_ERRORS: Final = (msgspec.MsgspecError, ValueError, RecursionError, Refused)

_NULL: Final = b"null"
_KEY_END: Final = b'":'
"""It stands behind each key of compact JSON, and may stand inside strings: as many as there are keys, or more."""

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

Rewrite = Callable[[bytes], bytes]
"""Return what takes the place of a value; raise one of `_ERRORS` where that is not certain."""

Found = list[tuple[int, int, bytes]]
"""Where a value begins and ends, as addresses, and what takes its place."""

Find = Callable[[Any, Found], None]
"""Add the values that are replaced in what msgspec found."""


class Impossible(Exception):
    """Say that the columns of a schema cannot be found in records by msgspec."""


def rewriter(
    schema: pa.Schema,
    names: Mapping[str, str] = MappingProxyType({}),
    *,
    kept: bool = True,
    besides: Collection[str] = (),
    texts: Collection[str] = (),
    inside: Collection[str] = (),
) -> Rewriter | None:
    """Return what replaces the values of some columns; None where a schema has none of them.

    `kept` are maps and JSON kept as text, `besides` the paths of such JSON that stays as it is, `texts` the paths of
    texts, timestamps and JSON whose values become texts, `inside` those of texts inside maps. `names` has the fields
    that are written differently from their columns. Raise Impossible.
    """
    places = _Places(names, frozenset(texts), frozenset(inside), frozenset(besides), kept=kept)
    type_, find = places.of_object(schema, "")
    return None if find is None else Rewriter(type_, find)


class Rewriter:
    """Replace the values of some columns in blocks of messages."""

    def __init__(self, type_: Any, find: Find) -> None:
        self._decoder = msgspec.json.Decoder(type_)
        self._find = find

    def rewritten(self, texts: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Return the messages with the values replaced, and for each whether that is certain.

        Raise reader.Unreadable where one array cannot hold them.
        """
        buffer = reader.join(texts)
        whole, base = memoryview(buffer), buffer.address
        lengths = pc.add(pc.binary_length(texts).cast(pa.int64()), 1)
        ends = [0, *pc.cumulative_sum(lengths).to_pylist()]
        certain = [True] * len(texts)
        parts: list[Any] = []
        sizes = [0]
        for first in range(0, len(texts), _LINES):
            last = min(first + _LINES, len(texts))
            for row, one in enumerate(self._lines(whole, ends[first : last + 1]), first):
                start, end = ends[row], ends[row + 1] - 1
                size = end - start
                if one is None:
                    certain[row] = False
                    parts.append(whole[start:end])
                else:
                    found: Found = []
                    try:
                        self._find(one, found)
                    except _ERRORS:
                        certain[row], found = False, []
                    if len(found) > 1:
                        found.sort()
                    for begin, stop, new in found:
                        parts += (whole[start : begin - base], new)
                        size += len(new) - (stop - begin)
                        start = stop - base
                    parts.append(whole[start:end])
                sizes.append(sizes[-1] + size)
        if sizes[-1] > _LARGEST:
            raise reader.Unreadable
        offsets = pa.array(sizes, pa.int32()).buffers()[1]
        joined = pa.py_buffer(b"".join(parts))
        return pa.Array.from_buffers(pa.binary(), len(texts), [None, offsets, joined]), pa.array(certain, pa.bool_())

    def _lines(self, whole: memoryview, ends: Sequence[int]) -> list[Any]:
        """Return what msgspec found in each line, None for one that it refuses."""
        try:
            found = self._decoder.decode_lines(whole[ends[0] : ends[-1] - 1])
        except _ERRORS:
            pass
        else:
            # Two documents in one message are two lines for msgspec.
            if len(found) == len(ends) - 1:
                return found
        return [self._line(whole[start : end - 1]) for start, end in pairwise(ends)]

    def _line(self, line: memoryview) -> Any:
        try:
            return self._decoder.decode(line)
        except _ERRORS:
            return None


class _Places:
    """Build msgspec's type for the places of the values that are replaced, and what collects them."""

    def __init__(
        self,
        names: Mapping[str, str],
        texts: frozenset[str],
        inside: frozenset[str],
        besides: frozenset[str] = frozenset(),
        *,
        kept: bool,
    ) -> None:
        self._names = names
        self._besides = besides
        self._texts = texts
        self._inside = inside
        self._kept = kept

    def of_object(self, fields: Iterable[pa.Field], path: str) -> tuple[Any, Find | None]:
        members: list[tuple[str, Any, None]] = []
        renamed: dict[str, str] = {}
        finds: list[tuple[str, Find]] = []
        for number, field in enumerate(fields):
            inner = inner_path(path, field.name)
            kind, find = self._of_field(field, inner)
            if find is None:
                continue
            name = self._names.get(inner, field.name)
            if not has_plain_name(name):
                raise Impossible
            members.append((f"f{number}", kind, None))
            renamed[f"f{number}"] = name
            finds.append((f"f{number}", find))
        if not finds:
            return None, None
        return msgspec.defstruct("Places", members, rename=renamed, gc=False), _in_members(finds)

    def _of_field(self, field: pa.Field, path: str) -> tuple[Any, Find | None]:
        kind = field.type
        rewrite = self._rewrite(field, path)
        if rewrite is not None:
            return msgspec.Raw, _replaced(rewrite)
        type_: Any = None
        find: Find | None = None
        if pa.types.is_struct(kind):
            type_, find = self.of_object(kind, path)
        elif pa.types.is_list(kind):
            item, inner = self._of_field(kind.value_field, item_path(path))
            type_, find = (list[item], _in_items(inner)) if inner is not None else (None, None)  # type: ignore[valid-type]
        return (None if find is None else type_ | None), find

    def _rewrite(self, field: pa.Field, path: str) -> Rewrite | None:
        """Return what replaces the value of the field itself, if it is replaced."""
        if is_raw(field):
            return as_text if path in self._texts or (self._kept and path not in self._besides) else None
        if pa.types.is_map(field.type):
            if not self._kept:
                return None
            within = _Places(self._names, self._inside, self._inside, kept=True)
            item = within.of_value(field.type.item_field, item_path(path))
            return lambda raw: _as_entries(raw, item)
        if path not in self._texts:
            return None
        return as_any_text if is_text(field.type) or pa.types.is_timestamp(field.type) else None

    def of_value(self, field: pa.Field, path: str) -> Rewrite | None:
        """Return what rewrites a value that stands by itself; None where it stays as it is."""
        rewrite = self._rewrite(field, path)
        if rewrite is not None:
            return rewrite
        kind, find = self._of_field(field, path)
        return None if find is None else _rewrite_inside(msgspec.json.Decoder(kind), find)


def _in_members(finds: list[tuple[str, Find]]) -> Find:
    def find(value: Any, found: Found) -> None:
        if value is not None:
            for name, inner in finds:
                inner(getattr(value, name), found)

    return find


def _in_items(inner: Find) -> Find:
    def find(value: Any, found: Found) -> None:
        for item in value or ():
            inner(item, found)

    return find


def _replaced(rewrite: Rewrite) -> Find:
    def find(value: Any, found: Found) -> None:
        if value is not None:
            raw = bytes(value)
            new = rewrite(raw)
            if new is not raw:
                start = pa.py_buffer(value).address
                found.append((start, start + len(raw), new))

    return find


def _rewrite_inside(decoder: msgspec.json.Decoder[Any], find: Find) -> Rewrite:
    def rewrite(raw: bytes) -> bytes:
        found: Found = []
        find(decoder.decode(raw), found)
        base, start, parts = pa.py_buffer(raw).address, 0, []
        for begin, stop, new in sorted(found):
            parts += [raw[start : begin - base], new]
            start = stop - base
        return b"".join([*parts, raw[start:]])

    return rewrite


def as_text(raw: bytes) -> bytes:
    """Return a JSON string that holds the value as compact JSON; null stays null."""
    return raw if raw == _NULL else _quoted(_compact(raw))


def as_any_text(raw: bytes) -> bytes:
    """Return a string as it is, and anything else like `as_text`."""
    return raw if raw.startswith(b'"') else as_text(raw)


def _quoted(text: bytes) -> bytes:
    # In compact JSON there is no other character that has to be escaped.
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _compact(raw: bytes) -> bytes:
    """Return a value as `syntax.compact` writes it, mostly without parsing it into Python's values."""
    if b"\\u" in raw or b"\\/" in raw:
        return compact(_parsed(raw)).encode()
    if raw[0] not in b"[{":
        return raw
    dense = _dense(raw)
    keys = dense.count(_KEY_END)
    if keys > 1 and _keys(msgspec.json.decode(dense)) != keys:
        return compact(_parsed(raw)).encode()
    return dense


def _dense(raw: bytes) -> bytes:
    """Return JSON without the spaces between its tokens."""
    # After `guard.py` a space or a tab is all that can stand there.
    return msgspec.json.format(raw, indent=-1) if b" " in raw or b"\t" in raw else raw


def _keys(value: Any) -> int:
    """Return how many keys there are in a parsed value, however deep."""
    if type(value) is dict:
        return len(value) + sum(_keys(item) for item in value.values() if type(item) in (dict, list))
    return sum(_keys(item) for item in value if type(item) in (dict, list)) if type(value) is list else 0


def _parsed(raw: bytes) -> Any:
    # Its depth in the record was checked before.
    return parse_object(b'{"":%s}' % raw, MAX_DEPTH + 1).items[0][1]


def _as_entries(raw: bytes, item: Rewrite | None) -> bytes:
    if raw == _NULL:
        return raw
    if raw[0] != ord("{"):
        # Arrow would take a list of entries for the map.
        raise Refused("type", "not an object")
    dense = _dense(raw)
    if b"\\" in dense:
        return _exact_entries(dense, item)
    members = _MEMBERS.decode(dense)
    keys = len(members)
    if item is None and dense.count(b'"') == 2 * keys and dense.count(_KEY_END) == keys:
        if dense.count(b',"') == keys - 1:
            # All quotes are those of keys, and none of these ends with a comma. A NUL is nowhere in a message.
            marked = dense[1:-1].replace(_KEY_END, b"\0").replace(b',"', b'},{"k":"')
            return b'[{"k":%s}]' % marked.replace(b"\0", b'","v":')
        if not keys:
            return b"[]"
    values = [bytes(value) for value in members.values()]
    if dense.count(_KEY_END) - sum([value.count(_KEY_END) for value in values]) != len(members):
        return _exact_entries(dense, item)
    if item is not None:
        values = [item(value) for value in values]
    entries = [b'{"k":"%s","v":%s}' % (key.encode(), value) for key, value in zip(members, values, strict=True)]
    return b"[" + b",".join(entries) + b"]"


def _exact_entries(raw: bytes, item: Rewrite | None) -> bytes:
    value = _parsed(raw)
    assert type(value) is Pairs
    if len({key for key, _ in value.items}) < len(value.items):
        raise Refused("duplicate", "a key occurs twice in one object")
    entries = []
    for key, one in value.items:
        text = compact(one).encode()
        entries.append(b'{"k":%s,"v":%s}' % (quote(key).encode(), text if item is None else item(text)))
    return b"[" + b",".join(entries) + b"]"
