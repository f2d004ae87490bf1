"""Transforms so small that a test can predict them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from batcher.protocols.transform import ROW, Transformed

Apply = Callable[[pa.RecordBatch], Transformed]


class ScriptedTransform:
    """Transform with a function, whose output for no rows says what its columns are (`protocols.Transform`).

    `inputs` is what it says of its input before a record was seen; None: the format finds out.
    """

    def __init__(
        self, apply: Apply, *, inputs: pa.Schema | None = None, coordinates: Sequence[str] = (), name: str = "scripted"
    ) -> None:
        self.name = name
        self.coordinates = coordinates
        self._apply = apply
        self._inputs = inputs

    def input(self, target: pa.Schema | None, stated: pa.Schema | None) -> pa.Schema | None:
        del target
        return stated if self._inputs is None else self._inputs

    def inferred(self, target: pa.Schema | None, found: pa.Schema) -> pa.Schema:
        del target
        return found

    def plan(self, given: pa.Schema) -> ScriptedPlan:
        return ScriptedPlan(self._apply, given)


class ScriptedPlan:
    """Call the function (`protocols.TransformPlan`)."""

    def __init__(self, apply: Apply, given: pa.Schema) -> None:
        self._apply = apply
        nothing = given.append(pa.field(ROW, pa.int64())).empty_table().to_batches(1)
        rows = nothing[0] if nothing else pa.RecordBatch.from_pylist([], given.append(pa.field(ROW, pa.int64())))
        made = apply(rows).rows.schema
        self.output = pa.schema([field for field in made if field.name != ROW])

    @property
    def proposed(self) -> pa.Schema:
        return self.output

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        return self._apply(rows)
