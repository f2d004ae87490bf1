"""One record at a time, exactly: the slow path, and the only place that refuses a record.

A record is checked against the schema field by field and rewritten so that Arrow's reader can take it as it is:
only known fields, timestamps and dates as integers, maps as lists of `k` and `v`, JSON kept as text as a string.
It accepts everything that the fast path accepts, with the same values. What the fast path cannot settle comes here, so
the outcome of a record never depends on its neighbours.

The rules, also those of the fast path:

* Integers: a number that is exactly an integer in range (`5`, `5.0`, `5e0`); no text.
* Floats: fractions are rounded to the nearest, as everywhere; an integer written without fraction or exponent has to be
  exact (2^53 + 1 is refused); beyond the type's range is refused; NaN and Infinity are not JSON.
* Decimals: a number or a text with a number, exact in precision and scale.
* Text and binary: a string (binary gets its UTF-8 bytes); with `--decode.text` anything else as its compact JSON text,
  numbers as they were written. Booleans: `true`, `false`. Dates: `YYYY-MM-DD`.
* Timestamps: see `timestamps.py`. Maps: an object; structs: an object; lists: a list.
* `null` and a missing field are the same, and refused where the column is not nullable.
* A key that is a column (or of a map) and occurs twice in its object is refused, as is one in JSON kept as text. What
  is inside ignored fields only has to be JSON.

It is long because the rules of all types are one table of functions that call each other.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from batcher.formats.json import timestamps
from batcher.formats.json.limits import JsonOptions, Refused, shown
from batcher.formats.json.per_column import holds_text, plain
from batcher.formats.json.shape import inner_path, integer_bounds, is_raw, is_text, item_path
from batcher.formats.json.spelling import folded
from batcher.formats.json.syntax import NumberText, Pairs, compact, kind, parse_object, quote
from batcher.formats.json.times import Times
from batcher.formats.json.type_names import type_name

Check = Callable[[Any], str]
"""Turn a parsed value into its rewritten text, or raise Refused."""

# Half a step beyond the greatest finite value: from here on, rounding to nearest gives infinity.
_FLOAT_LIMITS: Final = {pa.float32(): Decimal(2**128 - 2**103), pa.float64(): Decimal(2**1024 - 2**970)}

_BIG_EXPONENT: Final = re.compile(r"[eE]\+?\d{3}")

_SHORT: Final = 19
"""A text of fewer digits is below 2^63."""


@dataclass(slots=True)
class Marks:
    """Say what was met since the last reset, in the records that passed."""

    unknown: bool = False
    """A value in a field that no column takes."""
    untyped: bool = False
    """A value in a column without a type."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """Hold what is the same for all fields of a schema."""

    reject_unknown: bool
    insensitive: bool
    texts: frozenset[str]
    """The paths of the text columns that take any JSON value."""
    times: Times
    marks: Marks


class StrictReader:
    """Check records of one schema, one by one."""

    def __init__(self, schema: pa.Schema, options: JsonOptions, texts: frozenset[str], times: Times) -> None:
        self._max_depth = options.max_depth
        self.met = Marks()
        self._record = Marks()
        rules = _Rules(
            options.on_unknown in ("reject", "halt"), options.match == "insensitive", texts, times, self._record
        )
        self._root = _object(schema, "", rules)

    def rewrite(self, raw: bytes) -> bytes:
        """Return the record as Arrow reads it with `shape.rewritten_schema`; raise Refused with the reason."""
        self._record.unknown = self._record.untyped = False
        rewritten = self._root(parse_object(raw, self._max_depth)).encode()
        self.met.unknown |= self._record.unknown
        self.met.untyped |= self._record.untyped
        return rewritten


def _field(field: pa.Field, path: str, rules: _Rules) -> Check:
    check = _raw(path) if is_raw(field) else _type(field, path, rules)

    def nullable(value: Any) -> str:
        return "null" if value is None else check(value)

    def required(value: Any) -> str:
        if value is None:
            raise Refused("null", f"{_REQUIRED}; the record has null", path)
        return check(value)

    return nullable if field.nullable else required


_REQUIRED: Final = "the column needs a value (it is not nullable)"


def _type(field: pa.Field, path: str, rules: _Rules) -> Check:  # noqa: C901, PLR0911 - one for each kind of type
    to = field.type
    if pa.types.is_struct(to):
        return _object(to, path, rules)
    if pa.types.is_list(to):
        return _list(_field(to.value_field, item_path(path), rules), path)
    if pa.types.is_map(to):
        return _map(_field(to.item_field, item_path(path), rules), path)
    if pa.types.is_null(to):
        return _untyped(path, rules.marks)
    name = type_name(field)
    if integer_bounds(to) is not None:
        return _integer(to, name, path)
    if pa.types.is_floating(to):
        return _float(to, name, path)
    if pa.types.is_decimal(to):
        return _decimal(to, name, path)
    if pa.types.is_timestamp(to):
        return _timestamp(to.unit, name, path, rules.times)
    if pa.types.is_date(to):
        return _date(path)
    if is_text(to):
        return _any_text(path) if path in rules.texts else _text(field, name, path)
    return _boolean(path)


def _object(fields: Iterable[pa.Field], path: str, rules: _Rules) -> Check:
    fields = list(fields)
    checks = {
        field.name: (f"{quote(field.name)}:", _field(field, inner_path(path, field.name), rules)) for field in fields
    }
    required = [field.name for field in fields if not field.nullable]
    spelled = {folded(field.name): field.name for field in fields} if rules.insensitive else {}

    def meant(key: str, value: Pairs) -> str:
        """Return the column for a key of another spelling; the key itself where its own spelling is there as well."""
        name = spelled.get(folded(key), key)
        return key if any(other == name for other, _ in value.items) else name

    def check(value: Any) -> str:
        if type(value) is not Pairs:
            raise _wrong("an object", value, path)
        parts: dict[str, str] = {}
        for key, item in value.items:
            name = meant(key, value) if spelled and key not in checks else key
            known = checks.get(name)
            if known is None:
                if rules.reject_unknown:
                    raise Refused("unknown_field", "is no column (--decode.on-unknown)", inner_path(path, shown(key)))
                rules.marks.unknown |= item is not None
                continue
            if name in parts:
                raise Refused("duplicate", "occurs twice in one object", inner_path(path, name))
            parts[name] = known[0] + known[1](item)
        for name in required:
            if name not in parts:
                raise Refused("missing", f"{_REQUIRED}; the record has no such field", inner_path(path, name))
        return "{" + ",".join(parts.values()) + "}"

    return check


def _untyped(path: str, marks: Marks) -> Check:
    as_json = _raw(path)

    def check(value: Any) -> str:
        # A value that any type would refuse (a key that occurs twice) gives it no type.
        as_json(value)
        marks.untyped = True
        return "null"

    return check


def _list(item: Check, path: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is not list:
            raise _wrong("a list", value, path)
        return "[" + ",".join([item(one) for one in value]) + "]"

    return check


def _map(item: Check, path: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is not Pairs:
            raise _wrong("an object", value, path)
        if len({key for key, _ in value.items}) < len(value.items):
            raise Refused("duplicate", "a key occurs twice in one object", path)
        return "[" + ",".join([f'{{"k":{quote(key)},"v":{item(one)}}}' for key, one in value.items]) + "]"

    return check


def _integer(to: pa.DataType, name: str, path: str) -> Check:
    bounds = integer_bounds(to)
    assert bounds is not None
    low, high = bounds

    def check(value: Any) -> str:
        if type(value) is not NumberText:
            raise _wrong("a number", value, path, name)
        if len(value) < _SHORT and value.isdigit() and int(value) <= high:
            return value
        number = timestamps.exact(value)
        if not number:
            return "0"
        if not low <= number <= high:
            raise Refused("overflow", f"the number is outside the range of the column's type, {name}", path)
        # The range is checked first: the integer of 1e999999999 would fill the memory.
        if number != int(number):
            raise Refused("precision", f"the number has a fraction; the column's type, {name}, has none", path)
        return str(int(number))

    return check


def _float(to: pa.DataType, name: str, path: str) -> Check:
    limit = _FLOAT_LIMITS[to]
    single = to == pa.float32()
    always = 7 if single else 15  # this many digits are exact, and far from any limit

    def check(value: Any) -> str:
        if type(value) is not NumberText:
            raise _wrong("a number", value, path, name)
        if len(value) <= always and "e" not in value and "E" not in value:
            return value
        number = timestamps.exact(value)
        if number.copy_abs() >= limit:
            raise Refused("overflow", f"the number is outside the range of the column's type, {name}", path)
        if value.lstrip("-").isdigit() and int(value) != (_single(int(value)) if single else int(float(value))):
            raise Refused(
                "precision",
                f"the column's type, {name}, cannot hold this integer exactly; an integer or a decimal can",
                path,
            )
        # Arrow's reader refuses some exponents above 308 even where the value is small.
        return repr(float(value)) if _BIG_EXPONENT.search(value) else value

    return check


def _single(number: int) -> int:
    """Return the value of the integer as a 32-bit float."""
    try:
        return int(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return -number


def _decimal(to: pa.DataType, name: str, path: str) -> Check:
    def check(value: Any) -> str:
        if type(value) not in (NumberText, str):
            raise _wrong("a number", value, path, name)
        number = timestamps.decimal(value)
        if number is None:
            raise Refused("type", f"the text is no number; the column's type is {name}", path)
        if not number:
            return "0"
        sign, digits, exponent = number.as_tuple()
        assert isinstance(exponent, int)
        while digits[-1] == 0:
            digits, exponent = digits[:-1], exponent + 1
        if number.adjusted() >= to.precision - to.scale:
            raise Refused("overflow", f"the number is outside the range of the column's type, {name}", path)
        if -exponent > to.scale:
            raise Refused("precision", f"the number has more fraction digits than the column's type, {name}", path)
        text = "".join(map(str, digits)) + "0" * (exponent + to.scale)
        return f'"{"-" if sign else ""}{text}E{-to.scale}"'

    return check


def _timestamp(unit: str, name: str, path: str, times: Times) -> Check:
    def check(value: Any) -> str:
        if type(value) is NumberText:
            point = times.of_number(path, value, unit)
        elif type(value) is str:
            point = times.of_text(path, value, unit)
        else:
            raise _wrong("text in ISO 8601 or a number since 1970", value, path, name)
        if point is None:
            if times.refuses_numbers(path) and timestamps.decimal(value) is not None:
                raise Refused("timestamp", no_unit(path), path)
            raise Refused("timestamp", _no_time(value, name), path)
        return str(point)

    return check


def no_unit(path: str) -> str:
    """Return why a number is refused in a timestamp column of which no unit was stated."""
    return f"nothing says what the number counts; state it: --decode.epoch {plain(path)}=ms (or s, us, ns)"


def _no_time(value: str, name: str) -> str:
    if type(value) is NumberText:
        return f"the number is no time that the column's type, {name}, can hold"
    if timestamps.is_compact(value):
        return "the text may be a date without separators or a number; write YYYY-MM-DD, or set --decode.epoch"
    return f"the text is no time in ISO 8601 or number since 1970 that the column's type, {name}, can hold"


def _date(path: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is not str:
            raise _wrong("a text of the form YYYY-MM-DD for a date", value, path)
        day = timestamps.of_date(value)
        if day is None:
            raise Refused(
                "timestamp", "is no date of the form YYYY-MM-DD; a time of day needs a timestamp column", path
            )
        return str(day)

    return check


def _text(field: pa.Field, name: str, path: str) -> Check:
    advice = f"--decode.text {plain(path)} takes any value" if holds_text(field) else f"the column's type is {name}"

    def check(value: Any) -> str:
        if type(value) is not str:
            raise Refused("type", f"expected a string, found {kind(value)}; {advice}", path)
        return quote(value)

    return check


def _any_text(path: str) -> Check:
    as_json = _raw(path)

    def check(value: Any) -> str:
        return quote(value) if type(value) is str else as_json(value)

    return check


def _boolean(path: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is not bool:
            raise _wrong("a boolean", value, path)
        return "true" if value else "false"

    return check


def _raw(path: str) -> Check:
    def check(value: Any) -> str:
        try:
            return quote(compact(value))
        except Refused as refused:
            raise Refused(refused.reason, str(refused), path) from refused

    return check


def _wrong(wanted: str, value: Any, path: str, name: str = "") -> Refused:
    """Return the refusal of a value of another kind; `name` is that of the column's type where `wanted` is not."""
    of = f"; the column's type is {name}" if name else ""
    return Refused("type", f"expected {wanted}, found {kind(value)}{of}", path or None)
