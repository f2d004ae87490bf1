"""Which columns a target may have for values that are fitted to it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.json.shape import inner_path, integer_bounds, is_raw, is_text, item_path


def validate(schema: pa.Schema) -> None:
    """Raise ConfigurationError for a schema with a column that nothing can fill."""
    if not len(schema):
        raise ConfigurationError("--decode.schema: has no columns, so no record could be kept in it")
    _validate_fields(schema, "")


def _validate_fields(fields: Iterable[pa.Field], path: str) -> None:
    seen: set[str] = set()
    for field in fields:
        inner = inner_path(path, field.name)
        if field.name in seen:
            raise ConfigurationError(f"--decode.schema: column {inner} occurs twice")
        seen.add(field.name)
        _validate(field, inner)


def _validate(field: pa.Field, path: str) -> None:
    kind = field.type
    if is_raw(field):
        if kind not in (pa.string(), pa.large_string()):
            raise ConfigurationError(f"--decode.schema: column {path} takes JSON as text but is {kind}, not string")
    elif pa.types.is_struct(kind) and kind.num_fields:
        _validate_fields(kind, path)
    elif pa.types.is_list(kind):
        _validate(kind.value_field, item_path(path))
    elif pa.types.is_map(kind):
        if not is_text(kind.key_type):
            raise ConfigurationError(
                f"--decode.schema: column {path} has keys of {kind.key_type}; they have to be text"
            )
        _validate(kind.item_field, item_path(path))
    elif not _can_be_filled(kind):
        raise ConfigurationError(f"--decode.schema: column {path} is {kind}, which no record can fill")


def _can_be_filled(kind: pa.DataType) -> bool:
    return bool(
        is_text(kind)
        or integer_bounds(kind) is not None
        or kind in (pa.bool_(), pa.float32(), pa.float64(), pa.date32())
        or pa.types.is_timestamp(kind)
        or pa.types.is_time(kind)
        or pa.types.is_decimal128(kind)
        or pa.types.is_decimal256(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_null(kind)
    )
