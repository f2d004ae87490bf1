"""Expire old snapshots: each one that is kept costs every commit about a millisecond, for ever.

Only snapshots that batcher made are expired, never a head of a branch or tag, and never the newest one with offsets.
Their lists of manifests are removed, and the manifests that no snapshot has any more. Data files never are: what a
compaction replaced is removed by the tools for that (remove_orphan_files, expire_snapshots with a file cleaner).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import structlog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import RemoveSnapshotsUpdate

from sinks.iceberg import offsets
from sinks.iceberg.append import PreparedTransaction, discard
from sinks.iceberg.catalog import said

log = structlog.get_logger(__name__)

SHARE: Final = 5
"""A fifth more than is to be kept gathers before an expiry, which is a commit of its own."""


class Expiry:
    """Keep about so many of batcher's snapshots; 0 keeps all."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._next = self._most
        """How many snapshots start the next attempt: after a failure not before that many more were made."""

    @property
    def _most(self) -> int:
        return self._keep + max(1, self._keep // SHARE)

    def after_commit(self, table: Table) -> None:
        """Expire what is too old, if enough has gathered. What fails is logged and comes up again: it is no write."""
        count = len(table.metadata.snapshots)
        if not self._keep or count <= self._next:
            return
        try:
            expired = expirable(table.metadata, self._keep)
            if expired:
                _expire(table, expired)
        except Exception as error:  # the rows of the block are durable, whatever became of this
            self._next = count + self._most - self._keep
            log.warning("snapshots_not_expired", snapshots=count, error=said(error))
        else:
            self._next = max(self._most, len(table.metadata.snapshots) + self._most - self._keep)


def expirable(metadata: TableMetadata, keep: int) -> list[Snapshot]:
    """Return the oldest of the snapshots with offsets, so that about `keep` snapshots are left."""
    guarded = {ref.snapshot_id for ref in metadata.refs.values()} | {offsets.read(metadata).snapshot}
    own = [one for one in metadata.snapshots if offsets.text_of(one) is not None and one.snapshot_id not in guarded]
    own.sort(key=lambda one: (one.sequence_number or 0, one.timestamp_ms))
    return own[: max(0, len(metadata.snapshots) - keep)]


def _expire(table: Table, expired: Iterable[Snapshot]) -> None:
    expired = list(expired)
    transaction = PreparedTransaction(table)
    removal: Any = RemoveSnapshotsUpdate  # to mypy its argument has the name that it has in JSON
    for one in expired:
        # One at a time: servers of before 1.9 take no more in one update.
        transaction._stage((removal(snapshot_ids=[one.snapshot_id]),))  # noqa: SLF001
    transaction.commit_once()
    removed = unreachable(table, expired)
    discard(table, removed)
    log.info("snapshots_expired", expired=len(expired), kept=len(table.metadata.snapshots), files=len(removed))


def unreachable(table: Table, expired: Iterable[Snapshot]) -> list[str]:
    """Return the lists and manifests of snapshots that are no longer in the table, which no other one has."""
    gone = list(expired)
    manifests = {manifest.manifest_path for one in gone for manifest in one.manifests(table.io)}
    # Most manifests are still those of the next snapshot, and the others are few: those that were merged.
    for one in sorted(table.metadata.snapshots, key=lambda kept: kept.sequence_number or 0):
        if not manifests:
            break
        manifests -= {manifest.manifest_path for manifest in one.manifests(table.io)}
    return [*sorted(manifests), *(one.manifest_list for one in gone)]
