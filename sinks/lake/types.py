"""Arrow's types as lake tables take them.

The tables know no unsigned numbers, microseconds at best, UTC or no zone, and decimals of 38 digits. What has a wider
type there is widened. What would be cut is refused, row by row. deltalake and pyiceberg would wrap or cut some of it
without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import RowsRejected
from batcher.records import Rejection

UNSIGNED: Final = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}

SAME: Final = frozenset(
    {pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.binary()}
)

_TEXTS: Final = (pa.types.is_large_string, pa.types.is_string_view)
_OCTETS: Final = (pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
_LISTS: Final = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def lake_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of a column for values of a type; None where a lake table has none. All inside may be null."""
    if kind in SAME or kind in UNSIGNED:
        return UNSIGNED.get(kind, kind)
    if pa.types.is_dictionary(kind):
        return lake_type(kind.value_type)
    return _narrowed(kind) or _nested(kind)


def _narrowed(kind: pa.DataType) -> pa.DataType | None:
    types, found = pa.types, None
    if types.is_timestamp(kind):
        found = pa.timestamp("us", None if kind.tz is None else "UTC")
    elif types.is_date(kind):
        found = pa.date32()
    elif _any(_TEXTS, kind):
        found = pa.string()
    elif _any(_OCTETS, kind):
        found = pa.binary()
    elif types.is_decimal32(kind) or types.is_decimal64(kind) or types.is_decimal128(kind):
        found = pa.decimal128(kind.precision, kind.scale) if 0 <= kind.scale <= kind.precision else None
    return found


def _nested(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_map(kind):
        key, item = lake_type(kind.key_type), lake_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if pa.types.is_struct(kind):
        inner = [(kind.field(n).name, lake_type(kind.field(n).type)) for n in range(kind.num_fields)]
        return pa.struct(inner) if inner and all(one is not None for _, one in inner) else None
    if _any(_LISTS, kind):
        item = lake_type(kind.value_type)
        return None if item is None else pa.list_(item)
    return None


def _any(tests: tuple[Callable[[pa.DataType], bool], ...], kind: pa.DataType) -> bool:
    return any(test(kind) for test in tests)


def lake_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a table for a schema that has no problem: of the same names, each may be null.

    A column that must not be null makes, beside a timestamp without a zone, Delta tables that Spark 4 refuses. Where a
    field has to be there, the decoder sees to it.
    """
    return pa.schema([pa.field(field.name, lake_type(field.type)) for field in schema])


def problem(schema: pa.Schema) -> str | None:
    """Say which column a lake table has no type for, or None."""
    for field in schema:
        for path, kind in _leaves(field.name, field.type):
            if lake_type(kind) is None:
                return f"column {path!r} is {kind}, which a lake table has no type for"
    folded = [name.lower() for name in schema.names]
    for name in schema.names:
        if folded.count(name.lower()) > 1:
            return f"there is more than one column {name!r}, and lake tables do not tell large letters from small ones"
    return None


def _leaves(path: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    inner = kind.num_fields
    if not inner:
        yield path, kind
    elif pa.types.is_struct(kind):
        for n in range(inner):
            yield from _leaves(f"{path}.{kind.field(n).name}", kind.field(n).type)
    elif pa.types.is_map(kind):
        yield from _leaves(f"{path}.key", kind.key_type)
        yield from _leaves(f"{path}.value", kind.item_type)
    elif _any(_LISTS, kind):
        yield from _leaves(f"{path}[]", kind.value_type)
    else:
        yield path, kind


def takes(wanted: pa.DataType, kind: pa.DataType) -> bool:
    """Return whether a column of type `wanted` takes values of `kind`: as they are, or widened as above.

    A struct of the table may have more fields. They are null.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(wanted) and pa.types.is_struct(kind):
        return all(
            wanted.get_field_index(kind.field(n).name) >= 0
            and takes(wanted.field(kind.field(n).name).type, kind.field(n).type)
            for n in range(kind.num_fields)
        )
    if pa.types.is_map(wanted) and pa.types.is_map(kind):
        return takes(wanted.key_type, kind.key_type) and takes(wanted.item_type, kind.item_type)
    if _any(_LISTS, wanted) and _any(_LISTS, kind):
        return takes(wanted.value_type, kind.value_type)
    # Iceberg has no numbers of 8 and 16 bits.
    return bool(wanted == lake_type(kind)) or (wanted == pa.int32() and lake_type(kind) in (pa.int8(), pa.int16()))


def converted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows with exactly the columns of a table, null where they have none.

    Every column of the rows that is also in the schema is one that it takes. Raise RowsRejected for values that do not
    fit, such as a time with nanoseconds: nothing was written yet.
    """
    columns = []
    rejections: dict[int, Rejection] = {}
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        given = rows.column(field.name)
        try:
            columns.append(_cast(given, field.type))
        except pa.ArrowInvalid:
            for row in _misfits(given, field.type):
                message = f"the value of {field.name!r} does not fit {field.type}: it has more digits, or is too large"
                rejections.setdefault(row, Rejection(row, "type", message, field.name))
            if not rejections:
                raise
    if rejections:
        raise RowsRejected([rejections[row] for row in sorted(rejections)])
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(given: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if given.type.equals(kind):
        return given
    return pa.chunked_array([_recast(chunk, kind) for chunk in given.chunks], kind)


def _recast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast an array. Structs by the names of their fields: Arrow's own cast fills none that is lacking."""
    if values.type.equals(kind):
        return values
    if pa.types.is_dictionary(values.type):
        return _recast(values.dictionary_decode(), kind)
    if pa.types.is_struct(kind):
        # Unlike field(), flatten() applies the nulls of the struct and the offset of a slice.
        inner = dict(zip((f.name for f in values.type), values.flatten(), strict=True))
        children = [
            _recast(inner[field.name], field.type) if field.name in inner else pa.nulls(len(values), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=_nulls(values))
    if pa.types.is_list(kind):
        return _relist(values, kind)
    if pa.types.is_map(kind):
        return _remap(values, kind)
    return values.cast(kind)


def _relist(values: pa.Array, kind: pa.DataType) -> pa.Array:
    # Made anew from values and lengths: the offsets of a slice that was cast from a wider list crash Arrow.
    inner = _recast(values.flatten(), kind.value_type)
    lengths = pc.fill_null(pc.list_value_length(values), 0).cast(pa.int32())
    return pa.ListArray.from_arrays(_offsets(lengths), inner, type=kind, mask=_nulls(values))


def _offsets(lengths: pa.Int32Array) -> pa.Int32Array:
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])


def _nulls(values: pa.Array) -> pa.BooleanArray | None:
    return values.is_null() if values.null_count else None


def _remap(values: pa.Array, kind: pa.DataType) -> pa.Array:
    start = values.offsets[0].as_py()
    length = values.offsets[-1].as_py() - start
    keys = _recast(values.keys.slice(start, length), kind.key_type)
    items = _recast(values.items.slice(start, length), kind.item_type)
    offsets = pc.subtract(values.offsets, pa.scalar(start, pa.int32()))
    return pa.MapArray.from_arrays(offsets, keys, items, type=kind, mask=_nulls(values))


def _misfits(given: pa.ChunkedArray, kind: pa.DataType) -> list[int]:
    """Return the rows that cannot be cast, ascending: by halves, so that a few bad ones cost a few dozen casts."""
    found: list[int] = []

    def search(start: int, length: int) -> None:
        try:
            _cast(given.slice(start, length), kind)
        except pa.ArrowInvalid:
            if length == 1:
                found.append(start)
                return
            half = length // 2
            search(start, half)
            search(start + half, length - half)

    search(0, len(given))
    return found


def plain(field: pa.Field) -> pa.Field:
    """Return a column as Arrow's own types say it, without what a library says about it."""
    return pa.field(field.name, _plain_type(field.type), field.nullable)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type with the names that Arrow gives to what is in a list or a map, so that types can be compared."""
    if pa.types.is_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(_plain_type(kind.key_type), _plain_type(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, _plain_type(one.type)) for one in kind])
    return kind
