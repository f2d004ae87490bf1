"""Which fields of the rows no column takes: counted in full where that costs little, else from a sample.

Arrow first reads with unexpected fields as an error (`format.py`), at the cost of reading without. What passes like
that has none. What does not pass is checked here, message by message, for the first blocks and for one in sixteen after
them. In between, 64 messages of each block stand for all, and their counts are scaled up. Where columns are to be made
of them (`exact`) every block is checked whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa

from batcher.formats.json.limits import MAX_DEPTH, shown
from batcher.formats.json.shape import inner_path, is_raw, item_path
from batcher.formats.json.spelling import folded
from batcher.formats.json.syntax import Pairs, parse_object
from batcher.records import UnknownField

SAMPLE: Final = 64
"""Messages of a block that stand for all of it: 0.3 ms."""

SMALL: Final = 1024
"""Blocks of at most this many messages are always checked whole: 4 us a message."""

CAREFUL: Final = 8
"""Blocks with unknown fields that are checked whole before samples suffice: usual fields are named by then."""

EVERY: Final = 16
"""After that one block in this many is, for fields that are rare or new."""

MAX_PATHS: Final = 1000
"""The most different fields that a block is searched for: a dictionary in place of a record has one for each key."""

Known = Mapping[str, "Known | None"]
"""The fields of an object that columns take, with those inside them; None where nothing inside is checked."""


class SeenFields(NamedTuple):
    """Hold the unknown fields of a block; `row` of a field is its message's number among those given."""

    fields: tuple[UnknownField, ...]
    estimated: bool


class Census:
    """Count the unknown fields of blocks of one schema. Not for several threads at once."""

    def __init__(self, schema: pa.Schema, *, insensitive: bool, exact: bool = False) -> None:
        self._known = known_fields(schema)
        self._insensitive = insensitive
        self._exact = exact
        self._blocks = 0

    @property
    def careful(self) -> bool:
        """Return whether the next block will be checked whole, so that it is worth knowing that it has none."""
        return self._exact or self._blocks < CAREFUL or self._blocks % EVERY == 0

    def look(self, texts: pa.Array) -> SeenFields:
        """Return the unknown fields of messages, each of which is one JSON object."""
        whole = len(texts) <= SMALL or self.careful
        self._blocks += 1
        if not whole:
            step = len(texts) / SAMPLE
            rows = [int(number * step) for number in range(SAMPLE)]
            return self._scaled(self._counted(zip(rows, texts.take(pa.array(rows)).to_pylist(), strict=True)), step)
        found = self._counted(enumerate(texts.to_pylist()))
        return SeenFields(
            tuple(UnknownField(path, count, row) for path, (count, row) in found.items()), estimated=False
        )

    def _scaled(self, found: Mapping[str, tuple[int, int]], factor: float) -> SeenFields:
        fields = tuple(UnknownField(path, round(count * factor), row) for path, (count, row) in found.items())
        return SeenFields(fields, estimated=bool(fields))

    def _counted(self, messages: Iterable[tuple[int, bytes]]) -> dict[str, tuple[int, int]]:
        counts: dict[str, tuple[int, int]] = {}
        for row, text in messages:
            message = self._parsed(text)
            paths: set[str] = set()
            self._walk(message, self._known, "", paths)
            for path in paths:
                if path in counts:
                    counts[path] = (counts[path][0] + 1, counts[path][1])
                elif len(counts) < MAX_PATHS:
                    counts[path] = (1, row)
        return counts

    def _parsed(self, text: bytes) -> Any:
        try:
            return msgspec.json.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # Only the strict reader can read this: too rare to be worth another parser, unless none may be missed.
            return _plain(parse_object(text, MAX_DEPTH)) if self._exact else None

    def _walk(self, value: Any, known: Known, path: str, found: set[str]) -> None:
        if type(value) is list:
            for item in value:
                self._walk(item, known, item_path(path), found)
        elif type(value) is dict and (anything := known.get(ANY)) is not None:
            for item in value.values():
                self._walk(item, anything, item_path(path), found)
        elif type(value) is dict:
            for key, item in value.items():
                if item is None:
                    continue
                name = spelled(key, known, value) if self._insensitive and key not in known else key
                if name not in known:
                    found.add(inner_path(path, shown(key)))
                elif (inner := known[name]) is not None:
                    self._walk(item, inner, inner_path(path, name), found)


def spelled(key: str, known: Known, present: Collection[str]) -> str:
    """Return the column that a key of another spelling fills: none where its own spelling is present as well."""
    name = next((one for one in known if folded(one) == folded(key)), key)
    return key if name in present else name


def _plain(value: Any) -> Any:
    """Return what the strict parser gives as dicts and lists; of a key that occurs twice, the last value."""
    if type(value) is list:
        return [_plain(item) for item in value]
    if type(value) is not Pairs:
        return value
    return {key: _plain(item) for key, item in value.items}


ANY: Final = "\0"
"""It stands for every key of a map; a NUL in a JSON key would be refused before."""


def known_fields(fields: Iterable[pa.Field]) -> Known:
    """Return what columns take of an object."""
    return {field.name: _inside(field) for field in fields}


def _inside(field: pa.Field) -> Known | None:
    kind = field.type
    while pa.types.is_list(kind) and not is_raw(field):
        field, kind = kind.value_field, kind.value_type
    if is_raw(field):
        return None
    if pa.types.is_struct(kind):
        return known_fields(kind)
    if pa.types.is_map(kind):
        inner = _inside(kind.item_field)
        return None if inner is None else {ANY: inner}
    return None
