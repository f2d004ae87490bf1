"""How far behind a group is: what it has committed beside the ends of the logs, at one moment and between two."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from batcher.cli.support.spans import plural, span
from batcher.errors import BatcherError

if TYPE_CHECKING:
    from batcher.protocols import ReadableLog
    from batcher.records import Partition, Position

Begin = Callable[["ReadableLog", "Partition", int, int], int]
"""Where a partition without a commit would begin, given its log and the two ends of it."""


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """Say how far a group is in one partition. `begins` is where reading would start where nothing is committed."""

    first: int
    end: int
    committed: int | None = None
    begins: int = 0
    announced: int = 0
    """Offsets behind the commit that an intent names: the target may have them already."""
    unreadable: str = ""
    """Why the intents there cannot be understood; empty where they can."""

    @property
    def next_offset(self) -> int:
        """Return the offset that a process would read next."""
        return self.begins if self.committed is None else self.committed

    @property
    def behind(self) -> int:
        """Return the offsets in the log that are not committed."""
        return max(self.end - max(self.next_offset, self.first), 0)

    @property
    def note(self) -> str:
        """Return what is wrong here, in words; empty where nothing is."""
        if self.unreadable:
            return f"{self.unreadable}; see --ignore-intents"
        if self.committed is None:
            return ""
        if self.committed < self.first:
            return f"{plural(self.first - self.committed, 'offset')} expired before they were read"
        if self.committed > self.end:
            return f"the log ends at {self.end}, before the commit: the topic was cut or created anew"
        return ""


@dataclass(frozen=True, slots=True)
class LagLook:
    """Hold what one look has found. `members` is None where the source does not say how many there are."""

    at_s: float
    places: Mapping[Partition, GroupPlace]
    members: int | None

    @property
    def behind(self) -> int:
        """Return the sum over all partitions."""
        return sum(place.behind for place in self.places.values())


@dataclass(frozen=True, slots=True)
class LagPace:
    """Say how fast a group goes, in offsets a second: what it commits, and what comes in."""

    commits: float
    arrives: float
    behind: int

    @property
    def eta_s(self) -> float | None:
        """Return the seconds until nothing is left if both go on like this; None where that is never."""
        if not self.behind:
            return 0.0
        gain = self.commits - self.arrives
        return self.behind / gain if gain > 0 else None

    @property
    def said(self) -> str:
        """Return the same for people."""
        if not self.behind:
            return "-"
        if self.eta_s is not None:
            # In a table one unit is enough.
            return " ".join(span(self.eta_s).split()[:2])
        return "grows" if self.commits else "stands"


def look(
    log: ReadableLog,
    partitions: Sequence[Partition],
    begin: Begin,
    ends: Mapping[Partition, int] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> LagLook:
    """Return what the group has committed and where the logs end now, or where a run ends. Raise as `ReadableLog`."""
    committed = log.committed(partitions)
    places = {one: _place(log, one, committed.get(one), begin) for one in partitions}
    if ends is not None:
        places = {one: replace(place, end=min(place.end, ends.get(one, 0))) for one, place in places.items()}
    try:
        members = log.members()
    except BatcherError:
        # A right of its own, and simulated brokers do not know the question.
        members = None
    return LagLook(clock(), places, members)


def _place(log: ReadableLog, partition: Partition, position: Position | None, begin: Begin) -> GroupPlace:
    first, end = log.watermarks(partition)
    if position is None:
        return GroupPlace(first, end, begins=begin(log, partition, first, end))
    announced = sum(intent.range.next_offset - intent.range.first for intent in position.intents)
    return GroupPlace(first, end, position.next_offset, announced=announced, unreadable=position.unreadable)


def pace(before: LagLook, now: LagLook, partitions: Iterable[Partition]) -> LagPace:
    """Return how fast a group was between two looks, over some partitions together."""
    seconds = max(now.at_s - before.at_s, 1e-3)
    both = [(before.places[one], now.places[one]) for one in partitions if one in before.places]
    # A group that was set back in between has not committed anything.
    commits = sum(max(new.next_offset - old.next_offset, 0) for old, new in both)
    arrives = sum(max(new.end - old.end, 0) for old, new in both)
    return LagPace(commits / seconds, arrives / seconds, sum(new.behind for _, new in both))


def facts(group: str, now: LagLook, before: LagLook | None) -> dict[str, Any]:
    """Return what `--json` prints; rates and ETA are None with one look only."""
    return {
        "group": group,
        "members": now.members,
        "behind": now.behind,
        **_paced(None if before is None else pace(before, now, now.places)),
        "partitions": [
            {
                "topic": partition.topic,
                "partition": partition.number,
                "committed": place.committed,
                "first": place.first,
                "end": place.end,
                "behind": place.behind,
                "announced": place.announced,
                **_paced(None if before is None else pace(before, now, [partition])),
                "note": place.note,
            }
            for partition, place in sorted(now.places.items())
        ],
    }


def _paced(found: LagPace | None) -> dict[str, float | None]:
    eta_s = None if found is None else found.eta_s
    return {
        "commits_per_second": None if found is None else round(found.commits, 1),
        "arrives_per_second": None if found is None else round(found.arrives, 1),
        "eta_s": None if eta_s is None else round(eta_s, 1),
    }


def lines(group: str, now: LagLook, before: LagLook | None) -> Iterator[str]:
    """Yield the same for people: a table for each topic, the sum, and what is wrong; 60 columns are enough."""
    yield f"group {group}{_members(now.members)}"
    for topic, found in groupby(sorted(now.places), key=lambda one: one.topic):
        partitions = list(found)
        yield f"\n{topic}"
        rows = [_row(str(one.number), now, before, [one]) for one in partitions]
        if len(rows) > 1:
            rows.append(_row("all", now, before, partitions))
        yield from _aligned([_HEAD, *rows])
    if len({one.topic for one in now.places}) > 1:
        yield "\nall topics"
        yield from _aligned([_HEAD, _row("all", now, before, list(now.places))])
    yield ""
    yield said(now, before)
    for partition, place in sorted(now.places.items()):
        if place.note:
            yield f"{partition}: {place.note}"


_HEAD = ("part", "committed", "end", "behind", "per s", "ETA")


def _row(name: str, now: LagLook, before: LagLook | None, partitions: Sequence[Partition]) -> Sequence[str]:
    places = [now.places[one] for one in partitions]
    committed = [place.committed for place in places if place.committed is not None]
    found = None if before is None else pace(before, now, partitions)
    alone = len(places) == 1
    return (
        name,
        (f"{committed[0]:,}" if committed else "none") if alone else "",
        f"{places[0].end:,}" if alone else "",
        f"{sum(place.behind for place in places):,}",
        "" if found is None else f"{found.commits:,.0f}",
        "" if found is None else found.said,
    )


def said(now: LagLook, before: LagLook | None) -> str:
    """Return one sentence that says how it is."""
    behind, announced = now.behind, sum(place.announced for place in now.places.values())
    if not behind:
        return "nothing is left to load"
    text = f"{plural(behind, 'record')} behind"
    if announced:
        text += f", {announced:,} of them being written or written already"
    if before is None:
        return text
    found = pace(before, now, now.places)
    if found.eta_s is not None:
        return f"{text}; at this rate {span(found.eta_s)}"
    if found.commits:
        return f"{text}; {found.arrives:,.0f} a second come and {found.commits:,.0f} are loaded: it falls back"
    seconds = now.at_s - before.at_s
    idle = "no process runs for this group" if now.members == 0 else f"nothing was committed for {span(seconds)}"
    return f"{text}; {idle}"


def _members(count: int | None) -> str:
    return "" if count is None else f", {plural(count, 'member')}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def begin_at(start: str, *, bounded: bool = False) -> Begin:
    """Return where a start of the settings is; `bounded` for a run with an end, which reads only what it names."""
    from batcher.sources.starts import GivenOffsets, place_of

    place = place_of(start)

    def begin(log: ReadableLog, partition: Partition, first: int, end: int) -> int:
        if isinstance(place, GivenOffsets):
            found = place.of(*partition)
            # `run` stops where nothing is said about a partition.
            return (end if bounded else first) if found is None else found
        if isinstance(place, str):
            return first if place == "earliest" else end
        at = log.at_time(partition, place)
        return end if at is None else at

    return begin
