"""What a record has and no column takes, as compact JSON: the content of the column `_rescued`.

It has the shape of the record. An object has what is unknown in it. A list that has something unknown in an item has
all its items, null for those without. An unknown field that is null is as good as not there. Numbers stay as they were
written. A key that occurs twice refuses the record, as it does where JSON is kept in a column.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import msgspec
import pyarrow as pa

from batcher.formats.json.census import ANY, Known, known_fields, spelled
from batcher.formats.json.limits import JsonOptions, Refused, shown
from batcher.formats.json.shape import inner_path, item_path
from batcher.formats.json.syntax import Pairs, compact, parse_object, quote


class _Unclear(Enum):
    """Stand for what only the exact look can tell."""

    UNCLEAR = 1


_UNCLEAR: Final = _Unclear.UNCLEAR
_BRACKETS: Final = b"{["
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Remainder:
    """Find what the columns of a schema do not take. The messages are JSON objects that the schema has rows of."""

    def __init__(self, schema: pa.Schema, options: JsonOptions) -> None:
        self._known = known_fields(schema)
        self._insensitive = options.match == "insensitive"
        self._max_depth = options.max_depth

    def of(self, texts: pa.BinaryArray) -> tuple[pa.StringArray, dict[int, Refused]]:
        """Return the remainder of each message, null for none, and why messages have none that is JSON."""
        found: list[str | None] = []
        refused: dict[int, Refused] = {}
        for row, text in enumerate(texts.to_pylist()):
            try:
                kept = self._at_a_glance(text)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                kept = _UNCLEAR
            if kept is _UNCLEAR:
                try:
                    kept = self._rest(parse_object(text, self._max_depth), self._known, "")
                except Refused as why:
                    kept, refused[row] = None, why.kept()
            found.append(kept)
        return pa.array(found, pa.string()), refused

    def _at_a_glance(self, text: bytes) -> str | _Unclear | None:
        """Return the remainder where nothing is unknown but plain keys at the top: 3 us, where the exact look takes 25.

        Values are cut out of the message as they are. A key may stand there twice, or be written with escapes: then the
        exact look has to tell. In compact JSON without escapes there is one `":` for each key. May raise what msgspec
        does.
        """
        members = _PARTS.decode(text)
        plain = not self._insensitive and b"\\" not in text
        parts: list[str] = []
        for key, raw in members.items():
            if key in self._known:
                inner = self._known[key]
                if inner is not None and self._has(msgspec.json.decode(raw), inner):
                    return _UNCLEAR
                continue
            if not plain or text.count(f'"{key}"'.encode()) != 1:
                return _UNCLEAR
            value = bytes(raw)
            if value[0] in _BRACKETS:
                value = msgspec.json.format(value, indent=-1)
                if value.count(b'":') != _keys(msgspec.json.decode(value)):
                    return _UNCLEAR
            if value != b"null":
                parts.append(f'"{key}":{value.decode()}')
        return f"{{{','.join(parts)}}}" if parts else None

    def _has(self, value: Any, known: Known) -> bool:
        """Return whether a value has an unknown key; one of another spelling counts as unknown here."""
        if type(value) is list:
            return any(self._has(item, known) for item in value)
        if type(value) is not dict:
            return False
        anything = known.get(ANY)
        if anything is not None:
            return any(self._has(item, anything) for item in value.values())
        return any(key not in known or self._inside(item, known[key]) for key, item in value.items())

    def _inside(self, value: Any, known: Known | None) -> bool:
        return known is not None and self._has(value, known)

    def _rest(self, value: Any, known: Known, path: str) -> str | None:
        if type(value) is list:
            items = [self._rest(item, known, item_path(path)) for item in value]
            return None if all(item is None for item in items) else f"[{','.join(item or 'null' for item in items)}]"
        if type(value) is not Pairs:
            return None
        anything = known.get(ANY)
        present = {key for key, _ in value.items}
        parts: list[str] = []
        unknown: set[str] = set()
        for key, item in value.items:
            inner: Known | None = anything
            if anything is None:
                name = spelled(key, known, present) if self._insensitive and key not in known else key
                if name not in known:
                    if key in unknown:
                        raise Refused("duplicate", "occurs twice in one object", inner_path(path, shown(key)))
                    unknown.add(key)
                    if item is not None:
                        parts.append(f"{quote(key)}:{_kept(item, inner_path(path, shown(key)))}")
                    continue
                inner = known[name]
            rest = None if inner is None else self._rest(item, inner, inner_path(path, key))
            if rest is not None:
                parts.append(f"{quote(key)}:{rest}")
        return f"{{{','.join(parts)}}}" if parts else None


def _keys(value: Any) -> int:
    """Return how many keys the objects in a value have."""
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


def _kept(value: Any, path: str) -> str:
    try:
        return compact(value)
    except Refused as why:
        raise Refused(why.reason, str(why), path) from why
