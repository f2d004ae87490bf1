"""What a format has to know of Avro."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.avro.reader import AvroReader
from batcher.formats.avro.schema import AvroSchemaBroken, parse
from batcher.formats.avro.types import ArrayType, AvroType, MapType, RecordType, UnionType
from batcher.formats.fit.names import Aliases
from batcher.formats.schema_registry import FileSchemas
from batcher.formats.writer_schema import SchemaKey, SchemaReader, WriterSchema, WriterSchemas
from batcher.formats.written import Codec, SchemaBroken


def _reader(written: WriterSchema, key: SchemaKey, target: pa.Schema | None) -> SchemaReader:
    del key, target
    try:
        return AvroReader(written)
    except AvroSchemaBroken as error:
        raise SchemaBroken(str(error)) from error


def aliases_of(written: WriterSchema) -> Aliases:
    """Return the fields of a schema by their aliases: an older name of a field may be that of a column still."""
    found: dict[str, list[str]] = {}
    for path, name in _aliases(parse(written.text, written.references).root, ""):
        found.setdefault(path, []).append(name)
    return found


def _aliases(kind: AvroType, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path of each alias with the name of its field."""
    if isinstance(kind, RecordType):
        for field in kind.fields:
            for alias in field.aliases:
                yield f"{path}{alias}", field.name
            yield from _aliases(field.type, f"{path}{field.name}.")
    elif isinstance(kind, UnionType):
        for branch in kind.branches:
            yield from _aliases(branch, path)
    elif isinstance(kind, ArrayType):
        yield from _aliases(kind.items, path)
    elif isinstance(kind, MapType):
        yield from _aliases(kind.values, path)


def _file(path: str, message: str, *, framed: bool) -> WriterSchemas:
    del framed
    if message:
        raise ConfigurationError("--decode.message: an Avro schema has no messages to choose from")
    return FileSchemas(path, "avro")


CODEC: Final = Codec("avro", _reader, lambda written, _: aliases_of(written), _file)
