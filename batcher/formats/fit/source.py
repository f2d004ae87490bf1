"""The types of writers, reduced to few: dictionaries, extensions and views become the plain columns that they mean."""

from __future__ import annotations

import uuid

import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `plain_column` gives a column of this one."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.string() if kind == pa.uuid() else plain_type(kind.storage_type)
    if kind == pa.string_view():
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind


def plain_column(column: pa.Array) -> pa.Array:
    """Return a column without dictionary, extension or views; what is inside structs and lists stays."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType):
        return _uuids(column.storage) if kind == pa.uuid() else plain_column(column.storage)
    if kind in (pa.string_view(), pa.binary_view()):
        return column.cast(plain_type(kind))
    return column


def _uuids(column: pa.Array) -> pa.Array:
    return pa.array([None if raw is None else str(uuid.UUID(bytes=raw)) for raw in column.to_pylist()], pa.string())
