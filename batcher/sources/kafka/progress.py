"""Where delivery stands for each partition that is ours, and where it has to stop."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from batcher.records import Partition

REJOIN_AFTER_S: Final = 10.0
"""How long a member whose commit was refused may keep the partition: if it really was fenced, two heartbeats of KIP-848
(5 s) tell it so."""


class ReadProgress:
    """Keep, for each partition owned, the offset below which everything there will ever be has been delivered.

    It is the offset after the last record delivered, or the end of the log where that was reached: the last records may
    be control records, or compacted away.
    """

    def __init__(self) -> None:
        self._next: dict[Partition, int] = {}
        # Where each partition ended when it was first assigned, and the partitions that are not there yet.
        self._ends: dict[Partition, int] = {}
        self._unfinished: set[Partition] = set()
        self._refused_at: dict[Partition, float] = {}

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._next

    def __iter__(self) -> Iterator[Partition]:
        return iter(self._next)

    def __len__(self) -> int:
        return len(self._next)

    def __getitem__(self, partition: Partition) -> int:
        return self._next[partition]

    def get(self, partition: Partition, otherwise: int) -> int:
        """Return where a partition stands, or `otherwise` if it is not ours."""
        return self._next.get(partition, otherwise)

    @property
    def positions(self) -> Mapping[Partition, int]:
        """Return a copy of where each partition stands."""
        return dict(self._next)

    @property
    def finished(self) -> bool:
        """Return whether every partition has come to where its log ended when it was first assigned."""
        return not self._unfinished

    def begin(self, partition: Partition, next_offset: int, end: int) -> None:
        """Take over a partition whose log now ends at `end`."""
        self._next[partition] = next_offset
        self._refused_at.pop(partition, None)
        if next_offset < self._ends.setdefault(partition, end):
            self._unfinished.add(partition)

    def advance(self, partition: Partition, next_offset: int) -> None:
        """Note that everything below an offset of an owned partition has been delivered."""
        self._next[partition] = next_offset
        if partition in self._unfinished and next_offset >= self._ends[partition]:
            self._unfinished.discard(partition)

    def forget(self, partitions: Collection[Partition]) -> None:
        """Give partitions up."""
        for partition in partitions:
            self._next.pop(partition, None)
            self._refused_at.pop(partition, None)
        self._unfinished.difference_update(partitions)

    def refused(self, partitions: Collection[Partition], now: float) -> None:
        """Note that the group takes no commits for partitions that it has not taken away yet."""
        for partition in partitions:
            if partition in self._next:
                self._refused_at.setdefault(partition, now)

    def overdue(self, now: float) -> bool:
        """Return whether a partition whose commit was refused should have been taken away by now."""
        return bool(self._refused_at) and now - min(self._refused_at.values()) > REJOIN_AFTER_S
