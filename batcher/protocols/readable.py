"""What `verify`, `repair`, `peek`, `schema` and `check` ask of a log that can be read again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from batcher.records import Partition, Position, Range, Records

if TYPE_CHECKING:
    import pyarrow as pa


class ReadableLog(Protocol):
    """Read parts of a log without being a member of a group, and change nothing. Called by one thread.

    A source offers one by an attribute `reader` of its plug-in: a function `reader(options, context)` that takes what
    the plug-in itself takes, and returns this, not open yet. The group may be missing in these options. It raises
    ConfigurationError.
    """

    def open(self) -> Sequence[Partition]:
        """Connect and return the partitions, ascending. Raise Unreachable or ConfigurationError."""

    def close(self) -> None:
        """Disconnect. A second call is harmless."""

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        """Return the positions of the group; partitions without a commit are not in it."""

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        """Return the first offset of the log and the one after the last that may be read."""

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        """Return the first offset whose record is of this time or later; None where no record is that young."""

    def members(self) -> int:
        """Return how many members the group has now."""

    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        """Return the offsets of a range that have a record, ascending, and which of the records have no value.

        Raise DataGap when the log's beginning has moved past the range, SourceLost when reading cannot go on.
        """

    def records(self, asked: Range) -> Iterator[Records]:
        """Yield the records of a range, ascending. Raise as `offsets` does. Only one iterator may be in use."""
