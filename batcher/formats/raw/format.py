"""Raw messages: one column takes them, or none where the target keeps them as the coordinate `_value`.

Other columns stay null. A message that no column takes is told as an unknown field, so that nothing is lost in silence.
A target may have nothing but coordinates: then the decoded table has rows and no columns, and what is behind it adds
the coordinates.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.formats.json.limits import OnUnknown
from batcher.formats.json.shape import is_raw, is_text
from batcher.formats.json.timestamps import piecewise
from batcher.formats.policy import Tombstones, admit
from batcher.records import Batch, Decoded, Rejection, UnknownField, as_one


@dataclass(frozen=True, slots=True)
class RawOptions:
    """Say which column takes the message, and what it holds where the target has no columns yet."""

    column: str = "value"
    type: Literal["bytes", "text"] = "bytes"
    max_message_bytes: int = 1 << 20
    tombstones: Tombstones = "skip"
    on_unknown: OnUnknown = "warn"
    advice: str = "a column of bytes takes any"
    """What to do about a message that is not UTF-8."""


class RawFormat:
    """Make decoders for messages as they are (`protocols.Format`)."""

    def __init__(self, options: RawOptions = RawOptions()) -> None:
        self._options = options

    def infer(self, batch: Batch) -> pa.Schema | None:
        schema = pa.schema([(self._options.column, pa.string() if self._options.type == "text" else pa.binary())])
        return schema if len(self.decoder(schema).decode(batch).positions) else None

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:  # noqa: ARG002 - it has no column without a type
        return schema

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        found = self.infer(batch)
        return pa.schema([field for field in found or () if field.name in names])

    def decoder(self, schema: pa.Schema) -> RawDecoder:
        return RawDecoder(schema, self._options)


class RawDecoder:
    """Put messages into a column (`protocols.Decoder`)."""

    def __init__(self, schema: pa.Schema, options: RawOptions) -> None:
        self._taken: pa.Field | None = None
        for field in schema:
            if field.name == options.column:
                if not is_text(field.type) or is_raw(field):
                    raise ConfigurationError(
                        f"--raw.column {field.name}: column {field.name} is {field.type}; raw fills text or bytes"
                    )
                self._taken = field
            elif not field.nullable:
                raise ConfigurationError(
                    f"--raw.column {options.column}: column {field.name} needs a value, and raw fills no other column"
                )
        self._schema = schema
        self._options = options

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def decode(self, batch: Batch) -> Decoded:
        admitted = admit(
            as_one(batch.values()),
            max_message_bytes=self._options.max_message_bytes,
            tombstones=self._options.tombstones,
        )
        values, positions, rejections = admitted.values, admitted.positions, list(admitted.rejections)
        if self._taken is not None:
            to, path = self._taken.type, self._taken.name
            values, bad = piecewise(values, lambda part: part.cast(to))
            if bad:
                refused = pa.array(bad, pa.int64())
                message = f"field {path}: the message is not UTF-8; {self._options.advice}"
                rejections += [Rejection(row, "encoding", message, path) for row in positions.take(refused).to_pylist()]
                rejections.sort(key=lambda one: one.position)
                keep = pc.invert(pc.is_in(pa.arange(0, len(values)), value_set=refused))
                values, positions = values.filter(keep), positions.filter(keep)
        return Decoded(self._table(values), positions, tuple(rejections), admitted.skipped, self._unknown(positions))

    def _table(self, values: Any) -> pa.Table:
        columns = [
            values if field.name == self._options.column else pa.nulls(len(values), field.type)
            for field in self._schema
        ]
        if columns:
            return pa.Table.from_arrays(columns, schema=self._schema)
        # A table that is made of no columns has no rows; one that is made of a batch has the batch's.
        rows = pa.array([{}], pa.struct([])).take(pa.repeat(pa.scalar(0, pa.int64()), len(values)))
        return pa.Table.from_batches([pa.RecordBatch.from_struct_array(rows)])

    def _unknown(self, positions: pa.Int64Array) -> tuple[UnknownField, ...]:
        if self._taken is not None or self._options.on_unknown == "ignore" or not len(positions):
            return ()
        return (UnknownField(self._options.column, len(positions), positions[0].as_py()),)
