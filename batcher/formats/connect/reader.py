"""Readers whose columns are what the names of their types mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.connect.meaning import Meaning, Named, meaning_of
from batcher.formats.connect.schema import parsed
from batcher.formats.fit.places import Faults, mask_of
from batcher.formats.json.format import JsonDecoder
from batcher.formats.json.limits import JsonOptions
from batcher.formats.writer_schema import ReadRows, SchemaReader, WriterSchema
from batcher.formats.written import SchemaBroken
from batcher.records import Batch, Partition, Records, Rejection


def meanings_of(schema: pa.Schema, named: Named) -> list[Meaning]:
    """Return what each column means."""
    return [meaning_of(field, named.children.get(field.name)) for field in schema]


def meant(columns: Sequence[pa.Array], count: int, meanings: Sequence[Meaning]) -> tuple[pa.Table, Faults]:
    """Return the columns that are meant, of `count` rows, and why rows cannot be; these rows are still there."""
    found: list[pa.Array] = []
    faults: Faults = {}
    for meaning, column in zip(meanings, columns, strict=True):
        converted, more = meaning.convert(column)
        found.append(converted)
        for row, why in more.items():
            faults.setdefault(row, why)
    schema = pa.schema([meaning.field for meaning in meanings])
    if not found:
        rows = pa.array([{}], pa.struct([])).take(pa.repeat(pa.scalar(0, pa.int64()), count))
        return pa.Table.from_batches([pa.RecordBatch.from_struct_array(rows)]), faults
    return pa.Table.from_arrays(found, schema=schema), faults


Wanted = Mapping[str, Collection[str]]
"""The fields that are wanted, each with those in it that are wanted, none for all."""


class MeantReader:
    """Read with another reader, and give its columns their meaning (`SchemaReader`); those that are not wanted go."""

    def __init__(self, inner: SchemaReader, named: Named, wanted: Wanted) -> None:
        self._inner = inner
        self._names = [name for name in inner.schema.names if name in wanted]
        self._kept = {name: wanted[name] for name in self._names if wanted[name]}
        fields = [_narrowed_field(inner.schema.field(name), self._kept.get(name)) for name in self._names]
        self._meanings = meanings_of(pa.schema(fields), named)
        self._schema = pa.schema([meaning.field for meaning in self._meanings])

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, payloads: pa.BinaryArray) -> ReadRows:
        read = self._inner.read(payloads)
        columns = [_narrowed(_one(read.table[name]), self._kept.get(name)) for name in self._names]
        table, faults = meant(columns, len(read.rows), self._meanings)
        if not faults:
            return ReadRows(table, read.rows, read.rejections)
        keep = pc.invert(mask_of(list(faults), len(read.rows)))
        refused = [*read.rejections, *rejections_of(faults, read.rows)]
        refused.sort(key=lambda one: one.position)
        return ReadRows(table.filter(keep), read.rows.filter(keep), tuple(refused))


def rejections_of(faults: Faults, rows: pa.Int64Array) -> Iterator[Rejection]:
    """Yield the faults as rejections of the records that `rows` numbers."""
    for row, why in faults.items():
        yield Rejection(rows[row].as_py(), why.reason, why.message, why.path)


def _narrowed_field(field: pa.Field, kept: Collection[str] | None) -> pa.Field:
    if kept is None or not pa.types.is_struct(field.type):
        return field
    return field.with_type(pa.struct([child for child in field.type if child.name in kept]))


def _narrowed(column: pa.Array, kept: Collection[str] | None) -> pa.Array:
    if kept is None or not pa.types.is_struct(column.type):
        return column
    fields = [child for child in column.type if child.name in kept]
    children = [pc.struct_field(column, child.name) for child in fields]
    # Arrow cannot make a struct of no fields with a mask; a null of it says the same.
    if not fields:
        return pa.nulls(len(column), pa.struct([]))
    return pa.StructArray.from_arrays(children, fields=fields, mask=column.is_null())


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


class JsonReader:
    """Read JSON of a schema as it is written (`SchemaReader`)."""

    def __init__(self, schema: pa.Schema, options: JsonOptions) -> None:
        self._decoder = JsonDecoder(schema, options)

    @property
    def schema(self) -> pa.Schema:
        return self._decoder.schema

    def read(self, payloads: pa.BinaryArray) -> ReadRows:
        found = self._decoder.decode(batch_of(payloads))
        return ReadRows(found.table, found.positions, found.rejections)


def embedded_reader(written: WriterSchema, options: JsonOptions, wanted: Wanted) -> SchemaReader:
    """Return the reader of payloads whose schema is in the message. Raise SchemaBroken."""
    schema, named = parsed(written.text)
    kept = [_narrowed_field(field, wanted[field.name] or None) for field in schema if field.name in wanted]
    if not kept:
        raise SchemaBroken(f"it has none of the fields {', '.join(wanted)}")
    # A payload has the fields of its schema, and times have their unit in it.
    plain = JsonOptions("ignore", max_message_bytes=options.max_message_bytes, max_depth=options.max_depth)
    return MeantReader(JsonReader(pa.schema(kept), replace(plain, epoch={"*": "none"})), named, wanted)


def batch_of(payloads: pa.BinaryArray) -> Batch:
    """Return payloads as the values of a batch; where they stood is not asked."""
    count = len(payloads)
    rows = pa.arange(0, max(count, 1)).slice(0, count)
    nothing = pa.nulls(count, pa.int64())
    run = Records(Partition("", 0), rows, nothing, pa.nulls(count, pa.binary()), payloads)
    return Batch((run,), "range")
