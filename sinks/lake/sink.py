"""The sink of lake tables: one block becomes one commit, over all partitions in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import ConfigurationError, SchemaChanged, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.growth import grown, stored
from batcher.plugins import PluginContext
from batcher.protocols import COPIES, Sink, SinkCapability, SinkInfo
from batcher.protocols.measure import Measure
from batcher.records import COORDINATES, RAW_JSON, Block, Partition, Range
from sinks.lake import memory, position, types
from sinks.lake.coordinate import NEEDED, chosen, of_table, topic_of
from sinks.lake.settings import LakeSection
from sinks.lake.table import LakeTable

CAPABILITIES: Final[frozenset[SinkCapability]] = frozenset({"pin", "evolve", "query", "count", "remove", "measure"})

REASON: Final = "the table keeps, in the commit that stores rows, how far each partition was loaded"

LAST: Final = 2**63 - 2
"""The last offset that there may be."""

RACES: Final = 10
"""How often a change of the schema is tried while others change it too."""


@dataclass(frozen=True, slots=True)
class LakeOptions:
    """Hold what the sink needs to know besides the table: what a new one gets, and what rows are called there.

    `schema` is what `--decode.schema` gave, without coordinates. `flag` is the flag of the table's place, for messages.
    """

    coordinates: tuple[str, ...]
    lake_id: str = ""
    schema: pa.Schema | None = None
    flag: str = ""


class LakeSink:
    """Commit each block with the positions of its partitions, after a look at those that the table has.

    A row at or above the position of its partition is new. For a row below it the same snapshot is asked. So a block
    that comes again, here or in a process that was taken for dead, leaves one copy under any token.

    It never raises BlockRejected: both halves would have the ranges of the whole, and the first would note that all of
    it was loaded. It raises RowsRejected before it commits anything. The decode loop pins and evolves while the write
    loop writes, so a lock lets one of them at the table.
    """

    def __init__(self, options: LakeOptions, table: LakeTable) -> None:
        self._options = options
        self._table = table
        self._lock = threading.Lock()
        self._columns = pa.schema([])
        self._coordinates = options.coordinates
        self._schema: pa.Schema | None = None
        self._there = False

    def open(self) -> SinkInfo:
        """Look for the table; makes nothing. See `Sink.open`."""
        try:
            with self._lock:
                self._schema, self._coordinates, self._columns = None, self._options.coordinates, pa.schema([])
                self._there = self._table.open()
                if self._there:
                    self._adopt()
                self._schema = self._agreed()
        except SinkUnavailable as error:
            self._table.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            self._table.close()
            raise
        return SinkInfo(self._table.label, self._schema, self._coordinates, "query", REASON, CAPABILITIES, once=True)

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Make the table for a schema, without its fields that are named like coordinates, unless there is one.

        Fields that had no type get a column when they have one. A message's own field `_offset` gives way.
        """
        with self._lock:
            return self._settled(self._bare(proposed), "the schema of the records")

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Add columns to the table, except those that it has no types for; see `Evolvable.evolve`."""
        del topic
        with self._lock:
            self._made()
            taken = {name.lower() for name in self._columns.names}
            able = [
                field.with_nullable(True)
                for field in fields
                if field.name.lower() not in taken
                and field.name not in COORDINATES.names
                and types.problem(pa.schema([field])) is None
            ]
            return self._wider(lambda held: pa.schema([*held, *(f for f in able if f.name not in held.names)]))

    def write(self, block: Block) -> None:
        """Commit the rows of a block that the table lacks, together with the positions after its ranges."""
        with self._lock:
            self._made(block)
            self._table.refresh()
            if not self._table.columns().equals(self._columns, check_metadata=True):
                self._changed()
            rows = self._conforming(block.table)
            ranges = [self._named(one) for one in block.ranges]
            held = self._table.positions([one.partition for one in block.ranges])
            named = {self._as_stored(one): at for one, at in held.items()}
            rows = position.unwritten(rows, ranges, named, self._offsets)
            # Where nothing is left, the positions may lag behind what was refused. They are a fence, not the truth.
            if rows.num_rows:
                self._table.append(rows, position.advanced(block.ranges, held))

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return each offset once, however often it is there. A real look into the table, below the position only."""
        with self._lock:
            if not self._found():
                return pa.array([], pa.int64())
            asked = position.doubtful([Range(partition, first, last)], self._table.positions([partition]))
            return self._offsets(self._named(asked[0])) if asked else pa.array([], pa.int64())

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return where the table's position is above one. Rows are asked for only where it has no position."""
        with self._lock:
            if not positions or not self._found():
                return {}
            held = self._table.positions(list(positions))
            found = position.above(positions, held)
            for partition, at in positions.items():
                if partition not in held:
                    there = self._offsets(self._named(Range(partition, at, LAST)))
                    found |= {partition: there[-1].as_py()} if len(there) else {}
            return found

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets, each with how many rows the table has of it: a scan of two columns."""
        with self._lock:
            if not self._found():
                return COPIES.empty_table()
            return self._table.copies(self._as_stored(partition), first, last)

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        """Delete rows by a commit of its own; the position stays. See `Removable.remove`."""
        with self._lock:
            if self._found():
                self._table.remove(self._as_stored(partition), spans)

    def measures(self) -> Sequence[Measure]:
        """Return what the table measures: seconds of commits, versions kept."""
        return self._table.measures()

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()

    def described(self) -> SinkInfo:
        """Return what `open` would find, which makes nothing either. Raise as `Sink.open`."""
        try:
            return self.open()
        finally:
            self.close()

    @contextmanager
    def rehearsal(self, name: str) -> Iterator[Sink]:
        """Load into another table beside this one, with the same columns, and remove it. Raise as `Sink.open`."""
        info = self.described()
        with self._table.scratch(name) as table:
            yield LakeSink(replace(self._options, schema=info.schema, coordinates=info.coordinates), table)

    def _agreed(self) -> pa.Schema | None:
        """Return the schema of table and settings together; raise SinkMisconfigured when they contradict each other."""
        given = self._options.schema
        if given is None:
            return self._schema
        given = self._checked(self._bare(given), "--decode.schema")
        if self._schema is None:
            return given
        for field in stored(given):
            column = self._columns.field(field.name) if field.name in self._columns.names else None
            if column is None or not types.takes(column.type, field.type):
                found = "is no column" if column is None else f"is {column.type} there and {field.type} in the file"
                raise SinkMisconfigured(
                    f"--decode.schema does not agree with {self._table.label}: {field.name!r} {found}; leave the flag "
                    f"out, or choose another {self._options.flag}"
                )
        return memory.recalled(given, self._without_coordinates(self._columns))

    def _made(self, block: Block | None = None) -> None:
        """Make the table for the given schema, or for the columns of a block, if that was not done yet."""
        if self._there:
            return
        schema = self._schema
        if schema is None:
            assert block is not None, "a table without a schema is pinned before it is evolved"
            schema = self._bare(block.table.schema)
        self._settled(schema, "--decode.schema" if self._options.schema is not None else "the schema of a block")

    def _settled(self, proposed: pa.Schema, origin: str) -> pa.Schema:
        """Return the schema that holds once there is a table whose fields have the types that are proposed."""
        if not self._there:
            checked = self._checked(proposed, origin)
            columns = pa.schema(
                [
                    *types.lake_schema(stored(checked)),
                    *types.lake_schema(pa.schema([COORDINATES.field(name) for name in self._coordinates])),
                ]
            )
            self._table.create(columns, memory.to_text(checked))
            self._there = True
            self._adopt()
        return self._wider(lambda held: self._checked(grown(held, proposed), origin))

    def _wider(self, change: Callable[[pa.Schema], pa.Schema]) -> pa.Schema:
        """Return the schema after a change that only adds; again where another process was first."""
        lost: SinkUnavailable | None = None
        for _ in range(RACES):
            self._table.refresh()
            self._adopt()
            held = self._schema
            assert held is not None
            wanted = change(held)
            if wanted.equals(held, check_metadata=True):
                return held
            more = types.lake_schema(stored(wanted))
            columns = [more.field(one.name) if one.name in more.names else one for one in self._columns]
            columns += [one for one in more if one.name not in self._columns.names]
            try:
                self._table.widen(pa.schema(columns), memory.to_text(wanted))
            except SinkUnavailable as error:
                lost = error
        raise SinkUnavailable(f"{self._table.label}: others go on changing its columns") from lost

    def _adopt(self) -> None:
        """Take over the columns of the snapshot, and what it remembers of the schema."""
        columns = self._table.columns()
        lacking = [name for name in NEEDED if name not in columns.names]
        if lacking:
            raise SinkMisconfigured(
                f"{self._table.label} has no column {lacking[0]}, so nobody can tell which records it holds: add the "
                f"columns _topic (text), _partition (int) and _offset (long), or choose another {self._options.flag}"
            )
        for name in (coordinates := of_table(columns.names)):
            if not types.takes(columns.field(name).type, COORDINATES.field(name).type):
                raise SinkMisconfigured(
                    f"{self._table.label}: column {name} is {columns.field(name).type} and has to be "
                    f"{types.lake_type(COORDINATES.field(name).type)}; rename it"
                )
        if self._schema is None:
            self._coordinates = coordinates
        remembered = memory.from_text(self._table.remembered())
        self._schema = memory.recalled(remembered, self._without_coordinates(columns))
        self._columns = columns

    def _changed(self) -> None:
        """Take over columns that others changed; raise SchemaChanged where records have to be decoded for them."""
        before = self._schema
        self._adopt()
        if before is not None and self._schema != before:
            raise SchemaChanged(f"{self._table.label} has other columns than before", self._schema or before)

    def _found(self) -> bool:
        """Return whether there is a table, and take its newest snapshot."""
        if self._there:
            self._table.refresh()
        return self._there

    def _conforming(self, table: pa.Table) -> pa.Table:
        """Return a block's table with the columns of the table, as it stores them."""
        known = stored(table.schema)
        for field in known:
            if field.name not in self._columns.names or not types.takes(
                self._columns.field(field.name).type, field.type
            ):
                assert self._schema is not None
                raise SchemaChanged(f"{self._table.label} has no column for {field.name!r} any more", self._schema)
        rows = table
        if self._options.lake_id:
            at = rows.schema.get_field_index("_topic")
            topics = pc.binary_join_element_wise(self._options.lake_id, rows["_topic"], "|")
            rows = rows.set_column(at, "_topic", topics)
        required = [one.name for one in self._columns if not one.nullable and one.name not in rows.column_names]
        if required:
            raise SinkMisconfigured(
                f"{self._table.label}: column {required[0]} must not be null, and no field of the records fills it"
            )
        return types.converted(rows, self._columns)

    def _checked(self, schema: pa.Schema, origin: str) -> pa.Schema:
        wrong = types.problem(stored(schema))
        if wrong is None and not len(schema):
            wrong = "there is no field in it"
        if wrong is not None:
            raise SinkMisconfigured(f"{origin} does not work for {self._table.label}: {wrong}")
        return schema

    def _bare(self, schema: pa.Schema) -> pa.Schema:
        """Return a schema without coordinates, and without what fields say about themselves, but for our own mark."""
        fields = []
        for field in schema:
            if field.name not in self._coordinates:
                flag = (field.metadata or {}).get(RAW_JSON)
                fields.append(field.remove_metadata().with_metadata(None if flag is None else {RAW_JSON: flag}))
        return pa.schema(fields)

    def _without_coordinates(self, columns: pa.Schema) -> pa.Schema:
        return pa.schema([column for column in columns if column.name not in self._coordinates])

    def _as_stored(self, partition: Partition) -> Partition:
        return Partition(topic_of(self._options.lake_id, partition.topic), partition.number)

    def _named(self, one: Range) -> Range:
        return Range(self._as_stored(one.partition), one.first, one.last)

    def _offsets(self, asked: Range) -> pa.Int64Array:
        return self._table.copies(*asked)["offset"].combine_chunks()


def lake_options(section: LakeSection, context: PluginContext, flag: str) -> LakeOptions:
    """Return what a section of a lake table says, with what the pipeline knows; raise ConfigurationError."""
    words = set(section.coordinates) - {"default"}
    twice = sorted({f"_{word}" for word in words} & context.decoded_coordinates)
    if twice:
        where = flag.rpartition(".")[0]
        raise ConfigurationError(f"{where}.coordinates: {twice[0]} is a column already, with what the format reads")
    schema = None if context.schema is None else context.schema()
    return LakeOptions(chosen(words), section.lake_id, schema, flag)
