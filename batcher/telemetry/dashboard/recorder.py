"""Remember the last batches, the last failures and the ages of records: a subscriber of `events.Events`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from batcher.records import Batch, Delivered
from batcher.telemetry.dashboard.ages import Ages
from batcher.telemetry.events import BatchWritten, CommitAnswered, Event, Rebalanced, WriteRetried

BATCHES: Final = 30
TROUBLES: Final = 30
RUNS_ASKED: Final = 64
"""Of so many runs of a batch the timestamps are looked at: a batch of small fetches has hundreds."""


class Recorder:
    """Remember what happened last. Events come from several threads; `taken` is called by the feed."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._batches: deque[Mapping[str, Any]] = deque(maxlen=BATCHES)
        self._troubles: deque[dict[str, Any]] = deque(maxlen=TROUBLES)
        self._ages = Ages()

    def __call__(self, event: Event) -> None:
        """Remember an event."""
        match event:
            case BatchWritten(batch, delivered, target):
                self._written(batch, delivered, target)
            case WriteRetried(error, target):
                self._trouble(type(error).__name__, str(error), target)
            case CommitAnswered(outcome) if outcome != "ok":
                self._trouble("commit", f"a commit was {outcome}", "")
            case Rebalanced("lost"):
                self._trouble("rebalance", "partitions were lost: the group went on without this process", "")
            case _:
                pass

    def taken(self) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]], Mapping[int, float]]:
        """Return the last batches and troubles, the newest first, and the ages since the last call."""
        with self._lock:
            ages, self._ages = self._ages, Ages()
            return list(self._batches), [dict(one) for one in self._troubles], ages.counts

    def _written(self, batch: Batch, delivered: Delivered, target: str) -> None:
        now = self._clock()
        ages = list(_ages(batch, now))
        ranges = batch.ranges
        with self._lock:
            for age_s, records in ages:
                self._ages.add(age_s, records)
            self._batches.appendleft(
                {
                    "at": round(now, 3),
                    "number": batch.number,
                    "trigger": batch.trigger,
                    "replayed": batch.replayed,
                    "rows": delivered.rows,
                    "bytes": delivered.nbytes,
                    "written": delivered.written,
                    "dead_lettered": delivered.dead_lettered,
                    "decode_s": round(max(delivered.decode_s - delivered.transform_s, 0.0), 4),
                    "transform_s": round(delivered.transform_s, 4),
                    "write_s": round(delivered.write_s, 4),
                    "range": f"{ranges[0]}{f' and {len(ranges) - 1} more' if len(ranges) > 1 else ''}",
                    "target": target,
                }
            )

    def _trouble(self, kind: str, message: str, target: str) -> None:
        now = round(self._clock(), 3)
        with self._lock:
            last = self._troubles[0] if self._troubles else None
            if last is not None and (last["kind"], last["message"], last["target"]) == (kind, message, target):
                last["times"] += 1
                last["at"] = now
                return
            one = {"at": now, "since": now, "kind": kind, "message": message, "target": target, "times": 1}
            self._troubles.appendleft(one)


def _ages(batch: Batch, now: float) -> list[tuple[float, float]]:
    """Return ages with the number of records they stand for: three of each run, whose times ascend but for jitter."""
    runs = batch.runs
    asked = runs[:: max(1, len(runs) // RUNS_ASKED)]
    found = []
    for run in asked:
        times = run.timestamps_ms
        for row in sorted({0, len(times) // 2, len(times) - 1}):
            time_ms = times[row].as_py()
            if time_ms is not None:
                found.append((now - time_ms / 1000, len(times) / 3))
    return found
