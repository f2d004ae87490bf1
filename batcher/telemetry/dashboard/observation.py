"""One moment of a process as plain data: what the page shows, and what a worker tells its parent once a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from batcher.records import Partition
from batcher.telemetry.dashboard.recorder import Recorder
from batcher.telemetry.dashboard.urgent import most_urgent
from batcher.telemetry.status import InFlight, PartitionStatus, Status

Observation = Mapping[str, Any]

MOST_NAMES: Final = 50
"""Fields and reasons that are sent, the most frequent ones."""

MOST_TEXT: Final = 2000
"""Characters of a reason or message that are sent: a server may answer with pages."""

_STATM: Final = Path("/proc/self/statm")


class Observer:
    """Observe a pipeline. One thread calls it, about once a second; it changes nothing."""

    def __init__(
        self,
        status: Callable[[], Status],
        recorder: Recorder,
        letters: Callable[[], Sequence[Mapping[str, Any]]] = lambda: (),
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._recorder = recorder
        self._letters = letters
        self._clock = clock
        self._elapsed = elapsed
        self._before: tuple[float, Mapping[Partition, int | None]] = (0.0, {})

    def __call__(self) -> Observation:
        """Return this moment."""
        status = self._status()
        batches, troubles, ages = self._recorder.taken()
        slim = replace(status, partitions={}, in_flight=_slim(status.in_flight))
        facts = slim.to_dict()
        return {
            **facts,
            "at": round(self._clock(), 3),
            "pid": os.getpid(),
            "lag": _sum(one.lag for one in status.partitions.values()),
            "partitions": self._partitions(status),
            "partition_count": len(status.partitions),
            "stopped_count": sum(bool(one.stopped) for one in status.partitions.values()),
            "paused_count": sum(one.paused for one in status.partitions.values()),
            "last_error": _shortened(facts["last_error"]),
            "dead_letter_reasons": dict(list(status.dead_letter_reasons.items())[:MOST_NAMES]),
            "unknown_fields": dict(list(status.unknown_fields.items())[:MOST_NAMES]),
            "columns_without_value": list(status.columns_without_value[:MOST_NAMES]),
            "batches": batches,
            "troubles": [_shortened(one) for one in troubles],
            "ages": {str(step): records for step, records in ages.items()},
            "letters": [_shortened(one) for one in self._letters()],
            "rss_bytes": memory_bytes(),
        }

    def _partitions(self, status: Status) -> list[Mapping[str, Any]]:
        then, before = self._before
        now = self._elapsed()
        self._before = now, {part: one.next_offset for part, one in status.partitions.items()}
        flying = {span.partition for span in status.in_flight.ranges} if status.in_flight else set()
        return most_urgent(
            {
                "topic": part.topic,
                "partition": part.number,
                "next_offset": one.next_offset,
                "committed_offset": one.committed_offset,
                "lag": one.lag,
                "rate": _rate(before.get(part), one.next_offset, now - then),
                "stopped": bool(one.stopped),
                "doing": doing(status, one, flies=part in flying)[:MOST_TEXT],
            }
            for part, one in sorted(status.partitions.items())
        )


def doing(status: Status, one: PartitionStatus, *, flies: bool) -> str:
    """Say what happens with a partition, and if nothing does, why."""
    refusing = status.last_error is not None and not status.last_error.recovered
    if one.stopped:
        return f"stopped: {one.stopped}"
    if flies:
        return "waits for the target" if refusing else "is being written"
    if one.paused:
        return _why_paused(status)
    if one.next_offset is None:
        return "waits for its first records"
    if one.committed_offset is not None and one.next_offset > one.committed_offset:
        return "waits behind the target" if refusing else "gathers a batch"
    return "is being read" if one.lag else "is up to date"


def _why_paused(status: Status) -> str:
    if status.off_switch:
        return "held, see above"
    return "not read: the buffer is full" if status.state == "running" else "not read: stopping"


def memory_bytes() -> int | None:
    """Return what this process has in memory; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _slim(flying: InFlight | None) -> InFlight | None:
    return None if flying is None else replace(flying, ranges=flying.ranges[:4])


def _shortened(facts: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if facts is None:
        return None
    return {name: value[:MOST_TEXT] if name == "message" else value for name, value in facts.items()}


def _sum(lags: Iterable[int | None]) -> int | None:
    known = [lag for lag in lags if lag is not None]
    return sum(known) if known else None


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    if before is None or now is None or seconds <= 0:
        return None
    return round(max(now - before, 0) / seconds, 1)
