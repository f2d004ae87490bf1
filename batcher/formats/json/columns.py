"""Turn the columns of Arrow's reader into columns of the schema, and say which rows need a closer look.

Nothing is decided here against a record: a row that a column cannot settle (a timestamp in another form, a null where
none may be, a float that could have been an integer too big) is *open* and goes to `strict.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json import shape, timestamps
from batcher.formats.json.shape import inner_path, is_text, item_path
from batcher.formats.json.times import Times

Finished = tuple[pa.Array, list[int]]
"""A column, and the rows that are open, in any order and perhaps repeated; what stands there means nothing."""


class _Given(NamedTuple):
    """Hold what is the same for all columns of a schema."""

    times: Times
    plain: frozenset[str]
    """The paths of what is finished as it is read (`shape.plain_paths`)."""


class Finisher:
    """Finish columns of one schema."""

    def __init__(self, schema: pa.Schema, times: Times) -> None:
        self._schema = schema
        self._given = _Given(times, frozenset(shape.plain_paths(schema)))

    def finish(self, columns: Iterable[pa.Array]) -> tuple[pa.Table, list[int]]:
        """Return the table and its open rows, ascending, from columns of the reading or the rewritten schema."""
        finished: list[pa.Array] = []
        rows: set[int] = set()
        for column, field in zip(columns, self._schema, strict=True):
            array, bad = _field(column, field, field.name, self._given)
            finished.append(array)
            rows.update(bad)
        return pa.Table.from_arrays(finished, schema=self._schema), sorted(rows)


def _field(column: pa.Array, field: pa.Field, path: str, given: _Given) -> Finished:
    finished, bad = _column(column, field.type, path, given)
    if not field.nullable and column.null_count:
        bad = bad + _rows(pc.is_null(column))
    return finished, bad


def _column(  # noqa: C901, PLR0911 - one for each kind of type
    column: pa.Array, to: pa.DataType, path: str, given: _Given
) -> Finished:
    if column.null_count == len(column):
        return pa.nulls(len(column), to), []
    if path in given.plain and column.type.equals(to):
        return column, []
    if pa.types.is_struct(to):
        return _struct(column, to, path, given)
    if pa.types.is_map(to):
        return _map(column, to, path, given)
    if pa.types.is_list(to):
        return _list(column, to, path, given)
    if pa.types.is_timestamp(to):
        return _timestamp(column, to, path, given)
    if pa.types.is_date32(to):
        if pa.types.is_int32(column.type):
            return column.view(to), []
        return timestamps.piecewise(column, lambda part: part.cast(to))
    if is_text(to) and pa.types.is_int64(column.type):
        return _integers_as_text(column, to)
    if pa.types.is_null(to):
        # The strict reader says what a value means here.
        return pa.nulls(len(column)), _rows(column.is_valid()) if column.null_count < len(column) else []
    if pa.types.is_floating(to):
        return column, _inexact(column, to)
    if pa.types.is_decimal(to):
        # Arrow 26 takes 1700000000 for decimal(10, 2): it checks the precision before it adds the scale.
        return timestamps.piecewise(column, _validated)
    return column, []


def _validated(column: pa.Array) -> pa.Array:
    column.validate(full=True)
    return column


def _timestamp(column: pa.Array, to: pa.TimestampType, path: str, given: _Given) -> Finished:
    if pa.types.is_int64(column.type):
        return column.view(to), []
    if pa.types.is_decimal(column.type):
        return given.times.of_numbers(path, column, to)
    return given.times.of_texts(path, column, to)


def _integers_as_text(column: pa.Array, to: pa.DataType) -> Finished:
    # An integer in JSON has one spelling, except for zero: -0 is another text than 0.
    return column.cast(pa.string()).cast(to), _rows(pc.equal(column, 0))


def _inexact(column: pa.Array, to: pa.DataType) -> list[int]:
    """Return the rows whose number is so large that it may have been an integer that was rounded, or infinite."""
    limit = 2.0**24 if to == pa.float32() else 2.0**53
    span = pc.min_max(column).as_py()
    if span["min"] is None or (-limit < span["min"] and span["max"] < limit):
        return []
    return _rows(pc.greater_equal(pc.abs(column), pa.scalar(limit, to)))


def _struct(column: pa.Array, to: pa.StructType, path: str, given: _Given) -> Finished:
    bad: list[int] = []
    children: list[pa.Array] = []
    # A child is null wherever its parent is; only a null of its own counts.
    present = column.is_valid() if column.null_count else None
    for child, field in zip(column.flatten(), to, strict=True):
        finished, rows = _column(child, field.type, inner_path(path, field.name), given)
        bad += rows
        if not field.nullable and child.null_count:
            absent = pc.is_null(child)
            bad += _rows(absent if present is None else pc.and_(absent, present))
        children.append(finished)
    mask = None if present is None else pc.invert(present)
    return pa.StructArray.from_arrays(children, fields=list(to), mask=mask), bad


def _list(column: pa.Array, to: pa.ListType, path: str, given: _Given) -> Finished:
    column = _from_start(column)
    items, rows = _field(column.values, to.value_field, item_path(path), given)
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(column.offsets, items, type=to, mask=mask), _parents(column, rows)


def _map(column: pa.Array, to: pa.MapType, path: str, given: _Given) -> Finished:
    column = _from_start(column)
    keys, values = column.values.flatten()
    values, rows = _field(values, to.item_field, item_path(path), given)
    mask = column.is_null() if column.null_count else None
    return pa.MapArray.from_arrays(column.offsets, keys, values, type=to, mask=mask), _parents(column, rows)


def _from_start(column: pa.Array) -> pa.Array:
    """Return the column with an offset of 0, so that its values and offsets fit each other."""
    return pa.concat_arrays([column]) if column.offset else column


def _parents(column: pa.Array, rows: list[int]) -> list[int]:
    return pc.list_parent_indices(column).take(pa.array(rows, pa.int64())).to_pylist() if rows else []


def _rows(mask: pa.Array) -> list[int]:
    return pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()  # type: ignore[no-any-return]
