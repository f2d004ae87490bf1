"""The sink: one block becomes one Parquet file, or one for each hive directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from batcher.errors import RowsRejected, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import Sink, SinkInfo
from batcher.records import Block, Partition, Range, Rejection
from sinks.parquet import hive, inventory, schemas
from sinks.parquet.files import block_metadata, encode, file_name, poison, unstorable
from sinks.parquet.local import LocalStore
from sinks.parquet.objects import ObjectStore
from sinks.parquet.options import ParquetOptions, local_path
from sinks.parquet.rehearsal import scratch_path
from sinks.parquet.stores import Store


class ParquetSink:
    """Write every block under a name made of its range of offsets, so that a repeat replaces it.

    All files of a root share a schema, pinned in `_schema.arrow` at the first write, together with how
    the root is laid out. Never raises BlockRejected: halves of a block would have the name of the whole.
    """

    def __init__(self, options: ParquetOptions, store: Store) -> None:
        self._options = options
        self._store = store
        self._coordinates = schemas.PARQUET_COORDINATES if options.coordinates == "default" else ()
        self._layout = {
            b"batcher.partition_by": ",".join(options.partition_by).encode(),
            b"batcher.coordinates": options.coordinates.encode(),
        }
        self._schema: pa.Schema | None = None
        self._pinned = False

    def open(self) -> SinkInfo:
        try:
            with self._faults("opening"):
                self._store.open()
                found = self._pin_in_root()
            given = self._options.schema
            if found is not None:
                self._schema, self._pinned = self._checked(found, schemas.PIN), True
            if given is not None:
                self._schema = self._checked(given, "--decode.schema")
                if found is not None:
                    self._compare(self._schema, found)
        except SinkUnavailable as error:
            self._store.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            self._store.close()
            raise
        return self._info(self._schema)

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Pin a schema, without its columns that are named like coordinates, unless the root has one already.

        Return the root's. A message's own field `_offset` gives way to the coordinate; with
        `--parquet.coordinates none` it stays.
        """
        self._schema = self._settled(self._checked(proposed, "the schema of the first batch"))
        self._pinned = True
        return self._schema

    def write(self, block: Block) -> None:
        """Put the block's files in place, then remove those of an earlier attempt whose names are not among them.

        Each file is there whole or not at all, several are not there at once: after an interruption the same block
        has to come again, and finishes. A block without rows says that nothing of its range is to be loaded any more,
        and only removes.
        """
        (written,) = block.ranges  # more is a bug of the caller: this sink said that it does not mix partitions
        table = self._conforming(block.table) if block.rows else block.table
        parts = hive.split(table, self._options.partition_by, fold=self._store.folds_case) if block.rows else []
        name = file_name(written, fold=self._store.folds_case)
        with self._faults(f"writing {written} to"):
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
        with self._faults(f"looking for {Range(partition, first, last)} in"):
            return inventory.copies(self._store, partition, first, last)

    def beyond(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return where the names of the files say that a position has been passed; one listing for all partitions.

        A file is opened only when the position lies inside the range of its name. Without coordinates none is, and
        such a range counts whole.
        """
        with self._faults("looking for later records in"):
            return inventory.beyond(self._store, positions, offsets=bool(self._coordinates))

    def close(self) -> None:
        self._store.close()

    def described(self) -> SinkInfo:
        """Return what `open` would find; makes no directory. Raise as `Sink.open`."""
        if local_path(self._options.path) is None:
            # Opening makes nothing in an object store.
            try:
                return self.open()
            finally:
                self.close()
        with self._faults("looking into"):
            found = self._pin_in_root()
        if found is not None:
            found = self._checked(found, schemas.PIN)
        given = self._options.schema
        if given is not None:
            given = self._checked(given, "--decode.schema")
            if found is not None:
                self._compare(given, found)
        return self._info(given if found is None else found)

    @contextmanager
    def rehearsal(self, name: str) -> Iterator[Sink]:
        """Make a directory beside the root, on the same file system, and remove it at the end. Raise as `Sink.open`."""
        info = self.described()
        with scratch_path(self._options.path, name) as path:
            options = replace(self._options, path=path, schema=info.schema)
            yield ParquetSink(options, store_for(path))

    def _info(self, schema: pa.Schema | None) -> SinkInfo:
        return SinkInfo(
            self._store.label,
            schema,
            self._coordinates,
            "exactly-once",
            "a file is named by its range of offsets, so a repeat replaces it",
            mixes_partitions=False,
        )

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._store.fault(error, doing) from error

    def _checked(self, schema: pa.Schema, origin: str) -> pa.Schema:
        """Return a schema without coordinates; raise SinkMisconfigured when files cannot have it."""
        schema = schemas.bare(schema, self._coordinates)
        problem = unstorable(schema) or hive.unfit(schema, self._options.partition_by)
        left = {*schema.names, *self._coordinates} - set(self._options.partition_by)
        if problem is None and not left:
            problem = "no column is left for the files"
        if problem is not None:
            raise SinkMisconfigured(f"{origin} does not work for {self._store.label}: {problem}")
        return schema

    def _pin_in_root(self) -> pa.Schema | None:
        """Return the schema that the root has; raise SinkMisconfigured when it is laid out in another way."""
        content = self._store.read(schemas.PIN)
        if content is None:
            return None
        try:
            schema, layout = schemas.from_bytes(content)
        except pa.ArrowInvalid as error:
            raise SinkMisconfigured(
                f"{schemas.PIN} in {self._store.label} is not an Arrow file: "
                "restore it, or choose another --parquet.path"
            ) from error
        for key, flag in ((b"batcher.partition_by", "partition-by"), (b"batcher.coordinates", "coordinates")):
            theirs = layout.get(key, self._layout[key])
            if theirs != self._layout[key]:
                raise SinkMisconfigured(
                    f"the files in {self._store.label} were written with --parquet.{flag} "
                    f"{theirs.decode() or 'unset'}: set it so, or choose another --parquet.path"
                )
        return schemas.bare(schema, self._coordinates)

    def _settled(self, schema: pa.Schema) -> pa.Schema:
        """Write a schema into the root, unless one is there, and return the one that is."""
        with self._faults("pinning the schema in"):
            holds = self._pin_in_root()
            if holds is None:
                self._store.create(schemas.PIN, schemas.to_bytes(schema, self._layout))
                holds = self._pin_in_root()
        if holds is None:
            raise SinkUnavailable(f"the schema just written to {self._store.label} is not there")
        return self._checked(holds, schemas.PIN)

    def _compare(self, given: pa.Schema, pinned: pa.Schema) -> None:
        difference = schemas.first_difference(given, pinned)
        if difference is not None:
            raise SinkMisconfigured(
                f"--decode.schema does not agree with {schemas.PIN} in {self._store.label}: {difference}; "
                "leave the flag out, or choose another --parquet.path"
            )

    def _conforming(self, table: pa.Table) -> pa.Table:
        """Return a block's table with exactly the fields of the root's schema, which is pinned if it is not yet."""
        if self._schema is None:
            self.pin(table.schema)
        elif not self._pinned:
            self._compare(self._schema, self._settled(self._schema))
            self._pinned = True
        expected = schemas.with_coordinates(self._schema, self._coordinates)
        difference = schemas.first_difference(table.schema, expected, strict=False)
        if difference is not None:
            raise SinkMisconfigured(f"a block does not fit the schema of {self._store.label}: {difference}")
        return pa.Table.from_arrays(table.columns, schema=expected)

    def _publish(self, parts: Sequence[hive.Part], name: str, metadata: Mapping[bytes, bytes]) -> None:
        """Put files in place; raise RowsRejected for rows that cannot be encoded, before the first one appears."""
        codec, level = self._options.codec
        try:
            self._store.publish((path_of(part, name), encode(part.table, codec, level, metadata)) for part in parts)
        except pa.ArrowInvalid as error:
            rejections = [
                Rejection(part.row(row), "type", f"field {column!r} does not fit Parquet's type for it", column)
                for part in parts
                for row, column in poison(part.table)
            ]
            if not rejections:
                raise
            raise RowsRejected(sorted(rejections, key=lambda rejection: rejection.position)) from error

    def _reject_long(self, parts: Sequence[hive.Part], name: str) -> None:
        """Raise RowsRejected for rows whose directories make a path too long for this store."""
        refused = set(self._store.refused([part.directory for part in parts], name))
        rows = [part.row(index) for part in parts if part.directory in refused for index in range(part.table.num_rows)]
        if not rows:
            return
        column = ",".join(self._options.partition_by)
        if not column:
            raise SinkMisconfigured(f"a file name in {self._store.label} is too long: choose a shorter --parquet.path")
        message = f"the value of {column} makes a path that is too long"
        raise RowsRejected([Rejection(row, "path", message, column) for row in sorted(rows)])

    def _superseded(self, block: Block, table: pa.Table, names: Sequence[str]) -> list[str]:
        """Return the files of earlier attempts at a block that those named do not replace by their name.

        An attempt under other rules (of decoding, or of what is refused) has rows in other directories. Raise
        SinkMisconfigured when a file of one of the names is there and is no attempt at the same records.
        """
        (written,) = block.ranges
        for name in names:
            if inventory.attempted(self._store, name, block.token, table) is False:
                raise SinkMisconfigured(
                    f"{self._store.label} has a file for {written} already, with other records: "
                    "move it away, or choose another --parquet.path"
                )
        if not block.replayed or (names and not self._options.partition_by):
            return []
        found = inventory.listed(self._store, lambda holds: holds == written)
        others = [name for name, _ in found if name not in names]
        return [name for name in others if inventory.attempted(self._store, name, block.token, table)]


def store_for(path: str) -> Store:
    """Return the store that `--parquet.path` names."""
    directory = local_path(path)
    return ObjectStore.at(path) if directory is None else LocalStore(Path(directory))


def path_of(part: hive.Part, name: str) -> str:
    """Return the name of a part's file, relative to the root."""
    return f"{part.directory}/{name}" if part.directory else name
