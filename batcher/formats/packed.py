"""Unpack messages before another format reads them: compression by hand, and the frame of a schema registry.

The registry is asked by a check only: payloads say what they are without a schema, such as JSON written by a
JSON-Schema serializer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.compression import Compression, decompress
from batcher.formats.framing import Framing, Split
from batcher.formats.outcome import by_position, moved, together
from batcher.formats.policy import with_values
from batcher.protocols import Decoder, FieldProposer, Format
from batcher.records import Batch, Decoded, Records, Rejection

Check = Callable[[Split], Split]
"""Turn more payloads into rejections; every position stays in one place. May raise SchemasUnavailable."""


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """Hold what the other format reads, the positions of these records in the batch, and what became of the others."""

    batch: Batch | None
    positions: pa.Int64Array
    rejections: tuple[Rejection, ...]
    skipped: pa.Int64Array


class PackedFormat:
    """Make decoders of another format for messages that are packed (`protocols.Format`).

    With a `check`, the other format does not see what that refuses.
    """

    def __init__(
        self, inner: Format, framing: Framing, compression: Compression = "none", check: Check | None = None
    ) -> None:
        self.inner = inner
        self.framing = framing
        self.compression = compression
        self.check = check

    def infer(self, batch: Batch) -> pa.Schema | None:
        found = self.unpack(batch).batch
        return None if found is None else self.inner.infer(found)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        found = self.unpack(batch).batch
        return schema if found is None else self.inner.grow(schema, found)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        found = self.unpack(batch).batch
        if found is None or not isinstance(self.inner, FieldProposer):
            return pa.schema([])
        return self.inner.proposed(found, names)

    def decoder(self, schema: pa.Schema) -> PackedDecoder:
        return PackedDecoder(self, self.inner.decoder(schema))

    def unpack(self, batch: Batch) -> _Unpacked:
        """Return what is in the messages of a batch."""
        rejections: list[Rejection] = []
        if self.compression != "none":
            unpacked = decompress(batch.values(), self.compression, self.framing.max_message_bytes)
            batch = with_values(batch, unpacked.values)
            rejections += unpacked.rejections
        refused = {one.position for one in rejections}
        if self.framing.kind == "none" and self.check is None:
            positions, values = pa.arange(0, batch.rows), batch.values()
            if refused:
                keep = pc.invert(pc.is_in(positions, pa.array(sorted(refused), pa.int64())))
                positions, values = positions.filter(keep), values.filter(keep)
            return _Unpacked(_of(batch, positions, values), positions, tuple(rejections), _nothing())
        split = self.framing.split(batch)
        if self.check is not None:
            split = self.check(split)
        # What could not be decompressed has no value now, and is no tombstone for that.
        rejections += [one for one in split.rejections if one.position not in refused]
        skipped = split.skipped
        if refused:
            skipped = skipped.filter(pc.invert(pc.is_in(skipped, pa.array(sorted(refused), pa.int64()))))
        positions = pa.concat_arrays([_nothing(), *(group.positions for group in split.groups)])
        payloads = pa.chunked_array([group.payloads for group in split.groups], pa.binary())
        order = pc.sort_indices(positions)
        positions = positions.take(order)
        found = _of(batch, positions, payloads.take(order))
        return _Unpacked(found, positions, tuple(rejections), skipped)


class PackedDecoder:
    """Decode packed messages with the decoder of another format (`protocols.Decoder`)."""

    def __init__(self, packed: PackedFormat, inner: Decoder) -> None:
        self._packed = packed
        self._inner = inner

    @property
    def schema(self) -> pa.Schema:
        return self._inner.schema

    def decode(self, batch: Batch) -> Decoded:
        found = self._packed.unpack(batch)
        rest = Decoded(
            self.schema.empty_table(), _nothing(), tuple(sorted(found.rejections, key=by_position)), found.skipped
        )
        if found.batch is None:
            return rest
        return together([moved(self._inner.decode(found.batch), found.positions), rest], self.schema)


def _of(batch: Batch, positions: pa.Int64Array, values: pa.ChunkedArray) -> Batch | None:
    """Return records with these values; the format that reads them does not ask where they stood."""
    count = len(positions)
    if not count:
        return None
    empty = pa.nulls(count, pa.binary())
    run = Records(batch.runs[0].partition, positions, pa.nulls(count, pa.int64()), empty, values)
    return Batch((run,), batch.trigger)


def _nothing() -> pa.Int64Array:
    return pa.array([], pa.int64())
