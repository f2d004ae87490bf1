"""Points in time from JSON: the rules, for one value and for a column.

Text is ISO 8601: `YYYY-MM-DD`, then optionally `T` or a space and `hh`, `hh:mm` or `hh:mm:ss` with any number of
fraction digits, then optionally `Z`, `+hh`, `+hhmm` or `+hh:mm`. Without a zone it is UTC, whatever zone the column
has. Leap seconds and hour 24 are refused.

Numbers, and text that holds nothing but a number, count from 1970-01-01 UTC, in the unit that is set for the column.
Where none is set (`auto`), the magnitude tells it: below 10^11 seconds, below 10^14 milliseconds, below 10^17
microseconds, below 10^20 nanoseconds. So each unit covers 1973-03-03 to the year 5138 on either side of 1970; what lies
closer to 1970 can only be given in seconds. A text of digits that is a year or a date without separators (`2026`,
`20260131`) is then no number, and is refused.

What is finer than the column's unit is floored. This is the one loss that is allowed: nanosecond text into millisecond
columns is common, and refusing it would dead-letter whole topics.

It is long because the rules stand here twice, for one value and for a column, and have to be read side by side.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import date
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json.limits import Epoch

DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Decimal digits of each unit below the second."""

MAGNITUDES: Final = ((0, 10**11, 0), (10**11, 10**14, 3), (10**14, 10**17, 6), (10**17, 10**20, 9))
"""From (included), to (excluded), digits of the unit. What is greater is no point in time."""

NUMBER: Final = pa.decimal128(38, 9)
"""How a column of epoch numbers is read: exact, integers and fractions alike, as fast as a double."""

_GREAT: Final = 10**28
"""Beyond this a number is no point in time in any unit, and its floor may have 39 digits: Arrow 26 then makes it 0, and
says nothing when other rows stand beside it."""

_PIECE: Final = 256
_PIECES: Final = 8 * _PIECE
"""Values that are converted together once more of them have failed, and once the whole column has."""

_INT64: Final = 2**63
_EXACT: Final = Context(prec=1000)

_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:([Tt ])(\d\d)(?::(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?)?)?",
    re.ASCII,
)
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_DECIMAL: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)

_COMPACT: Final = re.compile(r"(?:19|20)\d\d(?:(\d\d)(\d\d)(?:\d{4}|\d{6}|\d{9})?)?", re.ASCII)
"""A year, a date, or a date and a time, without separators."""

_COMPACT_RANGES: Final = (
    (1900, 2099),
    *((19000101 * 10**digits, 20991232 * 10**digits - 1) for digits in (0, 4, 6, 9)),
)
"""Where the numbers lie that such texts would be."""

_FORM: Final = r"^\d{4}-\d\d-\d\d(?:[T ]\d\d(?::\d\d){0,2}(?:\.\d{1,9})?(?:Z|[+-]\d\d(?::?\d\d)?)?)?$"
"""What Arrow may be able to cast; everything else is settled one by one."""

PLAIN: Final = r"^-?\d{1,28}(?:\.\d{1,9})?$"
"""A text with nothing but a number that `NUMBER` holds exactly."""

_ZONED: Final = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"


def decimal(text: str) -> Decimal | None:
    """Return a number written in decimal, exactly; None when it is not one."""
    return exact(text) if _DECIMAL.fullmatch(text) else None


def exact(number: str) -> Decimal:
    """Return a well-formed number exactly, except for exponents beyond any type: those end at 10^9.

    Compare the result, or use `copy_abs`; arithmetic would round it to the context's 28 digits.
    """
    mantissa, mark, exponent = number.lower().partition("e")
    digits = exponent.lstrip("+-0")
    if not mark or len(digits) < 10:
        return Decimal(f"{mantissa}e{'-' if '-' in exponent else ''}{digits or 0}")
    return Decimal(f"{mantissa}e{'-' if exponent[0] == '-' else ''}999999999")


def magnitude(value: Decimal) -> int | None:
    """Return the digits below the second of the unit that a number's size tells; None when it is too great."""
    # `copy_abs` and comparisons are exact; `abs` would round.
    size = value.copy_abs()
    return next((digits for low, high, digits in MAGNITUDES if low <= size < high), None)


def of_number(value: Decimal, unit: str, epoch: Epoch = "auto") -> int | None:
    """Return the point in time that a number of `epoch` means, in `unit`; None when it does not fit 64 bits."""
    if not value:
        return 0
    if value.adjusted() > 28 or len(value.as_tuple().digits) > 900:
        return None
    if value.adjusted() < -30:
        return -1 if value < 0 else 0
    digits = magnitude(value) if epoch == "auto" else DIGITS[epoch]
    if digits is None:
        return None
    scaled = value.scaleb(DIGITS[unit] - digits, _EXACT)
    return _in_range(int(scaled.to_integral_value(ROUND_FLOOR, _EXACT)))


def is_compact(text: str) -> bool:
    """Return whether a text of digits can be a year or a date without separators as well as a number."""
    match = _COMPACT.fullmatch(text)
    return match is not None and (match[1] is None or _days(text[:4], match[1], match[2]) is not None)


def of_text(text: str, unit: str, epoch: Epoch = "auto") -> int | None:
    """Return the point in time that a text means, in `unit`; None when it is none or does not fit 64 bits."""
    match = _ISO.fullmatch(text)
    if match is None:
        number = decimal(text)
        if number is None or (epoch == "auto" and is_compact(text)):
            return None
        return of_number(number, unit, epoch)
    days = _days(match[1], match[2], match[3])
    hour, minute, second = (int(part or 0) for part in match.group(5, 6, 7))
    zone_hours, zone_minutes = int(match[10] or 0), int(match[11] or 0)
    if days is None or hour > 23 or minute > 59 or second > 59 or zone_hours > 23 or zone_minutes > 59:
        return None
    east = (zone_hours * 60 + zone_minutes) * (-60 if match[9] == "-" else 60)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - east
    digits = DIGITS[unit]
    # Cutting the digits is flooring also before 1970: they count forward from the whole second.
    fraction = int(((match[8] or "") + "0" * digits)[:digits] or 0)
    return _in_range(seconds * 10**digits + fraction)


def has_more_digits(value: Decimal, digits: int) -> bool:
    """Return whether a number has more than `digits` decimal digits; a negative count means zeros before the point."""
    _, mantissa, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    # Most numbers are shorter than their column is fine.
    return -exponent > digits and any(mantissa[max(0, len(mantissa) + exponent + digits) :])


def is_cut(text: str, unit: str) -> bool:
    """Return whether a text in ISO 8601 has a fraction that is finer than the unit."""
    match = _ISO.fullmatch(text)
    return match is not None and bool((match[8] or "")[DIGITS[unit] :].strip("0"))


def is_datetime(text: str) -> bool:
    """Return whether a text is an ISO 8601 date with a time that fits microseconds: a timestamp to inference."""
    match = _ISO.fullmatch(text)
    return match is not None and match[4] is not None and of_text(text, "us") is not None


def is_fine(text: str) -> bool:
    """Return whether an ISO 8601 text has a digit below the microsecond that is not zero."""
    match = _ISO.fullmatch(text)
    return match is not None and len((match[8] or "").rstrip("0")) > DIGITS["us"]


def of_date(text: str) -> int | None:
    """Return the days from 1970-01-01 to an ISO 8601 date; None when the text is none."""
    match = _DATE.fullmatch(text)
    return None if match is None else _days(match[1], match[2], match[3])


def _days(year: str, month: str, day: str) -> int | None:
    try:
        if year == "0000":
            # Python has no year 0; the calendar repeats after 400 years, which are 146,097 days.
            return date(400, int(month), int(day)).toordinal() - 146_097 - 719_163
        return date(int(year), int(month), int(day)).toordinal() - 719_163
    except ValueError:
        return None


def _in_range(value: int) -> int | None:
    return value if -_INT64 <= value < _INT64 else None


def column_of_text(texts: pa.Array, to: pa.TimestampType) -> tuple[pa.Array, list[int]]:
    """Return a column of `to` and the rows it could not settle, which are null there.

    A failed cast is slow: Arrow goes on to the end and words an error for each row. So a look at a few rows says which
    reading to try.
    """
    fitting = _fitting(texts.drop_null() if texts.null_count else texts, to)
    if fitting:
        with contextlib.suppress(pa.ArrowInvalid):
            return _first(texts, fitting, to), []
        # A few that are no times at all would cost a failed cast of each piece that they are in.
        formed = pc.fill_null(pc.match_substring_regex(texts, _FORM), True)
        odd = _rows(pc.invert(formed))
        if odd:
            column, left = column_of_text(pc.if_else(formed, texts, pa.scalar(None, texts.type)), to)
            return column, odd + left
        with contextlib.suppress(pa.ArrowInvalid):
            return piecewise(
                texts,
                lambda part: _first(part, fitting, to),
                failures=len(texts) // 64 + 16,
                settle=lambda part: _by_form(part, to),
            )
    return _by_form(texts, to)


def _by_form(texts: pa.Array, to: pa.TimestampType) -> tuple[pa.Array, list[int]]:
    """Return a column of texts, each read in the form that a look at it tells, and the rows left null."""
    iso = pc.fill_null(pc.match_substring_regex(texts, _FORM), True)
    zoned = pc.and_(iso, pc.fill_null(pc.match_substring_regex(texts, _ZONED), False))
    nothing = pa.scalar(None, texts.type)
    aware, aware_bad = piecewise(pc.if_else(zoned, texts, nothing), lambda part: _first(part, _ZONE_GIVEN, to))
    naive = pc.and_not(iso, zoned)
    local, local_bad = piecewise(pc.if_else(naive, texts, nothing), lambda part: _first(part, _ZONE_LEFT_OUT, to))
    return pc.coalesce(aware, local), _rows(pc.invert(iso)) + aware_bad + local_bad


_Reading = tuple[str | None, bool]
"""How to cast text: the zone that Arrow has to expect or not, and whether fractions may be finer than the unit.

Nanoseconds end in the year 2262, so neither of the two covers the other.
"""

_ZONE_GIVEN: Final[list[_Reading]] = [("UTC", True), ("UTC", False)]
_ZONE_LEFT_OUT: Final[list[_Reading]] = [(None, True), (None, False)]
_READINGS: Final[list[_Reading]] = [("UTC", False), (None, False), ("UTC", True), (None, True)]


def _cast(texts: pa.Array, reading: _Reading, to: pa.TimestampType) -> pa.Array:
    zone, finer = reading
    if not finer:
        return texts.cast(pa.timestamp(to.unit, zone)).view(pa.int64()).view(to)
    return _floored(texts.cast(pa.timestamp("ns", zone)).view(pa.int64()), 10 ** (9 - DIGITS[to.unit])).view(to)


def _first(texts: pa.Array, readings: list[_Reading], to: pa.TimestampType) -> pa.Array:
    """Return the column by the first reading that fits all of it; raise ArrowInvalid if none does."""
    for reading in readings:
        with contextlib.suppress(pa.ArrowInvalid):
            return _cast(texts, reading, to)
    raise pa.ArrowInvalid("not all of one form")


def _fitting(texts: pa.Array, to: pa.TimestampType) -> list[_Reading]:
    """Return at most two readings that fit some rows in the column, from where there is no fault."""
    for part in range(4):
        sample = texts.slice(part * len(texts) // 4, 8)
        fitting = [reading for reading in _READINGS if _fits(sample, reading, to)]
        if fitting:
            return fitting[:2]
    return []


def _fits(texts: pa.Array, reading: _Reading, to: pa.TimestampType) -> bool:
    try:
        _cast(texts, reading, to)
    except pa.ArrowInvalid:
        return False
    return True


def piecewise(
    values: pa.Array,
    convert: Callable[[pa.Array], pa.Array],
    *,
    failures: int | None = None,
    settle: Callable[[pa.Array], tuple[pa.Array, list[int]]] | None = None,
) -> tuple[pa.Array, list[int]]:
    """Convert what can be converted, by halving around what cannot; return the column and the rows left null in it.

    Instead of halving, `settle` converts a small piece, where given. Raise ArrowInvalid when more attempts than
    `failures` have failed.
    """
    done: list[pa.Array] = []
    bad: list[int] = []
    todo = [(0, len(values))]
    while todo:
        start, length = todo.pop()
        try:
            done.append(convert(values.slice(start, length)))
        except pa.ArrowInvalid:
            if failures is not None:
                failures -= 1
                if failures < 0:
                    raise
            if settle is not None and length <= _PIECE:
                part, left = settle(values.slice(start, length))
                done.append(part)
                bad += [start + row for row in left]
            elif length == 1:
                bad.append(start)
                done.append(pa.nulls(1, convert(values.slice(0, 0)).type))
            else:
                # The first cuts make many pieces: whole columns that fail again and again are what costs.
                step = _PIECES if length > _PIECES else _PIECE if length > _PIECE else (length + 1) // 2
                todo += [(at, min(step, start + length - at)) for at in range(start, start + length, step)][::-1]
    return (pa.concat_arrays(done) if done else convert(values)), bad


def column_of_numbers(numbers: pa.Array, to: pa.TimestampType, epoch: Epoch = "auto") -> tuple[pa.Array, list[int]]:
    """Return a column of `to` from a column of `NUMBER`, and the rows that it could not settle."""
    magnitudes = pc.abs(numbers)
    span = pc.min_max(magnitudes).as_py()
    if span["min"] is None:
        return pa.nulls(len(numbers), to), []
    if epoch != "auto":
        if span["max"] < _GREAT:
            return _shifted(numbers, DIGITS[epoch], to)
        great = pc.greater_equal(magnitudes, scalar(_GREAT))
        column, open_rows = _shifted(pc.if_else(great, pa.scalar(None, NUMBER), numbers), DIGITS[epoch], to)
        return column, open_rows + _rows(great)
    bad = set(_compact_rows(magnitudes, span["min"], span["max"]))
    for low, high, digits in MAGNITUDES:
        if low <= span["min"] and span["max"] < high:
            column, open_rows = _shifted(numbers, digits, to)
            return column, sorted(bad.union(open_rows))
    whole = pa.nulls(len(numbers), to)
    bad.update(_rows(pc.greater_equal(magnitudes, scalar(MAGNITUDES[-1][1]))))
    for low, high, digits in MAGNITUDES:
        inside = pc.and_(pc.greater_equal(magnitudes, scalar(low)), pc.less(magnitudes, scalar(high)))
        if not pc.any(inside).as_py():
            continue
        part, part_bad = _shifted(pc.if_else(inside, numbers, pa.scalar(None, NUMBER)), digits, to)
        whole = pc.coalesce(whole, part)
        bad.update(part_bad)
    return whole, sorted(bad)


def _compact_rows(magnitudes: pa.Array, least: Decimal, most: Decimal) -> list[int]:
    """Return the rows whose number was perhaps a text without separators: Arrow takes both for a decimal."""
    rows: list[int] = []
    for low, high in _COMPACT_RANGES:
        if least <= high and low <= most:
            inside = pc.and_(pc.greater_equal(magnitudes, scalar(low)), pc.less_equal(magnitudes, scalar(high)))
            rows += _rows(inside)
    return rows


def _shifted(numbers: pa.Array, digits: int, to: pa.TimestampType) -> tuple[pa.Array, list[int]]:
    """Move the decimal point from a unit to another by reading the same 128 bits with another scale."""
    scale = NUMBER.scale - (DIGITS[to.unit] - digits)
    numbers = pa.concat_arrays([numbers]) if numbers.offset else numbers
    moved = pa.Array.from_buffers(pa.decimal128(38, scale), len(numbers), numbers.buffers(), numbers.null_count)
    whole = pc.floor(moved)
    return piecewise(whole, lambda part: part.cast(pa.int64()).view(to))


def scalar(value: int) -> Any:
    """Return a number as `NUMBER`, to compare a column with."""
    return pa.scalar(Decimal(value), NUMBER)


def _floored(values: pa.Array, by: int) -> pa.Array:
    if by == 1:
        return values
    quotient = pc.divide(values, by)
    # Arrow divides towards zero.
    return pc.subtract(quotient, pc.greater(pc.multiply(quotient, by), values).cast(pa.int64()))


def _rows(mask: pa.Array) -> list[int]:
    return pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()  # type: ignore[no-any-return]
