"""What has to be true of every message before Arrow's reader may see it, checked on whole columns.

Arrow reads a block of joined messages as a stream of documents and numbers the rows it finds. That row i is
message i follows from four facts:

1. Each message, trimmed, begins with `{` and ends with `}`.
2. Messages are joined by a newline, and no message holds a newline, a carriage return or a NUL: where those are
   legal (between tokens) they have been replaced by a tab, which is legal in the same places only.
3. The reader accepted the whole block.
4. It found as many rows as there are messages.

By induction, each message then holds whole documents: where one begins, the reader is between documents; where it
ends, it cannot be inside a string (a newline there is an error) nor inside an object or list (`}` newline `{` is
an error there). So each message gave at least one row, and by (4) exactly one. It follows as well that
a block never begins with anything but `{`: Arrow 26 crashes on a block that begins with `null`.

Arrow is laxer than JSON in three points, which are guarded here too: invalid UTF-8, NaN and Infinity, and
no limit on depth. Nearly all checks are one pass over the bytes without the interpreter lock, about 15 ms for 18 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.formats.json.limits import JsonOptions, Refused
from batcher.formats.json.recognition import recognised
from batcher.formats.json.syntax import check_depth, parse_object
from batcher.formats.json.timestamps import piecewise
from batcher.formats.policy import admit
from batcher.records import Rejection

_SPACE: Final = 0x20
_BLANK: Final = "\t\r\n "

_BEFORE: Final = pa.Array.from_buffers(pa.uint8(), 5, [None, pa.py_buffer(b":,[ \t")])
"""What a bracket outside a string stands behind, if it is not the first of its message. Not made with `pa.array`, which
would load pandas (`tuning.py`)."""

_MANY: Final = 0.125
"""With more brackets among the bytes than that, each is counted: where they stand takes 64 times the memory of them."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """Hold the messages that are safe to read together, trimmed and without nulls, and what became of the others.

    `positions` are those of `texts` (binary), `skipped` those of tombstones; both int64 and ascending.
    """

    texts: pa.Array
    positions: pa.Array
    rejections: list[Rejection]
    skipped: pa.Array


def guard(values: pa.Array, options: JsonOptions) -> Guarded:
    """Separate tombstones and what is certainly no single JSON object."""
    sorter = _Sorter(values, options)
    sorter.encoding()
    sorter.control_characters()
    sorter.braces()
    sorter.constants()
    sorter.depth()
    return Guarded(sorter.texts, sorter.positions, sorter.rejections, sorter.skipped)


class _Sorter:
    """Hold the messages that remain, check by check."""

    def __init__(self, values: pa.Array, options: JsonOptions) -> None:
        admitted = admit(values, max_message_bytes=options.max_message_bytes, tombstones=options.tombstones)
        self._values = values
        self.texts = admitted.values
        self.positions = admitted.positions
        self.rejections = list(admitted.rejections)
        self.skipped = admitted.skipped
        self._options = options

    def encoding(self) -> None:
        if self._byte_range()[1] < 0x80:
            return
        _, bad = piecewise(self.texts, lambda part: part.cast(pa.string()))
        if bad:
            self._examine(_mask(bad, len(self.texts)))

    def control_characters(self) -> None:
        if self._byte_range()[0] >= _SPACE:
            return
        nul = pc.match_substring(self.texts, b"\0")
        if pc.any(nul).as_py():
            self._examine(nul)
        text = pc.ascii_trim(self.texts.cast(pa.string()), _BLANK)
        for newline in ("\n", "\r"):
            text = pc.replace_substring(text, newline, "\t")
        self.texts = text.cast(pa.binary())

    def braces(self) -> None:
        braced = _in_braces(self.texts)
        if pc.all(braced).as_py() in (True, None):
            return
        bare = pc.invert(braced)
        # Few are odd, and then only they are copied.
        some = _trimmed(self.texts.filter(bare))
        if pc.any(_in_braces(some)).as_py():
            self.texts = _trimmed(self.texts)
            bare = pc.invert(_in_braces(self.texts))
            some = self.texts.filter(bare)
        if len(some):
            self._examine(bare, some)

    def constants(self) -> None:
        everything = whole(self.texts)
        for constant in ("NaN", "Inf"):
            # A regular expression of plain letters is searched with vector instructions, 80 times as fast as
            # Arrow's own substring search.
            if pc.match_substring_regex(everything, constant)[0].as_py():
                self._examine(pc.match_substring_regex(self.texts, rf"[:,\[\s-]{constant}"), only_if_bad=True)

    def depth(self) -> None:
        limit = self._options.max_depth
        opening = _openings(_joined(self.texts))
        # Each message has one opening bracket at least, so none can have more than the rest of them and its own.
        if opening.true_count - len(self.texts) < limit:
            return
        many = pc.indices_nonzero(pc.greater_equal(_inner_brackets(self.texts, opening), limit)).to_pylist()
        deep = [row for row in many if self._is_deep(self.texts[row].as_py())]
        if deep:
            self._examine(_mask(deep, len(self.texts)), only_if_bad=True)

    def _is_deep(self, raw: bytes) -> bool:
        try:
            check_depth(raw.decode(), self._options.max_depth)
        except Refused:
            return True
        return False

    def _byte_range(self) -> tuple[int, int]:
        """Return the least and the greatest byte of all messages."""
        span = pc.min_max(_as_bytes(_joined(self.texts))).as_py()
        return (_SPACE, 0) if span["min"] is None else (span["min"], span["max"])

    def _examine(self, suspect: pa.Array, texts: pa.Array | None = None, *, only_if_bad: bool = False) -> None:
        """Find out why each suspect is no JSON object; with `only_if_bad` suspects that are one may stay.

        `texts` are those of the suspects, where they are at hand.
        """
        refused: list[int] = []
        rows = pc.indices_nonzero(suspect)
        texts = self.texts.take(rows) if texts is None else texts
        for row, position, raw in zip(
            rows.to_pylist(), self.positions.take(rows).to_pylist(), texts.to_pylist(), strict=True
        ):
            try:
                parse_object(raw, self._options.max_depth)
            except Refused as refusal:
                # As it came: a trimmed message may have lost the byte that shows what it is.
                why = recognised(self._values[position].as_py(), refusal).kept()
                self.rejections.append(Rejection(position, why.reason, why.message, why.path))
                refused.append(row)
            else:
                if not only_if_bad:
                    self.rejections.append(Rejection(position, "syntax", "not one JSON object"))
                    refused.append(row)
        if refused:
            self._keep(pc.invert(_mask(refused, len(self.texts))))

    def _keep(self, mask: pa.Array) -> None:
        self.texts = self.texts.filter(mask)
        self.positions = self.positions.filter(mask)


def _in_braces(texts: pa.Array) -> pa.Array:
    return pc.and_(pc.starts_with(texts, b"{"), pc.ends_with(texts, b"}"))


def _trimmed(texts: pa.Array) -> pa.Array:
    return pc.ascii_trim(texts.cast(pa.string()), _BLANK).cast(pa.binary())


def _joined(texts: pa.Array) -> Any:
    """Return the buffer with the bytes of all messages, one after the other, not copied."""
    offsets, data = texts.buffers()[1:]
    if not len(texts) or data is None:
        return pa.py_buffer(b"")
    ends = pa.Array.from_buffers(pa.int32(), len(texts) + 1, [None, offsets], offset=texts.offset)
    start = ends[0].as_py()
    return data.slice(start, ends[len(texts)].as_py() - start)


def whole(texts: pa.Array) -> pa.Array:
    """Return the bytes of all messages, one after the other, as one value; nothing is copied."""
    everything = _joined(texts)
    bounds = pa.array([0, everything.size], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.binary(), 1, [None, bounds, everything])


def _as_bytes(everything: Any) -> pa.Array:
    return pa.Array.from_buffers(pa.uint8(), everything.size, [None, everything])


def _openings(everything: Any) -> pa.BooleanArray:
    """Return for each byte whether it is `{` or `[`; the two differ in one bit, and no third byte folds to them."""
    folded = pc.bit_wise_or(_as_bytes(everything), pa.scalar(0x20, pa.uint8()))
    return pc.equal(folded, pa.scalar(ord("{"), pa.uint8()))


def _inner_brackets(texts: pa.Array, opening: pa.BooleanArray) -> pa.Array:
    """Return for each message how many brackets it may open besides its first; none is deeper than that and one.

    Inside a string most brackets stand behind something else (`/{id}`), and are not counted. What is counted there
    costs only time.
    """
    if opening.true_count > len(opening) * _MANY:
        return pc.subtract(pc.count_substring_regex(texts, r"[\[{]"), pa.scalar(1, pa.int32()))
    at = pc.indices_nonzero(opening).slice(1)
    before = _as_bytes(_joined(texts)).take(pc.subtract(at, pa.scalar(1, pa.uint64())))
    at = at.filter(pc.is_in(before, _BEFORE))
    ends = pc.cumulative_sum(pc.binary_length(texts).cast(pa.uint64()))
    opened = pc.search_sorted(at, ends).cast(pa.int64())
    return pc.pairwise_diff(pa.concat_arrays([pa.array([0], pa.int64()), opened])).slice(1)


def _mask(rows: list[int], length: int) -> pa.Array:
    return pc.is_in(pa.arange(0, length), value_set=pa.array(rows, pa.int64()))
