"""JSON as Connect's JsonConverter writes it, with a schema in each message or without, into what is meant.

Without a schema nobody says what a value means but the column that it goes to: a field with a mark (`marked`) is read
in the way of the mark, any other as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.formats.connect.embedded import EmbeddedSchemas
from batcher.formats.connect.meaning import DATE, DECIMAL, JSON, PRECISION, SCALE, VARIABLE, Named
from batcher.formats.connect.reader import Wanted, batch_of, embedded_reader, meanings_of, meant, rejections_of
from batcher.formats.fit import Fitter
from batcher.formats.fit.places import mask_of
from batcher.formats.framing import Framing
from batcher.formats.json.format import JsonDecoder, JsonFormat
from batcher.formats.json.limits import JsonOptions
from batcher.formats.json.per_column import known_options
from batcher.formats.outcome import by_position, moved, renumbered, together
from batcher.formats.writer_schema import SchemaKey, SchemaReader, WriterSchema, WriterSchemas
from batcher.formats.written import Codec, WrittenDecoder, WrittenFormat, unread
from batcher.growth import grown
from batcher.records import RAW_JSON, Batch, Decoded

Wire = Literal["base64", "variable", "days", "json"]
"""How a value is written where no schema says it: bytes as Base64, a number with a scale of its own, days since 1970,
JSON in text."""

_MARK: Final = b"batcher.wire"


def marked(field: pa.Field, wire: Wire) -> pa.Field:
    """Return a field that is read in a way of its own where no schema says how."""
    return field.with_metadata({**(field.metadata or {}), _MARK: wire.encode()})


class ConnectJsonFormat:
    """Make decoders for JSON with or without a schema (`protocols.Format`).

    `wanted` are the fields that are looked at; others are as if they were not there, but where no schema is they are
    told as unknown.
    """

    def __init__(self, options: JsonOptions, wanted: Wanted) -> None:
        self._options = options
        self._wanted = wanted

    def infer(self, batch: Batch) -> pa.Schema | None:
        schemas = self._schemas()
        described = WrittenFormat(self._codec(), schemas, schemas, self._options).infer(batch)
        bare = _bare(batch, schemas)
        found = None if bare is None else JsonFormat(JsonOptions(max_depth=self._options.max_depth)).infer(bare)
        if described is None or found is None:
            return described or found
        return pa.schema([*described, *(field for field in found if field.name not in described.names)])

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        schemas = self._schemas()
        described = WrittenFormat(self._codec(), schemas, schemas, self._options).infer(batch)
        schema = schema if described is None else grown(schema, described)
        bare = _bare(batch, schemas)
        return schema if bare is None else JsonFormat(self._options).grow(schema, bare)

    def decoder(self, schema: pa.Schema) -> ConnectJsonDecoder:
        schemas = self._schemas()
        options = known_options(schema, self._options)
        described = WrittenDecoder(self._codec(), schemas, schemas, options, schema)
        return ConnectJsonDecoder(described, BareDecoder(schema, self._options), schemas)

    def _schemas(self) -> EmbeddedSchemas:
        options = self._options
        return EmbeddedSchemas(Framing("none", False, options.tombstones, options.max_message_bytes))

    def _codec(self) -> Codec:
        return Codec("json", self._reader, lambda _written, _key: {}, _no_file)

    def _reader(self, written: WriterSchema, key: SchemaKey, target: pa.Schema | None) -> SchemaReader:
        del key, target
        return embedded_reader(written, self._options, self._wanted)


def _no_file(path: str, message: str, *, framed: bool) -> WriterSchemas:
    del message, framed
    raise ConfigurationError(f"--decode.writer-schema {path}: records of Kafka Connect carry their schema")


class ConnectJsonDecoder:
    """Decode records with a schema and records without (`protocols.Decoder`). Not for several threads at once."""

    def __init__(self, described: WrittenDecoder, bare: BareDecoder, schemas: EmbeddedSchemas) -> None:
        self._described = described
        self._bare = bare
        self._schemas = schemas

    @property
    def schema(self) -> pa.Schema:
        return self._described.schema

    def decode(self, batch: Batch) -> Decoded:
        split = self._schemas.split(batch)
        outcomes = []
        described = replace(split, groups=tuple(group for group in split.groups if group.key is not None))
        if described.groups:
            nothing = pa.array([], pa.int64())
            outcomes.append(self._described.decode_split(replace(described, rejections=(), skipped=nothing)))
        outcomes += [
            moved(self._bare.decode(group.payloads), group.positions) for group in split.groups if group.key is None
        ]
        return together([*outcomes, unread(split, self.schema)], self.schema)


class BareDecoder:
    """Decode JSON without a schema by what its columns are."""

    def __init__(self, schema: pa.Schema, options: JsonOptions) -> None:
        wires = [_wire(field) for field in schema]
        written = pa.schema([field for field, _ in wires])
        named = Named(children={field.name: one for field, (_, one) in zip(schema, wires, strict=True)})
        self._schema = schema
        self._decoder = JsonDecoder(written, known_options(written, options))
        self._meanings = meanings_of(written, named)
        means = pa.schema([meaning.field for meaning in self._meanings])
        self._fitter = None
        if means.types != schema.types:
            self._fitter = Fitter(means, schema, key="the message", options=known_options(schema, options))

    def decode(self, payloads: pa.BinaryArray) -> Decoded:
        """Return what becomes of payloads; positions are numbers of these."""
        read = self._decoder.decode(batch_of(payloads))
        columns = [column.combine_chunks() for column in read.table.columns]
        table, faults = meant(columns, len(read.positions), self._meanings)
        rejections = [*read.rejections, *rejections_of(faults, read.positions)]
        positions = read.positions
        if faults:
            keep = pc.invert(mask_of(list(faults), len(positions)))
            table, positions = table.filter(keep), positions.filter(keep)
        if self._fitter is None:
            table = pa.Table.from_arrays(table.columns, schema=self._schema)
        else:
            fitted = self._fitter.fit(table)
            rejections += renumbered(fitted.rejections, positions)
            table, positions = fitted.table, positions.take(fitted.rows)
        rejections.sort(key=by_position)
        return replace(read, table=table, positions=positions, rejections=tuple(rejections))


def _wire(field: pa.Field) -> tuple[pa.Field, Named]:  # noqa: PLR0911 - one for each mark
    """Return how a field is written, and what that means."""
    if pa.types.is_struct(field.type):
        parts = [_wire(child) for child in field.type]
        named = Named(children={child.name: one for child, (_, one) in zip(field.type, parts, strict=True)})
        return field.with_type(pa.struct([part for part, _ in parts])), named
    mark = (field.metadata or {}).get(_MARK, b"")
    if mark == b"days":
        return field.with_type(pa.int32()), Named(DATE)
    if mark == b"json":
        rest = {name: text for name, text in field.metadata.items() if name != RAW_JSON}
        return field.with_metadata(rest), Named(JSON)
    if mark == b"variable":
        kind = pa.struct([("scale", pa.int32()), ("value", pa.string())])
        return field.with_type(kind), Named(VARIABLE, children={"value": Named(base64=True)})
    if mark == b"base64":
        if not pa.types.is_decimal(field.type):
            return field.with_type(pa.string()), Named(base64=True)
        parameters = {SCALE: str(field.type.scale), PRECISION: str(field.type.precision)}
        return field.with_type(pa.string()), Named(DECIMAL, parameters, base64=True)
    return field, Named()


def _bare(batch: Batch, schemas: EmbeddedSchemas) -> Batch | None:
    parts: Iterator[pa.Array] = (group.payloads for group in schemas.split(batch).groups if group.key is None)
    found = list(parts)
    return batch_of(pa.concat_arrays(found)) if found else None
