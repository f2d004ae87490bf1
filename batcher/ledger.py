"""The commit law: an offset is committed only when everything read below it is durable, once, and never back.

Pure state for each partition; the only place that says which position to commit. The flusher asks it,
the consumer thread carries the commit out (`exchange.py` guards both).

    read ≥ sealed ≥ durable ≥ committed            of one ownership (epoch) of one partition

Every assignment starts a new epoch. What a batch achieved in an earlier epoch is never committed in a later one:
in between, the partition may have been somebody else's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from batcher.errors import BatcherError
from batcher.records import Batch, Partition, Position, Records


class LawBroken(BatcherError):
    """Report a bug: the pipeline was about to lose or repeat records. Names the range, no payload."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Hold a batch that was begun, with the epoch of each of its partitions at that moment."""

    batch: Batch
    epochs: Mapping[Partition, int]


@dataclass(slots=True)
class _Account:
    epoch: int
    read: int
    sealed: int
    durable: int
    committed: int


class Ledger:
    """Keep the account of each owned partition. All positions are next offsets."""

    def __init__(self) -> None:
        self._accounts: dict[Partition, _Account] = {}
        self._epochs = 0

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions that are ours now."""
        return frozenset(self._accounts)

    @property
    def uncommitted(self) -> int:
        """Return how many offsets lie between what was read and what is committed: read again after a crash.

        Counts offsets, so gaps in the log count too.
        """
        return sum(account.read - account.committed for account in self._accounts.values())

    def read(self) -> Mapping[Partition, int]:
        """Return the next offset to read of each owned partition."""
        return {partition: account.read for partition, account in self._accounts.items()}

    def committed(self) -> Mapping[Partition, int]:
        """Return the committed next offset of each owned partition."""
        return {partition: account.committed for partition, account in self._accounts.items()}

    def assign(self, positions: Mapping[Partition, Position]) -> None:
        """Open a new epoch for partitions that were given to us, reading from `positions`."""
        self._epochs += 1
        for partition, position in positions.items():
            start = position.next_offset
            self._accounts[partition] = _Account(self._epochs, start, start, start, start)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Close the accounts of partitions that are no longer ours."""
        for partition in partitions:
            self._accounts.pop(partition, None)

    def admit(self, run: Records) -> Records | None:
        """Return the part of a fetched run that is new, or None; foreign partitions have none.

        Records below the position already read are dropped: they come again after a seek and would be written twice.
        """
        account = self._accounts.get(run.partition)
        if account is None or run.last_offset < account.read:
            return None
        if run.first_offset < account.read:
            offsets = run.offsets.to_pylist()
            run = run.slice(next(i for i, offset in enumerate(offsets) if offset >= account.read))
        account.read = run.next_offset
        return run

    def begin(self, batch: Batch) -> Receipt:
        """Note that a batch is being delivered. Raise LawBroken if it repeats or overtakes what was sealed."""
        epochs = {}
        for span in batch.ranges:
            account = self._accounts.get(span.partition)
            if account is None:
                raise LawBroken(f"sealed {span}, which is not ours; please report this")
            if span.first < account.sealed:
                raise LawBroken(f"sealed {span}, which begins below {account.sealed}; please report this")
            epochs[span.partition] = account.epoch
        for partition, next_offset in batch.next_offsets.items():
            self._accounts[partition].sealed = next_offset
        return Receipt(batch, epochs)

    def finish(self, receipt: Receipt) -> None:
        """Note that a batch is durable, except for partitions that were lost meanwhile."""
        for partition, position in self.due(receipt).items():
            self._accounts[partition].durable = position.next_offset

    def due(self, receipt: Receipt) -> Mapping[Partition, Position]:
        """Return what a batch entitles us to commit: nothing for partitions that changed hands since it was begun."""
        return {
            partition: Position(next_offset)
            for partition, next_offset in receipt.batch.next_offsets.items()
            if (account := self._accounts.get(partition)) is not None and account.epoch == receipt.epochs[partition]
        }

    def commit(self, positions: Mapping[Partition, Position]) -> None:
        """Note that positions were committed. Raise LawBroken if one goes back or beyond what is durable."""
        for partition, position in positions.items():
            account = self._accounts[partition]
            if not account.committed <= position.next_offset <= account.durable:
                raise LawBroken(
                    f"committed {position.next_offset} of {partition}, outside "
                    f"{account.committed}-{account.durable}; please report this"
                )
            account.committed = position.next_offset


def token(name: str, batch: Batch) -> str:
    """Return the token of a batch: the same for the same ranges in every process, no clock and no attempt in it.

    It holds the timestamp of the first record because a topic deleted and made anew has the same name and
    offsets: ClickHouse would silently drop its rows as repeats. Several partitions are hashed to
    keep it short.
    """
    parts = [
        f"{run.partition.topic}|{run.partition.number}|{run.first_offset}-{run.last_offset}|{_first_ms(run)}"
        for run in batch.runs
    ]
    if len(parts) == 1:
        return f"{name}|{parts[0]}"
    return f"{name}|{len(parts)} partitions|{hashlib.sha256(';'.join(parts).encode()).hexdigest()[:32]}"


def _first_ms(run: Records) -> int | None:
    milliseconds: int | None = run.timestamps_ms[0].as_py()
    return milliseconds
