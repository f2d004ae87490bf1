"""Say where lists are stored as null: where no list has had an item yet, no type is known to store them with."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from batcher.formats.json.shape import inner_path, item_path
from batcher.growth import has_untyped


def empty_lists(table: pa.Table) -> tuple[str, ...]:
    """Return a line for people for each place of a decoded table whose lists have no type to be stored with."""
    return tuple(
        f"column {path}: no list in it has had an item so far, and without a type an empty list is stored as null"
        for field, column in zip(table.schema, table.columns, strict=True)
        if has_untyped(field.type)
        for path in dict.fromkeys(path for chunk in column.chunks for path in _paths(chunk, field.name))
    )


def _paths(values: pa.Array, path: str) -> Iterator[str]:
    if values.null_count == len(values):
        return
    kind = values.type
    if pa.types.is_struct(kind):
        for part, inner in zip(kind, values.flatten(), strict=True):
            yield from _paths(inner, inner_path(path, part.name))
    elif pa.types.is_list(kind) and _is_open(kind.value_type):
        yield path
    elif pa.types.is_list(kind):
        yield from _paths(values.flatten(), item_path(path))


def _is_open(kind: pa.DataType) -> bool:
    """Return whether nothing at all is known of a type."""
    if pa.types.is_list(kind):
        return _is_open(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_is_open(part.type) for part in kind)
    return bool(pa.types.is_null(kind))
