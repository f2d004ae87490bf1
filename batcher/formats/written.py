"""Formats whose records were written with a schema: framing, schemas, readers and fitting, put together.

A batch may hold records of many schemas. Each schema has a reader, which gives its records the columns of their writer,
and a fitter, which brings these to the columns of the target. The rows come together again in the order of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.fit import Fitter, validate
from batcher.formats.fit.names import Aliases
from batcher.formats.fit.source import plain_type
from batcher.formats.framing import Group, Split
from batcher.formats.json.limits import JsonOptions
from batcher.formats.json.spelling import folded
from batcher.formats.outcome import by_position, renumbered, together
from batcher.formats.schema_registry import find_all
from batcher.formats.writer_schema import (
    ReadRows,
    SchemaKey,
    SchemaKind,
    SchemaReader,
    SchemaUnknown,
    WriterSchema,
    WriterSchemas,
)
from batcher.growth import grown
from batcher.records import Batch, Decoded, Rejection, UnknownField

MAX_READERS: Final = 500
"""Schemas whose readers are kept. A topic has a few; an id in a damaged record is anyone's guess, and costs nothing."""

_LOOK: Final = 1000
"""Payloads read at a time until one can be read: nearly always the first ones can."""

UNNAMED: Final = SchemaKey()
"""Stands for the schema of records without a frame."""


class SchemaBroken(Exception):
    """Say that no reader can be made of a schema. The message is one line."""


class SchemaFile(Protocol):
    """Read a schema from a file."""

    def __call__(self, path: str, message: str, *, framed: bool) -> WriterSchemas:
        """Return the schema; raise ConfigurationError."""


@dataclass(frozen=True, slots=True)
class Codec:
    """Know one encoding.

    `reader` returns the reader of a schema, for a target or, with None, to propose one; it raises SchemaBroken.
    `aliases` returns the other names of a schema's fields. `file` returns the schema of a file, with the name of a
    message or "", and whether records have frames; it raises ConfigurationError.
    """

    kind: SchemaKind
    reader: Callable[[WriterSchema, SchemaKey, pa.Schema | None], SchemaReader]
    aliases: Callable[[WriterSchema, SchemaKey], Aliases]
    file: SchemaFile


@dataclass(frozen=True, slots=True)
class _WriterLane:
    """Read the records of one schema, or know why that cannot be; `reason` is that of the rejections."""

    reader: SchemaReader | None
    fitter: Fitter | None = None
    reason: str = ""
    message: str = ""


class Splitting(Protocol):
    """Tell the records of a batch apart by their schemas, as `framing.Framing` does."""

    def split(self, batch: Batch) -> Split:
        """Return the payloads of a joined batch by schema. Never raises because of a record."""


class WrittenFormat:
    """Make decoders for records that were written with a schema (`protocols.Format`)."""

    def __init__(self, codec: Codec, framing: Splitting, schemas: WriterSchemas, options: JsonOptions) -> None:
        self.codec = codec
        self.framing = framing
        self.schemas = schemas
        self.options = options

    def infer(self, batch: Batch) -> pa.Schema | None:
        """Return the columns of all schemas of the batch that a record can be read with.

        A name that several have has the type of the newest.
        """
        groups = self.framing.split(batch).groups
        found = find_all(self.schemas, sorted({group.key or UNNAMED for group in groups}))
        columns: dict[str, pa.Field] = {}
        for group in sorted(groups, key=lambda one: one.key or UNNAMED):
            key = group.key or UNNAMED
            lane = lane_of(self.codec, key, found[key], None)
            if lane.reader is not None and _readable(lane.reader, group.payloads):
                columns |= {field.name: _column(field) for field in lane.reader.schema}
        return pa.schema(columns.values()) if columns else None

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        proposed = self.infer(batch)
        return schema if proposed is None else grown(schema, proposed)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        found: dict[str, pa.Field] = {}
        for field in self.infer(batch) or ():
            if field.name in names:
                # Of two that differ by case only, the first makes the column, and then both fill it.
                key = folded(field.name) if self.options.match == "insensitive" else field.name
                found.setdefault(key, field)
        return pa.schema(found.values())

    def decoder(self, schema: pa.Schema) -> WrittenDecoder:
        return WrittenDecoder(self.codec, self.framing, self.schemas, self.options, schema)


class WrittenDecoder:
    """Decode records that were written with a schema (`protocols.Decoder`). Not for several threads at once."""

    def __init__(
        self, codec: Codec, framing: Splitting, schemas: WriterSchemas, options: JsonOptions, schema: pa.Schema
    ) -> None:
        validate(schema)
        self._codec = codec
        self._framing = framing
        self._schemas = schemas
        self._options = options
        self._schema = schema
        self._lanes: dict[SchemaKey, _WriterLane] = {}
        self._noted: set[str] = set()

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, batch: Batch) -> Decoded:
        return self.decode_split(self._framing.split(batch))

    def decode_split(self, split: Split) -> Decoded:
        """Return what becomes of the records of a batch that is split already."""
        found = find_all(self._schemas, sorted({group.key or UNNAMED for group in split.groups}))
        outcomes = [self._decoded(group, found[group.key or UNNAMED]) for group in split.groups]
        if len(outcomes) == 1 and not split.rejections and not len(split.skipped):
            return outcomes[0]
        return together([*outcomes, unread(split, self._schema)], self._schema)

    def _decoded(self, group: Group, written: WriterSchema | SchemaUnknown) -> Decoded:
        """Return what becomes of the records of one schema; positions are those of the batch."""
        lane = self._lane(group.key or UNNAMED, written)
        if lane.reader is None or lane.fitter is None:
            rejections = tuple(Rejection(row, lane.reason, lane.message) for row in group.positions.to_pylist())
            return Decoded(self._schema.empty_table(), pa.array([], pa.int64()), rejections)
        read: ReadRows = lane.reader.read(group.payloads)
        if read.unread and self._options.on_unknown in ("reject", "halt"):
            read = _without_unread(read, group.key or UNNAMED)
        fitted = lane.fitter.fit(read.table)
        positions = group.positions.take(read.rows)
        refused = [*renumbered(read.rejections, group.positions), *renumbered(fitted.rejections, positions)]
        refused.sort(key=by_position)
        unknown = [*renumbered(fitted.unknown, positions)]
        if read.unread:
            unknown += _unread(read, read.rows.take(fitted.rows), group.positions)
        return Decoded(
            fitted.table,
            positions if len(fitted.rows) == len(positions) else positions.take(fitted.rows),
            tuple(refused),
            unknown=tuple(unknown),
            outgrown=fitted.outgrown,
            notes=(*self._fresh(read.notes), *fitted.notes),
        )

    def _fresh(self, notes: Iterable[str]) -> Iterator[str]:
        """Yield what was not said before."""
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                yield note

    def _lane(self, key: SchemaKey, written: WriterSchema | SchemaUnknown) -> _WriterLane:
        lane = self._lanes.get(key)
        # A schema that was unknown may be registered by now.
        if lane is None or lane.reason == _UNKNOWN:
            if len(self._lanes) >= MAX_READERS:
                self._lanes.clear()
            lane = self._lanes[key] = lane_of(self._codec, key, written, self._schema)
            if lane.reader is not None and isinstance(written, WriterSchema):
                aliases = self._codec.aliases(written, key)
                fitter = Fitter(lane.reader.schema, self._schema, key=key, options=self._options, aliases=aliases)
                lane = self._lanes[key] = replace(lane, fitter=fitter)
        return lane


_UNKNOWN: Final = "unknown_schema"


def lane_of(
    codec: Codec, key: SchemaKey, written: WriterSchema | SchemaUnknown, target: pa.Schema | None
) -> _WriterLane:
    """Return the reader of a schema, or the reason why there is none."""
    if isinstance(written, SchemaUnknown):
        return _WriterLane(None, reason=_UNKNOWN, message=str(written))
    if written.kind != codec.kind:
        message = f"{key} is {written.kind}; load it with --decode.format {written.kind}"
        return _WriterLane(None, reason="schema_kind", message=message)
    try:
        return _WriterLane(codec.reader(written, key, target))
    except SchemaBroken as error:
        return _WriterLane(None, reason="schema", message=f"{key} cannot be read: {error}")


def _without_unread(read: ReadRows, key: SchemaKey) -> ReadRows:
    """Refuse the payloads that have a field which their schema does not name."""
    refused: dict[int, Rejection] = {}
    # In order of the path, so that the same one is told of a record whatever its neighbours have.
    for path, rows in sorted(read.unread.items()):
        for row in rows.to_pylist():
            message = f"field {path}: is no column (--decode.on-unknown); {key} does not read it"
            refused.setdefault(row, Rejection(row, "unknown_field", message, path))
    keep = pc.invert(pc.is_in(read.rows, value_set=pa.array(sorted(refused), pa.int64())))
    rejections = sorted([*read.rejections, *refused.values()], key=by_position)
    return replace(
        read, table=read.table.filter(keep), rows=read.rows.filter(keep), rejections=tuple(rejections), unread={}
    )


def _unread(read: ReadRows, kept: pa.Int64Array, positions: pa.Int64Array) -> Iterator[UnknownField]:
    """Yield what the schema does not name, in the payloads that became rows."""
    for path, found in read.unread.items():
        rows = found.filter(pc.is_in(found, value_set=kept))
        if len(rows):
            yield UnknownField(path, len(rows), positions[rows[0].as_py()].as_py())


def _readable(reader: SchemaReader, payloads: pa.BinaryArray) -> bool:
    return any(len(reader.read(payloads.slice(start, _LOOK)).rows) for start in range(0, len(payloads), _LOOK))


def _column(field: pa.Field) -> pa.Field:
    """Return the column for a field of a writer: it may be null, as another schema may not have it."""
    return pa.field(field.name, _open(plain_type(field.type)), metadata=field.metadata)


def _open(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([_column(child) for child in kind])
    if pa.types.is_list(kind):
        return pa.list_(_column(kind.value_field))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _column(kind.item_field))
    return kind


def unread(split: Split, schema: pa.Schema) -> Decoded:
    """Return the outcome of the records that have no payload."""
    refused = sorted(split.rejections, key=by_position)
    return Decoded(schema.empty_table(), pa.array([], pa.int64()), tuple(refused), split.skipped)
