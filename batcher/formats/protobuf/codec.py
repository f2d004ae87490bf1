"""What a format has to know of Protobuf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
from google.protobuf.descriptor import Descriptor

from batcher.formats.fit.names import Aliases
from batcher.formats.protobuf.file import ProtoFile
from batcher.formats.protobuf.reader import ProtobufReader
from batcher.formats.protobuf.schema import load
from batcher.formats.protobuf.steps import TimeUnit
from batcher.formats.writer_schema import SchemaKey, SchemaReader, WriterSchema
from batcher.formats.written import Codec


def _reader(written: WriterSchema, key: SchemaKey, target: pa.Schema | None) -> SchemaReader:
    schema = load(written)
    units = _units(target, schema.message(key.indexes, written.message)) if target is not None else {}
    return ProtobufReader(schema, key.indexes, written.message, units)


def _units(target: pa.Schema, descriptor: Descriptor) -> Mapping[str, TimeUnit]:
    """Return the outermost fields whose column has nanoseconds, where only these hold all digits of a time."""
    fine = {column.name.casefold() for column in target if _has_nanoseconds(column.type)}
    return {
        field.name: "ns"
        for field in descriptor.fields
        if field.name.casefold() in fine or field.json_name.casefold() in fine
    }


def _has_nanoseconds(kind: pa.DataType) -> bool:
    if pa.types.is_timestamp(kind):
        return bool(kind.unit == "ns")
    return any(_has_nanoseconds(kind.field(number).type) for number in range(kind.num_fields))


def aliases_of(written: WriterSchema, key: SchemaKey) -> Aliases:
    """Return the fields of a message by their names in JSON: `userId` is a name of `user_id`."""
    found: dict[str, list[str]] = {}
    for path, name in _aliases(load(written).message(key.indexes, written.message), "", "", ()):
        names = found.setdefault(path, [])
        if name not in names:
            names.append(name)
    return found


def _aliases(kind: Descriptor, path: str, json_path: str, outer: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the path of each other name, with the field's own; above it all names are own ones, or all from JSON."""
    if kind.full_name in outer:
        return
    for field in kind.fields:
        for prefix in {path, json_path}:
            if field.json_name != field.name:
                yield f"{prefix}{field.json_name}", field.name
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
        if inner is not None:
            ways = (f"{path}{field.name}.", f"{json_path}{field.json_name}.")
            yield from _aliases(inner, *ways, (*outer, kind.full_name))


CODEC: Final = Codec("protobuf", _reader, aliases_of, ProtoFile)
