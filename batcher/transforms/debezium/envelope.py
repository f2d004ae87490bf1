"""Events as a format reads them: fields of rows are called by the names of their columns in everything that is said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import pyarrow as pa

from batcher.errors import ConfigurationError
from batcher.formats.connect.avro import names_in
from batcher.formats.connect.format import ConnectJsonFormat
from batcher.formats.connect.reader import MeantReader, Wanted
from batcher.formats.json.format import JsonFormat
from batcher.formats.json.limits import JsonOptions
from batcher.formats.json.per_column import ALL, known_options
from batcher.formats.keyed import KeyedFormat
from batcher.formats.packed import PackedFormat
from batcher.formats.writer_schema import SchemaKey, SchemaReader, WriterSchema
from batcher.formats.written import Codec, WrittenDecoder, WrittenFormat
from batcher.protocols import Decoder, Format
from batcher.records import Batch, Decoded, Rejection, UnknownField

IMAGES: Final = ("after", "before")
"""The fields that hold a row."""

WANTED: Final[Wanted] = {"before": (), "after": (), "op": (), "source": ("lsn", "ts_ms")}
"""The fields of an event that are looked at. What else the event says about itself is no loss."""


def of_events(format_: Format) -> Format:
    """Return the format that reads events in place of rows. Raise ConfigurationError for one that cannot."""
    if isinstance(format_, KeyedFormat):
        return format_.with_values(of_events(format_.values))
    if isinstance(format_, PackedFormat):
        return PackedFormat(of_events(format_.inner), format_.framing, format_.compression, format_.check)
    if isinstance(format_, JsonFormat):
        return EventFormat(ConnectJsonFormat(_options(format_.options), WANTED))
    if isinstance(format_, WrittenFormat) and format_.codec.kind == "avro":
        return EventFormat(_EventsOfAvro(format_))
    raise ConfigurationError("--transform.kind debezium: reads events in json or avro; see --decode.format")


def _options(given: JsonOptions) -> JsonOptions:
    """Return options for events: what names a column is meant for the field in either image.

    Numbers are no times unless their unit is stated: nothing in an event without a schema tells it.
    """
    text = [name for one in given.text for name in ((one,) if one == ALL else _both(one))]
    epoch = {name: unit for one, unit in given.epoch.items() for name in ((one,) if one == ALL else _both(one))}
    if epoch.get(ALL, "auto") == "auto":
        epoch[ALL] = "none"
    return replace(given, text=frozenset(text), epoch=epoch, tombstones="skip")


def _both(name: str) -> Iterator[str]:
    return (f"{image}.{name}" for image in IMAGES)


class _EventsOfAvro:
    """Read events with the schemas of their writers (`protocols.Format`)."""

    def __init__(self, given: WrittenFormat) -> None:
        codec = replace(given.codec, reader=partial(_reader, given.codec))
        self._format = WrittenFormat(codec, given.framing, given.schemas, _options(given.options))

    def infer(self, batch: Batch) -> pa.Schema | None:
        return self._format.infer(batch)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return self._format.grow(schema, batch)

    def decoder(self, schema: pa.Schema) -> Decoder:
        given = self._format
        options = known_options(schema, given.options)
        return WrittenDecoder(given.codec, given.framing, given.schemas, options, schema)


def _reader(codec: Codec, written: WriterSchema, key: SchemaKey, target: pa.Schema | None) -> SchemaReader:
    inner = codec.reader(written, key, target)
    return MeantReader(inner, names_in(written.text, written.references), WANTED)


class EventFormat:
    """Read events with another format (`protocols.Format`)."""

    def __init__(self, inner: Format) -> None:
        self._inner = inner

    def infer(self, batch: Batch) -> pa.Schema | None:
        return self._inner.infer(batch)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return self._inner.grow(schema, batch)

    def decoder(self, schema: pa.Schema) -> EventDecoder:
        return EventDecoder(self._inner.decoder(schema))


class EventDecoder:
    """Read events with another decoder (`protocols.Decoder`)."""

    def __init__(self, inner: Decoder) -> None:
        self._inner = inner

    @property
    def schema(self) -> pa.Schema:
        return self._inner.schema

    def decode(self, batch: Batch) -> Decoded:
        found = self._inner.decode(batch)
        return replace(
            found,
            rejections=tuple(map(_told, found.rejections)),
            unknown=tuple(_unknown(found.unknown).values()),
            notes=tuple(_column(note) for note in found.notes),
        )


def _unknown(fields: Sequence[UnknownField]) -> Mapping[str, UnknownField]:
    """Return the fields of rows that no column takes: an update has them in both images."""
    found: dict[str, UnknownField] = {}
    for image in IMAGES:
        for one in fields:
            if one.path.startswith(f"{image}."):
                path = one.path.removeprefix(f"{image}.")
                found.setdefault(path, replace(one, path=path))
    return found


def _told(one: Rejection) -> Rejection:
    path = one.path
    if path is not None:
        for image in IMAGES:
            path = path.removeprefix(f"{image}.")
    return replace(one, path=path, message=_column(one.message))


def _column(text: str) -> str:
    for image in IMAGES:
        for before in ("field ", "column ", "--decode.epoch ", "--decode.text "):
            text = text.replace(f"{before}{image}.", before)
    return text
