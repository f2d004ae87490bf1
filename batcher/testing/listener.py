"""What a test of a source needs besides the source: a listener that remembers, and a loop that reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from batcher.protocols import Source
from batcher.records import Partition, Position, Records

FETCH_S = 0.1


class RecordingListener:
    """Remember what a source said. `revoking` is called for partitions while they may still be committed."""

    def __init__(self, revoking: Callable[[Collection[Partition]], None] = lambda _: None) -> None:
        self.revoking = revoking
        self.owned: dict[Partition, Position] = {}
        self.assigned: list[Mapping[Partition, Position]] = []
        self.revoked: list[frozenset[Partition]] = []
        self.lost: list[frozenset[Partition]] = []
        self.refusing: frozenset[Partition] = frozenset()
        """Partitions that are not taken."""

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Remember the positions."""
        self.assigned.append(dict(positions))
        self.owned.update(positions)
        return self.refusing & positions.keys()

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Let the test commit, then forget the partitions."""
        self.revoked.append(frozenset(partitions))
        self.revoking(partitions)
        self._forget(partitions)

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Forget the partitions."""
        self.lost.append(frozenset(partitions))
        self._forget(partitions)

    def _forget(self, partitions: Collection[Partition]) -> None:
        for partition in partitions:
            del self.owned[partition]


def numbered(first: int, count: int) -> list[bytes]:
    """Return values that differ and show their order."""
    return [b"%d" % number for number in range(first, first + count)]


def read_until(source: Source, done: Callable[[Sequence[Records]], bool], timeout_s: float = 30.0) -> list[Records]:
    """Fetch until `done`, given all runs so far, holds; return them. Raise TimeoutError, saying how many came."""
    deadline = time.monotonic() + timeout_s
    runs: list[Records] = []
    while not done(runs):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_s:g} s only {sum(map(len, runs))} records")
        runs += source.fetch(10_000, 1 << 24, FETCH_S)
    return runs


def read(source: Source, count: int, timeout_s: float = 30.0) -> list[Records]:
    """Fetch until at least `count` records came; return the runs."""
    return read_until(source, lambda runs: sum(map(len, runs)) >= count, timeout_s)


def read_for(source: Source, seconds: float) -> list[Records]:
    """Fetch for some time; return what came."""
    deadline = time.monotonic() + seconds
    return read_until(source, lambda _: time.monotonic() >= deadline, seconds + 60)


def offsets(runs: Sequence[Records]) -> dict[Partition, list[int]]:
    """Return the offsets that came from each partition, in the order in which they came."""
    found: dict[Partition, list[int]] = {}
    for run in runs:
        found.setdefault(run.partition, []).extend(run.offsets.to_pylist())
    return found


def values(runs: Sequence[Records]) -> dict[Partition, list[bytes | None]]:
    """Return the values that came from each partition, in the order in which they came."""
    found: dict[Partition, list[bytes | None]] = {}
    for run in runs:
        found.setdefault(run.partition, []).extend(run.values.to_pylist())
    return found
