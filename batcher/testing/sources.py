"""A log in memory and a source that reads it, with the rebalances, gaps and refusals of a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from batcher.errors import BatcherError, CommitRefused, DataGap
from batcher.protocols import PartitionListener, SourceInfo
from batcher.records import Partition, Position, Records
from batcher.sources.appetite import Appetite
from batcher.testing.values import make_records

CommitHook = Callable[[Mapping[Partition, Position]], None]


class MemoryLog:
    """Keep records and the group's committed positions, which survive a crash of every reader.

    `owners` says which source owns a partition now; a commit by any other is refused, as a broker with generations
    would. `before_commit` and `after_commit` are called with the positions of a commit, before any is stored and after
    those not refused are. What they raise comes out of `MemorySource.commit`, as a crash there would.
    """

    def __init__(self, partitions: Collection[Partition]) -> None:
        self.runs: dict[Partition, list[Records]] = {partition: [] for partition in partitions}
        self.committed: dict[Partition, Position] = {}
        self.history: list[tuple[Partition, Position]] = []
        self.trespasses: list[tuple[Partition, Position]] = []
        """Commits for partitions that the reader knew to be lost, or that it had not taken."""
        self.owners: dict[Partition, MemorySource] = {}
        self.arrived = threading.Condition()
        self.before_commit: CommitHook = lambda _: None
        self.after_commit: CommitHook = lambda _: None
        self._starts: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}

    def produce(self, partition: Partition, values: Sequence[bytes | str | None], *, gap: int = 0) -> range:
        """Append records, after a gap of offsets if asked, and return their offsets.

        A gap and no values make an end that is not for readers, as an aborted transaction does.
        """
        with self.arrived:
            first = self.end(partition) + gap
            if values:
                self.runs[partition].append(make_records(values, partition=partition, first_offset=first))
            self._ends[partition] = first + len(values)
            self.arrived.notify_all()
            return range(first, first + len(values))

    def compact(self, partition: Partition, offsets: Collection[int]) -> None:
        """Remove records, as the cleaner of a compacted topic does; the log's end stays where it is."""
        with self.arrived:
            self._keep(partition, lambda found: pc.invert(pc.is_in(found, pa.array(sorted(offsets), pa.int64()))))
            self.arrived.notify_all()

    def expire(self, partition: Partition, below: int) -> None:
        """Remove every record below an offset, as retention does: a reader that has not seen them has a gap."""
        with self.arrived:
            self._keep(partition, lambda found: pc.greater_equal(found, below))
            self._starts[partition] = max(self.start(partition), min(below, self.end(partition)))
            self.arrived.notify_all()

    def start(self, partition: Partition) -> int:
        """Return the first offset that has not expired."""
        return self._starts.get(partition, 0)

    def end(self, partition: Partition) -> int:
        """Return the offset the next record would get."""
        return self._ends.get(partition, 0)

    def _keep(self, partition: Partition, wanted: Callable[[pa.Int64Array], pa.BooleanArray]) -> None:
        kept = [run.filter(wanted(run.offsets)) for run in self.runs[partition]]
        self.runs[partition] = [run for run in kept if run is not None]


class MemorySource:
    """Read a MemoryLog. Rebalances are asked for from outside and happen inside the next `fetch`.

    With `waits` False an empty fetch returns at once, for tests that step by hand. `on_gap` says what to do where
    records expired before they were read: raise DataGap, from then on at every fetch, or go on after them.
    """

    def __init__(
        self,
        log: MemoryLog,
        *,
        until_eof: bool = False,
        partitions: Collection[Partition] | None = None,
        waits: bool = True,
        on_gap: Literal["halt", "skip"] = "halt",
    ) -> None:
        self.log = log
        self._until_eof = until_eof
        self._waits = waits
        self._on_gap = on_gap
        self._wanted = tuple(log.runs if partitions is None else partitions)
        self._listener: PartitionListener | None = None
        self._positions: dict[Partition, int] = {}
        self._untaken: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._pending: list[Callable[[], None]] = []
        self._assigned_once = False
        self._failure: BatcherError | None = None
        self._appetite = Appetite()
        self._descending = True

    @property
    def owned(self) -> frozenset[Partition]:
        """Return the partitions this source reads now."""
        return frozenset(self._positions)

    @property
    def untaken(self) -> frozenset[Partition]:
        """Return the partitions that are assigned to this source and that its listener did not take."""
        return frozenset(self._untaken)

    @property
    def paused(self) -> frozenset[Partition]:
        """Return the partitions that deliver nothing now."""
        return frozenset(self._paused | self._untaken)

    def assign(self, partitions: Collection[Partition]) -> None:
        """Give partitions to this source in its next `fetch`."""
        self._pending.append(lambda: self._assign(partitions))

    def revoke(self, partitions: Collection[Partition]) -> None:
        """Take partitions away in the next `fetch`, in good order: commits are accepted until the listener returns."""
        self._pending.append(lambda: self._revoke(partitions))

    def lose(self, partitions: Collection[Partition]) -> None:
        """Take partitions away at once; the listener hears of it in the next `fetch`."""
        self._disown(partitions)
        self._pending.append(lambda: self._lose(partitions))

    def open(self, listener: PartitionListener) -> SourceInfo:
        """Remember the listener; the partitions come with the first `fetch`."""
        self._listener = listener
        self._pending.insert(0, lambda: self._assign(self._wanted))
        topics = tuple(sorted({partition.topic for partition in self._wanted}))
        return SourceInfo(keeps_intents=True, reason="", capabilities=frozenset({"offer"}), topics=topics)

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        """Return what is there, waiting for it when nothing is."""
        if self._failure is not None:
            raise self._failure
        try:
            pending, self._pending = self._pending, []
            for rebalance in pending:
                rebalance()
            wanted = self._appetite.records(max_records, max_bytes)
            found = self._read(wanted)
            if not found and self._waits:
                with self.log.arrived:
                    self.log.arrived.wait(timeout_s)
                found = self._read(wanted)
        except DataGap as gap:
            self._failure = gap
            raise
        return found

    def pause(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing from these."""
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        """Deliver from these again, if the listener took them."""
        self._paused -= set(partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Store positions of owned partitions; refuse all others, unless exactly the same is stored already.

        That is what a source that reads its commits back to prove them cannot tell from a success.
        """
        del timeout_s
        self.log.before_commit(positions)
        self.log.trespasses += [(part, at) for part, at in positions.items() if part not in self._positions]
        refused = {
            part: "not the owner"
            for part, at in positions.items()
            if (self.log.owners.get(part) is not self or part in self._untaken) and self.log.committed.get(part) != at
        }
        for partition, position in positions.items():
            if partition not in refused and self.log.owners.get(partition) is self:
                self.log.committed[partition] = position
                self.log.history.append((partition, position))
        self.log.after_commit(positions)
        if refused:
            raise CommitRefused(refused)

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Return how far each partition was read: up to the log's end where nothing more is there."""
        return {partition: self._reached(partition) for partition in self._positions}

    @property
    def exhausted(self) -> bool:
        """Return whether all that was there at the assignment has been returned."""
        return (
            self._until_eof
            and self._assigned_once
            and all(self._reached(part) >= self._ends[part] for part in self._positions)
        )

    def offer(self, partitions: Collection[Partition]) -> None:
        """Give partitions to the listener again that it did not take."""
        ours = [part for part in partitions if part in self._untaken]
        if ours:
            self._assign(ours)

    def ignore(self, partitions: Collection[Partition]) -> None:
        """Deliver nothing more from these."""
        for partition in partitions:
            if self._positions.pop(partition, None) is not None:
                self._untaken.add(partition)

    def close(self) -> None:
        """Give everything up in good order."""
        if self._positions or self._untaken:
            self._revoke((*self._positions, *self._untaken))

    def _assign(self, partitions: Collection[Partition]) -> None:
        assert self._listener is not None
        positions = {
            partition: self._inside(partition, self.log.committed.get(partition, Position(self.log.start(partition))))
            for partition in partitions
        }
        for partition, position in positions.items():
            self.log.owners[partition] = self
            self._positions[partition] = position.next_offset
            self._ends.setdefault(partition, self.log.end(partition))
            self._paused.discard(partition)
            self._untaken.discard(partition)
        self._assigned_once = True
        for partition in self._listener.on_assigned(positions):
            del self._positions[partition]
            self._untaken.add(partition)

    def _revoke(self, partitions: Collection[Partition]) -> None:
        self._give_up(partitions, lost=False)

    def _lose(self, partitions: Collection[Partition]) -> None:
        self._give_up(partitions, lost=True)

    def _give_up(self, partitions: Collection[Partition], *, lost: bool) -> None:
        assert self._listener is not None
        ours = [partition for partition in partitions if partition in self._positions]
        if ours:
            (self._listener.on_lost if lost else self._listener.on_revoked)(ours)
        untaken = self._untaken & set(partitions)
        for partition in ours:
            self._positions.pop(partition)
        self._untaken -= untaken
        self._disown([*ours, *untaken])

    def _disown(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            if self.log.owners.get(partition) is self:
                del self.log.owners[partition]

    def _inside(self, partition: Partition, position: Position) -> Position:
        start = self.log.start(partition)
        if position.next_offset >= start:
            return position
        if self._on_gap == "halt":
            missing = f"{position.next_offset}-{start - 1} ({start - position.next_offset})"
            raise DataGap(f"{partition}: offsets {missing} expired before they were read")
        return position._replace(next_offset=start)

    def _reached(self, partition: Partition) -> int:
        position, runs = self._positions[partition], self.log.runs[partition]
        more = bool(runs) and runs[-1].next_offset > position
        return position if more else max(position, self.log.end(partition))

    def _read(self, max_records: int) -> list[Records]:
        found: list[Records] = []
        # No source has to deliver its partitions in an order. Every other time it is descending here.
        self._descending = not self._descending
        for partition in sorted(self._positions, reverse=self._descending):
            if partition in self._paused:
                continue
            position = self._inside(partition, Position(self._positions[partition])).next_offset
            self._positions[partition] = position
            for run in self.log.runs[partition]:
                position = self._positions[partition]
                if run.next_offset <= position or max_records == 0:
                    continue
                offsets = run.offsets.to_pylist()
                start = next(i for i, offset in enumerate(offsets) if offset >= position)
                piece = run.slice(start, min(max_records, len(run) - start))
                found.append(piece)
                self._appetite.learn(piece)
                max_records -= len(piece)
                self._positions[partition] = piece.next_offset
        return found
