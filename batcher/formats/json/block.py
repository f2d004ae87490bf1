"""Read a block of messages with Arrow: whole where that is possible, around the odd records where it is not.

Nothing is refused here: a record that cannot be read with others is left *open*, for `strict.py`. What an odd record
costs grows with the number of odd records, not with the block:

1. The block is read whole, unless the last one could not be.
2. A time, or a text that takes any value, may be written as a number in some messages and as a text in others. Where a
   few messages show both, the block is parted by what its messages say, and each part is read in its own form. In
   large messages the numbers are put into quotes instead, and all are read together.
3. msgspec sifts out the suspects, at a quarter of what reading costs. Arrow reads the others, around the little that
   msgspec does not see (a key that occurs twice, say). Suspects that are many are read in another form, if they fit it.

What a reader learns from a block (forms, spellings, that there are odd records) changes the speed, never a result.

It is long because the ways to read one block, and when one gives way to the next, are read together.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json import reader, shape
from batcher.formats.json.columns import Finisher
from batcher.formats.json.kept_numbers import KeptNumbers
from batcher.formats.json.limits import JsonOptions
from batcher.formats.json.rewriter import Impossible, Rewriter, rewriter
from batcher.formats.json.sample import parsed_sample
from batcher.formats.json.sparse import SparseReader
from batcher.formats.json.spelling import Names, Speller
from batcher.formats.json.syntax import NumberText, Pairs
from batcher.formats.json.timestamps import decimal
from batcher.formats.json.twice import TwiceSeen

_FEW: Final = 64
"""At most this many messages are settled one by one: that costs about as much as another attempt with Arrow."""

_PIECE: Final = 2048
"""Messages of a piece once a block has failed: many enough for a cheap call, few enough for a cheap repeat."""

_SIEVED: Final = 32
"""Messages that msgspec sees in one call: a bad one affects few others."""

_SIEVE_ERRORS: Final = (msgspec.MsgspecError, ValueError, RecursionError)

_COMPILED: Final = 64
"""Reading schemas that are kept: there may be one for each way to write a record, without limit."""

_PARTED: Final = 4
"""The most columns by whose form a block is parted: each of them doubles the parts that there may be."""

_LARGE: Final = 2048
"""Bytes of a message from which on it costs less to put its numbers into quotes than to read a block in parts."""


@dataclass(slots=True)
class BlockOutcome:
    """Collect what becomes of the messages of one block; rows are numbers in that block."""

    tables: list[pa.Table] = field(default_factory=list)
    rows: list[pa.Array] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    clean: bool = False
    """What Arrow reads has no unknown field."""


@dataclass(frozen=True, slots=True)
class _Forms:
    """Say which columns are read as numbers, and which of them, by path, some messages write differently."""

    numeric: shape.Numeric
    mixed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Hold what reads messages that write their columns in some form, and what sifts them before."""

    schema: pa.Schema
    reader: SparseReader
    sieve: msgspec.json.Decoder[Any]


class BlockReader:
    """Read blocks into the columns of one schema. Not for several threads at once."""

    def __init__(self, schema: pa.Schema, options: JsonOptions, texts: frozenset[str], finisher: Finisher) -> None:
        self._schema = schema
        self._finisher = finisher
        self._block_bytes = reader.block_bytes(shape.leaves(schema))
        self._reject_unknown = options.on_unknown in ("reject", "halt")
        self._speller = Speller(schema, options.max_depth) if options.match == "insensitive" else None
        self._names: Names = {}
        """How the fields of the block at hand are written."""
        self._texts = texts
        self._points = frozenset(shape.timestamp_paths(schema))
        self._formed = self._points | texts
        self._quotable = frozenset(shape.timestamp_paths(schema, maps=False))
        self._quoted: frozenset[str] = frozenset()
        """The timestamps whose numbers are put into quotes, because texts were seen beside them."""
        self._numeric: shape.Numeric = frozenset()
        """How the last block wrote what may be text or a number: where to begin with the next."""
        self.uneven = False
        """The last block could not be read whole."""
        self._stride = 0
        """Messages of the last piece that Arrow could read where msgspec had passed them; 0 for all."""
        self._twice = TwiceSeen()
        self._kept_numbers = KeptNumbers(schema)
        self._compiled: dict[Any, _Compiled] = {}
        self._rewriters: dict[Any, tuple[Rewriter | None, Rewriter | None]] = {}
        self._possible = self._can_rewrite()

    def _can_rewrite(self) -> bool:
        if self._speller is not None and any(shape.maps_with_fields(self._schema)):
            # Nothing here learns how fields inside maps are written.
            return False
        try:
            self._rewriters_for()
        except Impossible:
            return False
        return True

    def read(self, texts: pa.Array, outcome: BlockOutcome, *, no_unknown: bool) -> None:
        """Read what can be read into the outcome, and leave the rest open.

        With `no_unknown` the outcome says whether what was read has unknown fields. That is worth asking for where they
        are looked for anyway, and where there are none it costs nothing.
        """
        rows = pa.arange(0, len(texts))
        outcome.clean = no_unknown
        if not self._possible:
            outcome.open += rows.to_pylist()
            return
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
        self._kept_numbers.look(texts)
        kept, _ = self._rewriters_for()
        if kept is not None:
            texts, rows = _rewritten(kept, texts, rows, outcome)
        self._read(texts, rows, outcome)

    def _read(self, texts: pa.Array, rows: pa.Array, outcome: BlockOutcome) -> None:
        if not self.uneven and self._whole(texts, rows, self._numeric, outcome):
            return
        forms = self._forms(texts)
        while (quoted := self._worth_quoting(texts, frozenset(forms.mixed))) and (
            by := self._quoter(quoted)
        ) is not None:
            texts, rows = _rewritten(by, texts, rows, outcome)
            self._quoted |= quoted
            forms = self._forms(texts)
        if forms.numeric != self._numeric and not forms.mixed:
            self._numeric = forms.numeric
            if self._whole(texts, rows, forms.numeric, outcome):
                return
        self._numeric, self.uneven = forms.numeric, bool(forms.mixed)
        if not forms.mixed:
            self._sift(texts, rows, forms.numeric, outcome)
            return
        for part, numeric in self._parts(texts, forms):
            some, numbers = texts.filter(part), rows.filter(part)
            if not self._whole(some, numbers, numeric, outcome):
                self._sift(some, numbers, numeric, outcome)

    def _worth_quoting(self, texts: pa.Array, mixed: frozenset[str]) -> frozenset[str]:
        """Return those of some columns whose numbers are to be put into quotes, and then read together with texts.

        What they mean stays the same (`timestamps.py`), but for texts of digits that could be a date: those are left
        open, as numbers too.
        """
        mixed &= self._quotable
        return mixed if mixed and texts.nbytes >= _LARGE * max(len(texts), 1) else frozenset()

    def _quoter(self, quoted: frozenset[str]) -> Rewriter | None:
        """Return what puts numbers into quotes; None where msgspec cannot find them."""
        try:
            return rewriter(self._schema, self._names, kept=False, texts=quoted)
        except Impossible:
            self._quotable = frozenset()
            return None

    def _sift(self, texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome) -> None:
        """Read what msgspec passes; then the rest in other forms, as long as it is many messages."""
        tried: set[shape.Numeric] = set()
        learnt: frozenset[str] = frozenset()
        count = len(texts)
        while len(texts) > _FEW and numeric not in tried:
            tried.add(numeric)
            passed = self._sifted(texts, numeric)
            self._advance(texts.filter(passed), rows.filter(passed), numeric, outcome)
            suspect = pc.invert(passed)
            texts, rows = texts.filter(suspect), rows.filter(suspect)
            self.uneven |= bool(len(texts))
            forms = self._forms(texts)
            learnt |= self._worth_quoting(texts, forms.numeric ^ numeric)
            numeric = forms.numeric
        self._loosen(texts, rows, numeric, outcome)
        self._kept_numbers.met(len(texts), count)
        if learnt and self._quoter(learnt) is not None:
            # For the blocks to come, of which the next may be read whole.
            self._quoted |= learnt
            self._numeric -= learnt
            self.uneven = False

    def _loosen(self, texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome) -> None:
        """Read messages with the values in texts that may be put there; leave open what is left, or is few."""
        _, loose = self._rewriters_for()
        with self._kept_numbers.set_aside():
            if loose is not None and len(texts) > _FEW:
                texts, rows = _rewritten(loose, texts, rows, outcome)
                numeric -= self._texts
            if loose is not None and len(texts) > _FEW:
                passed = self._sifted(texts, numeric)
                self._advance(texts.filter(passed), rows.filter(passed), numeric, outcome)
                rows = rows.filter(pc.invert(passed))
            outcome.open += rows.to_pylist()

    def _whole(self, texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome) -> bool:
        """Read messages into the outcome if all can be read; else change no row of it."""
        with contextlib.suppress(reader.Unreadable):
            self._finish(self._arrays(texts, numeric, outcome), texts, rows, numeric, outcome)
            return True
        return False

    def _arrays(self, texts: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome) -> list[pa.Array]:
        """Return the columns of messages as they are read; raise Unreadable when not all can be."""
        made = self._compile(numeric)
        try:
            return self._raw(texts, made, reject_unknown=outcome.clean or self._reject_unknown)
        except reader.Unreadable as failure:
            if not (failure.unknown and outcome.clean) or self._reject_unknown:
                raise
        outcome.clean = False
        return self._raw(texts, made, reject_unknown=False)

    def _raw(self, texts: pa.Array, made: _Compiled, *, reject_unknown: bool) -> list[pa.Array]:
        reader.refuse_far_exponents(texts, made.schema)
        return made.reader.read(texts, reject_unknown=reject_unknown, block_bytes=self._block_bytes)

    def _finish(
        self, arrays: list[pa.Array], texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome
    ) -> None:
        table, unsettled = self._finisher.finish(arrays)
        if unsettled:
            some = pa.array(unsettled, pa.int64())
            self._leave(texts, some, rows.take(some), numeric, outcome)
            settled = _all_but(unsettled, len(rows))
            table, rows = table.filter(settled), rows.filter(settled)
        outcome.tables.append(table)
        outcome.rows.append(rows)

    def _leave(
        self, texts: pa.Array, unsettled: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome
    ) -> None:
        """Leave rows open that their columns cannot settle; read them in another form where they are many."""
        if len(unsettled) > _FEW and self._kept_numbers.paths:
            self._kept_numbers.met(len(unsettled), len(texts))
            self._loosen(texts.take(unsettled), rows, numeric, outcome)
            return
        # A number that is written as a text is read well as a text, and is no time in that form.
        if len(unsettled) > _FEW and self._points:
            texts = texts.take(unsettled)
            other = self._forms(texts).numeric
            if other - numeric and self._whole(texts, rows, other | numeric, outcome):
                self._numeric = other | numeric
                return
        outcome.open += rows.to_pylist()

    def _advance(self, texts: pa.Array, rows: pa.Array, numeric: shape.Numeric, outcome: BlockOutcome) -> None:
        """Read what msgspec passed, around the little that Arrow still refuses (a key that occurs twice, say).

        It goes on in pieces that shrink at each failure and grow at each success. So neither a few such messages nor a
        block full of them cost more than a small multiple of reading the block. What was read is put together before
        it is finished, which takes as long for a piece as for a block.
        """
        done: list[list[pa.Array]] = []
        start, size, most = 0, self._stride or len(texts), len(texts)
        left: list[int] = []
        while start < len(texts):
            length = min(size, len(texts) - start)
            try:
                done.append(self._arrays(texts.slice(start, length), numeric, outcome))
            except reader.Unreadable as failure:
                self.uneven = True
                if not done and self._twice.learn(failure.twice):
                    # Nothing before this was read: it is left as it is, and what is to come is counted anew.
                    outcome.open += rows.slice(0, start).to_pylist()
                    texts, rows = self._once(texts.slice(start), rows.slice(start), outcome)
                    start, left = 0, []
                    continue
                # In a single block of the reader, Arrow says which message is to blame.
                most = max(_FEW, self._block_bytes // 2 * len(texts) // texts.nbytes)
                size = max(min(length // 2, _PIECE), _FEW)
                if length <= _FEW:
                    left += range(start, start + length)
                    start += length
                elif failure.row is not None:
                    # Where those before it cannot be read either, the shorter piece will tell.
                    with contextlib.suppress(reader.Unreadable):
                        if failure.row:
                            done.append(self._arrays(texts.slice(start, failure.row), numeric, outcome))
                        left.append(start + failure.row)
                        start += failure.row + 1
            else:
                start += length
                size = min(2 * size, most)
        self._stride = size if left else 0
        outcome.open += rows.take(pa.array(left, pa.int64())).to_pylist()
        if not done:
            return
        if left:
            read = _all_but(left, len(rows))
            texts, rows = texts.filter(read), rows.filter(read)
        arrays = done[0] if len(done) == 1 else [pa.concat_arrays(pieces) for pieces in zip(*done, strict=True)]
        self._finish(arrays, texts, rows, numeric, outcome)

    def _once(self, texts: pa.Array, rows: pa.Array, outcome: BlockOutcome) -> tuple[pa.Array, pa.Array]:
        """Leave messages open in which a key may occur twice, and return the others."""
        twice = self._twice.rows(texts)
        if not twice:
            return texts, rows
        outcome.open += rows.take(pa.array(twice, pa.int64())).to_pylist()
        rest = _all_but(twice, len(rows))
        return texts.filter(rest), rows.filter(rest)

    def _sifted(self, texts: pa.Array, numeric: shape.Numeric) -> pa.Array:
        """Return for each message whether msgspec takes it. It errs on both sides, which costs only time.

        A message in which a key may occur twice does not pass either, where Arrow found one before.
        """
        sieve = self._compile(numeric).sieve
        refused = self._twice.rows(texts)
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
                some = texts.slice(start, stop - start).to_pylist()
                refused += [row for row, text in enumerate(some, start) if not _passes(sieve, text)]
        return _all_but(refused, len(texts))

    def _forms(self, texts: pa.Array) -> _Forms:
        """Return the forms that a few messages write, of the columns that may be text or a number."""
        formed, before = self._formed - self._quoted, self._numeric - self._quoted
        if not formed or not len(texts):
            return _Forms(before)
        numbers, words = dict.fromkeys(formed, 0), dict.fromkeys(formed, 0)
        for message in parsed_sample(texts):
            self._vote(message, "", numbers, words)
        numeric = frozenset(
            path for path, count in numbers.items() if count > words[path] or (count == words[path] and path in before)
        )
        mixed = sorted(path for path, count in numbers.items() if count and words[path] and not path.endswith("[]"))
        return _Forms(numeric, tuple(mixed[:_PARTED]))

    def _vote(self, value: Any, path: str, numbers: dict[str, int], words: dict[str, int]) -> None:
        """Count numbers and texts, for each column that may be either."""
        if path in numbers and type(value) in (NumberText, str):
            # Arrow takes a text that holds a number for a point in time as well.
            number = type(value) is NumberText or (path in self._points and decimal(value) is not None)
            (numbers if number else words)[path] += 1
        elif type(value) is Pairs:
            for key, item in value.items:
                self._vote(item, shape.inner_path(path, key), numbers, words)
        elif type(value) is list:
            for item in value:
                self._vote(item, shape.item_path(path), numbers, words)

    def _parts(self, texts: pa.Array, forms: _Forms) -> Iterator[tuple[pa.Array, shape.Numeric]]:
        """Yield parts of a block, as masks, that write the mixed columns in one form each."""
        parts = [(pa.repeat(pa.scalar(True), len(texts)), forms.numeric)]
        for path in forms.mixed:
            # A guess by what stands behind the name, wherever that is; it costs only time where it is wrong.
            name = re.escape(msgspec.json.encode(path.rpartition(".")[2]).decode())
            number = pc.match_substring_regex(texts, rf'{name}\s*:\s*"?-?[0-9]+[^-0-9]')
            word = pc.invert(number)
            parts = [
                part
                for mask, numeric in parts
                for part in ((pc.and_(mask, number), numeric | {path}), (pc.and_(mask, word), numeric - {path}))
                if pc.any(part[0]).as_py()
            ]
        yield from parts

    def _compile(self, numeric: shape.Numeric) -> _Compiled:
        numeric |= self._kept_numbers.paths
        key = (numeric, tuple(sorted(self._names.items())))
        compiled = self._compiled.get(key)
        if compiled is None:
            if len(self._compiled) >= _COMPILED:
                self._compiled.clear()
            schema = shape.reading_schema(self._schema, numeric, self._names)
            sieve = shape.sieve(self._schema, numeric, self._names, reject_unknown=self._reject_unknown)
            compiled = self._compiled[key] = _Compiled(schema, SparseReader(schema), sieve)
        return compiled

    def _rewriters_for(self) -> tuple[Rewriter | None, Rewriter | None]:
        """Return what replaces values that Arrow cannot read, and what replaces those that it may not."""
        numbers = self._kept_numbers.paths
        key = (self._quoted, numbers, tuple(sorted(self._names.items())))
        made = self._rewriters.get(key)
        if made is None:
            if len(self._rewriters) >= _COMPILED:
                self._rewriters.clear()
            kept = rewriter(self._schema, self._names, besides=numbers, texts=self._quoted, inside=self._texts)
            loose = rewriter(self._schema, self._names, kept=False, texts=self._texts | numbers)
            made = self._rewriters[key] = (kept, loose)
        return made


def _rewritten(by: Rewriter, texts: pa.Array, rows: pa.Array, outcome: BlockOutcome) -> tuple[pa.Array, pa.Array]:
    """Return the messages with values replaced, and leave open those of which that is not certain."""
    try:
        texts, certain = by.rewritten(texts)
    except reader.Unreadable:
        outcome.open += rows.to_pylist()
        return texts.slice(0, 0), rows.slice(0, 0)
    if pc.all(certain).as_py() in (True, None):
        return texts, rows
    outcome.open += rows.filter(pc.invert(certain)).to_pylist()
    return texts.filter(certain), rows.filter(certain)


def _all_but(rows: list[int], count: int) -> pa.BooleanArray:
    return pc.invert(pc.is_in(pa.arange(0, count), pa.array(rows, pa.int64())))


def _passes(sieve: msgspec.json.Decoder[Any], text: bytes) -> bool:
    try:
        sieve.decode(text)
    except _SIEVE_ERRORS:
        return False
    return True
