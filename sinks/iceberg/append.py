"""One commit: the rows of a block and the offsets behind them, on top of exactly the snapshot that was looked at.

pyiceberg's own commit tries again after a conflict, on top of whatever is newest by then, and so brings in rows a
second time that another process wrote meanwhile. Here the transaction is only prepared by pyiceberg. It is committed
once, and what follows a conflict is decided by the offsets.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pyarrow as pa
import structlog
from pyiceberg.io.pyarrow import bin_pack_arrow_table, write_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, TableProperties, Transaction, WriteTask
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import AssertTableUUID, TableUpdate
from pyiceberg.utils.properties import property_as_int

from sinks.iceberg import offsets
from sinks.iceberg.catalog import said
from sinks.iceberg.partition import parts

log = structlog.get_logger(__name__)


class PreparedTransaction(Transaction):
    """Gather changes, and never commit them by itself."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        # Whoever does commit it after all must not have pyiceberg rebase it.
        table.metadata.properties[TableProperties.COMMIT_NUM_RETRIES] = "0"

    @property
    def table_metadata(self) -> TableMetadata:
        """Return the metadata with the changes so far. Without one it is the table's: a copy costs 1 ms a snapshot."""
        return super().table_metadata if self._updates else self._table.metadata

    def changes(self) -> tuple[TableUpdate, ...]:
        """Return what was gathered."""
        return self._updates

    def commit_once(self) -> None:
        """Commit what was gathered; the table is then what the catalog says. Raise what the catalog raises."""
        identity = AssertTableUUID(uuid=self._table.metadata.table_uuid)
        self._table._do_commit(updates=self._updates, requirements=(*self._requirements, identity))  # noqa: SLF001


def written(table: Table, rows: pa.Table) -> list[DataFile]:
    """Write rows as files of the table, at least one in each of its partitions that has rows; commit nothing."""
    metadata = table.metadata
    target_bytes = property_as_int(
        metadata.properties,
        TableProperties.WRITE_TARGET_FILE_SIZE_BYTES,
        TableProperties.WRITE_TARGET_FILE_SIZE_BYTES_DEFAULT,
    )
    assert target_bytes is not None
    write_uuid, numbers = uuid.uuid4(), count(0)
    schema = metadata.schema()
    tasks = (
        WriteTask(
            write_uuid=write_uuid, task_id=next(numbers), record_batches=batches, schema=schema, partition_key=key
        )
        for key, part in parts(rows, metadata.spec(), schema)
        for batches in bin_pack_arrow_table(part, target_bytes)
    )
    return list(write_file(io=table.io, table_metadata=metadata, tasks=iter(tasks)))


def discard(table: Table, paths: Iterable[str]) -> None:
    """Remove files that nothing refers to; one that stays is only named in the log."""
    for path in sorted(paths):
        try:
            table.io.delete(path)
        except OSError as error:
            log.warning("file_left", file=path, error=said(error))


class Append:
    """Add files to a table in one commit, together with the offsets behind them."""

    def __init__(self, table: Table, files: Sequence[DataFile], next_offsets: Any) -> None:
        self._table = table
        self._transaction = PreparedTransaction(table)
        properties = {offsets.PROPERTY: offsets.written(next_offsets)}
        self._producer = self._transaction._append_snapshot_producer(properties)  # noqa: SLF001
        for file in files:
            self._producer.append_data_file(file)
        self.snapshot_id = self._producer.snapshot_id

    def commit(self) -> None:
        """Write the manifests and commit. Raise CommitFailedException where the table is not what it was."""
        self._producer.commit()
        self._transaction.commit_once()
        self._discard_merged()

    def _discard_merged(self) -> None:
        """Remove a manifest that was merged into a larger one at once: no snapshot ever had it."""
        made = set(self._producer._written_manifests)  # noqa: SLF001
        if len(made) < 2:
            return
        snapshot = self._table.snapshot_by_id(self.snapshot_id)
        if snapshot is None:  # another one expired it already
            return
        listed = {manifest.manifest_path for manifest in snapshot.manifests(self._table.io)}
        discard(self._table, made - listed)

    def discard(self) -> None:
        """Remove the manifests. Only for a commit that is known not to have happened."""
        self._producer._clean_all_uncommitted()  # noqa: SLF001
