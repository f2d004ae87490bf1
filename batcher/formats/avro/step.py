"""What one node of a schema is to the reader: a step that moves cursors over its values and makes a column of them.

Each step goes two ways. With many cursors, numpy moves them all at once. With one cursor, plain Python is faster, and
JSON text is made that way. Both find the same faults in the same order, since a record must fare alone as it does among
others. What a value means (text, digits, range) is looked at by `read` and `text` only; `skip` and `skip_one` look at
what has to be known to move on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array

import pyarrow as pa

from batcher.formats.avro.cursors import Cursors, Single
from batcher.formats.avro.fault import AvroFaults


class Step(ABC):
    """Read the values at one place of a schema.

    `least` is the fewest bytes of a value, `width` the bytes of each value where all have the same. A value of no bytes
    has a width of 0.
    """

    type: pa.DataType
    nullable: bool = False
    least: int = 1
    width: int | None = None

    def __init__(self, path: str) -> None:
        self.faults = AvroFaults(path)

    @abstractmethod
    def read(self, cursors: Cursors) -> pa.Array:
        """Return a value for each cursor, and move the cursors past them; refuse what is none."""

    @abstractmethod
    def skip(self, cursors: Cursors) -> None:
        """Move cursors past their values; refuse what is none."""

    @abstractmethod
    def skip_one(self, single: Single) -> None:
        """Move one cursor past its value; raise Faulty if it is none."""

    def skip_run(self, single: Single, count: int, starts: array[int] | None) -> None:
        """Move one cursor past some values, noting where each begins; raise Faulty at the first that is none."""
        for _ in range(count):
            if starts is not None:
                starts.append(single.at)
            self.skip_one(single)

    @abstractmethod
    def text(self, single: Single) -> str:
        """Return one value as JSON text and move past it; raise Faulty if it is none."""

    def field(self, name: str) -> pa.Field:
        """Return the column, or part of one, that the values make."""
        return pa.field(name, self.type, nullable=self.nullable)
