"""The schema that all files of a root share, and the file that pins it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import pyarrow as pa

from batcher.growth import stored
from batcher.records import COORDINATES, RAW_JSON

PIN: Final = "_schema.arrow"
"""The name of the file in the root: an Arrow IPC file without batches. Readers of datasets skip names with `_`."""


def bare(schema: pa.Schema, without: Collection[str]) -> pa.Schema:
    """Return a schema without some columns and without metadata, except for what batcher itself says about a field."""
    fields = []
    for field in schema:
        if field.name in without:
            continue
        flag = (field.metadata or {}).get(RAW_JSON)
        fields.append(field.remove_metadata().with_metadata(None if flag is None else {RAW_JSON: flag}))
    return pa.schema(fields)


def of_files(schema: pa.Schema, partition_by: Collection[str], coordinates: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of a block for the files: columns with a type, those of directories, coordinates."""
    typed = stored(schema)
    fields = []
    for field in schema:
        if field.name in typed.names:
            fields.append(typed.field(field.name))
        elif field.name in partition_by:
            fields.append(field)
    return pa.schema([*fields, *(COORDINATES.field(name) for name in coordinates)])


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with exactly the columns of a schema: null where it has none, without what the schema lacks."""
    if table.schema.names == schema.names and table.schema.types == schema.types:
        return pa.Table.from_arrays(table.columns, schema=schema)
    columns = []
    for field in schema:
        position = table.schema.get_field_index(field.name)
        columns.append(
            pa.nulls(table.num_rows, field.type) if position < 0 else table.column(position).cast(field.type)
        )
    return pa.Table.from_arrays(columns, schema=schema)


def first_difference(given: pa.Schema, pinned: pa.Schema, *, strict: bool = True) -> str | None:
    """Say in one line where two schemas first differ, or None; `strict` also compares what may be null."""
    for position in range(max(len(given), len(pinned))):
        if position >= len(given):
            return f"column {pinned.field(position).name!r} is missing"
        if position >= len(pinned):
            return f"column {given.field(position).name!r} is one too many"
        ours, theirs = given.field(position), pinned.field(position)
        if ours.name != theirs.name:
            return f"column {position + 1} is {ours.name!r} instead of {theirs.name!r}"
        difference = field_difference(ours, theirs, strict=strict)
        if difference is not None:
            return f"column {ours.name!r} {difference}"
    return None


def field_difference(ours: pa.Field, theirs: pa.Field, *, strict: bool) -> str | None:
    """Say where two fields of one name differ, or None."""
    if not ours.type.equals(theirs.type):
        return f"is {ours.type} instead of {theirs.type}"
    if strict and ours.nullable != theirs.nullable:
        return f"is {nullability(ours)} instead of {nullability(theirs)}"
    if strict and (ours.metadata or {}).get(RAW_JSON) != (theirs.metadata or {}).get(RAW_JSON):
        return "takes any JSON as its text in one of them only"
    return None


def nullability(field: pa.Field) -> str:
    """Return a field's nullability as a word for people."""
    return "nullable" if field.nullable else "not nullable"


def to_bytes(schema: pa.Schema, layout: Mapping[bytes, bytes]) -> bytes:
    """Return the content of the pin: a schema, and the layout of the root."""
    target = pa.BufferOutputStream()
    with pa.ipc.new_file(target, schema.with_metadata(dict(layout))):
        pass
    content: bytes = target.getvalue().to_pybytes()
    return content


def from_bytes(content: bytes) -> tuple[pa.Schema, dict[bytes, bytes]]:
    """Return schema and layout from the content of a pin; raise ArrowInvalid when it is none."""
    schema = pa.ipc.open_file(pa.py_buffer(content)).schema
    return schema, dict(schema.metadata or {})


def is_topic_root(content: bytes) -> bool:
    """Return whether the content of a pin is that of a root for one topic of several."""
    try:
        return from_bytes(content)[1].get(b"batcher.layout") == b"topic"
    except pa.ArrowInvalid:
        return False
