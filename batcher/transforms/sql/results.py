"""What DuckDB gives back, in the types that the rest of the pipeline has for it."""

from __future__ import annotations

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.fit.source import plain_column, plain_type


def result_field(name: str, field: pa.Field) -> pa.Field:
    """Return the field of a computed column. Raise ConfigurationError for a type that nothing takes."""
    kind = _plain_result(field.type)
    if kind is None:
        raise ConfigurationError(f"--transform.select: column {name} is {field.type}, which no target takes; cast it")
    return pa.field(name, kind)


def _plain_result(kind: pa.DataType) -> pa.DataType | None:
    """Return the type that a column of DuckDB's is brought back to; None for those that nothing takes."""
    kind = plain_type(kind)
    inner = [_plain_result(kind.field(n).type) for n in range(kind.num_fields)]
    if None in inner or pa.types.is_interval(kind) or pa.types.is_union(kind) or pa.types.is_duration(kind):
        return None
    if pa.types.is_struct(kind):
        return pa.struct([(child.name, type_) for child, type_ in zip(kind, inner, strict=True)])
    if pa.types.is_map(kind):
        return pa.map_(_plain_result(kind.key_type), _plain_result(kind.item_type))
    if pa.types.is_nested(kind):
        return pa.list_(inner[0])
    if pa.types.is_timestamp(kind):
        # Some versions call the zone Etc/UTC.
        return pa.timestamp(kind.unit, "UTC" if kind.tz else None)
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)


def result_column(column: pa.Array, to: pa.DataType) -> pa.Array:
    """Return a computed column in the type of its field."""
    column = plain_column(column)
    return column if column.type.equals(to) else column.cast(to)
