"""Timestamps of one decoder: in which unit the numbers of each column count, and what people should know about them.

Where no unit is set, each number's magnitude tells its own, so that the outcome of a record does not depend on its
neighbours. Two signs that the guess is wrong are worth a line each: a column whose numbers are of several units, and
numbers that end up long ago or far ahead. A third line says that times are finer than their column; a few values of
each block are checked for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json import timestamps
from batcher.formats.json.limits import Epoch
from batcher.formats.json.per_column import plain
from batcher.formats.json.type_names import UNITS

_LIKELY: Final = (10**8, 4_102_444_800)
"""Seconds from 1970 to 1973-03-03, where milliseconds begin, and to 2100-01-01."""

_SAMPLE: Final = 64

_UNITS: Final = {digits: UNITS[unit] for unit, digits in timestamps.DIGITS.items()}


class Times:
    """Read timestamps column by column and collect lines for people. Not for several threads at once."""

    def __init__(self, units: Mapping[str, Epoch]) -> None:
        self._units = units
        self._seen: dict[str, set[int]] = {}
        self._unlikely: dict[str, int] = {}
        self._cut: dict[str, str] = {}
        self._said: set[str] = set()

    def of_numbers(self, path: str, numbers: pa.Array, to: pa.TimestampType) -> tuple[pa.Array, list[int]]:
        """Return a column of `to` and the rows it could not settle (see `timestamps.column_of_numbers`)."""
        unit = self._units[path]
        if unit == "none":
            return pa.nulls(len(numbers), to), pc.indices_nonzero(numbers.is_valid()).to_pylist()
        if unit == "auto":
            self._look(path, numbers)
        if path not in self._cut:
            for number in numbers.slice(0, _SAMPLE).drop_null().to_pylist():
                self._note_cut_number(path, number, to.unit)
        return timestamps.column_of_numbers(numbers, to, unit)

    def of_texts(self, path: str, texts: pa.Array, to: pa.TimestampType) -> tuple[pa.Array, list[int]]:
        """Return a column of `to` and the rows it could not settle (see `timestamps.column_of_text`)."""
        if path not in self._cut:
            for text in texts.slice(0, _SAMPLE).drop_null().to_pylist():
                self._note_cut_text(path, text, to.unit)
        column, left = timestamps.column_of_text(texts, to)
        if not left or self.refuses_numbers(path):
            return column, left
        return self._of_digits(path, texts, column, pa.array(sorted(set(left)), pa.int64()))

    def _of_digits(
        self, path: str, texts: pa.Array, column: pa.Array, left: pa.Int64Array
    ) -> tuple[pa.Array, list[int]]:
        """Read the texts in the rows that are left as numbers, where they are plain ones."""
        some = texts.take(left)
        plain = pc.match_substring_regex(some, timestamps.PLAIN)
        if not pc.any(plain).as_py():
            return column, left.to_pylist()
        rows = left.filter(plain)
        found, unsettled = self.of_numbers(path, some.filter(plain).cast(timestamps.NUMBER), column.type)
        mask = pc.is_in(pa.arange(0, len(column)), rows)
        still = pa.concat_arrays([left.filter(pc.invert(plain)), rows.take(pa.array(unsettled, pa.int64()))])
        return pc.replace_with_mask(column, mask, found), still.to_pylist()

    def of_number(self, path: str, number: str, unit: str) -> int | None:
        """Return the point in time, in `unit`, that a well-formed number means; None when it does not fit."""
        if self.refuses_numbers(path):
            return None
        value = timestamps.exact(number)
        self._note(path, value, unit)
        return timestamps.of_number(value, unit, self._units[path])

    def of_text(self, path: str, text: str, unit: str) -> int | None:
        """Return the point in time, in `unit`, that a text means; None when it is none or does not fit."""
        number, refuses = timestamps.decimal(text), self.refuses_numbers(path)
        if number is not None:
            if refuses:
                return None
            self._note(path, number, unit)
        self._note_cut_text(path, text, unit)
        return timestamps.of_text(text, unit, "auto" if refuses else self._units[path])

    def met(self, path: str, units: Sequence[int], unlikely: Sequence[int], cut_to: str | None) -> None:
        """Take in what another reader saw in a column: units by their digits, those with odd times, and finer times."""
        if units:
            self._seen.setdefault(path, set()).update(units)
        for digits in unlikely:
            self._unlikely.setdefault(path, digits)
        if cut_to is not None:
            self._cut.setdefault(path, cut_to)

    def refuses_numbers(self, path: str) -> bool:
        """Return whether numbers of a column are refused because nobody said what they count."""
        return self._units[path] == "none"

    def notes(self) -> tuple[str, ...]:
        """Return what was noticed since the last call, a line each; no line comes twice."""
        lines = [*map(self._mixed, self._seen), *map(self._odd, self._unlikely), *map(self._finer, self._cut)]
        fresh = tuple(line for line in lines if line and line not in self._said)
        self._said.update(fresh)
        return fresh

    def _mixed(self, path: str) -> str:
        units = [_UNITS[digits] for digits in sorted(self._seen[path])]
        if len(units) < 2:
            return ""
        return (
            f"column {plain(path)}: some numbers are read as {units[0]}, others as {' or '.join(units[1:])}, by their "
            f"magnitude; if they count in one unit, set --decode.epoch {plain(path)}=UNIT"
        )

    def _odd(self, path: str) -> str:
        return (
            f"column {plain(path)}: numbers read as {_UNITS[self._unlikely[path]]} give times before 1973-03-03 or "
            f"after 2099; if they count in another unit, set --decode.epoch {plain(path)}=UNIT"
        )

    def _finer(self, path: str) -> str:
        return (
            f"column {plain(path)}: times are finer than its {UNITS[self._cut[path]]} and cut down to them; "
            "a column of a finer unit keeps them whole"
        )

    def _look(self, path: str, numbers: pa.Array) -> None:
        span = pc.min_max(numbers).as_py()
        if span["min"] is None:
            return
        digits = timestamps.magnitude(span["max"])
        if digits is not None and _is_likely(span["min"], digits) and _is_likely(span["max"], digits):
            self._seen.setdefault(path, set()).add(digits)
            return
        # Where one column holds all kinds, the least and the greatest of each magnitude say enough.
        for low, high, _ in timestamps.MAGNITUDES:
            for sign in (1, -1):
                bounds = sorted((sign * low, sign * high))
                inside = pc.and_(
                    pc.greater_equal(numbers, timestamps.scalar(bounds[0])),
                    pc.less_equal(numbers, timestamps.scalar(bounds[1])),
                )
                part = pc.min_max(numbers.filter(pc.and_(inside, pc.not_equal(numbers, timestamps.scalar(0))))).as_py()
                for value in part.values():
                    if value is not None:
                        self._note_guess(path, value)

    def _note(self, path: str, value: Decimal, unit: str) -> None:
        if self._units[path] == "auto":
            self._note_guess(path, value)
        self._note_cut_number(path, value, unit)

    def _note_cut_number(self, path: str, value: Decimal, unit: str) -> None:
        epoch = self._units[path]
        digits = timestamps.magnitude(value) if epoch == "auto" else timestamps.DIGITS[epoch]
        if digits is not None and timestamps.has_more_digits(value, timestamps.DIGITS[unit] - digits):
            self._cut.setdefault(path, unit)

    def _note_cut_text(self, path: str, text: str, unit: str) -> None:
        if timestamps.is_cut(text, unit):
            self._cut.setdefault(path, unit)

    def _note_guess(self, path: str, value: Decimal) -> None:
        digits = timestamps.magnitude(value)
        if digits is None or not value:
            return
        self._seen.setdefault(path, set()).add(digits)
        if not _is_likely(value, digits):
            self._unlikely.setdefault(path, digits)


def _is_likely(value: Decimal, digits: int) -> bool:
    return bool(_LIKELY[0] * 10**digits <= value < _LIKELY[1] * 10**digits)
