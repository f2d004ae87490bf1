"""An object as a file that can be read from any place, without all of it being read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

TAIL_BYTES: Final = 64 << 10
"""What is read of the end of a file at first: the footer of most files, and all of small ones."""


class RangedFile(io.RawIOBase):
    """Read an object by ranges; the end of it is read at once, because a footer is there.

    `read` returns the bytes from one position to another, the latter not included.
    """

    def __init__(self, size: int, read: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._read = read
        self._at = 0
        self._tail_start = max(0, size - TAIL_BYTES)
        self._tail: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        if self._at >= self._tail_start:
            if self._tail is None:
                self._tail = self._read(self._tail_start, self._size)
            found = self._tail[self._at - self._tail_start : end - self._tail_start]
        else:
            found = self._read(self._at, end)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
