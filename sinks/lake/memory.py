"""What a table remembers of the schema that its rows are decoded for.

The columns of a table say less than that schema: which fields have to be there, which ones had only null so far, which
texts take any JSON, which times are in milliseconds. So the schema stands in a property of the table too. It never
overrules the columns. They may have been changed by others, or by a process that ended before it could write both.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Final

import pyarrow as pa

from batcher.growth import stored
from sinks.lake.types import takes

PROPERTY: Final = "batcher.schema"
"""The name of the property."""


def to_text(schema: pa.Schema) -> str:
    """Return a schema as the text of the property."""
    return base64.b64encode(zlib.compress(schema.serialize().to_pybytes(), 9)).decode()


def from_text(text: str | None) -> pa.Schema | None:
    """Return the schema of a property's text; None where there is none, or none that can be read."""
    if not text:
        return None
    try:
        return pa.ipc.read_schema(pa.py_buffer(zlib.decompress(base64.b64decode(text))))
    except (pa.ArrowException, OSError, zlib.error, binascii.Error, ValueError):
        return None


def recalled(remembered: pa.Schema | None, columns: pa.Schema) -> pa.Schema:
    """Return the schema to decode for: what is remembered, as far as the columns still say the same.

    Both are without coordinates. A column that nobody remembers comes last, with its own type. A field that is
    remembered with a type and is no column any more is gone.
    """
    fields = []
    for field in remembered if remembered is not None else ():
        known = stored(pa.schema([field]))
        if field.name not in columns.names:
            if not len(known):
                fields.append(field)
            continue
        column = columns.field(field.name)
        fits = bool(len(known)) and takes(column.type, known.field(0).type)
        # Null for one field and refused for another: the stricter of the two holds.
        fields.append(field.with_nullable(field.nullable and column.nullable) if fits else plain(column))
    names = {field.name for field in fields}
    return pa.schema([*fields, *(plain(column) for column in columns if column.name not in names)])


def plain(column: pa.Field) -> pa.Field:
    """Return a column of a table without what its writer noted about it."""
    return column.remove_metadata()
