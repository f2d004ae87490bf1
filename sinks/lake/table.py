"""What the sink asks of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from batcher.protocols.measure import Measure
from batcher.records import Partition


class LakeTable(Protocol):
    """Hold one snapshot of one table, and commit to it. The sink calls one method at a time, but for `measures`.

    Every method raises SinkUnavailable for what passes by waiting, a lost race and an unknown outcome among it, and
    SinkMisconfigured for what a person has to repair. None of them tries again by itself.
    """

    @property
    def label(self) -> str:
        """Return the table's name for people, without secrets."""

    def open(self) -> bool:
        """Connect, and return whether there is a table. Also refuse one that cannot be written here."""

    def refresh(self) -> None:
        """Take the newest snapshot. What follows speaks of it, up to the next call."""

    def columns(self) -> pa.Schema:
        """Return the columns of the snapshot with its types, coordinates included, computed ones left out."""

    def remembered(self) -> str | None:
        """Return the text that the snapshot keeps for `create` and `widen`."""

    def create(self, columns: pa.Schema, remembered: str) -> None:
        """Make the table, unless there is one by now; that one is the snapshot afterwards."""

    def widen(self, columns: pa.Schema, remembered: str) -> None:
        """Give the table columns, and structs fields, that the snapshot lacks, and keep the text.

        `columns` are all that there are to be. Nothing that is there changes.
        """

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        """Return the positions that the snapshot has of some partitions."""

    def append(self, rows: pa.Table, positions: Mapping[Partition, int]) -> None:
        """Commit rows and positions together, on top of the snapshot.

        Raise SinkUnavailable where another commit since then had a position of one of these partitions. The rows have
        the columns of the snapshot.
        """

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return what `Auditable.copies` does, of the snapshot. The topic is as `_topic` has it."""

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        """Remove rows as `Removable.remove` does."""

    def scratch(self, name: str) -> AbstractContextManager[LakeTable]:
        """Yield another table like this one that is not there yet, and remove it at the end."""

    def measures(self) -> Sequence[Measure]:
        """Return what `Measuring.measures` does. Any thread."""

    def close(self) -> None:
        """Let go of the table. A second call is harmless."""
