"""Steps for what is a run of bytes: strings, bytes, fixed, and the decimals, UUIDs and durations that bytes mean."""

from __future__ import annotations

import uuid
from typing import Final

import numpy as np
import pyarrow as pa

from batcher.formats.avro.cursors import WIDEST_FIXED, Cursors, Ints, Mask, Piece, Single
from batcher.formats.avro.numbers import column
from batcher.formats.avro.step import Step
from batcher.formats.avro.words import json_bytes, json_decimal, json_string
from batcher.formats.fault import Faulty

_HEX: Final = np.frombuffer(b"".join(b"%02x" % octet for octet in range(256)), np.uint16)
"""Both digits of each byte."""

_HYPHENS: Final = (8, 13, 18, 23)
_DIGITS: Final = [place for place in range(36) if place not in _HYPHENS]


class OctetsStep(Step):
    """Find runs of bytes: with their length before them, or all of `width`."""

    def __init__(self, path: str, width: int | None) -> None:
        super().__init__(path)
        self.width = width
        self.least = 1 if width is None else width
        self._negative = self.faults.of("syntax", "a length is negative")

    def skip(self, cursors: Cursors) -> None:
        self._find(cursors)

    def skip_one(self, single: Single) -> None:
        size = self.width
        if size is None:
            size = single.number(self.faults)
            if size < 0:
                raise Faulty(self._negative)
        single.advance(size, self.faults)

    def _find(self, cursors: Cursors) -> tuple[Ints, Ints]:
        """Return where runs begin and end, and move past them. Runs of those that are refused are empty."""
        sizes: int | Ints = 0 if self.width is None else self.width
        if self.width is None:
            sizes = cursors.numbers(self.faults)
            if len(sizes) and sizes.min() < 0:
                negative = sizes < 0
                cursors.refuse(negative, self._negative)
                sizes[negative] = 0
        starts = cursors.at
        bad = cursors.advance(sizes, self.faults)
        if bad is not None:
            starts = np.where(bad, cursors.at, starts)
        return starts, cursors.at

    def _take(self, single: Single) -> bytes:
        if self.width is None:
            size = single.number(self.faults)
            if size < 0:
                raise Faulty(self._negative)
            start = single.advance(size, self.faults)
        else:
            start = single.advance(self.width, self.faults)
        return single.data[start : single.at]


class BytesStep(OctetsStep):
    """Read bytes as they are."""

    def __init__(self, path: str, width: int | None = None) -> None:
        super().__init__(path, width)
        self.type = pa.binary() if width is None or not 0 < width <= WIDEST_FIXED else pa.binary(width)

    def read(self, cursors: Cursors) -> pa.Array:
        starts, ends = self._find(cursors)
        if self.type == pa.binary():
            return _binary(cursors.piece, starts, ends)
        return column(cursors.piece.windows(self.type.byte_width)[starts], self.type)

    def text(self, single: Single) -> str:
        return json_bytes(self._take(single))


class StringStep(OctetsStep):
    """Read UTF-8."""

    type = pa.string()

    def __init__(self, path: str) -> None:
        super().__init__(path, None)
        self._no_text = self.faults.of("utf8", "the string is not UTF-8")

    def read(self, cursors: Cursors) -> pa.Array:
        starts, ends = self._find(cursors)
        octets = _binary(cursors.piece, starts, ends)
        try:
            return octets.cast(self.type)
        except pa.ArrowInvalid:
            bad = np.array([not _is_text(one) for one in octets.to_pylist()], np.bool_)
            cursors.refuse(bad, self._no_text)
            return _binary(cursors.piece, starts, np.where(bad, starts, ends)).cast(self.type)

    def text(self, single: Single) -> str:
        try:
            return json_string(self._take(single).decode())
        except UnicodeDecodeError:
            raise Faulty(self._no_text) from None


class UuidStep(OctetsStep):
    """Read the 16 bytes of a UUID as its text, so that it is the same column as one that is written as text."""

    type = pa.string()

    def __init__(self, path: str) -> None:
        super().__init__(path, 16)

    def read(self, cursors: Cursors) -> pa.Array:
        starts, _ = self._find(cursors)
        octets = cursors.piece.windows(16)[starts]
        letters = np.full((len(starts), 36), ord("-"), np.uint8)
        letters[:, _DIGITS] = _HEX[octets].view(np.uint8).reshape(len(starts), 32)
        bounds = np.arange(0, 36 * len(starts) + 1, 36, dtype=np.int32)
        return pa.Array.from_buffers(self.type, len(starts), [None, pa.py_buffer(bounds), pa.py_buffer(letters)])

    def text(self, single: Single) -> str:
        return f'"{uuid.UUID(bytes=self._take(single))}"'


class DurationStep(OctetsStep):
    """Read a duration as its three numbers, which cannot be added up: months and days differ in length."""

    type = pa.struct([pa.field(name, pa.uint32(), nullable=False) for name in ("months", "days", "milliseconds")])

    def __init__(self, path: str) -> None:
        super().__init__(path, 12)

    def read(self, cursors: Cursors) -> pa.Array:
        starts, _ = self._find(cursors)
        parts = cursors.piece.windows(12)[starts].view("<u4")
        return pa.StructArray.from_arrays(
            [column(parts[:, place], pa.uint32()) for place in range(3)], fields=list(self.type)
        )

    def text(self, single: Single) -> str:
        parts = np.frombuffer(self._take(single), "<u4")
        return "{" + ",".join(f'"{field.name}":{part}' for field, part in zip(self.type, parts, strict=True)) + "}"


class DecimalStep(OctetsStep):
    """Read the digits of a decimal from a number in two's complement, highest byte first, of any length."""

    def __init__(self, path: str, width: int | None, precision: int, scale: int) -> None:
        super().__init__(path, width)
        self.type = (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)
        self._words = self.type.bit_width // 64
        self._limit = 10**precision
        self._beyond = self.faults.of("overflow", f"the decimal has more than {precision} digits")

    def read(self, cursors: Cursors) -> pa.Array:
        starts, ends = self._find(cursors)
        words = _signed(cursors.piece, starts, ends, self._words)
        bad = self._beyond_limit(cursors.piece.raw, starts, ends, ends - starts > 8 * self._words)
        decimals = column(words, self.type)
        try:
            decimals.validate(full=True)
        except pa.ArrowInvalid:
            bad = self._beyond_limit(cursors.piece.raw, starts, ends, np.ones(len(starts), np.bool_))
        if bad.any():
            cursors.refuse(bad, self._beyond)
            # The column is made of these words.
            words[bad] = 0
        return decimals

    def _beyond_limit(self, raw: bytes, starts: Ints, ends: Ints, suspects: Mask) -> Mask:
        """Return which of some numbers have too many digits, looking at them one by one."""
        bad = suspects.copy()
        for row in np.flatnonzero(suspects):
            bad[row] = abs(int.from_bytes(raw[starts[row] : ends[row]], "big", signed=True)) >= self._limit
        return bad

    def text(self, single: Single) -> str:
        unscaled = int.from_bytes(self._take(single), "big", signed=True)
        if abs(unscaled) >= self._limit:
            raise Faulty(self._beyond)
        return json_decimal(unscaled, self.type.scale)


def _binary(piece: Piece, starts: Ints, ends: Ints) -> pa.Array:
    """Return runs of bytes as a column."""
    # Every other value of an array of runs and gaps: copied in one call, in order.
    bounds = np.empty(2 * len(starts) + 1, np.int32)
    bounds[:-1:2] = starts
    bounds[1::2] = ends
    bounds[-1] = ends[-1] if len(ends) else 0
    if piece.faults:
        # A refused item stands at the end of its record, behind items of that record that come later.
        np.maximum.accumulate(bounds, out=bounds)
    runs = pa.Array.from_buffers(pa.binary(), 2 * len(starts), [None, pa.py_buffer(bounds), pa.py_buffer(piece.raw)])
    return runs.take(column(np.arange(0, 2 * len(starts), 2), pa.int64()))


def _signed(piece: Piece, starts: Ints, ends: Ints, count: int) -> Ints:
    """Return numbers in two's complement, highest byte first, as `count` words each, lowest word first."""
    sizes = ends - starts
    words = np.empty((len(starts), count), np.int64)
    negative = -(piece.octets[starts] >> 7).astype(np.int64)
    longest = sizes.max(initial=0)
    for place in range(count):
        if place and longest <= 8 * place:
            words[:, place] = words[:, place - 1] >> 63
            continue
        left = sizes - 8 * place
        found = piece.high_words[np.where(left >= 8, ends - 8 * (place + 1), starts)].astype(np.uint64).view(np.int64)
        found >>= 64 - 8 * np.clip(left, 1, 8)
        words[:, place] = np.where(left > 0, found, np.where(sizes > 0, negative, 0))
    return words


def _is_text(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True
