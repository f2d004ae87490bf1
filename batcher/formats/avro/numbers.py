"""Steps for what is a number in the bytes: integers, floats, booleans, enums, and the times that integers mean."""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batcher.formats.avro.cursors import Cursors, Ints, Single
from batcher.formats.avro.step import Step
from batcher.formats.avro.words import json_number, json_string, json_time
from batcher.formats.fault import Faulty, RecordFault

_LONG_RUN: Final = 32
"""So many numbers in a list make it worth while to look for their ends all at once."""

_INT: Final = (-(2**31), 2**31 - 1)


class NumberMeaning(NamedTuple):
    """Say what integers mean: the column's type, and the range that it has values for, None where it takes all."""

    type: pa.DataType
    range: tuple[int, int] | None = None


MEANINGS: Final = {
    "int": NumberMeaning(pa.int32()),
    "long": NumberMeaning(pa.int64()),
    "date": NumberMeaning(pa.date32()),
    "time-millis": NumberMeaning(pa.time32("ms"), (0, 86_400_000 - 1)),
    "time-micros": NumberMeaning(pa.time64("us"), (0, 86_400_000_000 - 1)),
    "timestamp-millis": NumberMeaning(pa.timestamp("ms", "UTC")),
    "timestamp-micros": NumberMeaning(pa.timestamp("us", "UTC")),
    "timestamp-nanos": NumberMeaning(pa.timestamp("ns", "UTC")),
    "local-timestamp-millis": NumberMeaning(pa.timestamp("ms")),
    "local-timestamp-micros": NumberMeaning(pa.timestamp("us")),
    "local-timestamp-nanos": NumberMeaning(pa.timestamp("ns")),
}


def column(values: npt.NDArray[np.generic], to: pa.DataType) -> pa.Array:
    """Return numbers as a column of a type with the same bits, not copied."""
    return pa.Array.from_buffers(to, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


class NullStep(Step):
    """Read nulls, which take no bytes."""

    type = pa.null()
    nullable = True
    least = 0
    width = 0

    def read(self, cursors: Cursors) -> pa.Array:
        return pa.nulls(len(cursors))

    def skip(self, cursors: Cursors) -> None:
        pass

    def skip_one(self, single: Single) -> None:
        pass

    def text(self, single: Single) -> str:  # noqa: ARG002 - nothing is there to be read
        return "null"


class BooleanStep(Step):
    """Read a byte that is 0 or 1."""

    type = pa.bool_()
    width = 1

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._neither = self.faults.of("syntax", "a boolean is neither 0 nor 1")

    def read(self, cursors: Cursors) -> pa.Array:
        bits = np.packbits(self._octets(cursors), bitorder="little")
        return pa.Array.from_buffers(self.type, len(cursors), [None, pa.py_buffer(bits)])

    def skip(self, cursors: Cursors) -> None:
        self._octets(cursors)

    def _octets(self, cursors: Cursors) -> npt.NDArray[np.uint8]:
        octets = cursors.piece.octets[cursors.at]
        bad = cursors.advance(1, self.faults)
        if bad is not None:
            octets[bad] = 0
        if len(octets) and octets.max() > 1:
            neither = octets > 1
            cursors.refuse(neither, self._neither)
            octets[neither] = 0
        return octets

    def skip_one(self, single: Single) -> None:
        self.text(single)

    def text(self, single: Single) -> str:
        octet = single.data[single.advance(1, self.faults)]
        if octet > 1:
            raise Faulty(self._neither)
        return "true" if octet else "false"


class FloatStep(Step):
    """Read floats of 4 or 8 bytes."""

    def __init__(self, path: str, width: int) -> None:
        super().__init__(path)
        self.least = self.width = width
        self._width = width
        self.type = pa.float64() if width == 8 else pa.float32()

    def read(self, cursors: Cursors) -> pa.Array:
        piece = cursors.piece
        words = piece.words[cursors.at] if self._width == 8 else piece.halves[cursors.at]
        bad = cursors.advance(self._width, self.faults)
        if bad is not None:
            words[bad] = 0
        return column(words, self.type)

    def skip(self, cursors: Cursors) -> None:
        cursors.advance(self._width, self.faults)

    def skip_one(self, single: Single) -> None:
        single.advance(self._width, self.faults)

    def text(self, single: Single) -> str:
        start = single.advance(self._width, self.faults)
        octets = single.data[start : start + self._width]
        number = float(np.frombuffer(octets, f"<f{self._width}")[0])
        return json_number(number)


class IntegerStep(Step):
    """Read integers of 32 (`int`) or 64 bits, and what they mean."""

    def __init__(self, path: str, meaning: NumberMeaning, *, long: bool) -> None:
        super().__init__(path)
        self.type = meaning.type
        self._long = long
        self._range = meaning.range
        self._beyond_int = self.faults.of("overflow", "the number does not fit the 32 bits of an int")
        self._beyond = self.faults.of("overflow", "the number is no time of a day")
        self._sure = 9 if long else 4
        """Numbers of so many bytes have no more bits than they may have."""
        self._bits = np.int64 if meaning.type.bit_width == 64 else np.int32

    def read(self, cursors: Cursors) -> pa.Array:
        values = self._integers(cursors)
        if self._range is not None:
            _check(values, self._range, self._beyond, cursors)
        return column(values.astype(self._bits, copy=False), self.type)

    def skip(self, cursors: Cursors) -> None:
        self._integers(cursors)

    def _integers(self, cursors: Cursors) -> Ints:
        values = cursors.numbers(self.faults)
        if not self._long:
            _check(values, _INT, self._beyond_int, cursors)
        return values

    def skip_one(self, single: Single) -> None:
        self._integer(single)

    def skip_run(self, single: Single, count: int, starts: array[int] | None) -> None:
        # Where one ends can be seen without reading those before it. All others, and faults, are looked at in order.
        if count < _LONG_RUN:
            super().skip_run(single, count, starts)
            return
        octets = single.piece.octets[single.at : min(single.end, single.at + self._sure * count)]
        begins = np.concatenate(([0], np.flatnonzero(octets < 0x80)[:count] + 1))
        if len(begins) <= count or np.diff(begins).max() > self._sure:
            super().skip_run(single, count, starts)
            return
        if starts is not None:
            starts.frombytes((begins[:-1] + single.at).tobytes())
        single.at += int(begins[-1])

    def text(self, single: Single) -> str:
        value = self._integer(single)
        if self._range is not None and not self._range[0] <= value <= self._range[1]:
            raise Faulty(self._beyond)
        return str(value) if pa.types.is_integer(self.type) else json_time(value, self.type)

    def _integer(self, single: Single) -> int:
        value = single.number(self.faults)
        if not self._long and not _INT[0] <= value <= _INT[1]:
            raise Faulty(self._beyond_int)
        return value


class EnumStep(Step):
    """Read the number of a symbol as the symbol."""

    type = pa.string()

    def __init__(self, path: str, symbols: tuple[str, ...]) -> None:
        super().__init__(path)
        self._symbols = symbols
        self._texts = [json_string(symbol) for symbol in symbols]
        self._words = pa.array(symbols, self.type)
        self._unknown = self.faults.of("syntax", "there is no such symbol of the enum")

    def read(self, cursors: Cursors) -> pa.Array:
        return self._words.take(column(self._places(cursors), pa.int64()))

    def skip(self, cursors: Cursors) -> None:
        self._places(cursors)

    def _places(self, cursors: Cursors) -> Ints:
        places = cursors.numbers(self.faults)
        _check(places, (0, len(self._symbols) - 1), self._unknown, cursors)
        return places

    def skip_one(self, single: Single) -> None:
        self.text(single)

    def text(self, single: Single) -> str:
        place = single.number(self.faults)
        if not 0 <= place < len(self._texts):
            raise Faulty(self._unknown)
        return self._texts[place]


def _check(values: Ints, span: tuple[int, int], fault: RecordFault, cursors: Cursors) -> None:
    """Refuse values that are out of range; they become 0."""
    if len(values) and (values.min() < span[0] or values.max() > span[1]):
        beyond = (values < span[0]) | (values > span[1])
        cursors.refuse(beyond, fault)
        values[beyond] = 0
