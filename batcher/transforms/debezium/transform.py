"""Rows from change events: the new row of an insert or update, the old one of a delete, marked as such.

What an event is about is said by `op`: c (insert), r (snapshot), u (update), d (delete), t (truncate), m (message). An
update that changes the key comes as a delete of the old row, a tombstone, and an insert. `_version` grows for each key
and is the same in a replay, so that a ReplacingMergeTree of (`_version`, `_deleted`) read with FINAL shows the table as
it was at the source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.protocols import Format
from batcher.protocols.proposal import Proposal
from batcher.protocols.transform import ROW, Transformed
from batcher.records import Batch, Rejection
from batcher.transforms.debezium import Debezium
from batcher.transforms.debezium.columns import (
    ADDED,
    DELETED,
    OP,
    VERSION,
    added_by,
    bare,
    decimals_of,
    inside,
    is_needed,
    is_of_key,
    names_row,
    with_added,
)
from batcher.transforms.debezium.defaults import default_of
from batcher.transforms.debezium.envelope import of_events

NAME: Final = "--transform.kind debezium"

PLACEHOLDER: Final = "__debezium_unavailable_value"
"""What stands for a value that was not changed and is so large that it is stored elsewhere (TOAST)."""

_IMAGES: Final = pa.array(["c", "r", "u", "d"])

_VERSIONS: Final = {"lsn": "lsn", "ts-ms": "ts_ms"}
"""The field of `source` that a version is taken from."""


class DebeziumTransform:
    """Make plans for events of tables (`protocols.Transform`)."""

    name = NAME

    def __init__(self, options: Debezium) -> None:
        self._options = options
        self._decimals = decimals_of(options.decimals)
        self._source = _VERSIONS.get(options.version)

    @property
    def coordinates(self) -> Sequence[str]:
        return ("_offset",) if self._source is None else ()

    def adapted(self, format_: Format) -> Format:
        """Return the format that reads events. Raise ConfigurationError for one that cannot."""
        return of_events(format_)

    def proposal(self, given: Proposal, batch: Batch) -> Proposal:
        """Return what rows need that replace each other by their key. Raise ConfigurationError for an unknown key."""
        key = given.order_by or tuple(self._options.key) or key_of(batch, given.schema.names)
        if not key:
            raise ConfigurationError(
                "--order-by: which columns name a row? The keys of the records do not say it; see --decode.key-format"
            )
        return replace(given, order_by=key, version=VERSION, deleted=DELETED)

    def input(self, target: pa.Schema | None, stated: pa.Schema | None) -> pa.Schema | None:
        columns = stated if stated is not None else target
        if columns is None:
            return None
        row = inside(columns, self._decimals, self._options.key)
        return self._event(row, [field for field in columns if is_of_key(field.name)], target)

    def inferred(self, target: pa.Schema | None, found: pa.Schema) -> pa.Schema:
        row: dict[str, pa.Field] = {}
        for image in ("after", "before"):
            field = found.field(image) if image in found.names else None
            if field is not None and pa.types.is_struct(field.type):
                for child in field.type:
                    held = row.get(child.name)
                    if held is None or pa.types.is_null(held.type):
                        row[child.name] = child.with_nullable(True)
        if not row or "op" not in found.names:
            raise ConfigurationError(
                f"{NAME}: the first records are no change events of Debezium: they have the fields "
                f"{', '.join(found.names[:10])}, and op, before and after are due"
            )
        fields = [field for name, field in row.items() if name not in ADDED.names and not is_of_key(name)]
        return self._event(fields, [field for field in found if is_of_key(field.name)], target)

    def _event(self, row: Sequence[pa.Field], of_key: Sequence[pa.Field], target: pa.Schema | None) -> pa.Schema:
        source = [] if self._source is None else [pa.field("source", pa.struct([(self._source, pa.int64())]))]
        images = [pa.field(image, pa.struct(list(row))) for image in ("before", "after")]
        return pa.schema([*of_key, with_added(pa.field("op", pa.string()), target), *source, *images])

    def plan(self, given: pa.Schema) -> DebeziumPlan:
        return DebeziumPlan(given, self._options, self._source)


def key_of(batch: Batch, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that name a row, as far as keys in JSON, or columns made of keys, say it."""
    found = tuple(name.removeprefix("_key.") for name in columns if name.startswith("_key."))
    if found:
        return found
    for run in batch.runs:
        for key in run.keys.slice(0, _LOOK).drop_null().to_pylist():
            try:
                told = json.loads(key)
            except (ValueError, RecursionError):
                continue
            told = told["payload"] if isinstance(told, dict) and told.keys() == {"schema", "payload"} else told
            if isinstance(told, dict) and told and set(told) <= set(columns):
                return tuple(told)
    return ()


_LOOK: Final = 100
"""Keys of a partition that are looked at."""


class DebeziumPlan:
    """Make rows of events (`protocols.TransformPlan`)."""

    def __init__(self, given: pa.Schema, options: Debezium, source: str | None) -> None:
        self._options = options
        self._source = source
        self._of_key = [field for field in given if is_of_key(field.name)]
        self._row = list(given.field("after").type)
        self._added = [ADDED.field(name) for name in added_by(given.field("op"))]
        self.output = pa.schema([*self._of_key, *map(bare, self._row), *self._added])
        known = any(names_row(field) for field in self._row)
        # Without a key nobody knows which columns may be made up.
        self._defaults = {
            field.name: default_of(field) for field in self._row if known and is_needed(field) and not names_row(field)
        }

    @property
    def proposed(self) -> pa.Schema:
        return self.output

    def apply(self, rows: pa.RecordBatch) -> Transformed:
        numbers, op = rows.column(ROW), rows.column("op")
        events = _Events(rows)
        events.refuse(op.is_null(), "envelope", "field op: is missing, so this is no change event of Debezium", "op")
        for letter, policy, what in (
            ("t", self._options.truncates, "the table was emptied (truncate); --debezium.truncates"),
            ("m", self._options.messages, "is a message in the log of the database; --debezium.messages"),
        ):
            events.settle(pc.equal(op, letter), policy, "operation", f"field op: {what}")
        known = pc.is_in(op, value_set=pa.array(["c", "r", "u", "d", "t", "m"]))
        events.refuse(pc.invert(known), "operation", "field op: is none of c, r, u, d, t and m", "op")
        deleted = pc.fill_null(pc.equal(op, "d"), fill_value=False)
        # Only null in all events so far, an image has no row in it.
        row = pc.if_else(deleted, rows.column("before"), rows.column("after"))
        absent = pc.and_(row.is_null(), pc.is_in(op, value_set=_IMAGES))
        events.refuse(
            pc.and_(absent, deleted),
            "image",
            "field before: a delete has to tell which row; the table needs a primary key or REPLICA IDENTITY FULL",
            "before",
        )
        events.refuse(pc.and_not(absent, deleted), "image", "field after: is missing, and with it the row", "after")
        version = self._version(rows, events)
        columns = self._columns(row, deleted, events)
        left = events.left
        made = [rows.column(field.name) for field in self._of_key] + columns
        added: Mapping[str, pa.Array] = {OP: op, VERSION: version, DELETED: deleted.cast(pa.uint8())}
        made += [added[field.name] for field in self._added]
        schema = self.output.append(pa.field(ROW, pa.int64()))
        batch = pa.RecordBatch.from_arrays([*made, numbers], schema=schema)
        return Transformed(batch if left is None else batch.filter(left), events.rejections, events.skipped)

    def _version(self, rows: pa.RecordBatch, events: _Events) -> pa.Array:
        if self._source is None:
            return rows.column("_offset").cast(pa.uint64())
        found = pc.struct_field(rows.column("source"), self._source)
        message = f"field source.{self._source}: has no value, and --debezium.version takes it from there"
        unfit = pc.or_kleene(found.is_null(), pc.less(found, 0))
        events.refuse(unfit, "version", message, f"source.{self._source}")
        return pc.if_else(unfit, pa.scalar(0, pa.int64()), found).cast(pa.uint64())

    def _columns(self, row: pa.StructArray, deleted: pa.BooleanArray, events: _Events) -> list[pa.Array]:
        columns = []
        for field, given in zip(self._row, row.flatten(), strict=True):
            column = given
            gone = _unavailable(column) if self._options.unavailable != "keep" else None
            if gone is not None:
                if self._options.unavailable == "reject":
                    events.refuse(
                        gone,
                        "unavailable",
                        f"field {field.name}: the database did not send the value, which was not changed (TOAST); "
                        "REPLICA IDENTITY FULL makes it, or see --debezium.unavailable",
                        field.name,
                    )
                column = pc.if_else(gone, pa.scalar(None, column.type), column)
            default = self._defaults.get(field.name)
            if default is not None and column.null_count:
                column = pc.if_else(pc.and_(deleted, column.is_null()), default, column)
            columns.append(column)
        return columns


def _unavailable(column: pa.Array) -> pa.BooleanArray | None:
    """Return where a column has the placeholder; None where it has it nowhere."""
    kind = column.type
    if pa.types.is_list(kind):
        if not len(column.flatten()) or not _is_text(kind.value_type):
            return None
        found = pc.equal(column.flatten(), _placeholder(kind.value_type))
        if not pc.any(found).as_py():
            return None
        rows = pc.list_parent_indices(column).filter(pc.fill_null(found, fill_value=False))
        return pc.is_in(pa.arange(0, len(column)), value_set=rows.cast(pa.int64()))
    if not _is_text(kind):
        return None
    found = pc.fill_null(pc.equal(column, _placeholder(kind)), fill_value=False)
    return found if pc.any(found).as_py() else None


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _placeholder(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(PLACEHOLDER, pa.string()).cast(kind)


class _Events:
    """Collect what becomes of events that make no row; the first thing that is said of one holds."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._numbers = rows.column(ROW)
        self._refused: dict[int, Rejection] = {}
        self._skipped: set[int] = set()

    @property
    def rejections(self) -> list[Rejection]:
        """Return the rejections, by number of the row."""
        return [self._refused[number] for number in sorted(self._refused)]

    @property
    def skipped(self) -> list[int]:
        """Return the numbers of events that say nothing about a row, by policy."""
        return sorted(self._skipped)

    @property
    def left(self) -> pa.BooleanArray | None:
        """Return where an event makes a row; None where all do."""
        gone = sorted([*self._refused, *self._skipped])
        if not gone:
            return None
        return pc.invert(pc.is_in(self._numbers, value_set=pa.array(gone, pa.int64())))

    def refuse(self, rows: pa.BooleanArray, reason: str, message: str, path: str) -> None:
        """Refuse the events where a mask is true, unless something was said of them."""
        for number in self._open(rows):
            self._refused[number] = Rejection(number, reason, message, path)

    def settle(self, rows: pa.BooleanArray, policy: str, reason: str, message: str) -> None:
        """Skip or refuse the events where a mask is true."""
        if policy == "reject":
            self.refuse(rows, reason, message, "op")
        else:
            self._skipped.update(self._open(rows))

    def _open(self, rows: pa.BooleanArray) -> list[int]:
        if not rows.true_count:
            return []
        numbers = self._numbers.filter(pc.fill_null(rows, fill_value=False)).to_pylist()
        return [number for number in numbers if number not in self._refused and number not in self._skipped]
