"""The first glance: is it well, and if not, what is it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Level = Literal["ok", "busy", "warning", "alarm"]

_ORDER: Final[tuple[Level, ...]] = ("alarm", "warning", "busy", "ok")

SLOW_S: Final = 2.0
"""How long a batch may be with the target before the page says that it is waited for."""

VERY_SLOW_S: Final = 20.0
"""From here on that is a warning."""

GROWTH_SHARE: Final = 0.05
GROWTH_RECORDS: Final = 1000
"""It falls behind if the lag grew by both of these within the last minute, whichever is more."""

BEHIND_S: Final = 10.0
"""What is written within this time is not called behind: the lag moves by a batch from one second to the next."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Say what the last minute was like. What is not known is None."""

    read: float = 0.0
    written: float = 0.0
    bytes: float = 0.0
    lag_growth: int | None = None
    """Records that the lag grew by; negative where it became less."""
    eta_s: float | None = None
    """Until nothing is left if it goes on so; None where it is not clearly getting less."""
    behind_s: float | None = None
    """The time that writing the lag takes at this speed; None while nothing is written."""
    dead: int = 0
    """Dead letters."""
    p50_s: float | None = None
    p99_s: float | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return them for JSON."""
        return {
            "read": round(self.read, 1),
            "written": round(self.written, 1),
            "bytes": round(self.bytes),
            "lag_growth": self.lag_growth,
            "eta_s": None if self.eta_s is None else round(self.eta_s, 1),
            "behind_s": None if self.behind_s is None else round(self.behind_s, 1),
            "dead": self.dead,
            "p50_s": None if self.p50_s is None else round(self.p50_s, 4),
            "p99_s": None if self.p99_s is None else round(self.p99_s, 4),
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """Say in a few words how it is, and in a sentence why."""

    level: Level
    title: str
    why: str


def judged(seen: Mapping[str, Any], trend: Trend) -> list[Judgement]:
    """Return what there is to say of an observation, the worst first; there is always something."""
    found = list(_judgements(seen, trend)) or [_well(seen, trend)]
    return sorted(found, key=lambda one: _ORDER.index(one.level))


def _judgements(seen: Mapping[str, Any], trend: Trend) -> Iterator[Judgement]:
    if seen["state"] == "failed":
        yield Judgement("alarm", "Failed", "a thread has ended; the log says why, and the process ends")
    if seen["state"] == "stopped":
        yield Judgement("busy", "Stopped", "everything is written that was to be written")
    if seen["state"] == "starting":
        yield Judgement("busy", "Starting", f"waits for {seen['waiting_for']}" if seen["waiting_for"] else "")
    if seen["state"] == "draining":
        left = seen["buffer"]["rows"]
        yield Judgement("busy", "Stopping", f"reads no more; {left:,} {_records(left)} wait to be written")
    yield from _workers(seen)
    yield from _stopped(seen)
    yield from _target(seen)
    if seen["off_switch"]:
        title = "Paused" if seen["off_switch"].startswith("held") else "Dropping what comes"
        yield Judgement("warning", title, seen["off_switch"])
    elif seen["paused_count"] and seen["state"] == "running":
        yield Judgement(
            "warning", "Slower than the source", "the buffer is full, so reading pauses until the target has taken some"
        )
    if trend.dead:
        reason = next(iter(seen["dead_letter_reasons"]), "")
        yield Judgement(
            "warning",
            "Running, with dead letters" if _goes_well(seen) else "Dead letters",
            f"{trend.dead:,} {_records(trend.dead)} refused in the last minute; the most frequent reason is {reason}",
        )
    if _falls_behind(seen, trend):
        yield Judgement("warning", "Falling behind", f"{trend.lag_growth:,} more records are waiting than a minute ago")


def _workers(seen: Mapping[str, Any]) -> Iterator[Judgement]:
    away = [one for one in seen.get("workers", ()) if not one["running"] and not one["idle"]]
    if away and seen["state"] not in ("starting", "stopped"):
        names = ", ".join(str(one["number"]) for one in away)
        yield Judgement("alarm", "A worker is away" if len(away) == 1 else "Workers are away", f"worker {names}")


def _stopped(seen: Mapping[str, Any]) -> Iterator[Judgement]:
    count = seen["stopped_count"]
    if count:
        first = next((one for one in seen["partitions"] if one["stopped"]), None)
        why = f"{first['topic']}[{first['partition']}] {first['doing']}" if first else ""
        yield Judgement("alarm", f"{count:,} partition{'s' if count > 1 else ''} not read", why)


def _target(seen: Mapping[str, Any]) -> Iterator[Judgement]:
    error, flying = seen["last_error"], seen["in_flight"]
    if error is not None and not error["recovered"]:
        tries = f", tried {flying['attempts']:,} times" if flying is not None and flying["attempts"] > 1 else ""
        yield Judgement("alarm", "Not writing", f"{error['message']} (for {_seconds(error['since_s'])}{tries})")
    elif flying is not None and flying["age_s"] > SLOW_S and not seen["waiting_for"]:
        level: Level = "warning" if flying["age_s"] > VERY_SLOW_S else "busy"
        yield Judgement(
            level,
            "Waiting for the target",
            f"it has had batch {flying['number']} of {flying['rows']:,} records for {_seconds(flying['age_s'])}",
        )


def _goes_well(seen: Mapping[str, Any]) -> bool:
    error = seen["last_error"]
    return seen["state"] == "running" and not seen["off_switch"] and (error is None or bool(error["recovered"]))


def _falls_behind(seen: Mapping[str, Any], trend: Trend) -> bool:
    lag, growth = seen["lag"], trend.lag_growth
    if lag is None or growth is None or seen["state"] != "running" or seen["off_switch"]:
        return False
    if trend.behind_s is not None and trend.behind_s < BEHIND_S:
        return False
    return bool(growth > max(GROWTH_RECORDS, GROWTH_SHARE * (lag - growth)))


def _well(seen: Mapping[str, Any], trend: Trend) -> Judgement:
    if not seen["partition_count"]:
        return Judgement("busy", "Standing by", "no partition is assigned to it; others may have them all")
    if not seen["lag"]:
        return Judgement("ok", "Healthy", "everything is written that there is to read" if seen["lag"] == 0 else "")
    eta = ""
    if trend.eta_s is not None:
        eta = f", and catching up: about {_seconds(trend.eta_s)} to go"
    elif trend.behind_s is not None:
        eta = f", which is {_seconds(trend.behind_s)} of writing"
    return Judgement("ok", "Healthy", f"{seen['lag']:,} {_records(seen['lag'])} behind{eta}")


def _records(number: int) -> str:
    return "record" if number == 1 else "records"


def _seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
    minutes = seconds / 60
    if minutes < 60:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"
