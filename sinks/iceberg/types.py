"""Iceberg's types and Arrow's: columns of a table as the sink sees them, and columns for a table that is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

import pyarrow as pa
from pyiceberg import types as ice
from pyiceberg.schema import Schema

_ARROW: Final[dict[type[ice.IcebergType], pa.DataType]] = {
    ice.BooleanType: pa.bool_(),
    ice.IntegerType: pa.int32(),
    ice.LongType: pa.int64(),
    ice.FloatType: pa.float32(),
    ice.DoubleType: pa.float64(),
    ice.DateType: pa.date32(),
    ice.TimeType: pa.time64("us"),
    ice.TimestampType: pa.timestamp("us"),
    ice.TimestamptzType: pa.timestamp("us", "UTC"),
    ice.StringType: pa.string(),
    ice.BinaryType: pa.binary(),
}

_ICEBERG: Final[dict[pa.DataType, ice.PrimitiveType]] = {
    pa.bool_(): ice.BooleanType(),
    pa.int8(): ice.IntegerType(),
    pa.int16(): ice.IntegerType(),
    pa.int32(): ice.IntegerType(),
    pa.int64(): ice.LongType(),
    pa.float32(): ice.FloatType(),
    pa.float64(): ice.DoubleType(),
    pa.date32(): ice.DateType(),
    pa.timestamp("us"): ice.TimestampType(),
    pa.timestamp("us", "UTC"): ice.TimestamptzType(),
    pa.string(): ice.StringType(),
    pa.binary(): ice.BinaryType(),
}


def columns_of(schema: Schema) -> pa.Schema:
    """Return the columns of a table as Arrow fields. Raise TypeError, with the column, for a type that is not known."""
    return pa.schema([_arrow_field(field, field.name) for field in schema.fields])


def _arrow_field(field: ice.NestedField, path: str) -> pa.Field:
    return pa.field(field.name, _arrow_type(field.field_type, path), nullable=not field.required)


def _arrow_type(kind: ice.IcebergType, path: str) -> pa.DataType:
    if isinstance(kind, ice.StructType):
        return pa.struct([_arrow_field(field, f"{path}.{field.name}") for field in kind.fields])
    if isinstance(kind, ice.ListType):
        item = _arrow_type(kind.element_type, f"{path}[]")
        return pa.list_(pa.field("element", item, nullable=not kind.element_required))
    if isinstance(kind, ice.MapType):
        value = pa.field("value", _arrow_type(kind.value_type, f"{path}.value"), nullable=not kind.value_required)
        return pa.map_(_arrow_type(kind.key_type, f"{path}.key"), value)
    found = _sized(kind) or _ARROW.get(type(kind))
    if found is None:
        raise TypeError(f"column {path!r} is {kind}, which pyiceberg cannot write")
    return found


def _sized(kind: ice.IcebergType) -> pa.DataType | None:
    if isinstance(kind, ice.DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, ice.FixedType):
        return pa.binary(len(kind))
    return pa.binary(16) if isinstance(kind, ice.UUIDType) else None


def required_inside(schema: Schema) -> str | None:
    """Return the path of a field inside a column that must not be null, or None. Keys of maps never are."""

    def found(kind: ice.IcebergType, path: str) -> Iterator[str]:
        if isinstance(kind, ice.StructType):
            for field in kind.fields:
                if field.required:
                    yield f"{path}.{field.name}"
                yield from found(field.field_type, f"{path}.{field.name}")
        elif isinstance(kind, ice.ListType):
            if kind.element_required:
                yield f"{path}[]"
            yield from found(kind.element_type, f"{path}[]")
        elif isinstance(kind, ice.MapType):
            if kind.value_required:
                yield f"{path}.value"
            yield from found(kind.value_type, f"{path}.value")

    return next((path for field in schema.fields for path in found(field.field_type, field.name)), None)


def schema_for(columns: pa.Schema) -> Schema:
    """Return the schema of a table with these columns, all of which may be null. The types are those of `lake.types`.

    The numbers of the fields are only good for a table that is made: a catalog gives them anew.
    """
    numbers = count(1)

    def take() -> int:
        return next(numbers)

    # The columns first, as pyiceberg and Java number them.
    ids = [take() for _ in columns]
    fields = [
        ice.NestedField(number, field.name, _iceberg_type(field.type, take), required=False)
        for number, field in zip(ids, columns, strict=True)
    ]
    return Schema(*fields)


def _iceberg_type(kind: pa.DataType, take: Callable[[], int]) -> ice.IcebergType:
    if pa.types.is_struct(kind):
        ids = [take() for _ in range(kind.num_fields)]
        return ice.StructType(
            *(
                ice.NestedField(number, kind.field(n).name, _iceberg_type(kind.field(n).type, take), required=False)
                for n, number in enumerate(ids)
            )
        )
    if pa.types.is_list(kind):
        number = take()
        return ice.ListType(number, _iceberg_type(kind.value_type, take), element_required=False)
    if pa.types.is_map(kind):
        key, value = take(), take()
        return ice.MapType(
            key, _iceberg_type(kind.key_type, take), value, _iceberg_type(kind.item_type, take), value_required=False
        )
    return _plain(kind)


def _plain(kind: pa.DataType) -> ice.PrimitiveType:
    if pa.types.is_decimal(kind):
        return ice.DecimalType(kind.precision, kind.scale)
    if pa.types.is_fixed_size_binary(kind):
        return ice.FixedType(kind.byte_width)
    return ice.TimeType() if pa.types.is_time(kind) else _ICEBERG[kind]
