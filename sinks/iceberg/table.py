"""One table of an Iceberg catalog, as `sinks.lake` asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import structlog
from pyiceberg import expressions
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.expressions import BooleanExpression
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.refs import MAIN_BRANCH

from batcher.errors import SinkMisconfigured, SinkUnavailable
from batcher.protocols import COPIES
from batcher.protocols.measure import Measure
from batcher.records import Partition
from sinks.iceberg import catalog, offsets, partition, types
from sinks.iceberg.append import Append, PreparedTransaction, discard, written
from sinks.iceberg.errors import faults
from sinks.iceberg.expiry import Expiry
from sinks.iceberg.options import IcebergOptions
from sinks.iceberg.removal import without
from sinks.lake import memory
from sinks.lake.coordinate import topic_of
from sinks.lake.metric import CommitTimes

log = structlog.get_logger(__name__)

PROPERTIES: Final[Mapping[str, str]] = {
    # Dictionaries of more are larger than what they save: 12.7 B instead of 44 B a row (benchmarks).
    TableProperties.PARQUET_DICT_SIZE_BYTES: "131072",
    # Each commit adds a manifest, and reads and writes the list of all of them.
    TableProperties.MANIFEST_MERGE_ENABLED: "true",
    # Each commit writes a metadata file, which has all the snapshots.
    TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
    TableProperties.METADATA_PREVIOUS_VERSIONS_MAX: "25",
}
"""What a table gets that is made here, unless `--iceberg.property` says otherwise."""

REBASES: Final = 4
"""How often files that are written are offered again after a lost race that touched none of their partitions."""

FORMATS: Final = (1, 2)
"""The versions of the table format that pyiceberg can write."""


class IcebergTable:
    """Hold a table as it was at the last refresh, and commit on top of that."""

    def __init__(self, options: IcebergOptions) -> None:
        self._options = options
        self._catalog: Catalog | None = None
        self._table: Table | None = None
        self._offsets: tuple[int | None, Mapping[Partition, int]] | None = None
        self._times = CommitTimes()
        self._expiry = Expiry(options.snapshots)

    @property
    def label(self) -> str:
        return f"Iceberg table {'.'.join(self._options.table)}"

    def open(self) -> bool:
        self.close()
        with faults(self.label, "opening"):
            self._catalog = catalog.opened(self._options.catalog, self._options.timeout_s)
            try:
                self._take(self._catalog.load_table(self._options.table))
            except (NoSuchTableError, NoSuchNamespaceError):
                return False
        return True

    def refresh(self) -> None:
        with faults(self.label, "reading"):
            self._loaded.refresh()
            self._take(self._loaded)

    def columns(self) -> pa.Schema:
        try:
            return types.columns_of(self._loaded.schema())
        except TypeError as error:
            raise SinkMisconfigured(f"{self.label}: {error}") from error

    def remembered(self) -> str | None:
        return self._loaded.properties.get(memory.PROPERTY)

    def create(self, columns: pa.Schema, remembered: str) -> None:
        wrong = partition.problem(self._options.partition_by, columns)
        if wrong is not None:
            raise SinkMisconfigured(f"--iceberg.partition-by does not work for {self.label}: {wrong}")
        schema = types.schema_for(columns)
        properties = {**PROPERTIES, **self._options.properties, memory.PROPERTY: remembered}
        with faults(self.label, "making"):
            assert self._catalog is not None
            self._make_namespace(self._catalog)
            try:
                self._take(
                    self._catalog.create_table(
                        self._options.table,
                        schema,
                        partition_spec=partition.spec_for(self._options.partition_by, schema),
                        properties=properties,
                    )
                )
            except TableAlreadyExistsError:
                self._take(self._catalog.load_table(self._options.table))

    def widen(self, columns: pa.Schema, remembered: str) -> None:
        with faults(self.label, "adding columns to"):
            transaction = PreparedTransaction(self._loaded)
            if not self._same_columns(columns):
                with transaction.update_schema() as update:
                    update.union_by_name(types.schema_for(columns))
            transaction.set_properties({memory.PROPERTY: remembered})
            transaction.commit_once()
            self._take(self._loaded)

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        held = self._held()
        named = {one: self._stored(one) for one in partitions}
        return {one: held[stored] for one, stored in named.items() if stored in held}

    def append(self, rows: pa.Table, positions: Mapping[Partition, int]) -> None:
        began = time.monotonic()
        with faults(self.label, "committing to"):
            files = written(self._loaded, rows)
            self._commit(files, {self._stored(one): at for one, at in positions.items()})
        self._times.add(time.monotonic() - began, len(self._loaded.metadata.snapshots))
        self._expiry.after_commit(self._loaded)

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        found = self._scanned(_between(partition, first, last), ("_offset",))
        counted = found.group_by("_offset").aggregate([("_offset", "count")]).sort_by("_offset")
        return pa.Table.from_arrays([counted["_offset"], counted["_offset_count"]], schema=COPIES)

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        if not spans:
            return
        first, last = min(first for first, _ in spans), max(last for _, last in spans)
        with faults(self.label, "removing rows from"):
            transaction = without(self._loaded, _between(partition, first, last), partition, spans)
            if transaction.changes():
                transaction.commit_once()
            self._take(self._loaded)

    @contextmanager
    def scratch(self, name: str) -> Iterator[IcebergTable]:
        """Yield a table beside this one, with its partitions and properties, and drop it with its files at the end."""
        *namespace, table = self._options.table
        beside = replace(self._options, table=(*namespace, f"{table}_{name.replace('-', '_')}"))
        if self.open():
            known = self._loaded.schema()
            beside = replace(
                beside,
                partition_by=partition.of_table(self._loaded.spec(), known),
                properties={key: value for key, value in self._loaded.properties.items() if key != memory.PROPERTY},
            )
        made_namespace = not self._has_namespace()
        self.close()
        made = IcebergTable(beside)
        try:
            yield made
        finally:
            made.drop(namespace=made_namespace)

    def drop(self, *, namespace: bool = False) -> None:
        """Remove the table with its files, if it is there; with `namespace` what it is in too, once that is empty."""
        self.close()
        if self.open() or self._catalog is not None:
            assert self._catalog is not None
            with faults(self.label, "removing"):
                if self._table is not None:
                    self._catalog.purge_table(self._options.table)
                if namespace and self._has_namespace():
                    self._catalog.drop_namespace(self._options.table[:-1])
        self.close()

    def measures(self) -> Sequence[Measure]:
        return self._times.measures("Snapshots that the table keeps.")

    def close(self) -> None:
        self._table, self._offsets = None, None
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    @property
    def _loaded(self) -> Table:
        assert self._table is not None, "the table is opened and made first"
        return self._table

    def _take(self, table: Table) -> None:
        """Take over a table as it is now; raise SinkMisconfigured for one that cannot be written."""
        wrong = _unwritable(table)
        if wrong is not None:
            raise SinkMisconfigured(f"{self.label}: {wrong}")
        self._table, self._offsets = table, None
        self._times.versions = len(table.metadata.snapshots)

    def _stored(self, one: Partition) -> Partition:
        return Partition(topic_of(self._options.lake_id, one.topic), one.number)

    def _held(self) -> Mapping[Partition, int]:
        """Return the next offset of every partition in the table, by the names that it has there."""
        head = self._loaded.metadata.snapshot_by_name(MAIN_BRANCH)
        at = None if head is None else head.snapshot_id
        if self._offsets is None or self._offsets[0] != at:
            held = offsets.read(self._loaded.metadata)
            self._offsets = at, self._behind_rows() if held.lost else held.next_offsets
        return self._offsets[1]

    def _behind_rows(self) -> Mapping[Partition, int]:
        """Return offsets behind the last row of each partition: for a table without snapshots that have offsets.

        What was refused behind the last row comes again, and is refused again.
        """
        rows = self._scanned(None, ("_topic", "_partition", "_offset"))
        last = rows.group_by(["_topic", "_partition"]).aggregate([("_offset", "max")]).drop_null()
        columns = (last[name].to_pylist() for name in ("_topic", "_partition", "_offset_max"))
        found = {Partition(topic, number): offset + 1 for topic, number, offset in zip(*columns, strict=True)}
        if found:
            log.warning("offsets_recovered", table=self.label, partitions=len(found))
        return found

    def _scanned(self, within: BooleanExpression | None, columns: tuple[str, ...]) -> pa.Table:
        with faults(self.label, "reading"):
            try:
                scan = self._loaded.scan(selected_fields=columns)
                return (scan if within is None else scan.filter(within)).to_arrow()
            except ValueError as error:
                if "delet" not in str(error).lower():
                    raise
                raise SinkMisconfigured(
                    f"{self.label} has deletes that pyiceberg cannot read ({catalog.said(error)}): compact it first"
                ) from error

    def _commit(self, files: Sequence[DataFile], after: Mapping[Partition, int]) -> None:
        """Commit files on top of the snapshot; again on top of a newer one that has no rows of these partitions."""
        before = {one: self._held().get(one) for one in after}
        layout = _layout(self._loaded)
        for _ in range(REBASES + 1):
            attempt = Append(self._loaded, files, {**self._held(), **after})
            try:
                attempt.commit()
            except CommitFailedException as error:
                conflict = error
            else:
                self._take(self._loaded)
                return
            self.refresh()
            if self._loaded.snapshot_by_id(attempt.snapshot_id) is not None:
                return  # it is there: a proxy had sent it twice, and the second was refused
            attempt.discard()
            now = self._held()
            if {one: now.get(one) for one in after} != before or _layout(self._loaded) != layout:
                break
        discard(self._loaded, [file.file_path for file in files])
        raise SinkUnavailable(f"{self.label}: another writer was first ({catalog.said(conflict)})") from conflict

    def _same_columns(self, columns: pa.Schema) -> bool:
        return types.schema_for(columns) == types.schema_for(self.columns())

    def _make_namespace(self, of: Catalog) -> None:
        namespace = self._options.table[:-1]
        if self._has_namespace():
            return
        try:
            of.create_namespace(namespace)
        except NamespaceAlreadyExistsError:
            return
        except Exception:
            # Two at once: the database of a catalog says so in words of its own.
            if not self._has_namespace():
                raise

    def _has_namespace(self) -> bool:
        assert self._catalog is not None
        return bool(self._catalog.namespace_exists(self._options.table[:-1]))


def _between(one: Partition, first: int, last: int) -> BooleanExpression:
    made: Any = expressions  # to mypy their arguments are those of the models that they are
    place = made.And(made.EqualTo("_topic", one.topic), made.EqualTo("_partition", one.number))
    found: BooleanExpression = made.And(
        place, made.GreaterThanOrEqual("_offset", first), made.LessThanOrEqual("_offset", last)
    )
    return found


def _layout(table: Table) -> tuple[int, int]:
    """Return what files are written for: a schema, and partitions."""
    return table.metadata.current_schema_id, table.metadata.default_spec_id


def _unwritable(table: Table) -> str | None:
    """Say why rows cannot be written into a table, or None."""
    metadata, schema = table.metadata, table.schema()
    if metadata.format_version not in FORMATS:
        return f"it has format version {metadata.format_version}, and pyiceberg writes 1 and 2"
    written_as = metadata.properties.get(TableProperties.WRITE_FILE_FORMAT, "parquet").lower()
    if written_as != "parquet":
        return f"its property write.format.default is {written_as}, and batcher writes Parquet"
    inside = types.required_inside(schema)
    if inside is not None:
        return f"{inside!r} inside of a column must not be null, and no decoder sees to that: make it optional"
    try:
        columns = types.columns_of(schema)
    except TypeError as error:
        return str(error)
    wrong = partition.unwritable(table.spec(), schema, columns)
    return None if wrong is None else f"rows cannot be written into its partitions: {wrong}"
