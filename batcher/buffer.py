"""The bounded buffer: when a batch is due, what goes into it, and when reading has to pause.

Pure: no thread, no lock, no clock. `now` is an argument, in seconds of any monotonic clock. The caller
(`exchange.py`) guards it.

The age of a batch counts from its first record, so that a lone record after an idle hour waits
`max_wait_s` like any other; counted from the last flush it would leave at once, alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from batcher.errors import ConfigurationError
from batcher.records import Batch, Partition, Records, Trigger, merged

RESUME_SHARE: Final = 0.5
"""Reading resumes when this share of the memory is in use. Pausing drops what librdkafka has prefetched, so
pausing and resuming around one and the same mark would fetch everything many times."""

MAX_BATCH_BYTES: Final = 1 << 30
"""The values of a batch become one Arrow binary array, which addresses 2 GiB; half of it leaves room for the record
that crosses the mark."""


@dataclass(frozen=True, slots=True)
class FlushPolicy:
    """Say when a batch is due: at so many rows, bytes of raw records, or seconds after its first record."""

    max_rows: int = 100_000
    max_bytes: int = 64 << 20
    max_wait_s: float = 1.0

    def __post_init__(self) -> None:
        if self.max_rows < 1:
            raise ConfigurationError("--batch.max-rows must be at least 1")
        if not 1 <= self.max_bytes <= MAX_BATCH_BYTES:
            raise ConfigurationError("--batch.max-bytes must be between 1 and 1GiB")
        if not self.max_wait_s > 0:
            raise ConfigurationError("--batch.max-wait must be more than 0; try 1s")


class _Lane:
    """Hold the records that will share a batch, in order of arrival, each run with its time of arrival."""

    __slots__ = ("arrivals", "nbytes", "rows")

    def __init__(self) -> None:
        self.arrivals: deque[tuple[Records, float]] = deque()
        self.rows = 0
        self.nbytes = 0

    @property
    def since(self) -> float:
        return self.arrivals[0][1]

    def add(self, run: Records, now: float) -> None:
        self.arrivals.append((run, now))
        self.rows += len(run)
        self.nbytes += run.nbytes

    def cut(self, max_rows: int, max_bytes: int) -> list[Records]:
        """Remove and return runs from the front: at most `max_rows`, and no run more once `max_bytes` are reached."""
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
        self.recount()
        return runs

    def recount(self) -> None:
        self.rows = sum(len(run) for run, _ in self.arrivals)
        self.nbytes = sum(run.nbytes for run, _ in self.arrivals)


class BoundedBuffer:
    """Collect records into batches and know how much memory they hold, batches in delivery included.

    With `mixes_partitions` all partitions share one lane and a batch may hold several; otherwise each
    partition has a lane of its own and a batch holds one.
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
        self._taken_bytes = 0
        self._batches = 0

    @property
    def rows(self) -> int:
        """Return the records waiting to be sealed."""
        return sum(lane.rows for lane in self._lanes.values())

    @property
    def nbytes(self) -> int:
        """Return the bytes held: waiting and in delivery."""
        return self._taken_bytes + sum(lane.nbytes for lane in self._lanes.values())

    @property
    def full(self) -> bool:
        """Tell whether reading has to pause."""
        return self.nbytes >= self.memory_bytes

    @property
    def roomy(self) -> bool:
        """Tell whether reading may resume after a pause."""
        return self.nbytes <= self.memory_bytes * RESUME_SHARE

    @property
    def room_bytes(self) -> int:
        """Return the bytes that may still be added."""
        return max(0, self.memory_bytes - self.nbytes)

    def age_s(self, now: float) -> float | None:
        """Return how long the oldest record has been waiting; None when there is none."""
        return now - min(lane.since for lane in self._lanes.values()) if self._lanes else None

    def extend(self, runs: Iterable[Records], now: float) -> None:
        """Add runs, each above what is already there of its partition."""
        for run in runs:
            key = None if self._mixes_partitions else run.partition
            self._lanes.setdefault(key, _Lane()).add(run, now)

    def due_in_s(self, now: float) -> float | None:
        """Return the seconds until the next batch is due: 0.0 when one is, None when nothing is buffered."""
        if not self._lanes:
            return None
        if self.full or any(self._filled(lane) is not None for lane in self._lanes.values()):
            return 0.0
        return max(0.0, min(lane.since for lane in self._lanes.values()) + self.policy.max_wait_s - now)

    def take(self, now: float) -> Batch | None:
        """Seal and return the due batch whose first record has waited longest; None when none is due.

        When the buffer is full and none is due (many partitions, each with a little), the largest
        lane is: otherwise nothing would ever make room.
        """
        due = [(lane.since, key, trigger) for key, lane in self._lanes.items() if (trigger := self._trigger(lane, now))]
        if due:
            _, key, trigger = min(due, key=lambda found: found[0])
            return self._seal(key, trigger)
        if self.full and self._lanes:
            return self._seal(max(self._lanes, key=lambda key: self._lanes[key].nbytes), "memory")
        return None

    def take_rest(self, trigger: Trigger) -> Batch | None:
        """Seal and return the oldest records whether due or not; None when nothing is left."""
        if not self._lanes:
            return None
        return self._seal(min(self._lanes, key=lambda key: self._lanes[key].since), trigger)

    def release(self, batch: Batch) -> None:
        """Count a batch that was taken as gone."""
        self._taken_bytes -= batch.nbytes

    def clear(self) -> None:
        """Drop everything that waits."""
        self._lanes.clear()

    def forget(self, partitions: Collection[Partition]) -> int:
        """Drop what waits of these partitions and return the number of records."""
        before = self.rows
        for lane in self._lanes.values():
            lane.arrivals = deque(found for found in lane.arrivals if found[0].partition not in partitions)
            lane.recount()
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.arrivals}
        return before - self.rows

    def _filled(self, lane: _Lane) -> Trigger | None:
        if lane.rows >= self.policy.max_rows:
            return "rows"
        return "bytes" if lane.nbytes >= self.policy.max_bytes else None

    def _trigger(self, lane: _Lane, now: float) -> Trigger | None:
        return self._filled(lane) or ("age" if now - lane.since >= self.policy.max_wait_s else None)

    def _seal(self, key: Partition | None, trigger: Trigger) -> Batch:
        lane = self._lanes[key]
        runs = lane.cut(self.policy.max_rows, self.policy.max_bytes)
        if not lane.arrivals:
            del self._lanes[key]
        self._batches += 1
        batch = Batch(merged(runs), trigger, self._batches)
        self._taken_bytes += batch.nbytes
        return batch
