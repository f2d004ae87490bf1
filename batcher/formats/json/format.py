"""JSON records: one object a message.

Blocks are read with Arrow (`block.py`), whole or around the odd records. Before that, checks on whole columns
(`guard.py`) make it impossible for a row to slip to another message. What cannot be read with others is settled one by
one by `strict.py`, which alone refuses records. Memory and time of the rare path grow with the number of odd records,
not with the block.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher import native
from batcher.formats.json import shape
from batcher.formats.json.block import BlockOutcome, BlockReader
from batcher.formats.json.census import Census
from batcher.formats.json.columns import Finisher
from batcher.formats.json.emptiness import empty_lists
from batcher.formats.json.first_values import given_types, new_fields
from batcher.formats.json.guard import guard
from batcher.formats.json.inference import infer_schema
from batcher.formats.json.limits import JsonOptions, Refused
from batcher.formats.json.per_column import per_column, with_texts
from batcher.formats.json.recognition import recognised
from batcher.formats.json.remainder import Remainder
from batcher.formats.json.sparse import SparseReader
from batcher.formats.json.strict import StrictReader
from batcher.formats.json.times import Times
from batcher.formats.outcome import ascending, renumbered
from batcher.formats.policy import PIECE_BYTES, piece_rows
from batcher.growth import has_untyped
from batcher.records import RESCUED, Batch, Decoded, Rejection, UnknownField, as_one

__all__ = ["JsonDecoder", "JsonFormat", "JsonOptions"]

_FINER: Final = r"\d:\d\d\.\d{6}\d*[1-9]"
"""A time with digits below the microsecond, anywhere in a message."""

_COLUMN_BYTES: Final = 8192
"""A piece has at least this for each column: to put pieces together costs some 50 us a column."""

_CHECKED: Final = 16_384
"""Messages of a first batch that are checked against a schema at once."""

_MISFITS: Final = 2_000
"""The most messages that do not fit a schema: with more, finding each takes as long as a look at all."""


class JsonFormat:
    """Make decoders for JSON objects (`protocols.Format`).

    Raise ExtensionMissing where the options require the native extension and it cannot be used.
    """

    def __init__(self, options: JsonOptions = JsonOptions()) -> None:  # noqa: B008 - frozen
        self.options = options
        self._extension = native.extension(options.native)
        if self._extension is not None:
            native.take("decode")

    def infer(self, batch: Batch) -> pa.Schema | None:
        proposed = infer_schema(self._texts(batch), self.options, self._misfits)
        return None if proposed is None else with_texts(proposed, self.options)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return given_types(schema, self._texts(batch), self.options)

    def decoder(self, schema: pa.Schema) -> JsonDecoder:
        if self._extension is None:
            return JsonDecoder(schema, self.options)
        from batcher.formats.json.native import decoder_of  # noqa: PLC0415 - it is made from this module

        return decoder_of(schema, self.options, self._extension)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        return new_fields(self._texts(batch), names, self.options)

    def _misfits(self, schema: pa.Schema, texts: pa.Array) -> Sequence[int] | None:
        """Return the messages that a schema refuses, unknown fields included (see `inference.Misfits`)."""
        strict = JsonOptions("reject", self.options.match, max_message_bytes=self.options.max_message_bytes)
        decoder = JsonDecoder(schema, replace(strict, max_depth=self.options.max_depth))
        found: list[int] = []
        for start in range(0, len(texts), _CHECKED):
            decoded = decoder.decode_texts(texts.slice(start, _CHECKED))
            if decoded.outgrown or len(found) > _MISFITS:
                return None
            found += [start + rejection.position for rejection in decoded.rejections]
        if any(pa.types.is_timestamp(kind) and kind.unit == "us" for kind in shape.kinds(schema)):
            # A time that is finer than its column is cut, and refused nowhere.
            finer = pc.indices_nonzero(pc.match_substring_regex(texts, _FINER)).to_pylist()
            found = sorted({*found, *finer[:_MISFITS]})
        return found

    def _texts(self, batch: Batch) -> pa.Array:
        return guard(as_one(batch.values()), self.options).texts


class JsonDecoder:
    """Decode JSON objects into one schema (`protocols.Decoder`). Not for several threads at once."""

    def __init__(self, schema: pa.Schema, options: JsonOptions) -> None:
        shape.validate(schema)
        self._whole = schema
        self._remainder: Remainder | None = None
        if options.on_unknown == "rescue" and RESCUED.name in schema.names:
            schema = schema.remove(schema.get_field_index(RESCUED.name))
            self._remainder = Remainder(schema, options)
        self._schema = schema
        self._options = options
        chosen = per_column(schema, options)
        self._times = Times(chosen.epochs)
        self._untyped = has_untyped(schema)
        self._strict = StrictReader(schema, options, chosen.texts, self._times)
        self._census: Census | None = None
        if self._remainder is None and (options.on_unknown == "warn" or options.exact):
            self._census = Census(schema, insensitive=options.match == "insensitive", exact=options.exact)
        self._unclean = False
        """The last block had unknown fields, so that a look for them comes sooner or later anyway."""
        self._finisher = Finisher(schema, self._times)
        self._block = BlockReader(schema, options, chosen.texts, self._finisher)
        self._rewriting = False
        """Every record is read by itself, and rewritten: it is for comparison with what is read whole."""
        self._rewritten = SparseReader(shape.rewritten_schema(schema))
        self._piece_bytes = max(PIECE_BYTES, _COLUMN_BYTES * shape.leaves(schema))

    @property
    def schema(self) -> pa.Schema:
        return self._whole

    def decode(self, batch: Batch) -> Decoded:
        return self.decode_values(batch.values())

    def decode_values(self, values: pa.ChunkedArray) -> Decoded:
        """Decode messages; positions are theirs."""
        # What is read around odd messages is copied once more on the way: half as much at a time takes no more memory.
        step = piece_rows(values, self._piece_bytes // 2 if self._block.uneven else self._piece_bytes)
        pieces = [self.decode_texts(as_one(values.slice(start, step))) for start in range(0, len(values), step)]
        return pieces[0] if len(pieces) == 1 else _in_a_row(pieces, step)

    def decode_texts(self, values: pa.Array) -> Decoded:
        """Decode one piece; positions are rows of the piece."""
        guarded = guard(values, self._options)
        self._strict.met.unknown = self._strict.met.untyped = False
        outcome = BlockOutcome()
        if self._rewriting:
            outcome.open = list(range(len(guarded.texts)))
            outcome.clean = True
        else:
            self._block.read(guarded.texts, outcome, no_unknown=self._looks_for_unknown())
        refused = self._settle(guarded.texts, outcome)
        table, rows = _merged(outcome, self._schema)
        if self._remainder is not None:
            table, rows, lost = self._rescued(guarded.texts, table, rows, self._remainder, clean=outcome.clean)
            refused += lost
        positions = guarded.positions.take(rows)
        unknown, estimated = self._unknown(guarded.texts, rows, positions, clean=outcome.clean)
        rejections = guarded.rejections + [
            Rejection(guarded.positions[row].as_py(), why.reason, why.message, why.path) for row, why in refused
        ]
        rejections.sort(key=lambda rejection: rejection.position)
        return Decoded(
            table,
            positions,
            tuple(rejections),
            guarded.skipped,
            unknown,
            estimated,
            outgrown=self._strict.met.untyped,
            notes=(*self._times.notes(), *(empty_lists(table) if self._untyped else ())),
        )

    def _rescued(
        self, texts: pa.Array, table: pa.Table, rows: pa.Array, remainder: Remainder, *, clean: bool
    ) -> tuple[pa.Table, pa.Array, list[tuple[int, Refused]]]:
        """Return the table with the column for what no other column takes, and the rows that have no JSON for it."""
        place, field = self._whole.get_field_index(RESCUED.name), self._whole.field(RESCUED.name)
        self._unclean = not (clean and not self._strict.met.unknown) and bool(len(rows))
        if not self._unclean:
            return table.add_column(place, field, pa.nulls(len(rows), field.type)), rows, []
        kept, bad = remainder.of(texts if len(rows) == len(texts) else texts.take(rows))
        self._unclean = kept.null_count < len(kept) or bool(bad)
        table = table.add_column(place, field, kept.cast(field.type))
        lost = [(rows[row].as_py(), why) for row, why in bad.items()]
        if bad:
            keep = pc.invert(pc.is_in(pa.arange(0, len(rows)), pa.array(list(bad), pa.int64())))
            table, rows = table.filter(keep).combine_chunks(), rows.filter(keep)
        return table, rows, lost

    def _looks_for_unknown(self) -> bool:
        """Return whether it is worth knowing of the next block that it has no unknown field."""
        if self._options.exact:
            return not self._unclean
        return self._census is not None and self._census.careful

    def _unknown(
        self, texts: pa.Array, rows: pa.Array, positions: pa.Array, *, clean: bool
    ) -> tuple[tuple[UnknownField, ...], bool]:
        """Return the unknown fields of the messages that became rows, and whether they are estimated."""
        if self._census is None or not len(rows) or (clean and not self._strict.met.unknown):
            self._unclean &= self._remainder is not None
            return (), False
        seen = self._census.look(texts if len(rows) == len(texts) else texts.take(rows))
        self._unclean = bool(seen.fields)
        return tuple(renumbered(seen.fields, positions)), seen.estimated

    def _settle(self, texts: pa.Array, outcome: BlockOutcome) -> list[tuple[int, Refused]]:
        """Check the open rows one by one; read those that pass and return the others with the reason."""
        refused: list[tuple[int, Refused]] = []
        passed: list[int] = []
        rewritten: list[bytes] = []
        outcome.open.sort()
        for row, text in zip(outcome.open, texts.take(pa.array(outcome.open, pa.int64())).to_pylist(), strict=True):
            try:
                rewritten.append(self._strict.rewrite(text))
                passed.append(row)
            except Refused as why:
                refused.append((row, recognised(text, why).kept()))
        if passed:
            arrays = self._rewritten.read(pa.array(rewritten, pa.binary()), reject_unknown=False)
            table, _ = self._finisher.finish(arrays)
            outcome.tables.append(table)
            outcome.rows.append(pa.array(passed, pa.int64()))
        return refused


def _in_a_row(pieces: list[Decoded], step: int) -> Decoded:
    """Return one outcome of all pieces, each but the last of which has `step` rows. The pieces are used up."""
    shifts = [pa.scalar(number * step, pa.int64()) for number in range(len(pieces))]
    positions = pa.concat_arrays([pc.add(piece.positions, shift) for piece, shift in zip(pieces, shifts, strict=True)])
    rejections = tuple(
        replace(rejection, position=rejection.position + number * step)
        for number, piece in enumerate(pieces)
        for rejection in piece.rejections
    )
    skipped = pa.concat_arrays([pc.add(piece.skipped, shift) for piece, shift in zip(pieces, shifts, strict=True)])
    unknown, estimated = _added_up(pieces, step), any(piece.estimated for piece in pieces)
    outgrown, notes = any(piece.outgrown for piece in pieces), tuple(note for piece in pieces for note in piece.notes)
    tables = [piece.table for piece in pieces]
    pieces.clear()
    table = _joined(tables)
    return Decoded(table, positions, rejections, skipped, unknown, estimated, outgrown, notes=notes)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return one table, each column in one chunk if that can be. The tables are used up, a column at a time."""
    schema = tables[0].schema
    left = [table.columns[::-1] for table in tables]
    tables.clear()
    joined = []
    for field in schema:
        chunks = [chunk for columns_ in left for chunk in columns_.pop().chunks]
        joined.append(pa.chunked_array(chunks, field.type).combine_chunks())
    return pa.Table.from_arrays(joined, schema=schema)


def _added_up(pieces: list[Decoded], step: int) -> tuple[UnknownField, ...]:
    found: dict[str, UnknownField] = {}
    for number, piece in enumerate(pieces):
        for one in piece.unknown:
            before = found.get(one.path)
            if before is None:
                found[one.path] = replace(one, position=one.position + number * step)
            else:
                found[one.path] = replace(before, records=before.records + one.records)
    return tuple(found.values())


def _merged(outcome: BlockOutcome, schema: pa.Schema) -> tuple[pa.Table, pa.Array]:
    """Return one table of one chunk, in the order of the rows, and the rows."""
    if not outcome.tables:
        return schema.empty_table(), pa.array([], pa.int64())
    rows = outcome.rows[0] if len(outcome.rows) == 1 else pa.concat_arrays(outcome.rows)
    tables = outcome.tables
    outcome.tables = []
    if ascending(rows):
        return (tables[0].combine_chunks() if len(tables) == 1 else _joined(tables)), rows
    order = pc.sort_indices(rows)
    return _joined(tables).take(order), rows.take(order)
