"""Lines of a file or a pipe as they come, within a bound on memory."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from batcher.generate.skipped import SkipReason

READ_BYTES: Final = 1 << 20

WAIT_S: Final = 0.05
"""How soon a stop is noticed while a pipe says nothing."""


class Chunk(NamedTuple):
    """Hold what was read of a source: lines or rows, or why one is none, each with its number from 1 on.

    `whole` says that none of them is a reason, which saves looking at each.
    """

    items: Sequence[bytes | SkipReason]
    numbers: Sequence[int]
    source: str
    whole: bool = False


class LineCutter:
    """Cut bytes into lines. A line of more than `most` bytes is forgotten while it comes."""

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        self._held: list[bytes] = []
        self._size = 0

    def take(self, data: bytes) -> list[bytes | SkipReason]:
        """Return the lines that end in these bytes, without their ends."""
        first, *others = data.split(b"\n")
        self._hold(first)
        if not others:
            return []
        *whole, rest = others
        found = [self.rest(), *whole]
        self._hold(rest)
        return found

    def rest(self) -> bytes | SkipReason:
        """Return what has come since the last end of a line, and forget it."""
        line = SkipReason.TOO_LARGE if self._size > self._most else b"".join(self._held)
        self._held.clear()
        self._size = 0
        return line

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._most:
            self._held.clear()
        elif part:
            self._held.append(part)


def available(descriptor: int, stop: threading.Event) -> bytes:
    """Return what a file or pipe has by now, once it has something; nothing at its end, or when stopped."""
    while not stop.is_set():
        if select.select([descriptor], [], [], WAIT_S)[0]:
            return os.read(descriptor, READ_BYTES)
    return b""


def read_on(descriptor: int, stop: threading.Event) -> Iterator[bytes]:
    """Yield what comes from a file or pipe, until its end or until stopped."""
    return iter(lambda: available(descriptor, stop), b"")


def lines(descriptor: int, stop: threading.Event) -> Iterator[list[bytes]]:
    """Yield the lines of a file or pipe that have come so far, again and again, until its end or until stopped.

    What `tail -f` writes into a pipe comes out at once. Empty lines are left out.
    """
    for chunk in line_chunks(read_on(descriptor, stop), "", stop.is_set, sys.maxsize):
        yield [line for line in chunk.items if isinstance(line, bytes)]


def line_chunks(data: Iterable[bytes], source: str, stopped: Callable[[], bool], most: int) -> Iterator[Chunk]:
    """Yield the lines of some bytes as they come, but not one that a stop has cut."""
    cutter, number = LineCutter(most), 1
    for part in data:
        if found := cutter.take(part):
            yield _chunk(found, number, source)
            number += len(found)
    if not stopped() and (last := cutter.rest()):
        yield _chunk([last], number, source)


def _chunk(found: list[bytes | SkipReason], first: int, source: str) -> Chunk:
    numbers = range(first, first + len(found))
    lines = [line.rstrip(b"\r") for line in found if isinstance(line, bytes)]
    if len(lines) == len(found) and b"" not in lines:
        return Chunk(lines, numbers, source, whole=True)
    items: list[bytes | SkipReason] = [line or SkipReason.EMPTY for line in lines]
    # Only the first one came in pieces, and can be too large.
    return Chunk([SkipReason.TOO_LARGE, *items] if len(lines) < len(found) else items, numbers, source)
