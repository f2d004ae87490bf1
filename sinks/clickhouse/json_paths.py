"""Paths of a JSON column that have a type of their own: what they hold exactly, and how it is sent.

The engine silently casts to such a type: 1.256 for a `Decimal(5, 2)` becomes 1.25, 1700000000000 for a time the year
9999, and what is missing 0. So these values are checked by the rules for columns, inside lists, tuples and maps too.
Times are sent as seconds since 1970, because as text they would be in the server's zone. Decimals are sent as text,
because as numbers they would pass through a double.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Context, Decimal
from math import floor, isinf
from typing import Any, Final

from clickhouse_connect.datatypes.base import TypeDef
from clickhouse_connect.datatypes.registry import parse_name

from sinks.clickhouse.faults import UnsupportedType
from sinks.clickhouse.json_values import JsonNumber, JsonRefusal, bent

DAY_S: Final = 86_400
# 1900-01-01 and 2299-12-31: what ClickHouse documents for Date32 and DateTime64. It stores more and computes wrongly.
FIRST_DAY: Final = -25_567
LAST_DAY: Final = 120_529

_TIME: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt ](?P<time>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d))?",
    re.ASCII,
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DECIMAL: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)

_MAGNITUDES: Final = ((10**11, 0), (10**14, 3), (10**17, 6), (10**20, 9))
"""The upper bound, and the digits of the unit: as everywhere, the magnitude of a number tells its unit."""

_BOUNDS: Final = {
    **{f"Int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64, 128, 256)},
    **{f"UInt{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64, 128, 256)},
}
_DIGITS: Final = {"Decimal32": 9, "Decimal64": 18, "Decimal128": 38, "Decimal256": 76}
_TEXTS: Final = frozenset({"String", "FixedString", "UUID", "IPv4", "IPv6", "Enum8", "Enum16"})
"""The engine itself checks what such a text may hold, and refuses the rest."""

_LONGEST: Final = 100
_WIDE: Final = Context(prec=400)

Check = Callable[[Any], Any]
"""Return the value of a path as it is sent, or a JsonRefusal; numbers are `JsonNumber`, and a missing value is None."""


def typed_paths(definition: TypeDef) -> Mapping[str, Check]:
    """Return the checks of a JSON type's paths; raise UnsupportedType for one whose values cannot be checked."""
    typed: dict[str, Check] = {}
    for key, value in zip(definition.keys, definition.values, strict=True):
        # The limits, as in max_dynamic_paths=8, have a number where a path has a type.
        if key != "SKIP" and not str(value).isdigit() and parse_name(str(value))[0] != "Dynamic":
            typed[key.strip("`")] = _check_for(str(value))
    return typed


def put(document: dict[str, Any], typed: Mapping[str, Check]) -> tuple[str, JsonRefusal] | None:
    """Put the values of typed paths in place as they are sent; return the first refused path, and why."""
    for path, check in typed.items():
        owner, key = _place(document, path.split("."))
        found = check(None if owner is None else owner[key])
        if isinstance(found, JsonRefusal):
            return path, found
        if owner is not None:
            owner[key] = found
    return None


def _place(document: Any, steps: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """Return the object that has a path's value, and the key there; None where there is none.

    A key may itself hold dots: the engine takes `"a.b"` for the path of that name.
    """
    if isinstance(document, dict):
        for length in range(len(steps), 0, -1):
            key = ".".join(steps[:length])
            if key in document:
                return (document, key) if length == len(steps) else _place(document[key], steps[length:])
    return None, ""


def _check_for(type_name: str) -> Check:
    base, _, definition = parse_name(type_name)
    check = _plain_check(base, type_name, definition)
    return _optional(check) if "Nullable" in definition.wrappers else _required(check, type_name)


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _required(check: Check, type_name: str) -> Check:
    missing = JsonRefusal("missing", f"has no value, and the type {type_name} cannot be null")
    return lambda value: missing if value is None else check(value)


def _plain_check(base: str, type_name: str, definition: TypeDef) -> Check:
    if base in _BOUNDS:
        return _integer(*_BOUNDS[base], type_name)
    if base.startswith("Decimal"):
        values = (_DIGITS[base], definition.values[0]) if base in _DIGITS else definition.values[:2]
        return _decimal(int(values[0]), int(values[1]), type_name)
    if base in _TEXTS:
        return _kind(str, "a string", type_name)
    made = _MADE.get(base)
    if made is None:
        raise UnsupportedType(f"values of type {type_name} cannot be made for a path")
    return made(type_name, definition)


def _kind(wanted: type, words: str, type_name: str) -> Check:
    refusal = JsonRefusal("type", f"is not {words}; the type is {type_name}")
    return lambda value: value if type(value) is wanted else refusal


def _integer(low: int, high: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not JsonNumber:
            return JsonRefusal("type", f"is not a number; the type is {type_name}")
        if not value.lstrip("-").isdigit():
            return JsonRefusal("precision", f"is not written as an integer; the type is {type_name}")
        if len(value) > _LONGEST or not low <= int(value) <= high:
            return JsonRefusal("overflow", f"is outside the range of {type_name}")
        return value

    return check


def _float(type_name: str, _: TypeDef) -> Check:
    single = parse_name(type_name)[0] == "Float32"

    def check(value: Any) -> Any:
        if type(value) is not JsonNumber:
            return JsonRefusal("type", f"is not a number; the type is {type_name}")
        try:
            near = float(value)
            near = struct.unpack("<f", struct.pack("<f", near))[0] if single else near
        except OverflowError:
            near = float("inf")
        if isinf(near):
            return JsonRefusal("overflow", f"is outside the range of {type_name}")
        if value.lstrip("-").isdigit() and int(near) != int(value):
            return JsonRefusal("precision", f"is an integer that {type_name} would round")
        return value

    return check


def _decimal(precision: int, scale: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) not in (JsonNumber, str) or not _DECIMAL.fullmatch(value):
            return JsonRefusal("type", f"is not a number; the type is {type_name}")
        number = _exact(value)
        if number is None or (number and number.adjusted() >= precision - scale):
            return JsonRefusal("overflow", f"is outside the range of {type_name}")
        held = number.quantize(Decimal(1).scaleb(-scale), context=_WIDE)
        if number != held:
            return JsonRefusal("precision", f"has more fraction digits than {type_name}")
        return f"{held:f}"

    return check


def _time(scale: int, low: int, high: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        ticks = _ticks(value, scale)
        if ticks is None:
            return JsonRefusal("timestamp", f"is no time in ISO 8601 or number since 1970; the type is {type_name}")
        if not low * 10**scale <= ticks < high * 10**scale:
            return JsonRefusal("range", f"is outside the range of {type_name}")
        seconds, rest = divmod(abs(ticks), 10**scale)
        fraction = f".{rest:0{scale}}" if scale else ""
        if not seconds and ticks < 0:
            # The engine loses the sign of the text -0.5; a number this small loses nothing.
            return JsonNumber(f"-0{fraction}")
        # With fewer than ten digits the engine takes it for the beginning of a date.
        return f"{'-' if ticks < 0 else ''}{seconds:0{1 if ticks < 0 else 10}}{fraction}"

    return check


def _ticks(value: Any, scale: int) -> int | None:
    """Return the time in parts of a second, cut to them; None where the value is no time."""
    if type(value) is JsonNumber:
        number = _exact(value)
        digits = next((digits for limit, digits in _MAGNITUDES if number is not None and abs(number) < limit), None)
        return None if number is None or digits is None else floor(number.scaleb(scale - digits, _WIDE))
    found = _TIME.fullmatch(value) if type(value) is str else None
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{found['time']}+00:00")
    except ValueError:
        return None
    east = 60 * (60 * int(found["hours"]) + int(found["minutes"])) if found["sign"] else 0
    seconds = int(moment.timestamp()) - (-east if found["sign"] == "-" else east)
    return seconds * int(10**scale) + int(((found["fraction"] or "") + "0" * scale)[:scale] or 0)


def _date(low: int, high: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        try:
            day = date.fromisoformat(value) if type(value) is str and _DATE.fullmatch(value) else None
        except ValueError:
            day = None
        if day is None:
            return JsonRefusal("timestamp", f"is no date of the form YYYY-MM-DD; the type is {type_name}")
        if not low <= day.toordinal() - date(1970, 1, 1).toordinal() <= high:
            return JsonRefusal("range", f"is outside the range of {type_name}")
        return value

    return check


def _list(type_name: str, definition: TypeDef) -> Check:
    return _items(_check_for(str(definition.values[0])), type_name)


def _items(element: Check, type_name: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not list:
            return JsonRefusal("type", f"is not a list; the type is {type_name}")
        sent = [element(item) for item in value]
        return _refused(sent) or sent

    return check


def _map(type_name: str, definition: TypeDef) -> Check:
    if parse_name(str(definition.values[0]))[0] != "String":
        raise UnsupportedType(f"values of type {type_name} cannot be made for a path")
    element = _check_for(str(definition.values[1]))

    def check(value: Any) -> Any:
        if type(value) is not dict:
            return JsonRefusal("type", f"is not an object; the type is {type_name}")
        sent = {key: element(item) for key, item in value.items()}
        return _refused(sent.values()) or sent

    return check


def _tuple(type_name: str, definition: TypeDef) -> Check:
    parts = [_check_for(str(text)) for text in definition.values]
    names = [str(key).strip("`") for key in definition.keys]
    numbers = [str(number + 1) for number in range(len(parts))]

    def check(value: Any) -> Any:
        # As in a column, the parts of a tuple without names are called 1, 2 and so on; a list has them in order.
        if not names and type(value) is list and len(value) == len(parts):
            value = dict(zip(numbers, value, strict=True))
        if type(value) is not dict:
            return JsonRefusal("type", f"is not an object; the type is {type_name}")
        if not value.keys() <= set(names or numbers):
            return JsonRefusal("unknown", f"has a field that {type_name} has no place for")
        sent = {name: part(value.get(name)) for name, part in zip(names or numbers, parts, strict=True)}
        return _refused(sent.values()) or sent

    return check


def _nested(type_name: str, definition: TypeDef) -> Check:
    return _items(_tuple(type_name, definition), type_name)


def _object(type_name: str, definition: TypeDef) -> Check:
    typed = typed_paths(definition)

    def check(value: Any) -> Any:
        if type(value) is not dict:
            return JsonRefusal("type", f"is not an object; the type is {type_name}")
        refused = next(bent(value, apart=typed), None) or put(value, typed)
        return value if refused is None else JsonRefusal(refused[1].reason, f"{refused[0]} {refused[1].message}")

    return check


def _refused(values: Iterable[Any]) -> JsonRefusal | None:
    return next((value for value in values if isinstance(value, JsonRefusal)), None)


def _exact(number: str) -> Decimal | None:
    """Return a number exactly; None for one that no type of a column could hold."""
    if len(number) > _LONGEST:
        return None
    found = Decimal(number)
    return found if -_LONGEST < found.adjusted() < _LONGEST else None


_MADE: Final[Mapping[str, Callable[[str, TypeDef], Check]]] = {
    "Float32": _float,
    "Float64": _float,
    "Bool": lambda name, _: _kind(bool, "a boolean", name),
    "Date": lambda name, _: _date(0, 2**16 - 1, name),
    "Date32": lambda name, _: _date(FIRST_DAY, LAST_DAY, name),
    "DateTime": lambda name, _: _time(0, 0, 2**32, name),
    "DateTime64": lambda name, definition: _time(
        int(definition.values[0]), FIRST_DAY * DAY_S, (LAST_DAY + 1) * DAY_S, name
    ),
    "Array": _list,
    "Map": _map,
    "Tuple": _tuple,
    "Nested": _nested,
    "JSON": _object,
}
"""How the checks of types that have neither bounds nor digits are made."""
