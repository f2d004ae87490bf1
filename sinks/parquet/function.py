"""The values of directories: of a column itself, or of a function of it, for whole columns.

The functions are Iceberg's partition transforms (table specification, "Partition Transforms"), so that a directory says
what a partition of a lake table would. A value depends on its own row and nothing else.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc

from sinks.parquet import murmur
from sinks.parquet.directory import DirectoryRule

PER_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_DAY_S: Final = 86_400
_HOUR_S: Final = 3_600

_YEAR: Final = re.compile(r"\d{4}-")


TAKEN: Final = {
    "": "a directory can be a number, a text, a date, a time or a boolean",
    "year": "year takes a date or a timestamp",
    "month": "month takes a date or a timestamp",
    "day": "day takes a date or a timestamp",
    "hour": "hour takes a timestamp",
    "bucket": "bucket takes a whole number, a decimal, a text, bytes, a date or a time",
    "truncate": "truncate takes a whole number, a decimal or a text",
}
"""What each function takes, for people."""


def unsuited(rule: DirectoryRule, kind: pa.DataType) -> str | None:
    """Say what a rule takes where that is not this type, or None."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return None if pa.types.is_null(kind) or _suits(rule.function, kind) else TAKEN[rule.function]


def _suits(function: str, kind: pa.DataType) -> bool:
    types = pa.types
    exact = types.is_integer(kind) or types.is_decimal(kind)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    if function == "hour":
        return bool(types.is_timestamp(kind))
    if function == "truncate":
        return bool(exact or text)
    timed = types.is_timestamp(kind) or types.is_date(kind)
    if function == "":
        return bool(timed or exact or text or types.is_floating(kind) or types.is_boolean(kind))
    if function == "bucket":
        octets = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        return bool(timed or exact or text or octets or types.is_time(kind))
    return bool(timed)


def keys(rule: DirectoryRule, column: pa.Array) -> pa.Array:
    """Return a number or a value for each row, the same for all rows that belong in one directory of the rule.

    Rows of one directory may also have different ones: `texts` then says the same of them.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if rule.timed:
        return _periods(column, _HOUR_S if rule.function == "hour" else _DAY_S, rule.zone)
    if rule.function == "bucket":
        positive = pc.bit_wise_and(_hashes(column), pa.scalar(0x7FFFFFFF, pa.uint64())).cast(pa.int64())
        return pc.subtract(positive, pc.multiply(pc.divide(positive, rule.number), rule.number))
    if rule.function == "truncate" and not pa.types.is_decimal(column.type):
        return _truncated(column, rule.number)
    return column


def texts(rule: DirectoryRule, distinct: pa.Array) -> tuple[list[str | None], list[bool]]:
    """Return the texts of distinct keys, and for each whether readers would not take it for the value."""
    if rule.timed and pa.types.is_integer(distinct.type):
        periods = [None if key is None else _period(rule, key) for key in distinct.to_pylist()]
        return periods, [text == "" for text in periods]
    listed = _cut_texts(distinct, rule.number) if rule.function == "truncate" else plain_texts(distinct)
    return listed, _misread(listed, distinct.type)


def plain_texts(values: pa.Array) -> list[str | None]:
    """Return distinct values as texts that readers turn back into them; different values give different texts.

    Timestamps become `2026-01-31 23:59:59`, with a fraction where there is one and with `Z` where they have a zone.
    """
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    listed: list[str | None] = values.cast(pa.string()).to_pylist()
    if not pa.types.is_timestamp(kind):
        return listed
    return [None if text is None else without_zero_fraction(text) for text in listed]


def without_zero_fraction(text: str) -> str:
    """Return the text of a timestamp without `.000`, which Arrow writes for units below the second."""
    head, dot, fraction = text.partition(".")
    zone = "Z" if fraction.endswith("Z") else ""
    return head + zone if dot and not fraction.removesuffix("Z").strip("0") else text


def known_zone(zone: str) -> bool:
    """Return whether the time zones of this machine have one of that name."""
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _misread(listed: Sequence[str | None], kind: pa.DataType) -> list[bool]:
    """Return for each text whether it is not the time it was made of: Arrow writes no year beyond 32767."""
    timed = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return [timed and text is not None and _YEAR.match(text) is None for text in listed]


def _periods(column: pa.Array, seconds: int, zone: str) -> pa.Int64Array:
    """Return the number of the day or hour of each time since 1970, by the clocks of a zone.

    The hour that clocks show twice in autumn is one. A timestamp without a zone is taken as it is.
    """
    kind = column.type
    if pa.types.is_date32(kind):
        return column.cast(pa.int32()).cast(pa.int64())
    if pa.types.is_date64(kind):
        return _floor(column.cast(pa.int64()), _DAY_S * 1_000)
    per_second = PER_SECOND[kind.unit]
    numbers = column.cast(pa.int64())
    if kind.tz is not None and zone != "UTC":
        return _floor(_shifted(_floor(numbers, per_second), zone), seconds)
    return _floor(numbers, per_second * seconds)


def _shifted(seconds: pa.Int64Array, zone: str) -> pa.Int64Array:
    """Return seconds since 1970 as the clocks of a zone show them.

    Python's zones, because Arrow's have no summer time from 2038 on. They are asked once for each hour of the column,
    and once for each second of an hour in which the clocks are changed.
    """
    hours = _floor(seconds, _HOUR_S).dictionary_encode()
    shifts = pa.array([_shift_of_hour(hour, zone) for hour in hours.dictionary.to_pylist()], pa.int64())
    shift = shifts.take(hours.indices)
    changing = pc.and_(shift.is_null(), seconds.is_valid())
    if changing.true_count:
        among = seconds.filter(changing).dictionary_encode()
        each = pa.array([_shift(second, zone) for second in among.dictionary.to_pylist()], pa.int64())
        shift = pc.replace_with_mask(shift, changing, each.take(among.indices))
    return pc.add(seconds, shift)


def _shift_of_hour(hour: int, zone: str) -> int | None:
    first, last = (_shift(hour * _HOUR_S + second, zone) for second in (0, _HOUR_S - 1))
    return first if first == last else None


def _shift(second: int, zone: str) -> int:
    """Return how far the clocks of a zone are ahead of UTC; 0 beyond the years 1 to 9999, which have no text anyway."""
    try:
        local = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=second)
        ahead = local.astimezone(ZoneInfo(zone)).utcoffset()
    except (OverflowError, ValueError):
        return 0
    return 0 if ahead is None else round(ahead.total_seconds())


def _period(rule: DirectoryRule, key: int) -> str:
    """Return the text of a unit of time; empty for years that have not four digits."""
    day, hour = divmod(key, 24) if rule.function == "hour" else (key, 0)
    ordinal = day + dt.date(1970, 1, 1).toordinal()
    if not dt.date.min.toordinal() <= ordinal <= dt.date.max.toordinal():
        return ""
    whole = f"{dt.date.fromordinal(ordinal).isoformat()}-{hour:02d}"
    start, end = {"year": (0, 4), "month": (5, 7), "day": (8, 10), "hour": (11, 13)}[rule.function]
    return whole[start if rule.short else 0 : end]


def _hashes(column: pa.Array) -> pa.UInt64Array:
    """Return Iceberg's hash of each value: numbers and times as 64 bits, times in microseconds, all else as bytes."""
    types, kind = pa.types, column.type
    if types.is_date(kind):
        return murmur.hash_longs(_periods(column, _DAY_S, "UTC"))
    if types.is_timestamp(kind) or types.is_time(kind):
        return murmur.hash_longs(_microseconds(column))
    if types.is_integer(kind):
        # Iceberg has no uint64. Below 2**63 its eight bytes are those of the same number there.
        return murmur.hash_longs(column.view(pa.int64()) if types.is_uint64(kind) else column.cast(pa.int64()))
    if types.is_decimal(kind):
        encoding = column.dictionary_encode()
        octets = [_octets(unscaled(value)) for value in encoding.dictionary.to_pylist()]
        return murmur.hash_bytes(pa.array(octets, pa.binary())).take(encoding.indices)
    if types.is_string_view(kind):
        column = column.cast(pa.large_string())
    return murmur.hash_bytes(column.cast(pa.large_binary()))


def _microseconds(column: pa.Array) -> pa.Int64Array:
    numbers = column.cast(pa.int32() if pa.types.is_time32(column.type) else pa.int64()).cast(pa.int64())
    per_second, wanted = PER_SECOND[column.type.unit], PER_SECOND["us"]
    if per_second > wanted:
        return _floor(numbers, per_second // wanted)
    # It wraps for years that no reader has: a bucket all the same, and always the same one.
    return pc.multiply(numbers, wanted // per_second)


def _truncated(column: pa.Array, width: int) -> pa.Array:
    kind = column.type
    if not pa.types.is_integer(kind):
        return pc.utf8_slice_codeunits(column.cast(pa.string()), 0, width)
    if pa.types.is_uint64(kind):
        return pc.divide(column, pa.scalar(width, pa.uint64()))
    return _floor(column.cast(pa.int64()), width)


def _cut_texts(distinct: pa.Array, width: int) -> list[str | None]:
    """Return the texts of what `truncate` left. Python's numbers have no ends where the lowest would fall over."""
    if pa.types.is_integer(distinct.type):
        return [None if quotient is None else str(quotient * width) for quotient in distinct.to_pylist()]
    if pa.types.is_decimal(distinct.type):
        return [None if value is None else format(_cut(value, width), "f") for value in distinct.to_pylist()]
    return plain_texts(distinct)


def _cut(value: Decimal, width: int) -> Decimal:
    found = unscaled(value) // width * width
    return Decimal((int(found < 0), tuple(map(int, str(abs(found)))), int(value.as_tuple().exponent)))


def unscaled(value: Decimal) -> int:
    """Return a decimal without its point."""
    sign, digits, _ = value.as_tuple()
    number = int("".join(map(str, digits)) or "0")
    return -number if sign else number


def _octets(number: int) -> bytes:
    """Return the fewest bytes that hold a number, highest first, as a two's complement."""
    return number.to_bytes((number + (number < 0)).bit_length() // 8 + 1, "big", signed=True)


def _floor(values: pa.Int64Array, by: int) -> pa.Int64Array:
    quotient = pc.divide(values, by)
    rest = pc.subtract(values, pc.multiply(quotient, by))
    return pc.subtract(quotient, pc.less(rest, 0).cast(pa.int64()))
