"""Make one observation of those of several workers: sums, and the worst of each. Used by their parent.

A worker that is started again counts from 0, so what its processes before had counted is kept here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from batcher.telemetry.dashboard.ages import added
from batcher.telemetry.dashboard.urgent import most_urgent

Observation = Mapping[str, Any]

SHOWN: Final = 30

# What the team says of itself is what the first of these is that any worker says.
_STATES: Final = ("failed", "draining", "starting", "running", "stopped")


@dataclass(frozen=True, slots=True)
class Member:
    """Say how it is with a worker, as its parent knows it."""

    number: int
    running: bool
    idle: bool
    """It is not needed now."""
    starts: int
    due_in_s: float | None = None
    """Until its next start, where it is not running."""


@dataclass(slots=True)
class _Known:
    """Hold what one worker has told, and what its processes before it had counted."""

    latest: Observation | None = None
    pid: int = 0
    before: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    ages: list[Mapping[int, float]] = field(default_factory=list)


class Team:
    """Add up what workers tell. One thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def tell(self, number: int, seen: Observation) -> None:
        """Take in what a worker tells of itself."""
        known = self._known.setdefault(number, _Known())
        if known.latest is not None and known.pid != seen["pid"]:
            # Its sums stay, or the totals would fall.
            known.before.update(known.latest["counts"])
            known.reasons.update(known.latest["dead_letter_reasons"])
            known.unknown.update(known.latest["unknown_fields"])
        known.latest, known.pid = {**seen, "worker": number}, seen["pid"]
        known.ages.append({int(step): records for step, records in seen["ages"].items()})

    def observation(self, members: Sequence[Member], paused_by: str = "") -> Observation | None:
        """Return all of them as one; None as long as no worker has told anything."""
        told = {number: one for number, one in sorted(self._known.items()) if one.latest is not None}
        if not told:
            return None
        live = {one.number for one in members if one.running}
        now = [one.latest for number, one in told.items() if one.latest is not None and number in live]
        first = next(iter(told.values())).latest
        assert first is not None
        ages = added(counts for one in told.values() for counts in one.ages)
        for one in told.values():
            one.ages.clear()
        return {
            **first,
            **_sums(now),
            **_worst(now),
            "at": round(self._clock(), 3),
            "off_switch": next((one["off_switch"] for one in now if one["off_switch"]), "")
            or (f"held: paused by {paused_by}" if paused_by else ""),
            "counts": _totals((one.before, one.latest["counts"]) for one in told.values() if one.latest),
            "dead_letter_reasons": _totals(
                (one.reasons, one.latest["dead_letter_reasons"]) for one in told.values() if one.latest
            ),
            "unknown_fields": _totals(
                (one.unknown, one.latest["unknown_fields"]) for one in told.values() if one.latest
            ),
            "ages": {str(step): records for step, records in ages.counts.items()},
            "workers": [_row(one, self._known.get(one.number)) for one in members],
        }


def _row(member: Member, known: _Known | None) -> Mapping[str, Any]:
    latest = known.latest if known is not None else None
    row: dict[str, Any] = {
        "number": member.number,
        "running": member.running,
        "idle": member.idle,
        "starts": member.starts,
        "due_in_s": member.due_in_s,
    }
    if latest is None or not member.running:
        return row
    return {
        **row,
        "pid": latest["pid"],
        "state": latest["state"],
        "lag": latest["lag"],
        "partition_count": latest["partition_count"],
        "written": latest["counts"]["written"] + (known.before["written"] if known is not None else 0),
        "buffer_bytes": latest["buffer"]["bytes"],
        "rss_bytes": latest["rss_bytes"],
        "waiting_for": latest["waiting_for"],
        "last_error": latest["last_error"],
    }


def _sums(now: Collection[Observation]) -> dict[str, Any]:
    lags = [one["lag"] for one in now if one["lag"] is not None]
    buffers = [one["buffer"] for one in now]
    return {
        "lag": sum(lags) if lags else None,
        "partitions": most_urgent({**part, "worker": one["worker"]} for one in now for part in one["partitions"]),
        **{name: sum(one[name] for one in now) for name in ("partition_count", "stopped_count", "paused_count")},
        "buffer": {
            "rows": sum(one["rows"] for one in buffers),
            "bytes": sum(one["bytes"] for one in buffers),
            "limit_bytes": sum(one["limit_bytes"] or 0 for one in buffers),
            "age_s": max((one["age_s"] for one in buffers if one["age_s"] is not None), default=None),
            "due_in_s": min((one["due_in_s"] for one in buffers if one["due_in_s"] is not None), default=None),
        },
        "rss_bytes": sum(one["rss_bytes"] or 0 for one in now) or None,
        "targets": _targets(now),
        "batches": _newest(now, "batches"),
        "troubles": _newest(now, "troubles"),
        "letters": _newest(now, "letters"),
    }


def _worst(now: Collection[Observation]) -> dict[str, Any]:
    states = {one["state"] for one in now}
    errors = [one["last_error"] for one in now if one["last_error"] is not None]
    going_on = [one for one in errors if not one["recovered"]]
    flying = [one["in_flight"] for one in now if one["in_flight"] is not None]
    ages = [one["last_commit_age_s"] for one in now if one["last_commit_age_s"] is not None]
    waits = {one["worker"]: one["waiting_for"] for one in now}
    # As long as one of them writes, the team waits for nothing.
    idle = bool(waits) and all(waits.values())
    reasons = list(dict.fromkeys(waits.values()))
    return {
        "state": next((state for state in _STATES if state in states), "starting"),
        # In sorted order the weaker one comes first.
        "delivery": min((one["delivery"] for one in now), default="at-least-once"),
        "waiting_for": "" if not idle else reasons[0] if len(reasons) == 1 else _by_worker(waits),
        "last_error": max(going_on, key=_since) if going_on else min(errors, key=_since, default=None),
        "in_flight": max(flying, key=lambda one: float(one["age_s"]), default=None),
        "last_commit_age_s": min(ages, default=None),
        "uptime_s": max((one["uptime_s"] for one in now), default=0.0),
        "unknown_fields_estimated": any(one["unknown_fields_estimated"] for one in now),
        "columns_without_value": _in_all([one["columns_without_value"] for one in now if one["counts"]["batches"]]),
    }


_TARGET_SUMS: Final = ("written", "dead_lettered", "skipped", "duplicates_suppressed", "retries")


def _targets(now: Collection[Observation]) -> Mapping[str, Mapping[str, Any]]:
    """Return what is shown of each of several targets: sums, and the first reason why one is not written to."""
    found: dict[str, dict[str, Any]] = {}
    for seen in now:
        for name, one in seen["targets"].items():
            held = found.setdefault(name, {**one, **dict.fromkeys(_TARGET_SUMS, 0)})
            for key in _TARGET_SUMS:
                held[key] += one[key]
            for key in ("failed", "waiting_for"):
                held[key] = held[key] or one[key]
            if one["last_error"] is not None and not one["last_error"]["recovered"]:
                held["last_error"] = one["last_error"]
    return found


def _by_worker(waits: Mapping[int, str]) -> str:
    return "; ".join(f"worker {number}: {why}" for number, why in waits.items())


def _since(error: Mapping[str, Any]) -> float:
    return float(error["since_s"])


def _in_all(lists: Sequence[Sequence[str]]) -> list[str]:
    return [name for name in lists[0] if all(name in one for one in lists)] if lists else []


def _totals(pairs: Iterable[tuple[Mapping[str, int], Mapping[str, int]]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for before, latest in pairs:
        total.update(before)
        total.update(latest)
    return dict(total.most_common())


def _newest(now: Collection[Observation], name: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = [{**one, "worker": seen["worker"]} for seen in now for one in seen[name]]
    return sorted(found, key=lambda one: float(one["at"]), reverse=True)[:SHOWN]
