"""CSV records: one line a message, its fields in the order of the columns.

Fields become JSON by the type of their column, and the JSON decoder reads them with all its rules. A field without
quotes that is the text for null is null. For a column of numbers it has to be a number as JSON writes it, for one of
booleans `true` or `false`, for a struct, list or map JSON. For all other columns it is a text.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.formats.delimited.fields import FieldSplitter
from batcher.formats.delimited.options import CsvOptions
from batcher.formats.json.format import JsonDecoder, JsonFormat
from batcher.formats.json.limits import Refused
from batcher.formats.json.shape import integer_bounds, is_raw
from batcher.formats.json.spelling import folded
from batcher.formats.json.syntax import quote
from batcher.formats.json.type_names import type_name
from batcher.formats.quotes import quoted
from batcher.formats.translation import Translated, decoded, inner_options, translated
from batcher.records import Batch, Decoded

__all__ = ["CsvDecoder", "CsvFormat", "CsvOptions"]

_NUMBER: Final = r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$"
_BOOLEAN: Final = "^(?:true|false)$"


class CsvFormat:
    """Make decoders for CSV without a header (`protocols.Format`)."""

    def __init__(self, options: CsvOptions = CsvOptions()) -> None:  # noqa: B008 - frozen
        self._options = options
        self._json = JsonFormat(inner_options(options.json))

    def infer(self, batch: Batch) -> pa.Schema | None:
        if not self._options.columns:
            raise ConfigurationError("--csv.columns: the target has no columns yet, so their names have to be given")
        schema = pa.schema([(name, pa.string()) for name in self._options.columns])
        return schema if len(self.decoder(schema).decode(batch).positions) else None

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return self._json.grow(schema, _Lines(schema, self._options).translated(batch).batch)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:  # noqa: ARG002 - every field is a text
        return pa.schema([(name, pa.string()) for name in self._options.columns if name in names])

    def decoder(self, schema: pa.Schema) -> CsvDecoder:
        return CsvDecoder(self._json.decoder(schema), _Lines(schema, self._options))


class CsvDecoder:
    """Decode lines into one schema (`protocols.Decoder`). Not for several threads at once."""

    def __init__(self, json: JsonDecoder, lines: _Lines) -> None:
        self._json = json
        self._lines = lines

    @property
    def schema(self) -> pa.Schema:
        return self._json.schema

    def decode(self, batch: Batch) -> Decoded:
        return decoded(self._lines.translated(batch), self._json)


class _Lines:
    """Turn lines into JSON for the columns of a schema."""

    def __init__(self, schema: pa.Schema, options: CsvOptions) -> None:
        self._options = options
        names = options.columns or tuple(schema.names)
        self._columns = [_named(name, schema, options) for name in names]
        self._fields = FieldSplitter(len(names), options)

    def translated(self, batch: Batch) -> Translated:
        return translated(batch, self._options.json, self._translate)

    def _translate(self, values: pa.BinaryArray) -> tuple[pa.BinaryArray, dict[int, Refused]]:
        texts, rows, refused = self._fields.split(values)
        numbers = rows.to_pylist()
        parts: list[Any] = []
        for column, given in zip(self._columns, texts, strict=True):
            written, faults = _written(column, given)
            for row, why in faults.items():
                refused.setdefault(numbers[row], why)
            parts += [f"{',' if parts else '{'}{quote(column.name)}:", pc.fill_null(written, "null")]
        documents = pc.binary_join_element_wise(*parts, "}", "").cast(pa.binary())
        # Each value takes the document of its row, and none where it is refused.
        keep = pc.invert(pc.is_in(rows, value_set=pa.array(list(refused), pa.int64())))
        return documents.filter(keep).take(pc.index_in(pa.arange(0, len(values)), value_set=rows.filter(keep))), refused


def _named(name: str, schema: pa.Schema, options: CsvOptions) -> pa.Field:
    """Return the column that a field fills; one of text, which no column is, where none does."""
    for column in schema:
        if column.name == name:
            return column
    if options.json.match == "insensitive":
        for column in schema:
            if folded(column.name) == folded(name):
                return column.with_name(name)
    return pa.field(name, pa.string())


def _written(column: pa.Field, given: pa.StringArray) -> tuple[pa.StringArray, dict[int, Refused]]:
    """Return texts as the JSON that the column takes."""
    kind = column.type
    if pa.types.is_nested(kind) and not is_raw(column):
        return given, _no_json(column, given)
    if integer_bounds(kind) is not None or pa.types.is_floating(kind):
        return given, _unlike(column, given, _NUMBER, "the text is no number")
    if pa.types.is_boolean(kind):
        return given, _unlike(column, given, _BOOLEAN, "the text is neither true nor false")
    return quoted(given), {}


def _unlike(column: pa.Field, given: pa.StringArray, form: str, what: str) -> dict[int, Refused]:
    other = pc.fill_null(pc.invert(pc.match_substring_regex(given, form)), False)
    why = Refused("type", f"{what}; the column's type is {type_name(column)}", column.name)
    return dict.fromkeys(pc.indices_nonzero(other).to_pylist(), why)


def _no_json(column: pa.Field, given: pa.StringArray) -> dict[int, Refused]:
    """Return the rows whose text is no JSON, which would not stay inside of its field."""
    why = Refused("syntax", "the text is not JSON, which the column needs", column.name)
    return {row: why for row, text in enumerate(given.to_pylist()) if text is not None and not _is_json(text)}


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True
