"""JSON columns: which documents the engine would store as something else, and what becomes of them.

Seen with 26.9 (`docs/clickhouse.md` lists it all). What can be told cheaply from the text is refused: numbers beyond 64
bits, which become text, and booleans beside other values in a list, which become numbers or text. A path with a type of
its own (`JSON(ts DateTime64(3))`) is worse, because the engine casts to it: 1.256 for a `Decimal(5, 2)` becomes 1.25,
1700000000000 for a time the year 9999, and what is missing 0. Such paths are looked at message by message, by the rules
for columns. Times are sent as seconds since 1970: as text they would be of the server's zone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Context, Decimal
from math import floor
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from clickhouse_connect.datatypes.base import TypeDef
from clickhouse_connect.datatypes.registry import parse_name

from sinks.clickhouse.faults import Faults

DAY_S: Final = 86_400
# 1900-01-01 and 2299-12-31: what ClickHouse documents for Date32 and DateTime64. It stores more and computes wrongly.
FIRST_DAY: Final = -25_567
LAST_DAY: Final = 120_529

_LONG_NUMBER: Final = r"[:\[,]-?\d{19,}"
_BOOLEAN_IN_LIST: Final = r"[\[,](?:true|false)[,\]]"

_TIME: Final = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[Tt ](?P<time>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d))?",
    re.ASCII,
)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

_MAGNITUDES: Final = ((10**11, 0), (10**14, 3), (10**17, 6), (10**20, 9))
"""Below, and the digits of the unit: as everywhere, the magnitude of a number tells its unit."""

_BOUNDS: Final = {
    **{f"Int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64, 128, 256)},
    **{f"UInt{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64, 128, 256)},
}


class Refusal(NamedTuple):
    """Say why a value cannot be stored as it is: a word for counting, and a message."""

    reason: str
    message: str


Check = Callable[[Any], Any]
"""Return the value of a path as it is sent, or a Refusal; numbers are `_Number`."""


class _Number(str):
    """Hold a number as it was written."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class JsonText:
    """Send JSON objects as text, except for those that the column would change. `typed` are paths with a type."""

    typed: Mapping[str, Check] = field(default_factory=dict)
    decoded: pa.DataType = field(default_factory=pa.string)

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        objects = pc.match_substring_regex(values, r"^\s*\{")
        faults.add(pc.invert(objects), "type", "is not a JSON object")
        suspects = pc.or_(
            pc.match_substring_regex(values, _LONG_NUMBER), pc.match_substring_regex(values, _BOOLEAN_IN_LIST)
        )
        rows = pc.fill_null(objects if self.typed else pc.and_(objects, suspects), False)
        sent: dict[int, str] = {}
        for row in pc.indices_nonzero(rows).to_pylist():
            document = json.loads(values[row].as_py(), parse_int=_Number, parse_float=_Number)
            refused = next(self._refusals(document), None)
            if refused is not None:
                path, refusal = refused
                faults.part(path).extend_into(faults, row, refusal.reason, refusal.message)
            elif self.typed:
                sent[row] = _text(document)
        if not sent:
            return values
        return pa.array([sent.get(row, text) for row, text in enumerate(values.to_pylist())], values.type)

    def _refusals(self, document: dict[str, Any]) -> Iterator[tuple[str, Refusal]]:
        """Yield what cannot be stored; put in place what is sent otherwise than it came."""
        for path, check in self.typed.items():
            owner, key = _place(document, path.split("."))
            found = check(None if owner is None else owner[key])
            if isinstance(found, Refusal):
                yield path, found
            elif owner is not None:
                owner[key] = found
        yield from _bent(document, "", self.typed)


def skipped(type_name: str) -> Sequence[str]:
    """Return the paths that a JSON column drops: `SKIP x`, `SKIP REGEXP '…'`."""
    _, _, definition = parse_name(type_name)
    return [str(value) for key, value in zip(definition.keys, definition.values, strict=True) if key == "SKIP"]


def json_text(definition: TypeDef) -> JsonText:
    """Return the codec of a JSON column; a typed path without a rule of its own is left to the engine."""
    typed: dict[str, Check] = {}
    for key, value in zip(definition.keys, definition.values, strict=True):
        if key != "SKIP" and not key.startswith("max_"):
            check = _check_for(str(value))
            if check is not None:
                typed[key.strip("`")] = check
    return JsonText(typed)


def _place(document: Any, steps: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """Return the object that has a path's value, and its key there; None where there is none.

    A key may hold dots itself: the engine takes `"a.b"` for the path of that name.
    """
    if isinstance(document, dict):
        for length in range(len(steps), 0, -1):
            key = ".".join(steps[:length])
            if key in document:
                return (document, key) if length == len(steps) else _place(document[key], steps[length:])
    return None, ""


def _text(value: Any) -> str:
    """Return a document as JSON, numbers as they were written."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join([f"{json.dumps(key, ensure_ascii=False)}:{_text(item)}" for key, item in value.items()])
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return value if type(value) is _Number else json.dumps(value, ensure_ascii=False)


def _bent(value: Any, path: str, typed: Mapping[str, Check]) -> Iterator[tuple[str, Refusal]]:
    if path in typed:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _bent(item, f"{path}.{key}" if path else key, typed)
    elif isinstance(value, list):
        kinds = {bool if isinstance(item, bool) else object for item in value if item is not None}
        if len(kinds) > 1:
            yield path, Refusal("mixed", "the list has booleans beside other values, which the column would change")
        for item in value:
            yield from _bent(item, path, typed)
    elif isinstance(value, _Number) and value.lstrip("-").isdigit() and not -(2**63) <= int(value) < 2**64:
        yield path, Refusal("overflow", "the integer has more than 64 bits, and the column would make text of it")


def _check_for(type_name: str) -> Check | None:
    base, _, definition = parse_name(type_name)
    check = _plain_check(base, type_name, definition)
    if check is None:
        return None
    return _optional(check) if "Nullable" in definition.wrappers else _required(check, type_name)


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _required(check: Check, type_name: str) -> Check:
    missing = Refusal("missing", f"has no value, and the path's type, {type_name}, cannot be null")
    return lambda value: missing if value is None else check(value)


def _plain_check(  # noqa: PLR0911 - one for each kind of type
    base: str, type_name: str, definition: TypeDef
) -> Check | None:
    if base in _BOUNDS:
        low, high = _BOUNDS[base]
        return _integer(low, high, type_name)
    if base.startswith("Float"):
        return _kind(_Number, "a number", type_name)
    if base.startswith("Decimal"):
        digits = {"Decimal32": 9, "Decimal64": 18, "Decimal128": 38, "Decimal256": 76}.get(base)
        precision, scale = (digits, definition.values[0]) if digits else definition.values[:2]
        return _decimal(int(precision), int(scale), type_name)
    if base in ("DateTime", "DateTime64"):
        scale = int(definition.values[0]) if base == "DateTime64" else 0
        low, high = (0, 2**32) if base == "DateTime" else (FIRST_DAY * DAY_S, (LAST_DAY + 1) * DAY_S)
        return _time(scale, low, high, type_name)
    if base in ("Date", "Date32"):
        low, high = (0, 2**16 - 1) if base == "Date" else (FIRST_DAY, LAST_DAY)
        return _date(low, high, type_name)
    if base == "Bool":
        return _kind(bool, "a boolean", type_name)
    if base in ("String", "FixedString", "UUID", "IPv4", "IPv6", "Enum8", "Enum16"):
        # What such a text may hold the engine checks itself, and refuses.
        return _kind(str, "a string", type_name)
    return None


def _kind(wanted: type, words: str, type_name: str) -> Check:
    refusal = Refusal("type", f"is not {words}; the path's type is {type_name}")
    return lambda value: value if type(value) is wanted else refusal


def _integer(low: int, high: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not _Number:
            return Refusal("type", f"is not a number; the path's type is {type_name}")
        if not value.lstrip("-").isdigit():
            return Refusal("precision", f"is not written as an integer; the path's type is {type_name}")
        if len(value) > _LONGEST or not low <= int(value) <= high:
            return Refusal("overflow", f"is outside the range of the path's type, {type_name}")
        return value

    return check


def _decimal(precision: int, scale: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is not _Number:
            return Refusal("type", f"is not a number; the path's type is {type_name}")
        number = _exact(value)
        if number is None or number.adjusted() >= precision - scale:
            return Refusal("overflow", f"is outside the range of the path's type, {type_name}")
        if number != number.quantize(Decimal(1).scaleb(-scale), context=_WIDE):
            return Refusal("precision", f"has more fraction digits than the path's type, {type_name}")
        return value

    return check


def _time(scale: int, low: int, high: int, type_name: str) -> Check:
    def check(value: Any) -> Any:
        ticks = _ticks(value, scale)
        if ticks is None:
            return Refusal("timestamp", f"is no time in ISO 8601 or number since 1970; the path's type is {type_name}")
        if not low * 10**scale <= ticks < high * 10**scale:
            return Refusal("range", f"is outside the range of the path's type, {type_name}")
        seconds, rest = divmod(abs(ticks), 10**scale)
        fraction = f".{rest:0{scale}}" if scale else ""
        if not seconds and ticks < 0:
            # Of the text -0.5 the engine loses the sign; a number this small loses nothing.
            return _Number(f"-0{fraction}")
        # Shorter than ten digits the engine takes it for the beginning of a date.
        return f"{'-' if ticks < 0 else ''}{seconds:0{1 if ticks < 0 else 10}}{fraction}"

    return check


def _ticks(value: Any, scale: int) -> int | None:
    """Return the time in parts of a second, cut to them; None where the value is no time."""
    if type(value) is _Number:
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
            return Refusal("timestamp", f"is no date of the form YYYY-MM-DD; the path's type is {type_name}")
        if not low <= day.toordinal() - date(1970, 1, 1).toordinal() <= high:
            return Refusal("range", f"is outside the range of the path's type, {type_name}")
        return value

    return check


def _exact(number: str) -> Decimal | None:
    """Return a number exactly; None for one that no type of a column could hold."""
    if len(number) > _LONGEST:
        return None
    found = Decimal(number)
    return found if -_LONGEST < found.adjusted() < _LONGEST else None


_LONGEST: Final = 100
_WIDE: Final = Context(prec=400)
