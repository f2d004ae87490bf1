"""A log in memory and a source that reads it, with the rebalances and refusals of the real thing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from batcher.errors import CommitRefused, Unreachable
from batcher.protocols import PartitionListener
from batcher.records import Partition, Position, Records
from batcher.testing.values import make_records


class MemoryLog:
    """Keep records and the group's committed positions: what survives a crash of every reader.

    `owners` says which source owns a partition now; a commit by anybody else is refused, as a broker with
    generations would.
    """

    def __init__(self, partitions: Collection[Partition]) -> None:
        self.runs: dict[Partition, list[Records]] = {partition: [] for partition in partitions}
        self.committed: dict[Partition, Position] = {}
        self.history: list[tuple[Partition, Position]] = []
        self.trespasses: list[tuple[Partition, Position]] = []
        """Commits for partitions that the reader had already been told to be foreign."""
        self.owners: dict[Partition, MemorySource] = {}
        self.arrived = threading.Condition()

    def produce(self, partition: Partition, values: Sequence[bytes | str | None], *, gap: int = 0) -> range:
        """Append records, after a gap of offsets if asked, and return their offsets."""
        with self.arrived:
            first = self.end(partition) + gap
            self.runs[partition].append(make_records(values, partition=partition, first_offset=first))
            self.arrived.notify_all()
            return range(first, first + len(values))

    def end(self, partition: Partition) -> int:
        """Return the offset the next record would get."""
        runs = self.runs[partition]
        return runs[-1].next_offset if runs else 0


class MemorySource:
    """Read a MemoryLog. Rebalances are asked for from outside and happen inside the next `fetch`.

    With `waits` False an empty fetch returns at once, for tests that step by hand.
    """

    def __init__(
        self,
        log: MemoryLog,
        *,
        until_eof: bool = False,
        partitions: Collection[Partition] | None = None,
        waits: bool = True,
    ) -> None:
        self.log = log
        self.unreachable = False
        self._until_eof = until_eof
        self._waits = waits
        self._wanted = tuple(log.runs if partitions is None else partitions)
        self._listener: PartitionListener | None = None
        self._positions: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._pending: list[Callable[[], None]] = []
        self._assigned_once = False

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions this source reads now."""
        return frozenset(self._positions)

    @property
    def paused(self) -> frozenset[Partition]:
        """Return the partitions that deliver nothing now."""
        return frozenset(self._paused)

    def assign(self, partitions: Collection[Partition]) -> None:
        """Give partitions to this source in its next `fetch`."""
        self._pending.append(lambda: self._assign(partitions))

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Take partitions away in the next `fetch`, politely: commits are accepted until the listener returns."""
        self._pending.append(lambda: self._revoke(partitions))

    def lose(self, partitions: Collection[Partition]) -> None:
        """Take partitions away at once; the listener hears of it in the next `fetch`."""
        for partition in partitions:
            if self.log.owners.get(partition) is self:
                del self.log.owners[partition]
        self._pending.append(lambda: self._lose(partitions))

    def open(self, listener: PartitionListener) -> None:
        """Remember the listener; the partitions come with the first `fetch`."""
        if self.unreachable:
            raise Unreachable("memory log does not answer")
        self._listener = listener
        self._pending.insert(0, lambda: self._assign(self._wanted))

    def fetch(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        """Return what is there, waiting for it when nothing is."""
        pending, self._pending = self._pending, []
        for rebalance in pending:
            rebalance()
        found = self._read(max_records)
        if not found and self._waits:
            with self.log.arrived:
                self.log.arrived.wait(timeout_s)
            found = self._read(max_records)
        return found

    def pause(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing from these."""
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        """Deliver from these again."""
        self._paused -= set(partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Store positions of owned partitions; refuse all others."""
        del timeout_s
        self.log.trespasses += [(part, at) for part, at in positions.items() if part not in self._positions]
        refused = {part: "not the owner" for part in positions if self.log.owners.get(part) is not self}
        for partition, position in positions.items():
            if partition not in refused:
                self.log.committed[partition] = position
                self.log.history.append((partition, position))
        if refused:
            raise CommitRefused(refused)

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Return how far each partition was read."""
        return dict(self._positions)

    @property
    def exhausted(self) -> bool:
        """Tell whether all that was there at the assignment has been returned."""
        return (
            self._until_eof
            and self._assigned_once
            and all(self._positions[part] >= self._ends[part] for part in self._positions)
        )

    def close(self) -> None:
        """Give everything up, politely."""
        if self._positions:
            self._revoke(tuple(self._positions))

    def _assign(self, partitions: Collection[Partition]) -> None:
        assert self._listener is not None
        positions = {}
        for partition in partitions:
            position = self.log.committed.get(partition, Position(0))
            self.log.owners[partition] = self
            self._positions[partition] = position.next_offset
            self._ends.setdefault(partition, self.log.end(partition))
            self._paused.discard(partition)
            positions[partition] = position
        self._assigned_once = True
        self._listener.on_assigned(positions)

    def _revoke(self, partitions: Collection[Partition]) -> None:
        assert self._listener is not None
        ours = [partition for partition in partitions if partition in self._positions]
        self._listener.on_revoked(ours)
        self._drop(ours)

    def _lose(self, partitions: Collection[Partition]) -> None:
        assert self._listener is not None
        ours = [partition for partition in partitions if partition in self._positions]
        self._listener.on_lost(ours)
        self._drop(ours)

    def _drop(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            self._positions.pop(partition)
            if self.log.owners.get(partition) is self:
                del self.log.owners[partition]

    def _read(self, max_records: int) -> list[Records]:
        found: list[Records] = []
        for partition in sorted(self._positions):
            if partition in self._paused:
                continue
            for run in self.log.runs[partition]:
                position = self._positions[partition]
                if run.next_offset <= position or max_records == 0:
                    continue
                offsets = run.offsets.to_pylist()
                start = next(i for i, offset in enumerate(offsets) if offset >= position)
                piece = run.slice(start, min(max_records, len(run) - start))
                found.append(piece)
                max_records -= len(piece)
                self._positions[partition] = piece.next_offset
        return found
