"""Schemas that grow: a field that was only seen as null has the type null until its first value comes."""

from __future__ import annotations

import pyarrow as pa


def grown(held: pa.Schema, proposed: pa.Schema) -> pa.Schema:
    """Return a schema with the types of another one for its fields without a type, at any depth.

    A type that is there never changes, no field is added, and none is removed.
    """
    return pa.schema([_grown_field(field, proposed) for field in held], metadata=held.metadata)


def stored(schema: pa.Schema) -> pa.Schema:
    """Return the part of a schema that has types, for which a target can have columns by now."""
    fields = []
    for field in schema:
        kind = _stored_type(field.type)
        if kind is not None:
            fields.append(field.with_type(kind))
    return pa.schema(fields, metadata=schema.metadata)


def has_untyped(kind: pa.Schema | pa.DataType) -> bool:
    """Return whether a schema or a type has a place without a type, however deep."""
    if isinstance(kind, pa.Schema):
        return any(has_untyped(field.type) for field in kind)
    return bool(pa.types.is_null(kind)) or any(has_untyped(kind.field(n).type) for n in range(kind.num_fields))


def _grown_field(field: pa.Field, proposed: pa.Schema | pa.StructType) -> pa.Field:
    position = proposed.get_field_index(field.name)
    return field if position < 0 else _typed(field, proposed.field(position))


def _typed(field: pa.Field, other: pa.Field) -> pa.Field:
    if _is_open(field.type) and not _is_open(other.type):
        # With the metadata of the proposed field. It is nullable whatever is proposed: the records before had no value.
        return other.with_name(field.name).with_nullable(True)
    return field.with_type(_grown_type(field.type, other.type))


def _grown_type(held: pa.DataType, proposed: pa.DataType) -> pa.DataType:
    if held.id != proposed.id:
        return held
    if pa.types.is_struct(held):
        return pa.struct([_grown_field(held.field(n), proposed) for n in range(held.num_fields)])
    value, other = _value_of(held), _value_of(proposed)
    if value is None or other is None:
        return held
    return _with_value(held, _typed(value, other))


def _is_open(kind: pa.DataType) -> bool:
    return bool(pa.types.is_null(kind) or (pa.types.is_struct(kind) and kind.num_fields == 0))


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    """Return what is known of a type; None when that is nothing."""
    if _is_open(kind):
        return None
    if pa.types.is_struct(kind):
        known = stored(pa.schema([kind.field(n) for n in range(kind.num_fields)]))
        return pa.struct(list(known)) if len(known) else None
    value = _value_of(kind)
    if value is None:
        return kind
    known = _stored_type(value.type)
    return None if known is None else _with_value(kind, value.with_type(known))


def _value_of(kind: pa.DataType) -> pa.Field | None:
    """Return the field of what a list or a map holds; None for other types."""
    if pa.types.is_map(kind):
        return kind.item_field
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return kind.value_field
    return None


def _with_value(kind: pa.DataType, field: pa.Field) -> pa.DataType:
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field, field)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(field, kind.list_size)
    return pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)
