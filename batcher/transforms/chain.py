"""Several transforms, one behind the other, as one."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batcher.protocols import Format
from batcher.protocols.proposal import Proposal
from batcher.protocols.transform import ROW, Adapting, Proposing, Transform, Transformed, TransformPlan
from batcher.records import COORDINATES, Batch, Rejection
from batcher.transforms.search import checked


class ChainedTransform:
    """Give what one transform makes to the next (`protocols.Transform`).

    Only the last one knows the target, because only its columns are those of the target.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self._transforms = transforms
        self.name = " then ".join(one.name for one in transforms)
        asked = {name for one in transforms for name in one.coordinates}
        self.coordinates: Sequence[str] = tuple(name for name in COORDINATES.names if name in asked)

    def adapted(self, format_: Format) -> Format:
        """Return the format for the first one, which alone reads records. Raise ConfigurationError."""
        first = self._transforms[0]
        return first.adapted(format_) if isinstance(first, Adapting) else format_

    def proposal(self, given: Proposal, batch: Batch) -> Proposal:
        """Return what rows need, as each transform that knows something of it says. Raise ConfigurationError."""
        for one in self._transforms:
            if isinstance(one, Proposing):
                given = one.proposal(given, batch)
        return given

    def input(self, target: pa.Schema | None, stated: pa.Schema | None) -> pa.Schema | None:  # noqa: ARG002
        return self._transforms[0].input(None, stated)

    def inferred(self, target: pa.Schema | None, found: pa.Schema) -> pa.Schema:  # noqa: ARG002
        return self._transforms[0].inferred(None, found)

    def plan(self, given: pa.Schema) -> TransformPlan:
        plans: list[TransformPlan] = []
        proposed = given
        for one in self._transforms:
            plans.append(one.plan(given))
            # What is not known yet behind one transform is not known behind the next one either.
            proposed = (plans[-1] if proposed.equals(given) else one.plan(proposed)).proposed
            given = plans[-1].output
        return ChainedPlan(self._transforms, plans, self.coordinates, proposed)


class ChainedPlan:
    """Apply plans in a row (`protocols.TransformPlan`)."""

    def __init__(
        self,
        transforms: Sequence[Transform],
        plans: Sequence[TransformPlan],
        coordinates: Sequence[str],
        proposed: pa.Schema,
    ) -> None:
        self.proposed = proposed
        self._steps = list(zip(transforms, plans, strict=True))
        self._coordinates = coordinates

    @property
    def output(self) -> pa.Schema:
        return self._steps[-1][1].output

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        places = rows.select([*self._coordinates, ROW])
        fields = rows.select([name for name in rows.schema.names if name not in self._coordinates])
        rejections: list[Rejection] = []
        skipped: list[int] = []
        for transform, plan in self._steps:
            if not fields.num_rows:
                # A plan is given at least one row.
                return Transformed(_nothing(self.output), rejections, skipped)
            given = _placed(fields, places, transform.coordinates)
            found = checked(plan.apply(given), plan.output, given, transform.name)
            rejections += found.rejections
            skipped += found.skipped
            fields = found.rows
        return Transformed(fields, rejections, skipped)


def _placed(fields: pa.RecordBatch, places: pa.RecordBatch, coordinates: Sequence[str]) -> pa.RecordBatch:
    """Return rows with the coordinates that a transform asked for, before `_row`."""
    numbers = fields.column(ROW)
    columns = [name for name in fields.schema.names if name != ROW]
    rows = pc.index_in(numbers, value_set=places.column(ROW))
    added = [places.column(name).take(rows) for name in coordinates]
    schema = pa.schema(
        [
            *(fields.schema.field(name) for name in columns),
            *(COORDINATES.field(name) for name in coordinates),
            pa.field(ROW, pa.int64()),
        ]
    )
    return pa.RecordBatch.from_arrays([*(fields.column(name) for name in columns), *added, numbers], schema=schema)


def _nothing(output: pa.Schema) -> pa.RecordBatch:
    schema = output.append(pa.field(ROW, pa.int64()))
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
