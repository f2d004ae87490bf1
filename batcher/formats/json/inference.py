"""A schema that fits the readable records of a batch.

Every field is nullable. Integers become int64, or uint64 where they need to be; with fractions among them, double.
Strings become timestamps in UTC when they are ISO 8601 dates with a time: in microseconds, or in nanoseconds where
their digits need it and all of them fit. Otherwise they stay strings. Objects become structs, lists become lists. What
is only ever null has Arrow's null type, and so have the items of lists that are always empty. They get a type with
their first value (`first_values.py`). The column is JSON kept as text (`records.RAW_JSON`) where records contradict
each other (a number here, an object there), where a number has no type that holds it exactly, and for objects that are
always empty or have more than 256 different keys.

Values that are fewer than one in twenty of a field (a text among numbers, a word among dates) are taken for mistakes:
such records are dead letters and do not shape the schema.

Columns stand in the order in which the batch first shows them.

All records count. The first ones are looked at in Python, at some 25 us each. Of the others only those are looked at
that a decoder for the schema so far refuses, because the rest would change nothing. The first stand for those, so that
shares are right. Time is bounded: beyond the bound others from all over the batch stand for those not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from batcher.formats.json.limits import JsonOptions, Refused
from batcher.formats.json.spelling import folded
from batcher.formats.json.syntax import NumberText, Pairs, compact, parse_object
from batcher.formats.json.timestamps import exact, is_datetime, is_fine, of_text
from batcher.records import RAW_JSON

_MAX_KEYS: Final = 256
"""An object with more different keys than this is a dictionary, not a record."""


_MISTAKES: Final = 0.05
"""The share below which values of another kind are mistakes, not a second kind."""

_CLEARLY: Final = 0.2
"""The share of each kind of value that leaves no doubt that there are several."""

BUDGET_S: Final = 2.0
"""How long records are looked at beyond the first: about 50,000 of ten fields."""

_FIRST: Final = 2000
"""Records at the beginning that are looked at in any case, in their order."""

_PASSES: Final = 256
"""The number of parts into which the others are divided, each from all over the batch."""


class SeenValues:
    """Collect what one field was in the records so far. `insensitive`: names that differ by case are one field."""

    __slots__ = (
        "exact_as_double",
        "fields",
        "fine",
        "fits_nanoseconds",
        "fractions",
        "insensitive",
        "item",
        "kinds",
        "least",
        "most",
        "names",
        "words",
    )

    def __init__(self, *, insensitive: bool = False) -> None:
        self.insensitive = insensitive
        self.kinds: dict[type, float] = {}
        self.fields: dict[str, SeenValues] = {}
        self.names: dict[str, str] = {}
        self.item: SeenValues | None = None
        self.least = self.most = 0
        self.fractions = False
        self.exact_as_double = True
        self.words = 0.0
        """Strings that are no dates."""
        self.fine = False
        """A date has digits below the microsecond."""
        self.fits_nanoseconds = True

    def add(self, value: Any) -> None:
        if value is None:
            return
        kind = type(value)
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        if kind is NumberText:
            self._add_number(value)
        elif kind is str:
            self._add_text(value)
        elif kind is list:
            self.item = self.item or SeenValues(insensitive=self.insensitive)
            for one in value:
                self.item.add(one)
        elif kind is Pairs:
            for key, one in value.items:
                name = self.names.setdefault(folded(key), key) if self.insensitive else key
                if name not in self.fields:
                    self.fields[name] = SeenValues(insensitive=self.insensitive)
                self.fields[name].add(one)

    def stand_for(self, factor: float) -> None:
        """Let what was seen so far count for `factor` times as many records."""
        self.words *= factor
        self.kinds = {kind: count * factor for kind, count in self.kinds.items()}
        for inner in (*self.fields.values(), *((self.item,) if self.item is not None else ())):
            inner.stand_for(factor)

    def _add_text(self, value: str) -> None:
        if not is_datetime(value):
            self.words += 1
            return
        self.fine = self.fine or is_fine(value)
        self.fits_nanoseconds = self.fits_nanoseconds and of_text(value, "ns") is not None

    def _add_number(self, value: NumberText) -> None:
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
            return pa.null()
        usual = self._usual(_MISTAKES)
        if len(usual) > 1:
            return None
        (kind,) = usual
        if kind is bool:
            return pa.bool_()
        if kind is NumberText:
            return self._number()
        if kind is str:
            unit = "ns" if self.fine and self.fits_nanoseconds else "us"
            return pa.timestamp(unit, "UTC") if self.words < self.kinds[str] * _MISTAKES else pa.string()
        if kind is list:
            return pa.list_((self.item or SeenValues()).field("item"))
        if not 0 < len(self.fields) <= _MAX_KEYS:
            return None
        return pa.struct([seen.field(name) for name, seen in self.fields.items()])

    def settled(self) -> bool:
        """Return whether all that is JSON kept as text so far stays that, whatever records come."""
        usual = self._usual(_MISTAKES)
        if len(usual) != 1:
            return len(usual) == len(self._usual(_CLEARLY))
        if usual == [list]:
            return self.item is None or self.item.settled()
        if usual == [Pairs] and len(self.fields) <= _MAX_KEYS:
            return bool(self.fields) and all(seen.settled() for seen in self.fields.values())
        return True

    def _usual(self, share: float) -> list[type]:
        """Return the kinds that have this share of the values."""
        total = sum(self.kinds.values())
        return [kind for kind, count in self.kinds.items() if count >= total * share]

    def _number(self) -> pa.DataType | None:
        if self.fractions:
            return pa.float64() if self.exact_as_double else None
        if self.least >= -(2**63) and self.most < 2**63:
            return pa.int64()
        return pa.uint64() if self.least >= 0 and self.most < 2**64 else None


Misfits = Callable[[pa.Schema, pa.Array], Sequence[int] | None]
"""Return the rows of messages that a schema does not fit, or may not; None where that cannot be told quickly."""


def infer_schema(
    texts: pa.Array,
    options: JsonOptions,
    misfits: Misfits = lambda _schema, _texts: None,
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.monotonic,
) -> pa.Schema | None:
    """Return a schema that fits the messages that are JSON objects without repeated keys; None if none has a field."""
    root = SeenValues(insensitive=options.match == "insensitive")
    deadline = clock() + budget_s
    _look(root, texts, range(min(len(texts), _FIRST)), options)
    rest = texts.slice(_FIRST)
    if len(rest):
        settled = root.fields and all(seen.settled() for seen in root.fields.values())
        found = misfits(_schema_of(root), rest) if settled else None
        if found is not None:
            root.stand_for(1 + (len(rest) - len(found)) / _FIRST)
        rows = iter(found) if found is not None else _passes(len(rest))
        while some := list(islice(rows, _SAMPLED)):
            _look(root, rest, some, options)
            if root.fields and clock() > deadline:
                break
    return _schema_of(root) if root.fields else None


_SAMPLED: Final = 100
"""Records between two looks at the clock."""


def _look(root: SeenValues, texts: pa.Array, rows: Iterable[int], options: JsonOptions) -> None:
    for row in rows:
        try:
            record = parse_object(texts[row].as_py(), options.max_depth)
            compact(record)
        except Refused:
            continue
        root.add(record)


def _schema_of(root: SeenValues) -> pa.Schema:
    return pa.schema([seen.field(name) for name, seen in root.fields.items()])


def _passes(rows: int) -> Iterator[int]:
    """Return rows in passes over all of them."""
    for start in range(_PASSES):
        yield from range(start, rows, _PASSES)
