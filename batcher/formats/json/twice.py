"""Find messages in which a key may occur twice, before Arrow does.

Arrow refuses a block for one such message, and what it had read is lost. It names the column. Records of one producer
err in the same place again, so the keys that were named are looked for in what is read from then on, many messages at a
time. This is a guess by the text of the key, wherever it stands: it changes the speed, never a result.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import msgspec
import pyarrow as pa

from batcher.formats.json.guard import whole

_TOGETHER: Final = 64
"""Messages in which a key is counted at once."""

_KEYS: Final = 4
"""The most keys that are looked for: each look costs a tenth of reading."""

_PATIENCE: Final = 64
"""Looks without a find after which the keys are forgotten."""

_SHARE: Final = 32
"""A key that one message in so many has more than once is one of an inner object, and no sign of anything."""


class TwiceSeen:
    """Know the keys that occurred twice. Not for several threads at once."""

    def __init__(self) -> None:
        self._marks: dict[bytes, None] = {}
        self._common: set[bytes] = set()
        self._fruitless = 0

    def learn(self, path: str | None) -> bool:
        """Take the column that Arrow named; return whether it is news."""
        if path is None or len(self._marks) >= _KEYS:
            return False
        mark = msgspec.json.encode(path.rpartition("/")[2]) + b":"
        if mark in self._marks or mark in self._common:
            return False
        self._marks[mark] = None
        self._fruitless = 0
        return True

    def rows(self, texts: pa.Array) -> list[int]:
        """Return the messages that may have a key twice, ascending."""
        if not self._marks or not len(texts):
            return []
        found: set[int] = set()
        for mark in list(self._marks):
            rows = _rows(texts, mark)
            if len(rows) > max(_TOGETHER, len(texts) // _SHARE):
                del self._marks[mark]
                self._common.add(mark)
            else:
                found.update(rows)
        self._fruitless = 0 if found else self._fruitless + 1
        if self._fruitless > _PATIENCE:
            self._marks.clear()
        return sorted(found)


def _rows(texts: pa.Array, mark: bytes) -> list[int]:
    everything: Any = memoryview(whole(texts).buffers()[2])
    starts = [*range(0, len(texts), _TOGETHER), len(texts)]
    ends = _ends(texts, starts)
    rows: list[int] = []
    for (first, begin), (last, end) in pairwise(zip(starts, ends, strict=True)):
        if bytes(everything[begin:end]).count(mark) > last - first:
            rows += [row for row, text in enumerate(_of(texts, first, last), first) if text.count(mark) > 1]
    return rows


def _ends(texts: pa.Array, rows: Iterable[int]) -> list[int]:
    """Return where the messages before each row end, counted from the first message."""
    offsets = pa.Array.from_buffers(pa.int32(), len(texts) + 1, [None, texts.buffers()[1]], offset=texts.offset)
    ends: list[int] = offsets.take(pa.array(rows, pa.int64())).to_pylist()
    return [end - ends[0] for end in ends]


def _of(texts: pa.Array, first: int, last: int) -> list[bytes]:
    return texts.slice(first, last - first).to_pylist()  # type: ignore[no-any-return]
