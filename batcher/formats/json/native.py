"""JSON decoded by the native extension, and by the Python code wherever that is not plainly right.

The extension (`native/`) puts messages into columns or leaves them aside. What it left aside goes through `JsonDecoder`
as if nothing else were in the batch. So that alone refuses records, and reasons and messages are the same with and
without the extension. A schema or an option that the extension does not know is read by Python as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Final

import pyarrow as pa

from batcher.formats.json.emptiness import empty_lists
from batcher.formats.json.format import JsonDecoder
from batcher.formats.json.limits import JsonOptions, shown
from batcher.formats.json.per_column import PerColumn, per_column, walk
from batcher.formats.json.shape import inner_path, integer_bounds, is_raw, is_text, item_path
from batcher.formats.json.timestamps import DIGITS
from batcher.formats.outcome import moved, summed, together
from batcher.records import RESCUED, Batch, Decoded, UnknownField

Description = tuple[str, str, bool, str, list[int], list["Description"]]
"""A field as the extension is told of it: name, path, whether it may be null, kind, numbers, fields inside."""

_EPOCHS: Final = {"auto": -1, "none": -2} | DIGITS

_NESTED: Final = 30
"""The deepest column that the extension is told of. Arrow takes over 64 levels, and a map is two."""

_UNKNOWN: Final = {"ignore": "skip", "warn": "count", "evolve": "count"}
"""What the extension does with unknown fields. In all other cases it leaves the record aside."""


def decoder_of(schema: pa.Schema, options: JsonOptions, extension: ModuleType) -> JsonDecoder:
    """Return a decoder that uses the extension, or one that does not where that knows too little.

    Raise ConfigurationError as `JsonDecoder` does.
    """
    try:
        return NativeDecoder(schema, options, extension)
    except _NotKnown:
        return JsonDecoder(schema, options)


class _NotKnown(Exception):
    """Say that the extension does not know a type."""


class NativeDecoder(JsonDecoder):
    """Decode JSON objects into one schema, most of them natively (`protocols.Decoder`). Not for several threads."""

    def __init__(self, schema: pa.Schema, options: JsonOptions, extension: ModuleType) -> None:
        super().__init__(schema, options)
        self._units = {path: one.type.unit for path, one in walk(self._schema) if pa.types.is_timestamp(one.type)}
        fields = _described(self._schema, "", per_column(self._schema, options))
        try:
            self._extension = extension.Decoder(
                fields,
                options.max_message_bytes,
                options.max_depth,
                _UNKNOWN.get(options.on_unknown, "suspect"),
                options.match == "insensitive",
            )
        except ValueError as error:
            raise _NotKnown from error

    def decode(self, batch: Batch) -> Decoded:
        values = batch.values()
        try:
            found = self._extension.decode(values.chunks)
        except OverflowError:
            return super().decode(batch)
        # By address: on its way through a capsule the schema loses the names inside maps.
        table = pa.Table.from_batches([pa.RecordBatch._import_from_c(found.columns, self._schema)])  # noqa: SLF001
        rows = pa.Array._import_from_c(found.rows, pa.int64())  # noqa: SLF001
        aside = pa.Array._import_from_c(found.aside, pa.int64())  # noqa: SLF001
        if self._remainder is not None:
            place, field = self._whole.get_field_index(RESCUED.name), self._whole.field(RESCUED.name)
            table = table.add_column(place, field, pa.nulls(table.num_rows, field.type))
        for path, units, unlikely, cut in found.marks:
            self._times.met(path, units, unlikely, self._units[path] if cut else None)
        unknown = summed(
            UnknownField(inner_path(path, shown(name)), records, first) for path, name, records, first in found.unknown
        )
        empty = empty_lists(table) if self._untyped else ()
        if not len(aside):
            return Decoded(table, rows, unknown=unknown, notes=(*self._times.notes(), *empty))
        settled = moved(self.decode_values(values.take(aside)), aside)
        notes = (*self._times.notes(), *empty)
        whole = together([Decoded(table, rows, unknown=unknown, notes=notes), settled], self._whole)
        return replace(whole, table=whole.table.combine_chunks())


def _described(fields: Iterable[pa.Field], path: str, chosen: PerColumn, depth: int = 0) -> list[Description]:
    return [_field(field, inner_path(path, field.name), chosen, depth) for field in fields]


def _field(field: pa.Field, path: str, chosen: PerColumn, depth: int) -> Description:
    if depth > _NESTED:
        raise _NotKnown
    kind, numbers, inside = _kind(field, path, chosen, depth + 1)
    return field.name, path, field.nullable, kind, numbers, inside


def _kind(  # noqa: C901, PLR0911 - one for each kind of type
    field: pa.Field, path: str, chosen: PerColumn, depth: int
) -> tuple[str, list[int], list[Description]]:
    kind = field.type
    if is_raw(field):
        return "json", [_large(kind)], []
    if is_text(kind):
        return "any" if path in chosen.texts else "text", [_large(kind)], []
    bounds = integer_bounds(kind)
    if bounds is not None:
        return "int" if bounds[0] else "uint", [kind.bit_width], []
    if pa.types.is_struct(kind):
        return "struct", [], _described(kind, path, chosen, depth)
    if pa.types.is_list(kind):
        return "list", [], [_field(kind.value_field, item_path(path), chosen, depth)]
    if pa.types.is_map(kind):
        key: Description = ("key", path, False, "text", [_large(kind.key_type)], [])
        return "map", [], [key, _field(kind.item_field, item_path(path), chosen, depth)]
    if pa.types.is_timestamp(kind):
        return "time", [DIGITS[kind.unit], _EPOCHS[chosen.epochs[path]]], []
    if pa.types.is_decimal(kind):
        return "decimal", [kind.precision, kind.scale, kind.bit_width], []
    if kind in (pa.float32(), pa.float64()):
        return "float", [kind.bit_width], []
    plain = {pa.bool_(): "bool", pa.date32(): "date", pa.null(): "null"}
    if kind not in plain:
        raise _NotKnown
    return plain[kind], [], []


def _large(kind: pa.DataType) -> int:
    return int(kind in (pa.large_string(), pa.large_binary()))
