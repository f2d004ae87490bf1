"""Where reading stands in many records at once, and what every step needs to move on.

A cursor stands inside the bytes of one record and never passes their end. A record that is refused keeps its cursors:
they stand at their ends, where every further step fails again, and what it "reads" there is dropped with the record.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from batcher.formats.avro.fault import AvroFaults
from batcher.formats.fault import Faulty, RecordFault

Ints = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

WIDEST_FIXED: Final = 64
"""A longer fixed becomes binary: in a column of fixed size a null of one byte would take all of them."""

PADDING: Final = WIDEST_FIXED
"""Bytes of zero behind the last record. At its end no step looks farther than over the widest fixed."""

FREE_ITEMS: Final = 64
"""A record may have as many list items of no bytes at all as it has bytes, and this many more."""

_CONTINUED: Final = np.uint64(0x8080808080808080)
_SEVENS: Final = np.uint64(0x7F7F7F7F7F7F7F7F)
_ONE: Final = np.uint64(1)
_SQUEEZES: Final = tuple(
    (np.uint64(low), np.uint64(high), np.uint64(shift), np.uint64(done))
    for low, high, shift, done in (
        (0x007F007F007F007F, 0x7F007F007F007F00, 1, 0x7F),
        (0x00003FFF00003FFF, 0x3FFF00003FFF0000, 2, 0x3FFF),
        (0x000000000FFFFFFF, 0x0FFFFFFF00000000, 4, 0x0FFFFFFF),
    )
)
"""Groups of 7 bits move together by halves: pairs of bytes, of 16 and of 32 bits. The last is what needs no move."""


class Piece:
    """Hold the bytes of some records, one after the other, and the first fault of each.

    `bounds` has a number more than there are records. `words` are the 8 bytes from each position on, `high_words` the
    same read from the other end.
    """

    def __init__(self, data: memoryview, bounds: Ints) -> None:
        self.raw = b"".join((data, bytes(PADDING)))
        self.octets = np.frombuffer(self.raw, np.uint8)
        count = len(self.raw) - 7
        self.words: Words = np.ndarray((count,), "<u8", self.raw, strides=(1,))
        self.high_words: Words = np.ndarray((count,), ">u8", self.raw, strides=(1,))
        self.halves = np.ndarray((count,), "<u4", self.raw, strides=(1,))
        self.bounds = bounds
        self.rows = len(bounds) - 1
        self.faults: list[RecordFault] = []
        self.faulty = np.zeros(self.rows, np.int32)
        """0, or 1 + the place of the record's fault in `faults`."""
        self._numbers: dict[RecordFault, int] = {}
        self._free_items = bounds[1:] - bounds[:-1] + FREE_ITEMS

    def cursors(self) -> Cursors:
        """Return a cursor at the begin of each record."""
        return Cursors(self, self.bounds[:-1].copy(), self.bounds[1:], np.arange(self.rows))

    def windows(self, width: int) -> Octets:
        """Return the `width` bytes from each position on, as rows of a matrix."""
        return np.ndarray((len(self.raw) - width + 1, width), np.uint8, self.raw, strides=(1, 1))

    def refuse(self, rows: Ints, fault: RecordFault) -> None:
        """Note a fault of records, unless they have one already."""
        number = self._numbers.get(fault)
        if number is None:
            self.faults.append(fault)
            number = self._numbers[fault] = len(self.faults)
        self.faulty[rows[self.faulty[rows] == 0]] = number

    def overspent(self, rows: Ints, items: Ints) -> Mask:
        """Count items that take no bytes, and return whose record has more of them than it may have."""
        np.subtract.at(self._free_items, rows, items)
        return self._free_items[rows] < 0


class Cursors:
    """Hold an array of cursors: `at` moves, `ends` are the ends of their records, `rows` the records' numbers."""

    __slots__ = ("at", "ends", "piece", "rows")

    def __init__(self, piece: Piece, at: Ints, ends: Ints, rows: Ints) -> None:
        self.piece = piece
        self.at = at
        self.ends = ends
        self.rows = rows

    def __len__(self) -> int:
        return len(self.at)

    def take(self, which: Ints | Mask) -> Cursors:
        """Return some of them, to be moved on their own."""
        return Cursors(self.piece, self.at[which], self.ends[which], self.rows[which])

    def single(self, which: int) -> Single:
        """Return one of them, to be moved alone."""
        return Single(self.piece, int(self.at[which]), int(self.ends[which]), int(self.rows[which]))

    def refuse(self, bad: Ints | Mask, fault: RecordFault) -> None:
        """Refuse the records of some cursors, which go to their ends."""
        rows = self.rows[bad]
        if len(rows):
            self.piece.refuse(rows, fault)
            self.at[bad] = self.ends[bad]

    def advance(self, size: int | Ints, faults: AvroFaults) -> Mask | None:
        """Move on by bytes; return who cannot, None if there is none. Those are refused."""
        short = size > self.ends - self.at
        self.at = self.at + size
        if not short.any():
            return None
        self.refuse(short, faults.truncated)
        return short

    def numbers(self, faults: AvroFaults) -> Ints:
        """Read a number of variable length with each; 0 for those that are refused."""
        start = self.at
        first = self.piece.octets[start]
        size: int | Ints
        long: Mask | None
        if not len(first) or first.max() < 0x80:
            values, size, long = _unzigzag(first.astype(np.uint64)), 1, None
        else:
            values, size, long = self._long_numbers(start)
        bad = self.advance(size, faults)
        if bad is not None:
            values[bad] = 0
        if long is not None:
            if bad is not None:
                long &= ~bad
            self.refuse(long, faults.long_number)
            values[long] = 0
        return values

    def _long_numbers(self, start: Ints) -> tuple[Ints, Ints, Mask | None]:
        """Return values, sizes in bytes, and who has more than 64 bits."""
        words = self.piece.words[start]
        stops = ~words & _CONTINUED
        stops &= -stops
        below = stops - _ONE
        sizes = (np.bitwise_count(below) >> 3).astype(np.int64)
        sizes += 1
        words &= _SEVENS
        words &= below
        for low, high, shift, done in _SQUEEZES:
            if words.max() > done:
                words = (words & low) | ((words & high) >> shift)
        large = np.flatnonzero(stops == 0)
        if not len(large):
            return _unzigzag(words), sizes, None
        ninth = self.piece.octets[start[large] + 8].astype(np.uint64)
        tenth = self.piece.octets[start[large] + 9].astype(np.uint64)
        ends = ninth < 0x80
        words[large] |= (ninth & np.uint64(0x7F)) << np.uint64(56)
        words[large] |= np.where(ends, np.uint64(0), tenth << np.uint64(63))
        sizes[large] = np.where(ends, 9, 10)
        long = np.zeros(len(start), np.bool_)
        long[large] = ~ends & (tenth > 1)
        return _unzigzag(words), sizes, long


class Single:
    """Hold one cursor, for what has to be read one by one. `depth` counts levels of recursive records."""

    __slots__ = ("at", "data", "depth", "end", "piece", "row")

    def __init__(self, piece: Piece, at: int, end: int, row: int) -> None:
        self.piece = piece
        self.data = piece.raw
        self.at = at
        self.end = end
        self.row = row
        self.depth = 0

    def advance(self, size: int, faults: AvroFaults) -> int:
        """Move on by bytes and return where they begin; raise Faulty if there are fewer."""
        start = self.at
        if size > self.end - start:
            raise Faulty(faults.truncated)
        self.at = start + size
        return start

    def number(self, faults: AvroFaults) -> int:
        """Read a number of variable length; raise Faulty if it is none."""
        data, at, end = self.data, self.at, self.end
        value = shift = 0
        while at < end:
            octet = data[at]
            at += 1
            value |= (octet & 0x7F) << shift
            if octet < 0x80 or shift == 63:
                if shift == 63 and octet > 1:
                    raise Faulty(faults.long_number)
                self.at = at
                return (value >> 1) ^ -(value & 1)
            shift += 7
        raise Faulty(faults.truncated)

    def spend(self, items: int, fault: RecordFault) -> None:
        """Count items that take no bytes; raise Faulty when the record has more of them than it may have."""
        row = np.array([self.row])
        if self.piece.overspent(row, np.array([items]))[0]:
            raise Faulty(fault)


def _unzigzag(words: Words) -> Ints:
    return ((words >> _ONE) ^ -(words & _ONE)).view(np.int64)
