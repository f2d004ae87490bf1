"""The sink: one block becomes one Parquet file, or one for each hive directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa

from batcher.errors import ConfigurationError, RowsRejected, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.growth import grown
from batcher.protocols import Sink, SinkInfo
from batcher.records import Block, Partition, Range, Rejection
from sinks.parquet import hive, inventory, schemas
from sinks.parquet.directory import columns_of
from sinks.parquet.files import block_metadata, encode, file_name, poison
from sinks.parquet.locations import store_for
from sinks.parquet.options import ParquetOptions
from sinks.parquet.pins import Pin, Pins
from sinks.parquet.rehearsal import described, scratch_path
from sinks.parquet.stores import Store, faults


class ParquetSink:
    """Write every block under a name made of its range of offsets, so that a repeat replaces it.

    All files of a root share a schema, pinned in `_schema.arrow` at the first write, together with the layout of the
    root. Never raises BlockRejected: halves of a block would have the name of the whole.
    """

    def __init__(self, options: ParquetOptions, store: Store) -> None:
        self._options = options
        self._store = store
        self._coordinates = options.coordinate_columns
        self._directories = options.directories
        self._flat = not self._directories
        self._pins = Pins(options, store)
        # The decode loop pins while the write loop writes. These are the schemas that held, the newest first: a block
        # may have been decoded for an earlier one.
        self._pinning = threading.Lock()
        self._schemas: tuple[pa.Schema, ...] = ()
        self._pinned = False

    def open(self) -> SinkInfo:
        self._schemas, self._pinned = (), False
        try:
            with faults(self._store, "opening"):
                self._store.open()
                found = self._pins.find()
                if found is not None:
                    self._pins.show(found)
            schema = self._agreed(found)
        except SinkUnavailable as error:
            self._store.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            self._store.close()
            raise
        if schema is not None:
            self._schemas = (schema,)
            self._pinned = found is not None and found.schema.equals(schema)
        return self._info(schema)

    @property
    def schema(self) -> pa.Schema | None:
        """Return the schema of the open root; None before it has one."""
        return self._schemas[0] if self._schemas else None

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Pin a schema, without its columns that are named like coordinates, unless the root has one already.

        Return the root's schema. Where it has fields without a type, it takes the proposed types. A message's own field
        `_offset` gives way to the coordinate; with `--parquet.coordinates none` it stays.
        """
        with self._pinning:
            self._settle_given()
            return self._settle(proposed, "the schema of the records")

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Add columns to the root's schema, which is pinned already; see `Evolvable.evolve`.

        Blocks of the schemas before it get null for what is new.
        """
        del topic
        with self._pinning:
            self._settle_given()
            with faults(self._store, "pinning the schema in"):
                return self._holding(self._pins.widen(fields).schema)

    def write(self, block: Block) -> None:
        """Put the block's files in place, then remove files of an earlier attempt under other names.

        Each file appears whole or not at all, but several do not appear at once. After an interruption the same block
        has to come again, and then finishes. A block without rows says that nothing of its range is to be loaded any
        more, and only removes.
        """
        (written,) = block.ranges  # more is a bug of the caller: this sink said that it does not mix partitions
        table = self._conforming(block.table) if block.rows else block.table
        parts = self._split(table, written) if block.rows else []
        name = file_name(written, fold=self._store.folds_case)
        with faults(self._store, f"writing {written} to"):
            self._reject_long(parts, name)
            superseded = self._superseded(block, table, [path_of(part, name) for part in parts])
            self._publish(parts, name, block_metadata(block))
            self._store.remove(superseded)

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return each offset once, however often it is there. Raise as `copies` does."""
        return self.copies(partition, first, last)["offset"].combine_chunks()

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets, each with its rows in all files together.

        Raise SinkMisconfigured where the files have no offsets, SinkUnavailable when one cannot be read now.
        """
        if not self._coordinates:
            raise SinkMisconfigured(
                f"the files in {self._store.label} have no offsets (--parquet.coordinates none): nobody can tell which "
                f"records of {Range(partition, first, last)} they hold"
            )
        with faults(self._store, f"looking for {Range(partition, first, last)} in"):
            return inventory.copies(self._store, partition, first, last, flat=self._flat)

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return where the names of the files say that a position was passed; one listing serves all partitions.

        A file is opened only when the position lies inside the range of its name. Without coordinates no file is
        opened, and such a range counts whole.
        """
        with faults(self._store, "looking for later records in"):
            return inventory.max_offset_above(self._store, positions, offsets=bool(self._coordinates), flat=self._flat)

    def close(self) -> None:
        self._store.close()

    def described(self) -> SinkInfo:
        """Return what `open` would find; makes no directory. Raise as `Sink.open`."""
        return described(self, self._options.path, self._store, lambda: self._info(self._agreed(self._pins.find())))

    @contextmanager
    def rehearsal(self, name: str) -> Iterator[Sink]:
        """Make a directory beside the root, on the same file system, and remove it at the end. Raise as `Sink.open`."""
        info = self.described()
        with scratch_path(self._options.path, name, self._store_at) as path:
            options = replace(self._options, path=path, schema=info.schema)
            yield ParquetSink(options, store_for(options))

    def _store_at(self, path: str) -> Store:
        return store_for(replace(self._options, path=path))

    def _info(self, schema: pa.Schema | None) -> SinkInfo:
        return SinkInfo(
            self._store.label,
            schema,
            self._coordinates,
            "replace",
            "a file is named by its range of offsets, so a repeat replaces it",
            frozenset({"pin", "evolve", "query", "count"}),
            concurrent=True,
            remote=self._store.remote,
        )

    def _agreed(self, found: Pin | None) -> pa.Schema | None:
        """Return the schema of root and settings together; raise SinkMisconfigured when they contradict each other."""
        given = self._options.schema
        if given is None:
            return None if found is None else found.schema
        given = self._pins.checked(given, "--decode.schema")
        return given if found is None else self._compared(given, found)

    def _compared(self, given: pa.Schema, pinned: Pin) -> pa.Schema:
        """Return the pinned schema with the types that only the given one has; raise SinkMisconfigured.

        The given schema need not have the columns that were added later.
        """
        schema = grown(pinned.schema, given)
        expected = pa.schema(list(schema)[: max(pinned.first, len(given))])
        difference = schemas.first_difference(grown(given, schema), expected)
        if difference is not None:
            raise SinkMisconfigured(
                f"--decode.schema does not agree with {schemas.PIN} in {self._store.label}: {difference}; "
                "leave the flag out, or choose another --parquet.path"
            )
        return schema

    def _settle_given(self) -> None:
        """Write the schema of the settings into the root, once."""
        if self._schemas and not self._pinned:
            given = self._schemas[0]
            with faults(self._store, "pinning the schema in"):
                pinned = self._pins.settle(given, "--decode.schema")
            self._compared(given, pinned)
            self._holding(pinned.schema)

    def _settle(self, proposed: pa.Schema, origin: str) -> pa.Schema:
        with faults(self._store, "pinning the schema in"):
            return self._holding(self._pins.settle(proposed, origin).schema)

    def _holding(self, schema: pa.Schema) -> pa.Schema:
        self._pinned = True
        if not self._schemas or not schema.equals(self._schemas[0]):
            self._schemas = (schema, *self._schemas)
        return schema

    def _conforming(self, table: pa.Table) -> pa.Table:
        """Return a block's table with the columns of the root's schema, which is pinned if that was not done yet."""
        with self._pinning:
            self._settle_given()
            if not self._schemas:
                self._settle(table.schema, "the schema of a block")
            held = self._schemas
        by = columns_of(self._directories)
        block = schemas.fitted(table, schemas.of_files(table.schema, by))
        expected = [schemas.of_files(schema, by, self._coordinates) for schema in held]
        differences = [schemas.first_difference(block.schema, one, strict=False) for one in expected]
        if all(differences):
            raise SinkMisconfigured(f"a block does not fit the schema of {self._store.label}: {differences[0]}")
        return schemas.fitted(block, expected[0])

    def _split(self, table: pa.Table, written: Range) -> list[hive.HivePart]:
        fold, most = self._store.folds_case, self._options.max_directories
        try:
            return hive.split(table, self._directories, fold=fold, most=most)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._store.label}: {written} {error}") from error

    def _publish(self, parts: Sequence[hive.HivePart], name: str, metadata: Mapping[bytes, bytes]) -> None:
        """Put files in place; raise RowsRejected for rows that cannot be encoded, before the first file appears."""
        codec, level = self._options.codec
        kind = self._options.encodings
        try:
            self._store.publish(
                (path_of(part, name), encode(part.table, codec, level, metadata, kind)) for part in parts
            )
        except pa.ArrowInvalid as error:
            rejections = [
                Rejection(part.row(row), "type", f"field {column!r} does not fit Parquet's type for it", column)
                for part in parts
                for row, column in poison(part.table)
            ]
            if not rejections:
                raise
            raise RowsRejected(sorted(rejections, key=lambda rejection: rejection.position)) from error

    def _reject_long(self, parts: Sequence[hive.HivePart], name: str) -> None:
        """Raise RowsRejected for rows whose directories make a path too long for this store."""
        refused = set(self._store.refused([part.directory for part in parts], name))
        rows = [part.row(index) for part in parts if part.directory in refused for index in range(part.table.num_rows)]
        if not rows:
            return
        column = ",".join(rule.column for rule in self._directories)
        if not column:
            raise SinkMisconfigured(f"a file name in {self._store.label} is too long: choose a shorter --parquet.path")
        message = f"the value of {column} makes a path that is too long"
        raise RowsRejected([Rejection(row, "path", message, column) for row in sorted(rows)])

    def _superseded(self, block: Block, table: pa.Table, names: Sequence[str]) -> list[str]:
        """Return the files of earlier attempts at a block that the named files do not replace.

        An attempt under other rules (of decoding, or of what is refused) has rows in other directories. Raise
        SinkMisconfigured when a file with one of the names is there and is no attempt at the same records.
        """
        (written,) = block.ranges
        for name in self._store.present(names):
            if inventory.attempted(self._store, name, block.token, table) is False:
                raise SinkMisconfigured(
                    f"{self._store.label} has a file for {written} already, with other records: "
                    "move it away, or choose another --parquet.path"
                )
        if not block.replayed or (names and self._flat):
            return []
        found = inventory.overlapping(self._store, [written], flat=self._flat)
        others = [name for name, holds in found if holds == written and name not in names]
        return [name for name in others if inventory.attempted(self._store, name, block.token, table)]


def path_of(part: hive.HivePart, name: str) -> str:
    """Return the name of a part's file, relative to the root."""
    return f"{part.directory}/{name}" if part.directory else name
