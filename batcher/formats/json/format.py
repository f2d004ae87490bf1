"""JSON records: one object a message.

Most blocks are read whole by Arrow (`reader.py`). Before that, checks on whole columns (`guard.py`) make it impossible
for a row to slip to another message. Only when such a block cannot be read are its messages looked at one by one:
msgspec sifts out the suspects, and `strict.py`, which alone refuses records, settles them. Memory and time of the rare
path grow with the number of bad records, not with the block.

It is long because the fast and the exact way of one batch, and when one gives way to the other, are read together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json import columns, reader, shape
from batcher.formats.json.census import Census
from batcher.formats.json.emptiness import empty_lists
from batcher.formats.json.first_values import given_types, new_fields
from batcher.formats.json.guard import guard
from batcher.formats.json.inference import infer_schema
from batcher.formats.json.limits import JsonOptions, Refused
from batcher.formats.json.per_column import per_column, with_texts
from batcher.formats.json.recognition import recognised
from batcher.formats.json.remainder import Remainder
from batcher.formats.json.spelling import Names, Speller
from batcher.formats.json.strict import StrictReader
from batcher.formats.json.syntax import NumberText, Pairs, parse_object
from batcher.formats.json.times import Times
from batcher.formats.outcome import renumbered
from batcher.formats.policy import piece_rows
from batcher.growth import has_untyped
from batcher.records import RESCUED, Batch, Decoded, Rejection, UnknownField, as_one

__all__ = ["JsonDecoder", "JsonFormat", "JsonOptions"]

_FEW: Final = 64
"""At most this many messages are settled one by one: that costs about as much as another attempt with Arrow."""

_PIECE: Final = 2048
"""Messages of a piece once a block has failed: many enough for a cheap call, few enough for a cheap repeat."""

_SIEVED: Final = 32
"""Messages that msgspec sees in one call: twice as fast as one by one, and a bad one affects few others."""

_SIEVE_ERRORS: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_FINER: Final = r"\d:\d\d\.\d{6}\d*[1-9]"
"""A time with digits below the microsecond, anywhere in a message."""

_CHECKED: Final = 16_384
"""Messages of a first batch that are checked against a schema at once."""

_MISFITS: Final = 2_000
"""The most messages that do not fit a schema: with more, finding each takes as long as a look at all."""

_COMPILED: Final = 64
"""Reading schemas that are kept: there may be one for each way to write a record, without limit."""

_SAMPLE: Final = 16
"""Messages that are checked for how they write what may be text or a number."""


class JsonFormat:
    """Make decoders for JSON objects (`protocols.Format`)."""

    def __init__(self, options: JsonOptions = JsonOptions()) -> None:  # noqa: B008 - frozen
        self.options = options

    def infer(self, batch: Batch) -> pa.Schema | None:
        proposed = infer_schema(self._texts(batch), self.options, self._misfits)
        return None if proposed is None else with_texts(proposed, self.options)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return given_types(schema, self._texts(batch), self.options)

    def decoder(self, schema: pa.Schema) -> JsonDecoder:
        return JsonDecoder(schema, self.options)

    def proposed(self, batch: Batch, names: Collection[str]) -> pa.Schema:
        return new_fields(self._texts(batch), names, self.options)

    def _misfits(self, schema: pa.Schema, texts: pa.Array) -> Sequence[int] | None:
        """Return the messages that a schema refuses, unknown fields included (see `inference.Misfits`)."""
        if shape.needs_rewriting(schema):
            return None
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


@dataclass(slots=True)
class _Outcome:
    """Collect what becomes of the messages of one block; rows are numbers in that block."""

    tables: list[pa.Table] = field(default_factory=list)
    rows: list[pa.Array] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    clean: bool = False
    """Arrow has found no unknown field in what it read."""


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
        self._reject_unknown = options.on_unknown in ("reject", "halt")
        chosen = per_column(schema, options)
        insensitive = options.match == "insensitive"
        self._speller = Speller(schema, options.max_depth) if insensitive else None
        self._names: Names = {}
        """How the fields of the block at hand are written."""
        self._times = Times(chosen.epochs)
        self._untyped = has_untyped(schema)
        self._strict = StrictReader(schema, options, chosen.texts, self._times)
        self._census: Census | None = None
        if self._remainder is None and (options.on_unknown == "warn" or options.exact):
            self._census = Census(schema, insensitive=insensitive, exact=options.exact)
        self._unclean = False
        """The last block had unknown fields, so that a look for them comes sooner or later anyway."""
        self._rewriting = shape.needs_rewriting(schema)
        self._rewritten = shape.rewritten_schema(schema)
        self._formed = frozenset(shape.timestamp_paths(schema)) | chosen.texts
        self._numeric: shape.Numeric = frozenset()
        """How the last block wrote what may be text or a number: where to begin with the next. It changes the speed,
        never a result."""
        self._compiled: dict[Any, tuple[pa.Schema, msgspec.json.Decoder[Any]]] = {}

    @property
    def schema(self) -> pa.Schema:
        return self._whole

    def decode(self, batch: Batch) -> Decoded:
        values = batch.values()
        step = piece_rows(values)
        pieces = [self.decode_texts(as_one(values.slice(start, step))) for start in range(0, len(values), step)]
        return pieces[0] if len(pieces) == 1 else _in_a_row(pieces, step)

    def decode_texts(self, values: pa.Array) -> Decoded:
        """Decode one piece; positions are rows of the piece."""
        guarded = guard(values, self._options)
        self._strict.met.unknown = self._strict.met.untyped = False
        outcome = _Outcome()
        everything = pa.arange(0, len(guarded.texts))
        if self._rewriting:
            outcome.open = everything.to_pylist()
            outcome.clean = True
        else:
            self._read_spelled(guarded.texts, everything, outcome)
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

    def _read_spelled(self, texts: pa.Array, rows: pa.Array, outcome: _Outcome) -> None:
        """Read a block with the names as they are written in it; other spellings are left to the strict reader."""
        if self._speller is not None and len(texts):
            spellings = self._speller.learn(texts)
            if spellings is None:
                outcome.open += rows.to_pylist()
                return
            self._names = spellings.names
            strays = spellings.strays(texts)
            outcome.open += rows.filter(strays).to_pylist()
            kept = pc.invert(strays)
            texts, rows = texts.filter(kept), rows.filter(kept)
        self._read(texts, rows, outcome)

    def _read(self, texts: pa.Array, rows: pa.Array, outcome: _Outcome) -> None:
        """Read a block, on the first failure with the forms its columns have, then without what msgspec refuses."""
        careful = self._census is not None and self._census.careful
        if not self._unclean if self._options.exact else careful:
            with contextlib.suppress(reader.Unreadable):
                self._attempt(texts, rows, self._numeric, outcome, reject_unknown=True)
                outcome.clean = True
                return
        with contextlib.suppress(reader.Unreadable):
            self._attempt(texts, rows, self._numeric, outcome)
            return
        numeric = self._forms(texts)
        if numeric != self._numeric:
            self._numeric = numeric
            with contextlib.suppress(reader.Unreadable):
                self._attempt(texts, rows, numeric, outcome)
                return
        tried: set[shape.Numeric] = set()
        while len(texts) > _FEW and numeric not in tried:
            tried.add(numeric)
            passed = self._sifted(texts, numeric)
            self._advance(texts.filter(passed), rows.filter(passed), numeric, outcome)
            suspect = pc.invert(passed)
            texts, rows = texts.filter(suspect), rows.filter(suspect)
            numeric = self._forms(texts)
        outcome.open += rows.to_pylist()

    def _attempt(
        self,
        texts: pa.Array,
        rows: pa.Array,
        numeric: shape.Numeric,
        outcome: _Outcome,
        *,
        reject_unknown: bool = False,
    ) -> None:
        """Read a block whole into the outcome; raise Unreadable, and change nothing, when that cannot be done."""
        schema, _ = self._compile(numeric)
        arrays = reader.read(texts, schema, reject_unknown=reject_unknown or self._reject_unknown)
        table, unsettled = columns.finish(arrays, self._schema, self._times)
        if unsettled:
            outcome.open += rows.take(pa.array(unsettled, pa.int64())).to_pylist()
            settled = pc.invert(pc.is_in(pa.arange(0, len(rows)), pa.array(unsettled, pa.int64())))
            table, rows = table.filter(settled), rows.filter(settled)
        outcome.tables.append(table)
        outcome.rows.append(rows)

    def _advance(self, texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: _Outcome) -> None:
        """Read what msgspec passed, around the little that Arrow still refuses (a key that occurs twice, say).

        It goes on in pieces that shrink at each failure and grow at each success. So neither a few such messages nor a
        block full of them cost more than a small multiple of reading the block.
        """
        start, size = 0, len(texts)
        while start < len(texts):
            length = min(size, len(texts) - start)
            try:
                self._attempt(texts.slice(start, length), rows.slice(start, length), numeric, outcome)
            except reader.Unreadable as failure:
                size = max(min(length // 2, _PIECE), _FEW)
                if length <= _FEW:
                    outcome.open += rows.slice(start, length).to_pylist()
                    start += length
                elif failure.row is not None:
                    start += self._around(failure.row, texts.slice(start), rows.slice(start), numeric, outcome)
            else:
                start += length
                size *= 2

    def _around(self, row: int, texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: _Outcome) -> int:
        """Read the messages before the one that Arrow named, leave that one open, and return how many are done."""
        if row:
            try:
                self._attempt(texts.slice(0, row), rows.slice(0, row), numeric, outcome)
            except reader.Unreadable:
                return 0
        outcome.open.append(rows[row].as_py())
        return row + 1

    def _sifted(self, texts: pa.Array, numeric: shape.Numeric) -> pa.Array:
        """Return for each message whether msgspec takes it. It errs on both sides, which costs only time."""
        _, sieve = self._compile(numeric)
        passed = [True] * len(texts)
        joined = memoryview(reader.join(texts))
        starts = [*range(0, len(texts), _SIEVED), len(texts)]
        lengths = pc.cumulative_sum(pc.add(pc.binary_length(texts).cast(pa.int64()), 1))
        ends = [0, *lengths.take(pa.array([start - 1 for start in starts[1:]])).to_pylist()]
        for start, stop, begin, end in zip(starts, starts[1:], ends, ends[1:], strict=False):
            try:
                # Two documents in one message are two lines for msgspec.
                clean = len(sieve.decode_lines(joined[begin : end - 1])) == stop - start
            except _SIEVE_ERRORS:
                clean = False
            if not clean:
                passed[start:stop] = [_passes(sieve, text) for text in texts.slice(start, stop - start).to_pylist()]
        return pa.array(passed, pa.bool_())

    def _settle(self, texts: pa.Array, outcome: _Outcome) -> list[tuple[int, Refused]]:
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
                refused.append((row, recognised(text, why)))
        if passed:
            arrays = reader.read(pa.array(rewritten, pa.binary()), self._rewritten, reject_unknown=False)
            table, _ = columns.finish(arrays, self._schema, self._times)
            outcome.tables.append(table)
            outcome.rows.append(pa.array(passed, pa.int64()))
        return refused

    def _forms(self, texts: pa.Array) -> shape.Numeric:
        """Return the columns that most of a few messages write as numbers, of those that may be text as well."""
        if not self._formed or not len(texts):
            return self._numeric
        votes = dict.fromkeys(self._formed, 0)
        step = max(1, len(texts) // _SAMPLE)
        for row in range(0, len(texts), step):
            try:
                _vote(parse_object(texts[row].as_py(), self._options.max_depth), "", votes)
            except Refused:
                continue
        return frozenset(path for path, vote in votes.items() if vote > 0 or (vote == 0 and path in self._numeric))

    def _compile(self, numeric: shape.Numeric) -> tuple[pa.Schema, msgspec.json.Decoder[Any]]:
        key = (numeric, frozenset(self._names.items()))
        compiled = self._compiled.get(key)
        if compiled is None:
            if len(self._compiled) >= _COMPILED:
                self._compiled.clear()
            schema = shape.reading_schema(self._schema, numeric, self._names)
            sieve = shape.sieve(self._schema, numeric, self._names, reject_unknown=self._reject_unknown)
            compiled = self._compiled[key] = (schema, sieve)
        return compiled


def _in_a_row(pieces: list[Decoded], step: int) -> Decoded:
    """Return one outcome of all pieces, each but the last of which has `step` rows."""
    shifts = [pa.scalar(number * step, pa.int64()) for number in range(len(pieces))]
    return Decoded(
        pa.concat_tables([piece.table for piece in pieces]).combine_chunks(),
        pa.concat_arrays([pc.add(piece.positions, shift) for piece, shift in zip(pieces, shifts, strict=True)]),
        tuple(
            replace(rejection, position=rejection.position + number * step)
            for number, piece in enumerate(pieces)
            for rejection in piece.rejections
        ),
        pa.concat_arrays([pc.add(piece.skipped, shift) for piece, shift in zip(pieces, shifts, strict=True)]),
        _added_up(pieces, step),
        any(piece.estimated for piece in pieces),
        any(piece.outgrown for piece in pieces),
        notes=tuple(note for piece in pieces for note in piece.notes),
    )


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


def _passes(sieve: msgspec.json.Decoder[Any], text: bytes) -> bool:
    try:
        sieve.decode(text)
    except _SIEVE_ERRORS:
        return False
    return True


def _vote(value: Any, path: str, votes: dict[str, int]) -> None:
    """Count numbers against texts, for each column that may be either."""
    if path in votes:
        votes[path] += 1 if type(value) is NumberText else -1 if type(value) is str else 0
    elif type(value) is Pairs:
        for key, item in value.items:
            _vote(item, shape.inner_path(path, key), votes)
    elif type(value) is list:
        for item in value:
            _vote(item, shape.item_path(path), votes)


def _merged(outcome: _Outcome, schema: pa.Schema) -> tuple[pa.Table, pa.Array]:
    """Return one table of one chunk, in the order of the rows, and the rows."""
    if not outcome.tables:
        return schema.empty_table(), pa.array([], pa.int64())
    if len(outcome.tables) == 1:
        return outcome.tables[0].combine_chunks(), outcome.rows[0]
    rows = pa.concat_arrays(outcome.rows)
    order = pc.sort_indices(rows)
    return pa.concat_tables(outcome.tables).take(order).combine_chunks(), rows.take(order)
