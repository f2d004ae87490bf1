"""The rows of a block that cannot be written, column by column, and why."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from batcher.records import Rejection


class UnsupportedType(ValueError):
    """Refuse a column's type; the message names the part that cannot be filled."""


class Faults:
    """Collect the rows of one column, or of one part of it, that cannot be written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[tuple[int, str, str, str]] = []

    def add(self, bad: pa.BooleanArray, reason: str, message: str) -> bool:
        """Record the rows where `bad` is true, and return whether there are any."""
        if not pc.any(bad).as_py():
            return False
        self.extend(pc.indices_nonzero(bad).to_pylist(), reason, message)
        return True

    def extend(self, rows: Iterable[int], reason: str, message: str) -> None:
        """Record rows by number."""
        self.found += [(row, reason, f"{self.path}: {message}", self.path) for row in rows]

    def extend_into(self, whole: Faults, row: int, reason: str, message: str) -> None:
        """Record a row of this part in the whole."""
        whole.found.append((row, reason, f"{self.path}: {message}", self.path))

    def part(self, name: str) -> Faults:
        """Return an empty collection for a part of this column."""
        return Faults(f"{self.path}.{name}")

    def take(self, part: Faults, offsets: pa.Array | None = None) -> None:
        """Adopt a part's rows; with `offsets`, of a list, its elements' numbers become those of their lists."""
        if not part.found:
            return
        starts = None if offsets is None else offsets.to_pylist()
        for row, reason, message, path in part.found:
            owner = row if starts is None else bisect_right(starts, row) - 1
            self.found.append((owner, reason, message, path))

    def rejections(self) -> list[Rejection]:
        """Return one rejection for each row, the first that was found."""
        first: dict[int, Rejection] = {}
        for row, reason, message, path in self.found:
            first.setdefault(row, Rejection(row, reason, message, path))
        return [first[row] for row in sorted(first)]
