"""Records whose keys are read too: columns named `_key.…` come from the key, all others from the value.

A key that is no record (an Avro "long", JSON text) fills the column `_key`. To its format it is a record with the one
field `value`, so a column `_key.value` takes it as well.

A record without a key has nulls in these columns. A record whose key cannot be read is refused, whatever its value is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.formats.json.per_column import plain
from batcher.formats.whole import FIELD, is_whole, unmarked
from batcher.protocols import Decoder, FieldProposer, Format
from batcher.records import PLACEHOLDER, Batch, Decoded, Records, Rejection, UnknownField, headers_of

KEY: Final = "_key"

DOTTED: Final = f"{KEY}."

_OWN_FLAGS: Final = ("format", "framing", "writer-schema")


def key_flags(message: str) -> str:
    """Return a message about a key with the flags that are for keys."""
    for flag in _OWN_FLAGS:
        message = message.replace(f"--decode.{flag}", f"--decode.key-{flag}")
    return message


class KeyedFormat:
    """Make decoders that read values with one format and keys with another (`protocols.Format`).

    `name` is that of the keys' format, for messages. With `whole` a key is never a record: all of it is in `_key`.
    """

    def __init__(self, values: Format, keys: Format, name: str, *, whole: bool = False) -> None:
        self.values = values
        self._keys = keys
        self._name = name
        self._whole = whole

    def with_values(self, values: Format) -> KeyedFormat:
        """Return a format that reads values with another one, and keys as this one does."""
        return KeyedFormat(values, self._keys, self._name, whole=self._whole)

    def infer(self, batch: Batch) -> pa.Schema | None:
        columns = self.values.infer(batch)
        if columns is None:
            return None
        keys = _keys_of(batch, None)
        found = None if keys is None else self._keys.infer(keys.batch)
        own = [field for field in columns if not self._of_key(field.name)]
        # Of several with one name, as where a value has a field `_key.id`, the key's holds.
        return pa.schema([*own, *(self._outer(field) for field in found or ())])

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        parts = self._parts(schema)
        values = self.values.grow(parts.values, batch)
        keys = _keys_of(batch, None)
        inner = parts.keys if keys is None else self._keys.grow(parts.keys, keys.batch)
        own = {field.name: field for field in values}
        of_keys = {name: field.with_name(name) for name, field in zip(parts.key_names, inner, strict=False)}
        return pa.schema([of_keys.get(name) or own[name] for name in schema.names], metadata=schema.metadata)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        """Return columns for fields of values; a field of a key has a dot in its name here, and is not asked for."""
        return self.values.proposed(batch, names) if isinstance(self.values, FieldProposer) else pa.schema([])

    def decoder(self, schema: pa.Schema) -> KeyedDecoder:
        parts = self._parts(schema)
        values = self.values.decoder(parts.values)
        try:
            if self._whole and len(parts.key_names):
                _check_text(parts.keys.field(0), self._name)
            keys = self._keys.decoder(parts.keys)
        except ConfigurationError as error:
            raise ConfigurationError(f"--decode.key-format {self._name}: {error}") from error
        return KeyedDecoder(schema, parts, values, keys, whole=self._whole)

    def _of_key(self, name: str) -> bool:
        return name == KEY or (not self._whole and name.startswith(DOTTED))

    def _outer(self, field: pa.Field) -> pa.Field:
        whole = self._whole or is_whole(field)
        return unmarked(field).with_name(KEY if whole else DOTTED + field.name)

    def _parts(self, schema: pa.Schema) -> _Parts:
        """Return the columns of the value and those of the key as its format knows them; raise ConfigurationError."""
        values = [field for field in schema if not self._of_key(field.name)]
        outer = [field for field in schema if self._of_key(field.name)]
        names = tuple(field.name for field in outer)
        inner = [field.with_name(FIELD if field.name == KEY else field.name.removeprefix(DOTTED)) for field in outer]
        if KEY in names and f"{DOTTED}{FIELD}" in names:
            raise ConfigurationError(
                f"--decode.key-format {self._name}: columns {KEY} and {DOTTED}{FIELD} take the same part of a key; "
                "remove one of them"
            )
        # A format refuses to fill no column at all.
        return _Parts(pa.schema(values) if values else PLACEHOLDER, pa.schema(inner) if inner else PLACEHOLDER, names)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Hold the columns of values, those of keys by their inner names, and the outer names of these."""

    values: pa.Schema
    keys: pa.Schema
    key_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Keys:
    """Hold the keys of some records as the values of a batch, and the numbers of these records."""

    batch: Batch
    rows: pa.Int64Array


class KeyedDecoder:
    """Decode values and keys, and put their rows together by position (`protocols.Decoder`)."""

    def __init__(self, schema: pa.Schema, parts: _Parts, values: Decoder, keys: Decoder, *, whole: bool) -> None:
        self._schema = schema
        self._parts = parts
        self._values = values
        self._keys = keys
        self._only_whole = whole
        self._needed = next(
            (field.name for field in schema if field.name in parts.key_names and not field.nullable), ""
        )

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, batch: Batch) -> Decoded:
        values = self._values.decode(batch)
        positions = values.positions
        keys = _keys_of(batch, None if len(positions) == batch.rows else positions)
        found = None if keys is None else self._keys.decode(keys.batch)
        read, refused, unknown = _nothing(), {}, []
        if keys is not None and found is not None:
            read = keys.rows.take(found.positions)
            refused = {
                row: self._told(one, positions[row].as_py())
                for one in found.rejections
                for row in (keys.rows[one.position].as_py(),)
            }
            unknown = [
                UnknownField(self._path(one.path), one.records, positions[keys.rows[one.position].as_py()].as_py())
                for one in found.unknown
            ]
        count = len(positions)
        if self._needed and len(read) + len(refused) < count:
            absent = pc.invert(pc.is_in(pa.arange(0, count), read))
            for row in pc.indices_nonzero(absent).to_pylist():
                refused.setdefault(row, _absent(self._needed, positions[row].as_py()))
        rows = values.table
        of_keys = self._keys.schema.empty_table() if found is None else found.table
        if refused:
            keep = pc.invert(pc.is_in(pa.arange(0, count), pa.array(sorted(refused), pa.int64())))
            rows, positions = rows.filter(keep), positions.filter(keep)
        if len(read) < count:
            left = pa.arange(0, count).filter(keep) if refused else pa.arange(0, count)
            of_keys = of_keys.take(pc.index_in(left, read)) if len(read) else _nulls(of_keys.schema, len(left))
        return replace(
            values,
            table=self._together(rows, of_keys),
            positions=positions,
            rejections=tuple(sorted([*values.rejections, *refused.values()], key=lambda one: one.position)),
            unknown=(*values.unknown, *unknown),
            estimated=values.estimated or (found is not None and found.estimated),
            outgrown=values.outgrown or (found is not None and found.outgrown),
            notes=(*values.notes, *(f"key: {note}" for note in (found.notes if found is not None else ()))),
        )

    def _together(self, values: pa.Table, keys: pa.Table) -> pa.Table:
        of_keys = dict(zip(self._parts.key_names, keys.columns, strict=False))
        columns = [of_keys[name] if name in of_keys else values[name] for name in self._schema.names]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _told(self, rejection: Rejection, position: int) -> Rejection:
        """Return a rejection of a key as one of its record: with the name of the column, and the key's own flags."""
        inner, message = rejection.path, key_flags(rejection.message)
        message = message.replace("the message", "the key")
        path = KEY if inner is None else self._path(inner)
        if inner is not None:
            message = message.replace(f"--decode.text {plain(inner)}", f"--decode.text {plain(path)}")
        ours = f"field {inner}: "
        return Rejection(position, rejection.reason, f"field {path}: {message.removeprefix(ours)}", path)

    def _path(self, inner: str) -> str:
        """Return the path of a field as its column has it."""
        whole = self._only_whole or KEY in self._parts.key_names
        if whole and (inner == FIELD or inner.startswith((f"{FIELD}.", f"{FIELD}["))):
            return KEY + inner.removeprefix(FIELD)
        return DOTTED + inner


def _keys_of(batch: Batch, positions: pa.Int64Array | None) -> _Keys | None:
    """Return the keys of the records at some positions, or of all; None where none of them has one."""
    keys = pa.concat_arrays([run.keys for run in batch.runs])
    headers = headers_of(batch.runs)
    if positions is not None:
        keys = keys.take(positions)
        headers = None if headers is None else headers.take(positions)
    if keys.null_count == len(keys):
        return None
    rows = pa.arange(0, len(keys))
    if keys.null_count:
        present = keys.is_valid()
        keys, rows = keys.filter(present), rows.filter(present)
        headers = None if headers is None else headers.filter(present)
    nothing = pa.nulls(len(keys), pa.int64())
    run = Records(batch.runs[0].partition, rows, nothing, pa.nulls(len(keys), pa.binary()), keys, headers)
    return _Keys(Batch((run,), batch.trigger), rows)


def _check_text(field: pa.Field, name: str) -> None:
    if not any(test(field.type) for test in _TEXTS):
        raise ConfigurationError(f"column {KEY} is {field.type}, and {name} fills text; json reads a number")


_TEXTS: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


def _absent(column: str, position: int) -> Rejection:
    message = f"field {column}: the column needs a value (it is not nullable); the record has no key"
    return Rejection(position, "null", message, column)


def _nulls(schema: pa.Schema, count: int) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(count, kind) for kind in schema.types], names=schema.names)


def _nothing() -> pa.Int64Array:
    return pa.array([], pa.int64())
