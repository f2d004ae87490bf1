"""What the pipeline asks of a transform: something between the decoder of a format and the columns of a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

import pyarrow as pa

from batcher.records import Rejection

if TYPE_CHECKING:
    from batcher.protocols.format import Format
    from batcher.protocols.proposal import Proposal
    from batcher.records import Batch

ROW: Final = "_row"
"""The hidden column that says which of the given rows a row was made from: int64, unique, never null."""


@dataclass(frozen=True, slots=True)
class Transformed:
    """Hold what became of the rows that a transform was given; each is named by its value of `_row`.

    `rows` has the columns of the plan's output and `_row`, in any order. `rejections` (their `position` is a `_row`)
    are rows that cannot be transformed, for the dead-letter queue. `skipped` are rows without a result by policy, such
    as a message that says nothing about a row. A row that is in none of the three was filtered.
    """

    rows: pa.RecordBatch
    rejections: Sequence[Rejection] = ()
    skipped: Sequence[int] = ()


class TransformFailed(Exception):
    """Say in one line, which quotes no value, why rows cannot be transformed; `path` is the column at fault, if known.

    It is raised by `TransformPlan.apply` when some of the rows are at fault and it is not known which. Any other
    exception means the same and is told by the name of its class.
    """

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class TransformPlan(Protocol):
    """Transform rows that have the columns of one schema. Not for several threads at once."""

    @property
    def output(self) -> pa.Schema:
        """Return the columns of the result, without `_row`."""

    @property
    def proposed(self) -> pa.Schema:
        """Return the columns for a target that has none: the output, with the type null where it is not known yet."""

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        """Return what becomes of some rows, at least one.

        They have the columns that the plan was made for, then the coordinates that the transform asked for, then
        `_row`. What becomes of a row depends on nothing but the row: not on its neighbours, the time, or chance.
        Where an exception is raised because of a row, the caller offers the halves, until the row stands alone.
        """


class Transform(Protocol):
    """Make plans. Called by the decode loop, and by the write loop; a plan stays with one of them."""

    @property
    def name(self) -> str:
        """Return what messages call it, such as `--transform.python hooks:mask`."""

    @property
    def coordinates(self) -> Sequence[str]:
        """Return the coordinate columns that it wants beside those of the records (`records.COORDINATES`)."""

    def input(self, target: pa.Schema | None, stated: pa.Schema | None) -> pa.Schema | None:
        """Return what to decode records for where no record is needed to know; None: what the first batch holds.

        `target` has the columns that the result is for, None where the target takes any. `stated` is the schema of
        `--decode.schema`, None without one. Where one is stated the result is not None.
        """

    def inferred(self, target: pa.Schema | None, found: pa.Schema) -> pa.Schema:
        """Return what to decode records for, given what the format found in them. Asked where `input` says None."""

    def plan(self, given: pa.Schema) -> TransformPlan:
        """Return how rows of these columns are transformed; `given` has no coordinates and no `_row`.

        A field that has had no value so far has the type null. When its first value comes, another plan is made. Raise
        ConfigurationError, naming what the user wrote, for columns that it cannot work with.
        """


@runtime_checkable
class Adapting(Protocol):
    """Read records in a way of its own: asked of a transform before anything is decoded."""

    def adapted(self, format_: Format) -> Format:
        """Return the format that reads what the transform takes. Raise ConfigurationError for one that cannot."""


@runtime_checkable
class Proposing(Protocol):
    """Know what a target for its rows has to be like: asked by `batcher schema`. Main thread."""

    def proposal(self, given: Proposal, batch: Batch) -> Proposal:
        """Return what records need, changed by what is known of the rows made of them; `batch` holds the records.

        Raise ConfigurationError where that cannot be said.
        """
