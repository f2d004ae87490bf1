"""What a ClickHouse table looks like to the sink: its columns, and how a block is fitted to them.

Columns that cannot be written (MATERIALIZED, ALIAS) are no part of it. An EPHEMERAL column is: it is not stored, but
the DEFAULT of others is made from it. A record that lacks a field gets the column's DEFAULT. Where the column is
Nullable and has a DEFAULT it gets NULL, because over Arrow the two cannot be told apart and NULL is what the record
says. An Array or Map whose DEFAULT is not empty must be in every record: the engine would store an empty one.

Coordinate columns are recognised by name. `_timestamp` is cut to the column's precision. Where the column cannot hold
it, it is null, or the column's first or last moment if the column is not Nullable: a record is not lost for the time
its producer gave it. A missing timestamp or key is 1970-01-01 or an empty text where the column is not Nullable.
Headers go into a Map, in which the last of several with one name holds, or into an Array of Tuples, which keeps all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import RowsRejected, SinkMisconfigured
from batcher.records import COORDINATES, SORTED
from sinks.clickhouse.casting import cast_safely, same_kind
from sinks.clickhouse.columns import (
    EnumText,
    FixedText,
    Listed,
    Mapped,
    Plain,
    Ranged,
    Slot,
    WideInt,
    slot_for,
)
from sinks.clickhouse.faults import Faults, UnsupportedType
from sinks.clickhouse.headers import headers_for, takes_headers
from sinks.clickhouse.json_text import JsonText

_INT64_MAX: Final = 2**63 - 1

IDENTITY: Final = ("_topic", "_partition", "_offset")
"""The coordinate columns that name a record."""

_NOT_INSERTABLE: Final = frozenset({"MATERIALIZED", "ALIAS"})
_FILLED_BY_THE_TABLE: Final = frozenset({"DEFAULT", "EPHEMERAL"})


def quoted(name: str) -> str:
    """Return a name as ClickHouse reads it back unchanged, whatever is in it."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


@dataclass(frozen=True, slots=True)
class Described:
    """Hold one row of `system.columns`; `empty_default` says that the DEFAULT is `[]`, `{}` or the like."""

    name: str
    type_name: str
    default_kind: str = ""
    empty_default: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """Fit one column of a block to a column of the table."""

    slot: Slot
    has_default: bool
    null_is_default: bool = False
    """The column itself cannot be null, so a null stands for the DEFAULT."""
    coordinate: bool = False
    """It is filled with a coordinate of the record."""

    @property
    def name(self) -> str:
        """Return the column's name."""
        return self.slot.name

    def encode(self, values: pa.Array, faults: Faults) -> pa.Array:
        """Return the column as it is sent; raise SinkMisconfigured for a type that cannot be brought to it."""
        if self.coordinate:
            if self.name == "_headers":
                return self.slot.encode(headers_for(values, self.slot.codec), faults)
            values = self._located(values)
        wanted = self.slot.codec.decoded
        if values.type != wanted and not (_takes_bytes(self.slot) and pa.types.is_binary(values.type)):
            if not same_kind(values.type, wanted):
                raise SinkMisconfigured(
                    f"column {self.name}: the block has {values.type} where the table needs {wanted}; "
                    "restart to read the table's columns again"
                )
            values = cast_safely(values, wanted, faults)
            if faults.found:
                return values
        if self.has_default and isinstance(self.slot.codec, JsonText):
            values = pc.fill_null(values, "{}")
        return self.slot.encode(values, faults)

    def _located(self, values: pa.Array) -> pa.Array:
        """Bring a coordinate near the column's type where the two are of different kinds."""
        codec = self.slot.codec
        if self.name == "_timestamp":
            if isinstance(codec, Ranged):
                values = self._within(values, *codec.milliseconds)
                if codec.step_ms > 1:
                    # A DateTime has room for seconds only; the loss is the user's choice of type.
                    values = pc.floor_temporal(values, multiple=codec.step_ms, unit="millisecond")
            elif pa.types.is_integer(codec.decoded):
                values = values.cast(pa.int64())
                values = self._within(values, 0, _INT64_MAX) if codec.decoded == pa.uint64() else values
        if values.null_count and not self.slot.nullable and self.name in {"_timestamp", "_key", "_value"}:
            empty = b"" if pa.types.is_binary(values.type) else 0
            values = pc.fill_null(values, pa.scalar(empty, values.type))
        return values

    def _within(self, values: pa.Array, low: int, high: int) -> pa.Array:
        """Return times, in their own unit, with those that the column cannot hold replaced by ones that it can."""
        numbers = values.cast(pa.int64())
        if self.slot.nullable:
            inside = pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))
            return pc.if_else(inside, values, pa.scalar(None, values.type))
        return pc.max_element_wise(pc.min_element_wise(numbers, high, skip_nulls=False), low, skip_nulls=False).cast(
            values.type
        )


@dataclass(frozen=True, slots=True)
class TableShape:
    """Know the columns of a table that can be inserted into, and fit blocks to them."""

    columns: Mapping[str, Column]
    sorted_by: frozenset[str] = frozenset()
    """Columns that the rows are sorted by."""

    @classmethod
    def read(
        cls,
        described: Sequence[Described],
        table: str,
        decoded: Collection[str] = (),
        sorted_by: frozenset[str] = frozenset(),
    ) -> TableShape:
        """Return the shape of a table; raise SinkMisconfigured naming a column that cannot be filled.

        Columns that are `decoded` are filled by the format, even if they have the name of a coordinate.
        """
        columns: dict[str, Column] = {}
        for row in described:
            if row.default_kind in _NOT_INSERTABLE:
                continue
            try:
                slot = slot_for(row.name, row.type_name)
            except UnsupportedType as error:
                raise SinkMisconfigured(
                    f"{table}: column {row.name} of type {row.type_name} cannot be loaded ({error}); "
                    "make it MATERIALIZED, ALIAS or DEFAULT in another table, or choose another type"
                ) from error
            _check_name(row.name, table)
            coordinate = row.name in COORDINATES.names and row.name not in decoded
            if coordinate:
                _check_coordinate(slot, row.type_name, table)
            has_default = row.default_kind in _FILLED_BY_THE_TABLE
            null_is_default = has_default and not slot.nullable
            slot = _with_default(slot, row) if has_default else slot
            columns[row.name] = Column(slot, has_default, null_is_default, coordinate)
        if not any(not column.coordinate for column in columns.values()):
            raise SinkMisconfigured(f"{table}: has no column that can be loaded from a record")
        return cls(columns, sorted_by)

    @property
    def decoded(self) -> pa.Schema:
        """Return what the decoder has to produce."""
        fields = [column.slot.field for column in self.columns.values() if not column.coordinate]
        return pa.schema([_sorted(field) if field.name in self.sorted_by else field for field in fields])

    @property
    def told(self) -> frozenset[str]:
        """Return the columns whose values come from records alone: the table has no DEFAULT for them."""
        return frozenset(name for name, column in self.columns.items() if not column.has_default)

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Return the coordinate columns the table has, in the order in which a block carries them."""
        return tuple(name for name in COORDINATES.names if name in self.columns and self.columns[name].coordinate)

    @property
    def fills_defaults(self) -> bool:
        """Return whether a null of a block may stand for a column's DEFAULT."""
        return any(column.has_default for column in self.columns.values())

    def _uneven(self, arrays: Mapping[str, pa.Array]) -> Iterator[Faults]:
        """Yield the rows where columns of a Nested have lists of different lengths: the server refuses the block."""
        first: dict[str, str] = {}
        for name, array in arrays.items():
            nested, dot, _ = name.partition(".")
            if not dot or not isinstance(self.columns[name].slot.codec, Listed) or not pa.types.is_list(array.type):
                continue
            other = first.setdefault(nested, name)
            if other != name:
                found = Faults(name)
                uneven = pc.not_equal(_lengths(array), _lengths(arrays[other]))
                found.add(uneven, "length", f"has another number of items than {other}")
                yield found

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows as they are sent. Raise RowsRejected, or SinkMisconfigured where no row is to blame."""
        faults: list[Faults] = []
        arrays = []
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            column = self.columns.get(name)
            if column is None:
                raise SinkMisconfigured(f"column {name} is not in the table; restart to read its columns again")
            found = Faults(name)
            arrays.append(column.encode(values, found))
            faults.append(found)
        for name, column in self.columns.items():
            if name not in batch.schema.names and not column.slot.nullable:
                raise SinkMisconfigured(f"column {name} is not in the block and the table needs it")
        everything = Faults("")
        for found in faults:
            everything.take(found)
        # A column with a fault may be empty by now. Without its rows the block comes again.
        sound = zip(batch.schema.names, arrays, faults, strict=True)
        for found in self._uneven({name: array for name, array, fault in sound if not fault.found}):
            everything.take(found)
        rejections = everything.rejections()
        if rejections:
            raise RowsRejected(rejections)
        # A column without any value is left to the server, whose DEFAULT may then use columns that are not sent.
        sent = [
            (name, array)
            for name, array in zip(batch.schema.names, arrays, strict=True)
            if array.null_count < len(array) or not self.columns[name].null_is_default
        ] or [(batch.schema.names[0], arrays[0])]
        fields = [pa.field(name, array.type, nullable=array.null_count > 0) for name, array in sent]
        return pa.RecordBatch.from_arrays([array for _, array in sent], schema=pa.schema(fields))


def _sorted(field: pa.Field) -> pa.Field:
    return field.with_metadata({**(field.metadata or {}), SORTED: b"1"})


def _lengths(array: pa.Array) -> pa.Array:
    return pc.fill_null(pc.list_value_length(array), 0)


def _with_default(slot: Slot, row: Described) -> Slot:
    """Let a column with a DEFAULT be absent, unless the engine would store something else instead."""
    if isinstance(slot.codec, (Listed, Mapped, JsonText)) and not row.empty_default:
        return slot
    return replace(slot, nullable=True)


def _takes_bytes(slot: Slot) -> bool:
    """Return whether the column stores bytes: a key need not be valid UTF-8 to go into a String."""
    return slot.codec == Plain(pa.string()) or isinstance(slot.codec, FixedText)


def _check_name(name: str, table: str) -> None:
    # The client quotes names itself, but takes a name that is already in quotes for quoted.
    if len(name) > 1 and name[0] in '`"' and name[0] == name[-1]:
        raise SinkMisconfigured(f"{table}: a column's name begins and ends with a quotation mark; rename it")


def _check_coordinate(slot: Slot, type_name: str, table: str) -> None:
    codec = slot.codec
    text = _takes_bytes(slot)
    integer = isinstance(codec, WideInt) or pa.types.is_integer(codec.decoded)
    fits = {
        "_topic": (text or isinstance(codec, EnumText), "LowCardinality(String)"),
        "_partition": (integer, "Int32"),
        "_offset": (integer, "Int64"),
        "_timestamp": (
            pa.types.is_timestamp(codec.decoded) or codec.decoded in {pa.int64(), pa.uint64()},
            "DateTime64(3)",
        ),
        "_key": (text, "String"),
        "_headers": (takes_headers(codec), "Map(String, String), or Array(Tuple(String, String)) to keep repeats,"),
        "_message_id": (text, "String"),
        "_attempt": (integer, "Int32"),
        "_value": (text or isinstance(codec, JsonText), "String"),
    }
    good, advice = fits[slot.name]
    if not good:
        raise SinkMisconfigured(f"{table}: column {slot.name} has type {type_name}; {advice} holds what belongs there")
