"""Columns of single values: how each type of a writer becomes each type of a column.

Whole columns are converted with Arrow. Where it cannot tell exactly whether a value fits, or only that some does not,
the rows in question are settled one by one.

It is long because the rules of all pairs of types are one table of functions that share their last steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.fit.json_text import bare_text, is_bytes, is_character, is_text_in_json, json_text
from batcher.formats.fit.places import Faults, Place, mask_of, true_rows
from batcher.formats.json import timestamps
from batcher.formats.json.limits import Refused
from batcher.formats.json.per_column import plain
from batcher.formats.json.shape import integer_bounds, is_raw, is_text
from batcher.formats.json.strict import no_unit
from batcher.formats.json.times import Times
from batcher.formats.json.type_names import UNITS
from batcher.formats.quotes import unquoted

Fitting = Callable[[pa.Array], tuple[pa.Array, Faults]]
"""Return a column of the place's type and the rows that do not fit, among which no null is."""

_SINGLE_LIMIT: Final = 2.0**128 - 2.0**103
"""From here on, rounding to a 32-bit float gives infinity."""

_INT64: Final = 2**63
_DAY_S: Final = 86_400
_OVERFLOW: Final = "the number is outside the range of the column"


@dataclass(slots=True)
class Remarks:
    """Collect lines for people, each once."""

    times: Times
    _said: set[str] = field(default_factory=set)
    _fresh: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Note a line, unless it was noted before."""
        if line not in self._said:
            self._said.add(line)
            self._fresh.append(line)

    def collect(self) -> tuple[str, ...]:
        """Return the lines since the last call."""
        for line in self.times.notes():
            self.add(line)
        fresh, self._fresh = tuple(self._fresh), []
        return fresh


def fitting(place: Place, remarks: Remarks, *, any_text: bool) -> Fitting | None:
    """Return how values become those of the column; None where they never do.

    `place.source` is a type as `source.plain_type` returns it. `any_text`: the column takes any value as its JSON text.
    """
    if place.written_json:
        return _written_json(place)
    if is_raw(place.field):
        return _text(place, json_text)
    if place.source == place.to:
        return lambda column: (column, {})
    if pa.types.is_null(place.source):
        return lambda column: (pa.nulls(len(column), place.to), {})
    for test, rule in _RULES:
        if test(place.to):
            return rule(place, remarks)
    return _texts(place, any_text=any_text) if is_text(place.to) else None


def _written_json(place: Place) -> Fitting | None:
    """Fit JSON text: as it is into JSON; into text too, but strings without their quotes, as from a JSON record."""
    if is_raw(place.field):
        return lambda column: (column, {})
    return (lambda column: (unquoted(column), {})) if is_text(place.to) else None


def never(place: Place, remarks: Remarks, *, advice: str = "") -> Fitting:
    """Return what becomes of values that fit the column in no case."""
    note = f"column {plain(place.path)}: no value fits, and records that have one are refused: {place.pair}{advice}"

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        faults = place.faults(column.is_valid(), "type", "no value of the writer's type fits")
        if faults:
            remarks.add(note)
        return pa.nulls(len(column), place.to), faults

    return fit


def _integer(place: Place, _: Remarks) -> Fitting | None:
    bounds = integer_bounds(place.to)
    own = integer_bounds(place.source)
    assert bounds is not None
    if pa.types.is_decimal(place.source):
        return _piecewise(lambda part: part.cast(place.to), lambda number: _integer_of(number, bounds, place))
    if own is None:
        return None
    if bounds[0] <= own[0] and own[1] <= bounds[1]:
        return lambda column: (column.cast(place.to), {})
    low, high = (pa.scalar(bound, place.source) for bound in (max(bounds[0], own[0]), min(bounds[1], own[1])))

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        outside = pc.or_(pc.less(column, low), pc.greater(column, high))
        faults = place.faults(outside, "overflow", _OVERFLOW)
        return _without(column, outside, faults).cast(place.to), faults

    return fit


def _integer_of(number: Decimal, bounds: tuple[int, int], place: Place) -> int:
    if not bounds[0] <= number <= bounds[1]:
        raise place.refused("overflow", _OVERFLOW)
    if number != int(number):
        raise place.refused("precision", "the number has a fraction")
    return int(number)


def _float(place: Place, _: Remarks) -> Fitting | None:
    if pa.types.is_floating(place.source):
        return _float_of_float(place)
    if integer_bounds(place.source) is not None:
        return _float_of_integer(place)
    return _float_of_decimal(place) if pa.types.is_decimal(place.source) else None


def _float_of_float(place: Place) -> Fitting:
    if place.source.bit_width <= place.to.bit_width:
        return lambda column: (column.cast(place.to), {})

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        too_far = pc.and_(pc.greater_equal(pc.abs(column), _SINGLE_LIMIT), pc.is_finite(column))
        return column.cast(place.to, safe=False), place.faults(too_far, "overflow", _OVERFLOW)

    return fit


def _float_of_integer(place: Place) -> Fitting:
    exact = 2 ** (24 if place.to == pa.float32() else 53)
    bounds = integer_bounds(place.source)
    assert bounds is not None
    low, high = (pa.scalar(bound, place.source) for bound in (max(bounds[0], -exact), min(bounds[1], exact)))

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        converted = column.cast(place.to, safe=False)
        suspects = true_rows(pc.or_(pc.less(column, low), pc.greater(column, high)))
        return converted, _inexact(place, converted, column, suspects)

    return fit


def _inexact(place: Place, converted: pa.Array, numbers: pa.Array, rows: Sequence[int]) -> Faults:
    why = place.refused("precision", "the column cannot hold this integer exactly; an integer or a decimal can")
    indices = pa.array(rows, pa.int64())
    pairs = zip(rows, converted.take(indices).to_pylist(), numbers.take(indices).to_pylist(), strict=True)
    return {row: why for row, got, given in pairs if int(got) != given}


def _float_of_decimal(place: Place) -> Fitting:
    # A number that reaches this may be beyond the limit; a decimal of 76 digits never is for 64 bits.
    near = _SINGLE_LIMIT / 2

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        # Through its text a number is rounded once, and right; Arrow's own cast is not always.
        texts = column.cast(pa.string())
        converted = texts.cast(place.to)
        faults: Faults = {}
        if place.to == pa.float32():
            far = true_rows(pc.greater_equal(pc.abs(texts.cast(pa.float64())), near))
            why = place.refused("overflow", _OVERFLOW)
            numbers = column.take(pa.array(far, pa.int64())).to_pylist()
            limit = Decimal(int(_SINGLE_LIMIT))
            faults = {row: why for row, number in zip(far, numbers, strict=True) if number.copy_abs() >= limit}
        if place.source.scale <= 0:
            exact = 2.0 ** (24 if place.to == pa.float32() else 53)
            suspects = [row for row in true_rows(pc.greater_equal(pc.abs(converted), exact)) if row not in faults]
            faults |= _inexact(place, converted, column, suspects)
        return converted, faults

    return fit


def _decimal(place: Place, _: Remarks) -> Fitting | None:
    def rescaled(part: pa.Array) -> pa.Array:
        done = part.cast(place.to)
        done.validate(full=True)
        return done

    def settle(number: Decimal) -> Decimal:
        return _decimal_of(number, place)

    if pa.types.is_decimal(place.source):
        return _piecewise(rescaled, settle)
    if integer_bounds(place.source) is not None:
        of_decimal = _piecewise(rescaled, settle)
        return lambda column: of_decimal(column.cast(pa.decimal128(20, 0)))
    return _decimal_of_text(place) if is_character(place.source) else None


def _decimal_of(number: Decimal, place: Place) -> Decimal:
    """Return a number with the column's scale."""
    if not number:
        return Decimal(0)
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    while digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    if number.adjusted() >= place.to.precision - place.to.scale:
        raise place.refused("overflow", _OVERFLOW)
    if -exponent > place.to.scale:
        raise place.refused("precision", "the number has more fraction digits than the column")
    return Decimal((sign, (*digits, *([0] * (exponent + place.to.scale))), -place.to.scale))


def _decimal_of_text(place: Place) -> Fitting:
    whole, fraction = place.to.precision - place.to.scale, place.to.scale
    digits = rf"^-?[0-9]{{1,{whole}}}" + (rf"(?:\.[0-9]{{1,{fraction}}})?$" if fraction > 0 else "$")

    def settle(text: str) -> Decimal:
        number = timestamps.decimal(text)
        if number is None:
            raise place.refused("type", "the text is no number")
        return _decimal_of(number, place)

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        if whole <= 0:
            return _settled(pa.nulls(len(column), place.to), true_rows(column.is_valid()), column, settle)
        plainly = pc.match_substring_regex(column, digits)
        converted = pc.if_else(plainly, column, pa.scalar(None, column.type)).cast(place.to)
        return _settled(converted, true_rows(pc.invert(plainly)), column, settle)

    return fit


def _timestamp(place: Place, remarks: Remarks) -> Fitting | None:  # noqa: PLR0911 - one for each kind of type
    unit, source, times = place.to.unit, place.source, remarks.times
    if pa.types.is_timestamp(source):
        return _shifted(place, remarks, source.unit)
    if pa.types.is_date32(source):
        return _shifted(
            place, remarks, "s", lambda column: pc.multiply(column.cast(pa.int32()).cast(pa.int64()), _DAY_S)
        )
    if pa.types.is_date64(source):
        return _shifted(place, remarks, "ms")

    def of_number(text: str) -> int:
        if times.refuses_numbers(place.path):
            raise place.refused("timestamp", no_unit(place.path))
        return _point(None if timestamps.decimal(text) is None else times.of_number(place.path, text, unit), place)

    def of_text(text: str) -> int:
        return _point(times.of_text(place.path, text, unit), place)

    if is_character(source):
        return lambda column: _settled(
            *times.of_texts(place.path, column.cast(pa.string()), place.to), column.cast(pa.string()), of_text
        )
    if integer_bounds(source) is not None:
        return lambda column: _settled(
            *times.of_numbers(place.path, column.cast(timestamps.NUMBER), place.to), column.cast(pa.string()), of_number
        )
    if pa.types.is_floating(source) or pa.types.is_decimal(source):
        return lambda column: _settled(
            pa.nulls(len(column), place.to), true_rows(column.is_valid()), column.cast(pa.string()), of_number
        )
    return None


def _point(point: int | None, place: Place) -> int:
    if point is None:
        raise place.refused("timestamp", "is no point in time that the column can hold")
    return point


def _shifted(
    place: Place, remarks: Remarks, unit: str, count: Callable[[pa.Array], pa.Array] = lambda column: column
) -> Fitting:
    """Fit counts of one unit to a column of another one."""
    factor = 10 ** abs(timestamps.DIGITS[place.to.unit] - timestamps.DIGITS[unit])
    finer = timestamps.DIGITS[place.to.unit] >= timestamps.DIGITS[unit]
    cut = (
        f"column {plain(place.path)}: times are finer than its {UNITS[place.to.unit]} and cut down to them; "
        "a column of a finer unit keeps them whole"
    )

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        counts = count(column)
        counts = (counts.view(pa.int32()) if pa.types.is_time32(counts.type) else counts).cast(pa.int64())
        if finer:
            far = pc.or_(pc.less(counts, -(_INT64 // factor)), pc.greater(counts, (_INT64 - 1) // factor))
            faults = place.faults(far, "timestamp", "the time is beyond what the column can reach")
            return _stored(pc.multiply(_without(counts, far, faults), factor), place.to), faults
        whole = pc.divide(counts, factor)
        # Arrow divides towards zero.
        whole = pc.subtract(whole, pc.greater(pc.multiply(whole, factor), counts).cast(pa.int64()))
        if pc.any(pc.not_equal(pc.multiply(whole, factor), counts)).as_py():
            remarks.add(cut)
        return _stored(whole, place.to), {}

    return fit


def _stored(counts: pa.Array, to: pa.DataType) -> pa.Array:
    return (counts.cast(pa.int32()) if pa.types.is_time32(to) else counts).view(to)


def _time(place: Place, remarks: Remarks) -> Fitting | None:
    return _shifted(place, remarks, place.source.unit) if pa.types.is_time(place.source) else None


def _date(place: Place, _: Remarks) -> Fitting | None:
    if pa.types.is_date64(place.source):
        return lambda column: (column.cast(place.to), {})
    if not is_character(place.source):
        return None

    def settle(text: str) -> int:
        day = timestamps.of_date(text)
        if day is None:
            raise place.refused("timestamp", "is no date of the form YYYY-MM-DD")
        return day

    return _piecewise(lambda part: part.cast(place.to), settle)


def _fixed(place: Place, _: Remarks) -> Fitting | None:
    if not is_bytes(place.source) and not is_character(place.source):
        return None
    size = place.to.byte_width

    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        column = column.cast(pa.binary())
        other = pc.not_equal(pc.binary_length(column), size)
        faults = place.faults(other, "length", f"there are not exactly {size} bytes")
        return _without(column, other, faults).cast(place.to), faults

    return fit


def _texts(place: Place, *, any_text: bool) -> Fitting | None:
    if is_bytes(place.source) and not is_character(place.to):
        return lambda column: (column.cast(place.to), {})
    if is_text_in_json(place.source):
        return _text(place, bare_text)
    return _text(place, json_text) if any_text or pa.types.is_nested(place.source) else None


def _text(place: Place, write: Callable[[pa.Array], tuple[pa.Array, Any]]) -> Fitting:
    def fit(column: pa.Array) -> tuple[pa.Array, Faults]:
        texts, wrong = write(column)
        return texts.cast(place.to), {row: place.refused(reason, what) for row, (reason, what) in wrong.items()}

    return fit


_RULES: Final[Sequence[tuple[Callable[[pa.DataType], bool], Callable[[Place, Remarks], Fitting | None]]]] = (
    (lambda to: integer_bounds(to) is not None, _integer),
    (pa.types.is_floating, _float),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_time, _time),
    (pa.types.is_date, _date),
    (pa.types.is_fixed_size_binary, _fixed),
)


def _piecewise(convert: Callable[[pa.Array], pa.Array], settle: Callable[[Any], Any]) -> Fitting:
    """Convert with Arrow what it converts, and settle the rest one by one."""
    return lambda column: _settled(*timestamps.piecewise(column, convert), column, settle)


def _settled(
    converted: pa.Array, rows: Iterable[int], given: pa.Array, settle: Callable[[Any], Any]
) -> tuple[pa.Array, Faults]:
    """Put into a column what settling some rows gives, numbers for times; `given` has the values."""
    rows = sorted(set(rows))
    faults: Faults = {}
    found: dict[int, Any] = {}
    for row, value in zip(rows, given.take(pa.array(rows, pa.int64())).to_pylist(), strict=True):
        try:
            found[row] = settle(value)
        except Refused as why:
            faults[row] = why.kept()
    if found:
        to = converted.type
        stored = pa.int32() if pa.types.is_date(to) else pa.int64() if pa.types.is_timestamp(to) else to
        values = pa.array(list(found.values()), stored).view(to)
        converted = pc.replace_with_mask(converted, mask_of(list(found), len(converted)), values)
    return converted, faults


def _without(column: pa.Array, rows: pa.BooleanArray, faults: Faults) -> pa.Array:
    return pc.if_else(rows, pa.scalar(None, column.type), column) if faults else column
