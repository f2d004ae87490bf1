"""A schema that fits the readable records of a batch.

Every field is nullable. Integers become int64, or uint64 where they need to be; with fractions among them, double.
Strings become timestamp[us, UTC] when they are ISO 8601 dates with a time, else string. Objects become
structs, lists lists. What is only ever null, or only an empty list, is taken for string. Where records contradict each
other (a number here, an object there), where a number has no type that holds it exactly, and for objects that are
always empty or have more than 256 different keys, the column is JSON kept as text (`records.RAW_JSON`).

What fewer than one value in twenty of a field are (a text among numbers, a word among dates) is taken for a mistake:
such records are dead letters and do not shape the schema.

Fields named like coordinates (`_offset`, …) are left out: those columns say where the record stood.
Columns stand in the order in which the batch first shows them.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from batcher.decode.limits import JsonOptions, Refused
from batcher.decode.syntax import Number, Pairs, compact, parse_object
from batcher.decode.timestamps import exact, is_datetime
from batcher.records import COORDINATES, RAW_JSON

_MAX_KEYS: Final = 256
"""An object with more different keys than this is a dictionary, not a record."""


_MISTAKES: Final = 0.05
"""The share below which values of another kind are mistakes, not a second kind."""


class _Seen:
    """Collect what one field was in the records so far."""

    __slots__ = ("exact_as_double", "fields", "fractions", "item", "kinds", "least", "most", "words")

    def __init__(self) -> None:
        self.kinds: dict[type, int] = {}
        self.fields: dict[str, _Seen] = {}
        self.item: _Seen | None = None
        self.least = self.most = 0
        self.fractions = False
        self.exact_as_double = True
        self.words = 0
        """Strings that are no dates."""

    def add(self, value: Any) -> None:
        if value is None:
            return
        kind = type(value)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind is Number:
            self._add_number(value)
        elif kind is str:
            self.words += not is_datetime(value)
        elif kind is list:
            self.item = self.item or _Seen()
            for one in value:
                self.item.add(one)
        elif kind is Pairs:
            for key, one in value.items:
                if key not in self.fields:
                    self.fields[key] = _Seen()
                self.fields[key].add(one)

    def _add_number(self, value: Number) -> None:
        if not value.lstrip("-").isdigit():
            self.fractions = True
            # Half a step beyond the greatest double: from here on a number is rounded to infinity.
            self.exact_as_double = self.exact_as_double and exact(value).copy_abs() < 2**1024 - 2**970
        elif len(value) > 20:
            # More than 64 bits hold; and `int` refuses texts beyond some length.
            self.least, self.most, self.exact_as_double = -(2**64), 2**64, False
        else:
            number = int(value)
            self.least, self.most = min(self.least, number), max(self.most, number)
            self.exact_as_double = self.exact_as_double and int(float(number)) == number

    def field(self, name: str) -> pa.Field:
        kind = self._type()
        return pa.field(name, pa.string(), metadata={RAW_JSON: b"1"}) if kind is None else pa.field(name, kind)

    def _type(self) -> pa.DataType | None:  # noqa: PLR0911 - one for each kind
        """Return the type; None for JSON kept as text."""
        if not self.kinds:
            return pa.string()
        total = sum(self.kinds.values())
        usual = [kind for kind, count in self.kinds.items() if count >= total * _MISTAKES]
        if len(usual) > 1:
            return None
        (kind,) = usual
        if kind is bool:
            return pa.bool_()
        if kind is Number:
            return self._number()
        if kind is str:
            return pa.timestamp("us", "UTC") if self.words < self.kinds[str] * _MISTAKES else pa.string()
        if kind is list:
            return pa.list_((self.item or _Seen()).field("item"))
        if not 0 < len(self.fields) <= _MAX_KEYS:
            return None
        return pa.struct([seen.field(name) for name, seen in self.fields.items()])

    def _number(self) -> pa.DataType | None:
        if self.fractions:
            return pa.float64() if self.exact_as_double else None
        if self.least >= -(2**63) and self.most < 2**63:
            return pa.int64()
        return pa.uint64() if self.least >= 0 and self.most < 2**64 else None


def infer_schema(texts: pa.Array, options: JsonOptions) -> pa.Schema | None:
    """Return a schema that fits every message that is a JSON object without repeated keys; None if there is none."""
    root = _Seen()
    readable = False
    for text in texts.to_pylist():
        try:
            record = parse_object(text, options.max_depth)
            compact(record)
        except Refused:
            continue
        readable = True
        root.add(record)
    if not readable:
        return None
    return pa.schema([seen.field(name) for name, seen in root.fields.items() if name not in COORDINATES.names])
