"""Read records that were written with one message type into columns.

| Protobuf | Arrow |
|---|---|
| message | struct; of the outermost the fields are the columns |
| double, float; int32, sint32, sfixed32; int64, …; uint32, fixed32; uint64, fixed64; bool | the type of that name |
| string; bytes | string; binary |
| enum | string with the name, or with the number where it has none |
| repeated; map | list; map<string, …>, in which a key that comes twice stays twice |
| google.protobuf.Timestamp | timestamp in UTC, in nanoseconds where the target has them, else in microseconds |
| google.protobuf.Duration | decimal128(21, 9), seconds |
| google.type.Date | date32; null for 0000-00-00 |
| google.protobuf.Int64Value and the other wrappers | that value, or null |
| google.protobuf.Struct, Value, ListValue, Any | string with the value as JSON text (`records.RAW_JSON`) |
| a message inside itself, one without fields, one deeper than 16 levels | the same |

What a record does not have is null where Protobuf can tell: messages, members of a oneof, fields that are `optional`. A
field with a declared default has that; any other is zero or empty, as in Protobuf itself.

ptars reads the columns of the twin and writes them again. Where the bytes that come back are as many as there were, all
of them were understood. Where they are not, or where ptars refuses, the arbiter says what the record is. Which of these
ways a record goes depends on that record alone. So does what becomes of it: where one spoils the call for others, they
are read again without it.

What a record must not have, each being the reason of its rejection: an end inside a value and whatever else is no
Protobuf (`syntax`), text that is not UTF-8 (`utf8`), a time, duration or date that is none (`timestamp`, `duration`,
`date`), and no value in a required field (`missing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor_pool import DescriptorPool
from ptars import HandlerPool

from batcher.formats.fault import RecordFault
from batcher.formats.protobuf.arbiter import Arbiter
from batcher.formats.protobuf.schema import ProtoSchema
from batcher.formats.protobuf.steps import ProtoColumn, TimeUnit, Unread
from batcher.formats.protobuf.twin import PACKAGE, Twin
from batcher.formats.writer_schema import ReadRows
from batcher.records import Rejection

PIECE_ROWS: Final = 1 << 13
"""The records that are read at once. One that ptars refuses makes the arbiter look at all of them."""

PIECE_BYTES: Final = 4 << 20

DEEP_BYTES: Final = 1 << 14
"""ptars follows groups inside groups without a bound: 150,000 of them, a byte each, end the process. The arbiter stops
at 100. So it sees longer records first, and what it refuses never gets to ptars."""


@dataclass(slots=True)
class _Outcome:
    """Hold what became of the records of a piece, by their numbers."""

    faults: dict[int, RecordFault] = field(default_factory=dict)
    unread: Unread = field(default_factory=dict)

    def settle(self, row: int, arbiter: Arbiter, payload: bytes) -> bytes | None:
        """Return the plain form of a record, None where it is refused."""
        settled = arbiter.settle(payload)
        if settled.fault is not None:
            self.faults[row] = settled.fault
            return None
        for path in settled.unread:
            self.unread.setdefault(path, set()).add(row)
        return settled.payload


class ProtobufReader:
    """Read payloads of one message type. Raise SchemaBroken when made of one that cannot be read.

    `units` says for which outermost fields times are read in nanoseconds.
    """

    def __init__(
        self, schema: ProtoSchema, indexes: Sequence[int], name: str, units: Mapping[str, TimeUnit] | None = None
    ) -> None:
        descriptor = schema.message(indexes, name)
        self._twin = Twin(descriptor, schema.pool, units or {})
        self._arbiter = Arbiter(schema.files, descriptor, self._twin.step)
        self._schema = pa.schema(self._twin.step.fields)
        pool = DescriptorPool()
        pool.AddSerializedFile(self._twin.file.SerializeToString())
        self._descriptor = pool.FindMessageTypeByName(f"{PACKAGE}.{self._twin.name}")
        self._handler = self._new_handler()

    @property
    def schema(self) -> pa.Schema:
        return self._schema

    def read(self, payloads: pa.BinaryArray) -> ReadRows:
        tables: list[pa.Table] = []
        rows: list[pa.Array] = []
        rejections: list[Rejection] = []
        unread: dict[str, list[int]] = {}
        for start, piece in _pieces(payloads):
            outcome = _Outcome()
            table, numbers = self._piece(piece, outcome)
            tables.append(table)
            rows.append(pc.add(numbers, start))
            rejections += [Rejection(start + row, *why) for row, why in sorted(outcome.faults.items())]
            for path, found in outcome.unread.items():
                unread.setdefault(path, []).extend(start + row for row in sorted(found) if row not in outcome.faults)
        return ReadRows(
            pa.concat_tables([self._schema.empty_table(), *tables]),
            pa.concat_arrays([pa.array([], pa.int64()), *rows]),
            tuple(rejections),
            {path: pa.array(found, pa.int64()) for path, found in unread.items() if found},
            self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        return tuple(
            f"field {time.path}: times are finer than microseconds and cut down to them; "
            "a column of nanoseconds keeps them whole"
            for time in self._twin.times
            if time.cut
        )

    def _piece(self, payloads: pa.Array, outcome: _Outcome) -> tuple[pa.Table, pa.Array]:
        """Return the rows of a piece with their numbers, ascending."""
        rows = pa.arange(0, len(payloads))
        plain, rows, payloads = self._long_ones(rows, payloads, outcome)
        rows, batch, payloads = self._read_or_settle(rows, payloads, outcome)
        column = self._columns(batch)
        odd = pc.invert(self._complete(batch, payloads))
        if column.doubts:
            odd = pc.or_(odd, pc.is_in(pa.arange(0, len(rows)), value_set=pa.array(sorted(column.doubts), pa.int64())))
        if not odd.true_count and not plain:
            return self._kept(column, rows, outcome)
        for row, payload in zip(rows.filter(odd).to_pylist(), payloads.filter(odd).to_pylist(), strict=True):
            settled = outcome.settle(row, self._arbiter, payload)
            if settled is not None:
                plain[row] = settled
        straight = self._kept(_taken(column, pc.indices_nonzero(pc.invert(odd))), rows.filter(pc.invert(odd)), outcome)
        settled_rows = pa.array(sorted(plain), pa.int64())
        settled_rows, batch = self._read_plain(settled_rows, pa.array([plain[r] for r in sorted(plain)]), outcome)
        settled_part = self._kept(self._columns(batch), settled_rows, outcome)
        numbers = pa.concat_arrays([straight[1], settled_part[1]])
        order = pc.sort_indices(numbers)
        return pa.concat_tables([straight[0], settled_part[0]]).take(order), numbers.take(order)

    def _long_ones(
        self, rows: pa.Array, payloads: pa.Array, outcome: _Outcome
    ) -> tuple[dict[int, bytes], pa.Array, pa.Array]:
        """Settle records that may be too deep; return the plain ones, and the other rows with their payloads."""
        long = pc.greater(pc.binary_length(payloads), DEEP_BYTES)
        plain: dict[int, bytes] = {}
        if not long.true_count:
            return plain, rows, payloads
        for row, payload in zip(rows.filter(long).to_pylist(), payloads.filter(long).to_pylist(), strict=True):
            settled = outcome.settle(row, self._arbiter, payload)
            if settled is not None:
                plain[row] = settled
        short = pc.invert(long)
        return plain, rows.filter(short), payloads.filter(short)

    def _read_or_settle(
        self, rows: pa.Array, payloads: pa.Array, outcome: _Outcome
    ) -> tuple[pa.Array, pa.RecordBatch, pa.Array]:
        """Return what ptars makes of records, without those that the arbiter refuses, or that it refuses itself."""
        batch, _ = self._decode(payloads)
        if batch is not None:
            return rows, batch, payloads
        good = pa.array([not self._arbiter.refuses(payload) for payload in payloads.to_pylist()], pa.bool_())
        bad = pc.invert(good)
        for row, payload in zip(rows.filter(bad).to_pylist(), payloads.filter(bad).to_pylist(), strict=True):
            outcome.settle(row, self._arbiter, payload)
        rows, payloads = rows.filter(good), payloads.filter(good)
        kept, batch = self._read_plain(rows, payloads, outcome)
        return kept, batch, payloads.filter(pc.is_in(rows, value_set=kept))

    def _read_plain(self, rows: pa.Array, payloads: pa.Array, outcome: _Outcome) -> tuple[pa.Array, pa.RecordBatch]:
        """Return what ptars makes of records that the arbiter takes; those that it refuses are found by halving."""
        batch, utf8 = self._decode(payloads.cast(pa.binary()))
        if batch is not None:
            return rows, batch
        if len(rows) == 1:
            outcome.faults[rows[0].as_py()] = self._arbiter.refused_by_reader(payloads[0].as_py(), utf8=utf8)
            empty, _ = self._decode(pa.array([], pa.binary()))
            assert empty is not None
            return rows.slice(0, 0), empty
        half = len(rows) // 2
        first, one = self._read_plain(rows.slice(0, half), payloads.slice(0, half), outcome)
        second, other = self._read_plain(rows.slice(half), payloads.slice(half), outcome)
        joined = pa.Table.from_batches([one, other]).combine_chunks().to_batches()
        return pa.concat_arrays([first, second]), joined[0] if joined else one

    def _decode(self, payloads: pa.Array) -> tuple[pa.RecordBatch | None, bool]:
        """Return the twin's columns, or None, and whether a text that is not UTF-8 was the reason."""
        try:
            return self._handler.array_to_record_batch(payloads), False
        except ValueError as error:
            return None, "UTF-8" in str(error)
        except BaseException as error:
            self._after(error)
            return None, False

    def _complete(self, batch: pa.RecordBatch, payloads: pa.Array) -> pa.BooleanArray:
        """Return of which records all bytes were read: they are as many when the columns are written again."""
        try:
            again = self._handler.record_batch_to_array(batch)
        except BaseException as error:
            self._after(error)
            return pa.repeat(False, len(payloads))
        return pc.equal(pc.binary_length(again), pc.binary_length(payloads))

    def _after(self, error: BaseException) -> None:
        """Go on after a panic of ptars, which is no Exception; raise what is none of its own."""
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise error
        self._handler = self._new_handler()

    def _new_handler(self) -> Any:
        return HandlerPool([self._descriptor.file]).get_for_message(self._descriptor)

    def _columns(self, batch: pa.RecordBatch) -> ProtoColumn:
        arrays, noticed = self._twin.step.columns(batch.columns, None)
        noticed.array = pa.Table.from_arrays(arrays, schema=self._schema)
        return noticed

    def _kept(self, column: ProtoColumn, rows: pa.Array, outcome: _Outcome) -> tuple[pa.Table, pa.Array]:
        """Return the rows without fault; note the others."""
        if column.unread or column.faults:
            numbers = rows.to_pylist()
            for path, found in column.unread.items():
                outcome.unread.setdefault(path, set()).update(numbers[row] for row in found)
            for row, why in column.faults.items():
                outcome.faults[numbers[row]] = why
        if not column.faults:
            return column.array, rows
        keep = pc.invert(pc.is_in(pa.arange(0, len(rows)), value_set=pa.array(sorted(column.faults), pa.int64())))
        return column.array.filter(keep), rows.filter(keep)


def _taken(column: ProtoColumn, rows: pa.Array) -> ProtoColumn:
    """Return some rows of a column with what was noticed in them."""
    places = {row: place for place, row in enumerate(rows.to_pylist())} if column.faults or column.unread else {}
    return ProtoColumn(
        column.array.take(rows),
        {places[row]: why for row, why in column.faults.items() if row in places},
        {path: {places[row] for row in found if row in places} for path, found in column.unread.items()},
    )


def _pieces(payloads: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Yield the payloads a piece at a time, with the number of its first."""
    rows = max(1, min(PIECE_ROWS, len(payloads) * PIECE_BYTES // max(1, payloads.nbytes)))
    for start in range(0, len(payloads), rows):
        yield start, payloads.slice(start, rows)
