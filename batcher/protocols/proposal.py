"""What a sink may be asked before it is run: to make a target for some records, and which of them it would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import pyarrow as pa

from batcher.records import Rejection


@dataclass(frozen=True, slots=True)
class Proposal:
    """Say what records are like, as far as some of them show.

    `schema` has a column for each of their fields. A column is nullable where a record had no value; its type is null
    where none had. `distinct` is how many different values a column had, in `rows` records; columns whose values were
    not counted are not in it. `topics` is how many topics are loaded into one target. `order_by` are the columns that a
    person wants the rows sorted by; empty to let the sink choose. With `version`, rows that are equal in `order_by` are
    one row, of which the one with the highest version holds; `deleted` is then 1 in a row that says that there is none.
    """

    schema: pa.Schema
    rows: int
    distinct: Mapping[str, int] = field(default_factory=dict)
    topics: int = 1
    order_by: tuple[str, ...] = ()
    version: str = ""
    deleted: str = ""


@runtime_checkable
class Creatable(Protocol):
    """Make the target that records need: `batcher schema` asks this of a sink that is not open. Main thread."""

    def statement(self, proposal: Proposal) -> str:
        """Return the statement that makes the target, for people to change. Connects to nothing.

        Raise SinkMisconfigured for a field that no column can hold and for an order that cannot be.
        """

    def create(self, proposal: Proposal) -> None:
        """Make the target. Raise Unreachable, and SinkMisconfigured where it is there already or may not be made."""


@runtime_checkable
class Foresighted(Protocol):
    """Know what it would refuse: `batcher check` asks this of a sink that is not open. Main thread."""

    def refused(self, rows: pa.RecordBatch) -> Sequence[Rejection]:
        """Return the rows that `write` would refuse without asking the target. Nothing is written.

        The columns are those of a block: the schema of `SinkInfo`, then its coordinates. Raise as `open`.
        """
