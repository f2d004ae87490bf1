"""Read records that were written with one Avro schema into columns.

| Avro | Arrow |
|---|---|
| record | struct; of the outermost the fields are the columns. Any other outermost type is one column, `value` |
| null, boolean, int, long, float, double, string | null, bool, int32, int64, float, double, string |
| bytes; fixed | binary; binary of that size, up to 64 bytes |
| enum | string |
| array; map | list; map<string, …>, in which a key that comes twice stays twice |
| union with null; union of one type | that type; it may be null if null is one of the union |
| union of several types; record inside itself | string with the value as JSON text (`records.RAW_JSON`) |
| decimal | decimal128 up to 38 digits, decimal256 up to 76; beyond that its base |
| uuid | string; bytes in the canonical form, text as it was written |
| date; time-millis; time-micros | date32; time32(ms); time64(us) |
| timestamp-…; local-timestamp-… | timestamp in UTC; timestamp without a zone; both in the unit that was written |
| duration | struct of months, days, milliseconds (uint32) |

In JSON text a value does not say which type of the union it had. Bytes are Base64, times ISO 8601, decimals numbers;
NaN and the infinities are text.

What a record must not have, each being the reason of its rejection: an end inside a value (`truncated`), bytes behind
the last (`trailing`), what no writer makes, such as the number of a branch that is not there (`syntax`), text that is
not UTF-8 (`utf8`), a number beyond its type (`overflow`), recursive values of more than 200 levels (`too_deep`), and
more list items of no bytes than 64 and one for each byte of the record (`too_large`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from batcher.formats.avro.cursors import Ints, Piece
from batcher.formats.avro.nested import RecordStep
from batcher.formats.avro.plan import plan
from batcher.formats.avro.schema import parse
from batcher.formats.fault import RecordFault
from batcher.formats.whole import FIELD, marked
from batcher.formats.writer_schema import ReadRows, WriterSchema
from batcher.records import Rejection

PIECE_BYTES: Final = 1 << 20
"""The bytes that are read at once. The arrays of cursors stay in the processor's cache, and what they need in memory is
bounded: up to 100 bytes for each byte of lists of small items."""

PIECE_ROWS: Final = 1 << 15

_TRAILING: Final = RecordFault("trailing", "there are more bytes behind the record", None)


class AvroReader:
    """Read payloads of one schema. Raise AvroSchemaBroken when made of one that cannot be read."""

    def __init__(self, writer: WriterSchema) -> None:
        self._step = plan(parse(writer.text, writer.references))
        fields = self._step.fields if isinstance(self._step, RecordStep) else [marked(self._step.field(FIELD))]
        self._schema = pa.schema(fields)

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, payloads: pa.BinaryArray) -> ReadRows:
        bounds, data = _bounds(payloads)
        batches: list[pa.RecordBatch] = []
        rows: list[Ints] = []
        rejections: list[Rejection] = []
        for start, stop in _cuts(bounds):
            piece = Piece(data[bounds[start] : bounds[stop]], bounds[start : stop + 1] - bounds[start])
            batch = self._read(piece)
            good = piece.faulty == 0
            if piece.faults:
                batch = batch.filter(pa.array(good))
                rejections += _rejections(piece, start)
            batches.append(batch)
            rows.append(np.flatnonzero(good) + start)
        found = np.concatenate(rows) if rows else np.empty(0, np.int64)
        table = pa.Table.from_batches(batches, self._schema)
        return ReadRows(table, pa.array(found, pa.int64()), tuple(rejections))

    def _read(self, piece: Piece) -> pa.RecordBatch:
        """Return a row for each record, also for those that turned out to be faulty."""
        cursors = piece.cursors()
        step = self._step
        columns = step.columns(cursors) if isinstance(step, RecordStep) else [step.read(cursors)]
        cursors.refuse(cursors.at < cursors.ends, _TRAILING)
        if not columns:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * piece.rows, pa.struct([])))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _rejections(piece: Piece, start: int) -> Iterator[Rejection]:
    """Return why records of a piece that begins with number `start` are refused."""
    for row in np.flatnonzero(piece.faulty).tolist():
        yield Rejection(start + row, *piece.faults[piece.faulty[row] - 1])


def _bounds(payloads: pa.BinaryArray) -> tuple[Ints, memoryview]:
    """Return where payloads begin and end, one number more than there are, and the bytes that this is about."""
    _, offsets, data = payloads.buffers()
    if not len(payloads) or offsets is None:
        return np.zeros(1, np.int64), memoryview(b"")
    bounds = np.frombuffer(offsets, np.int32, len(payloads) + 1, 4 * payloads.offset).astype(np.int64)
    return bounds, memoryview(data if data is not None else b"")


def _cuts(bounds: Ints) -> Iterator[tuple[int, int]]:
    """Return the first and last bound of each piece: as many payloads as are read at once, but one at least."""
    start, rows = 0, len(bounds) - 1
    while start < rows:
        fitting = int(np.searchsorted(bounds, bounds[start] + PIECE_BYTES, side="right")) - 1
        stop = max(start + 1, min(fitting, start + PIECE_ROWS, rows))
        yield start, stop
        start = stop
