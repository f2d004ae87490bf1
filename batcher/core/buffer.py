"""The bounded buffer: when a batch is due, what goes into it, and when reading has to pause.

Pure: no thread, no lock, no clock. `now` is an argument, in seconds of any monotonic clock. It is part
of `state.py`.

The age of a batch counts from its first record: a lone record after an idle hour waits `max_wait_s` like any other.
Counted from the last flush it would leave at once, alone. Partitions that were due together wait less the next time,
each another part of `max_wait_s`. After that they are due in turns.

It is long because replays and ordinary batches are cut from the same records, by rules that have to agree.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import pyarrow.compute as pc

from batcher.errors import ConfigurationError
from batcher.records import Batch, Partition, Records, Trigger

RESUME_SHARE: Final = 0.5
"""Reading resumes when this share of the memory is in use. Pausing drops what librdkafka has prefetched. With the same
mark for pausing and resuming, everything would be fetched many times."""

ROOM_AT_ONCE: Final = 8
ROOM_SHARE: Final = 0.25
"""The most lanes, and about the share of the memory, that are sealed together to make room: one commit announces them
all, and they are decoded and written beside each other. One at a time, 256 partitions took half as long again."""

PHASES: Final = 4
"""The number of groups into which partitions are spread that were due at once. One writer serves them one after the
other, and the last is late by all the others. Each group costs a commit of its own, so there are few."""

MAX_BATCH_BYTES: Final = 1 << 30
"""The values of a batch become one Arrow binary array, which addresses 2 GiB; half of it leaves room for the record
that crosses the mark."""


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Say when a batch is due: after a number of rows, bytes of raw records, or seconds since its first record."""

    max_rows: int = 100_000
    max_bytes: int = 24 << 20
    max_wait_s: float = 1.0

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ConfigurationError("--batch.max-rows must be at least 1")
        if not 1 <= self.max_bytes <= MAX_BATCH_BYTES:
            raise ConfigurationError("--batch.max-bytes must be between 1 and 1GiB")
        if not self.max_wait_s > 0:
            raise ConfigurationError("--batch.max-wait must be more than 0; try 1s")


class _Lane:
    """Hold the records that will share a batch, in order of arrival, each run with its time of arrival.

    `share` is what the next batch waits of the policy's time.
    """

    __slots__ = ("arrivals", "asked", "nbytes", "rows", "share")

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self.arrivals: deque[tuple[Records, float]] = deque()
        self.rows = 0
        self.nbytes = 0
        self.asked = 0
        """How many of the first rows are due whatever their age, because that was asked for."""

    @property
    def since(self) -> float:
        return self.arrivals[0][1]

    def add(self, run: Records, now: float) -> None:
        self.arrivals.append((run, now))
        self.rows += len(run)
        self.nbytes += run.nbytes

    def cut(self, max_rows: int, max_bytes: int) -> list[Records]:
        """Remove and return runs from the front: at most `max_rows`, and no other run once `max_bytes` are reached."""
        runs: list[Records] = []
        rows = nbytes = 0
        while self.arrivals and rows < max_rows and nbytes < max_bytes:
            run, arrived = self.arrivals.popleft()
            if rows + len(run) > max_rows:
                head = max_rows - rows
                self.arrivals.appendleft((run.slice(head), arrived))
                run = run.slice(0, head)
            runs.append(run)
            rows += len(run)
            nbytes += run.nbytes
        self.asked = max(self.asked - rows, 0)
        self.recount()
        return runs

    def cut_through(self, last: int) -> list[Records]:
        """Remove and return what has offsets up to `last`; the lane holds one partition."""
        runs: list[Records] = []
        while self.arrivals and self.arrivals[0][0].first_offset <= last:
            run, arrived = self.arrivals.popleft()
            if run.last_offset > last:
                head = pc.less_equal(run.offsets, last).true_count
                self.arrivals.appendleft((run.slice(head), arrived))
                run = run.slice(0, head)
            runs.append(run)
        self.recount()
        return runs

    def recount(self) -> None:
        self.rows = sum(len(run) for run, _ in self.arrivals)
        self.nbytes = sum(run.nbytes for run, _ in self.arrivals)


class _Replay:
    """Hold a partition's records until its announced ranges, which end at `ends`, have been cut out."""

    __slots__ = ("ends", "lane", "reached")

    def __init__(self, ends: Iterable[int]) -> None:
        self.lane = _Lane()
        self.ends = deque(ends)
        self.reached = 0

    @property
    def complete(self) -> bool:
        """Return whether everything of the next range is here."""
        newest = self.lane.arrivals[-1][0].next_offset if self.lane.arrivals else 0
        return max(self.reached, newest) > self.ends[0]

    @property
    def vanished(self) -> bool:
        """Return whether the next range is complete and empty: all its records were compacted away or expired."""
        return self.complete and not (self.lane.arrivals and self.lane.arrivals[0][0].first_offset <= self.ends[0])


class Buffer:
    """Collect records into batches and know how much memory they hold, batches in delivery included.

    With `mixes_partitions` all partitions share one lane, and a batch may hold several. Otherwise each partition has a
    lane of its own, and a batch holds one. A partition with announced ranges (`expect`) has a lane of its own until
    they are cut out. They are cut where they were announced, whatever the policy and the memory say.
    """

    def __init__(self, policy: FlushPolicy, memory_bytes: int, *, mixes_partitions: bool) -> None:
        if memory_bytes < policy.max_bytes:
            raise ConfigurationError(
                f"--batch.memory ({memory_bytes} bytes) must hold at least one batch "
                f"(--batch.max-bytes, {policy.max_bytes} bytes)"
            )
        self.policy = policy
        self.memory_bytes = memory_bytes
        self._mixes_partitions = mixes_partitions
        self._lanes: dict[Partition | None, _Lane] = {}
        self._replays: dict[Partition, _Replay] = {}
        # For partitions that were due at once and have nothing waiting: the share of the wait of their next batch.
        self._shares: dict[Partition | None, float] = {}
        self._taken_bytes = 0
        self._batches = 0
        self._limits = policy
        self._max_bytes = policy.max_bytes
        self._factor = 1
        self.hurried = False
        """Whatever waits is due at once: nothing more comes until something is committed."""

    @property
    def rows(self) -> int:
        """Return the records waiting to be sealed."""
        return sum(lane.rows for lane in self._waiting())

    @property
    def nbytes(self) -> int:
        """Return the bytes held: waiting and in delivery."""
        return self._taken_bytes + sum(lane.nbytes for lane in self._waiting())

    @property
    def replaying(self) -> frozenset[Partition]:
        """Return the partitions of which an announced range is not complete: reading them goes on, full or not."""
        return frozenset(partition for partition, replay in self._replays.items() if not replay.complete)

    @property
    def above_high_watermark(self) -> bool:
        """Return whether reading has to pause."""
        return self.nbytes >= self.memory_bytes

    @property
    def below_low_watermark(self) -> bool:
        """Return whether reading may resume after a pause."""
        return self.nbytes <= self.memory_bytes * RESUME_SHARE

    @property
    def free_bytes(self) -> int:
        """Return the bytes that may still be added."""
        return max(0, self.memory_bytes - self.nbytes)

    def scale(self, factor: int) -> None:
        """Make batches `factor` times the rows, bytes and wait of the policy, as far as the memory goes.

        Half the memory at most, unless the policy says more: while one batch is written the next one gathers.
        """
        self._factor = factor
        most = max(self._max_bytes, min(self.memory_bytes // 2, MAX_BATCH_BYTES))
        self._limits = replace(
            self.policy,
            max_rows=self.policy.max_rows * factor,
            max_bytes=min(self._max_bytes * factor, most),
            max_wait_s=self.policy.max_wait_s * factor,
        )

    def resize(self, memory_bytes: int) -> None:
        """Hold this many bytes from now on: the memory is shared with other buffers, and there are more or fewer.

        A batch takes half of it at most, whatever the policy says: while one is written the next one gathers.
        """
        self.memory_bytes = memory_bytes
        self._max_bytes = min(self.policy.max_bytes, max(1, memory_bytes // 2))
        self.scale(self._factor)

    def age_s(self, now: float) -> float | None:
        """Return how long the oldest record has been waiting; None when there is none."""
        return now - min(arrived) if (arrived := [lane.since for lane in self._waiting()]) else None

    def expect(self, partition: Partition, ends: Collection[int]) -> None:
        """Cut the next records of a partition behind each of these offsets, ascending, as batches to replay."""
        if ends:
            self._replays[partition] = _Replay(ends)

    def reached(self, offsets: Mapping[Partition, int]) -> None:
        """Learn the offsets below which everything there will ever be has been added."""
        for partition, replay in self._replays.items():
            replay.reached = max(replay.reached, offsets.get(partition, 0))

    def skip_vanished(self, now: float) -> list[tuple[Partition, int]]:
        """Drop announced ranges of which no record is left, and return the last offset of each."""
        found = []
        for partition in list(self._replays):
            while (replay := self._replays.get(partition)) is not None and replay.vanished:
                found.append((partition, replay.ends[0]))
                self._next_replay(partition, now)
        return found

    def extend(self, runs: Iterable[Records], now: float) -> None:
        """Add runs, each above what is already there of its partition."""
        for run in runs:
            replay = self._replays.get(run.partition)
            lane = self._lane_of(run.partition) if replay is None else replay.lane
            lane.add(run, now)

    def due_in_s(self, now: float, besides: Collection[Partition] = frozenset()) -> float | None:
        """Return the seconds until the next batch is due: 0.0 when one is, None when nothing is buffered.

        What is of the partitions `besides` is not looked at: batches of theirs are waiting already.
        """
        if any(replay.complete for partition, replay in self._replays.items() if partition not in besides):
            return 0.0
        lanes = self._open(besides)
        if not lanes:
            return None
        if self.hurried or self.above_high_watermark:
            return 0.0
        if any(lane.asked or self._filled(lane) is not None for lane in lanes.values()):
            return 0.0
        return max(0.0, min(map(self._due_at, lanes.values())) - now)

    def take(self, now: float, besides: Collection[Partition] = frozenset()) -> list[Batch]:
        """Seal and return what is due: one batch of each lane, the one that has waited longest first.

        When the buffer is full and none is due (many partitions, each with a little), the largest lanes are sealed.
        Otherwise nothing would ever make room. What is of the partitions `besides` goes on gathering.
        """
        replays = self._take_replays(now, besides)
        if replays:
            return replays
        lanes = self._open(besides)
        due = [(lane.since, key, trigger) for key, lane in lanes.items() if (trigger := self._trigger(lane, now))]
        if not due and self.above_high_watermark and lanes:
            return [self._seal(key, "memory") for key in self._largest(lanes)]
        due.sort(key=lambda found: found[0])
        batches = [self._seal(key, trigger) for _, key, trigger in due]
        self._spread([key for _, key, _ in due])
        return batches

    def take_rest(self, trigger: Trigger, now: float, besides: Collection[Partition] = frozenset()) -> list[Batch]:
        """Seal and return what is left, due or not: one batch of each lane; nothing when nothing is left.

        An announced range that is not complete is dropped: it is written whole or not at all. What is of the partitions
        `besides` stays for the next time.
        """
        replays = self._take_replays(now, besides)
        if replays:
            return replays
        self._replays = {partition: replay for partition, replay in self._replays.items() if replay.complete}
        lanes = self._open(besides)
        return [self._seal(key, trigger) for key in sorted(lanes, key=lambda key: lanes[key].since)]

    def flush(self) -> None:
        """Make everything that waits now due at once."""
        for lane in self._lanes.values():
            lane.asked = lane.rows

    def release(self, batch: Batch) -> None:
        """Count a batch that was taken as gone."""
        self._taken_bytes -= batch.nbytes

    def hold(self, batch: Batch) -> None:
        """Count a batch that is in delivery without having been taken: a part of one that was."""
        self._taken_bytes += batch.nbytes

    def clear(self) -> None:
        """Drop everything that waits."""
        self._lanes.clear()
        self._replays.clear()
        self._shares.clear()

    def forget(self, partitions: Collection[Partition]) -> int:
        """Drop what waits of these partitions and return the number of records."""
        before = self.rows
        for partition in partitions:
            self._replays.pop(partition, None)
            self._shares.pop(partition, None)
        for lane in self._lanes.values():
            lane.arrivals = deque(found for found in lane.arrivals if found[0].partition not in partitions)
            lane.recount()
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.arrivals}
        return before - self.rows

    def _open(self, besides: Collection[Partition]) -> Mapping[Partition | None, _Lane]:
        """Return the lanes from which a batch may be cut while batches of the partitions `besides` wait."""
        if not besides:
            return self._lanes
        return {key: lane for key, lane in self._lanes.items() if key is not None and key not in besides}

    def _largest(self, lanes: Mapping[Partition | None, _Lane]) -> list[Partition | None]:
        """Return the largest lanes: several of about one size, as far as they are needed to make room."""
        room = 0
        keys: list[Partition | None] = []
        for key in heapq.nlargest(ROOM_AT_ONCE, lanes, key=lambda key: lanes[key].nbytes):
            nbytes = lanes[key].nbytes
            if keys and (2 * nbytes < lanes[keys[0]].nbytes or room + nbytes > self.memory_bytes * ROOM_SHARE):
                break
            keys.append(key)
            room += nbytes
        return keys

    def _waiting(self) -> list[_Lane]:
        return [*self._lanes.values(), *(replay.lane for replay in self._replays.values() if replay.lane.arrivals)]

    def _lane_of(self, partition: Partition) -> _Lane:
        key = None if self._mixes_partitions else partition
        if (lane := self._lanes.get(key)) is None:
            lane = self._lanes[key] = _Lane(self._shares.pop(key, 1.0))
        return lane

    def _due_at(self, lane: _Lane) -> float:
        return lane.since + self._limits.max_wait_s * lane.share

    def _spread(self, keys: Collection[Partition | None]) -> None:
        """Let lanes that were due at once wait for a part of the time, once. From then on they are due in turns."""
        phases = min(len(keys), PHASES)
        for number, key in enumerate(keys):
            share = (number * phases // len(keys) + 1) / phases
            if (lane := self._lanes.get(key)) is not None:
                lane.share = share
            elif share < 1.0:
                self._shares[key] = share

    def _filled(self, lane: _Lane) -> Trigger | None:
        if lane.rows >= self._limits.max_rows:
            return "rows"
        return "bytes" if lane.nbytes >= self._limits.max_bytes else None

    def _trigger(self, lane: _Lane, now: float) -> Trigger | None:
        if filled := self._filled(lane):
            return filled
        if now >= self._due_at(lane):
            return "age"
        return "saturated" if self.hurried else "asked" if lane.asked else None

    def _take_replays(self, now: float, besides: Collection[Partition]) -> list[Batch]:
        found = []
        for partition, replay in list(self._replays.items()):
            if replay.complete and partition not in besides:
                found.append(self._sealed(replay.lane.cut_through(replay.ends[0]), "range"))
                self._next_replay(partition, now)
        return found

    def _next_replay(self, partition: Partition, now: float) -> None:
        """Go on to the next announced range, or back to ordinary batches with what was read beyond the last."""
        replay = self._replays[partition]
        replay.ends.popleft()
        if not replay.ends:
            del self._replays[partition]
            for run, _ in replay.lane.arrivals:
                self._lane_of(partition).add(run, now)

    def _seal(self, key: Partition | None, trigger: Trigger) -> Batch:
        lane = self._lanes[key]
        runs = lane.cut(self._limits.max_rows, self._limits.max_bytes)
        if not lane.arrivals:
            del self._lanes[key]
        return self._sealed(runs, trigger)

    def _sealed(self, runs: Iterable[Records], trigger: Trigger) -> Batch:
        self._batches += 1
        batch = Batch(tuple(runs), trigger, self._batches, replayed=trigger == "range")
        self._taken_bytes += batch.nbytes
        return batch
