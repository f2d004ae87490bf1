"""Rows of CSV as JSON objects, one for each row, with the names of the header.

Every cell is text: so nothing of it changes, no leading zero and no digit. Where a column is known to hold numbers,
they are taken over digit by digit, and never through a float.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from batcher.generate.inputs import BrokenInput
from batcher.generate.lines import Chunk, LineCutter
from batcher.generate.skipped import SkipReason

_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)

_BOM: Final = b"\xef\xbb\xbf"


def csv_chunks(
    data: Iterable[bytes], source: str, stopped: Callable[[], bool], most: int, numbers: frozenset[str]
) -> Iterator[Chunk]:
    """Yield the rows as they come. Raise BrokenInput for a header that cannot be used."""
    csv.field_size_limit(most)
    feed = _Feed(data, most)
    reader = csv.reader(feed, strict=True)
    header = _header(reader, source, numbers, stopped)
    if header is None:
        return
    encode = _Encoder(header, numbers)
    items: list[bytes | SkipReason] = []
    places: list[int] = []
    while True:
        if feed.drained and items:
            yield Chunk(items, places, source)
            items, places = [], []
        number = feed.number + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            # The library has no other word for it.
            long = "field limit" in str(error)
            item: bytes | SkipReason = SkipReason.TOO_LARGE if long else SkipReason.BAD_QUOTES
        except _TooLong:
            item = SkipReason.TOO_LARGE
        except BrokenInput:
            yield Chunk(items, places, source)
            raise
        else:
            item = encode(row)
        if feed.ended and stopped():
            break  # the stop has cut this row
        items.append(item)
        places.append(number)
    yield Chunk(items, places, source)


def _header(
    reader: Iterator[list[str]], source: str, numbers: frozenset[str], stopped: Callable[[], bool]
) -> list[str] | None:
    try:
        header = next(reader, None)
    except (csv.Error, _TooLong) as error:
        raise BrokenInput(f"--from {source}: its first line is no header of CSV: {error}") from error
    if header is None or stopped():
        return None
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise BrokenInput(f"--from {source}: its header has {_shown(twice)} twice; give each column a name of its own")
    if not all(map(_is_text, header)):
        raise BrokenInput(f"--from {source}: its header is not in UTF-8")
    lacking = numbers.difference(header)
    if lacking:
        raise BrokenInput(f"--from {source}: its header has no {_shown(min(lacking))}, which --numbers names")
    return header


def _shown(name: str) -> str:
    return ascii(name)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _TooLong(Exception):
    """Report a line that is longer than may be held."""


class _Feed:
    """Give lines of text to the reader, and say when the next has to be waited for; `number` is that of the last."""

    def __init__(self, data: Iterable[bytes], most: int) -> None:
        self.ended = False
        self.number = 0
        self._data = iter(data)
        self._cutter = LineCutter(most)
        self._lines: deque[bytes | SkipReason] = deque()
        self._first = True

    @property
    def drained(self) -> bool:
        return not self._lines

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        while not self._lines:
            if self.ended:
                raise StopIteration
            part = next(self._data, None)
            if part is None:
                self.ended = True
                # The last line may have no end.
                if last := self._cutter.rest():
                    self._lines.append(last)
                continue
            self._lines += [line if isinstance(line, SkipReason) else line + b"\n" for line in self._cutter.take(part)]
        line = self._lines.popleft()
        self.number += 1
        if isinstance(line, SkipReason):
            raise _TooLong("it is longer than a message may be")
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        # What is no UTF-8 becomes what no encoder takes, and so costs its row only.
        return line.decode("utf-8", "surrogateescape")


class _Encoder:
    def __init__(self, header: list[str], numbers: frozenset[str]) -> None:
        self._header = header
        self._numbers = [name in numbers for name in header] if numbers else None
        self._encode = msgspec.json.Encoder().encode

    def __call__(self, row: list[str]) -> bytes | SkipReason:
        """Return a row as a JSON object, or why it cannot be one."""
        if not row:
            return SkipReason.EMPTY
        if len(row) != len(self._header):
            return SkipReason.WRONG_WIDTH
        cells: list[str | msgspec.Raw | None] = list(row)
        if self._numbers is not None:
            for index, cell in enumerate(row):
                if self._numbers[index]:
                    if cell and not _NUMBER.fullmatch(cell):
                        return SkipReason.NOT_A_NUMBER
                    cells[index] = msgspec.Raw(cell.encode()) if cell else None
        try:
            return self._encode(dict(zip(self._header, cells, strict=True)))
        except UnicodeEncodeError:
            return SkipReason.NOT_UTF8
