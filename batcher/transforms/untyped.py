"""Plans for rows with fields that had no value so far: nobody knows their type, and a plan needs one.

Such a field is given to a transform as a column of type null, or, where the transform cannot work with that, of some
other type, without any value either way. The plan is tried with several types. A column of the result whose type is
not the same each time has no type yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.growth import has_untyped
from batcher.protocols.transform import Transformed, TransformPlan

_TRIED: Final = (pa.null(), pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us", "UTC"))
"""The types tried, in this order; they differ in what functions take them."""


def plan_untyped(make: Callable[[pa.Schema], TransformPlan], given: pa.Schema) -> TransformPlan:
    """Return the plan that `make` gives for a schema, which may have null types. Raise what `make` raises."""
    if not has_untyped(given):
        return make(given)
    plans: list[tuple[pa.Schema, TransformPlan]] = []
    refusals: list[ConfigurationError] = []
    for kind in _TRIED:
        schema = pa.schema([field.with_type(_replaced(field.type, kind)) for field in given])
        try:
            plans.append((schema, make(schema)))
        except ConfigurationError as refusal:
            refusals.append(refusal)
    if not plans:
        raise refusals[0]
    schema, plan = plans[0]
    return StandInPlan(schema, plan, [other.output for _, other in plans])


class StandInPlan:
    """Apply a plan to rows whose fields without a type get one (`protocols.TransformPlan`)."""

    def __init__(self, schema: pa.Schema, plan: TransformPlan, outputs: Sequence[pa.Schema]) -> None:
        self._schema = schema
        self._plan = plan
        self._outputs = outputs

    @property
    def output(self) -> pa.Schema:
        return self._plan.output

    @property
    def proposed(self) -> pa.Schema:
        fields = []
        for field in self._plan.proposed:
            kinds = [output.field(field.name).type for output in self._outputs if field.name in output.names]
            fields.append(_common(field, kinds))
        return pa.schema(fields)

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        columns = [_filled(rows.column(field.name), field.type) for field in self._schema]
        others = [field for field in rows.schema if field.name not in self._schema.names]
        columns += [rows.column(field.name) for field in others]
        return self._plan.apply(pa.RecordBatch.from_arrays(columns, schema=pa.schema([*self._schema, *others])))


def _replaced(kind: pa.DataType, leaf: pa.DataType) -> pa.DataType:
    """Return a type with another one in the places that have none."""
    if _is_open(kind):
        return leaf
    if pa.types.is_struct(kind):
        return pa.struct([child.with_type(_replaced(child.type, leaf)) for child in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field, kind.item_field.with_type(_replaced(kind.item_type, leaf)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_replaced(kind.value_type, leaf)))
    return kind


def _filled(column: pa.Array, to: pa.DataType) -> pa.Array:
    """Return a column in the type that `_replaced` gave: what has no type has no value."""
    kind = column.type
    if kind.equals(to):
        return column
    if _is_open(kind):
        return pa.nulls(len(column), to)
    mask = column.is_null() if column.null_count else None
    if pa.types.is_struct(kind):
        children = [_filled(column.field(n), to.field(n).type) for n in range(to.num_fields)]
        return pa.StructArray.from_arrays(children, fields=list(to), mask=mask)
    # What a slice or a null hides is still in the children; taking all rows leaves it behind.
    column = column.take(pa.arange(0, len(column)))
    if pa.types.is_map(kind):
        items = _filled(column.items, to.item_type)
        return pa.MapArray.from_arrays(column.offsets, column.keys, items, type=to, mask=mask)
    offsets = column.offsets
    values = _filled(column.values.slice(0, offsets[len(offsets) - 1].as_py()), to.value_type)
    return pa.ListArray.from_arrays(offsets, values, type=to, mask=mask)


def _common(field: pa.Field, kinds: Sequence[pa.DataType]) -> pa.Field:
    return field.with_type(_common_type(kinds)) if len(set(kinds)) > 1 else field


def _common_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    """Return what several types have in common, null where they differ."""
    first = kinds[0]
    if all(kind.equals(first) for kind in kinds):
        return first
    if all(pa.types.is_struct(kind) for kind in kinds):
        names = [[child.name for child in kind] for kind in kinds]
        if all(one == names[0] for one in names):
            return pa.struct(
                [child.with_type(_common_type([kind.field(n).type for kind in kinds])) for n, child in enumerate(first)]
            )
    if all(pa.types.is_list(kind) for kind in kinds):
        return pa.list_(first.value_field.with_type(_common_type([kind.value_type for kind in kinds])))
    if all(pa.types.is_map(kind) for kind in kinds):
        items = first.item_field.with_type(_common_type([kind.item_type for kind in kinds]))
        return pa.map_(first.key_field, items)
    return pa.null()


def _is_open(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or (pa.types.is_struct(kind) and kind.num_fields == 0))
