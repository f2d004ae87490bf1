"""Share out how many messages may be in flight among several servers. Pure: it is given counts and returns counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Flow(NamedTuple):
    """Say how one connection does. `ready` is what nsqd was told last, `most` what it takes.

    `hungry` says that lately as many messages were in flight as it was allowed.
    """

    in_flight: int
    ready: int
    most: int
    hungry: bool


def shares(total: int, flows: Sequence[Flow], turn: int = 0) -> list[int]:
    """Return the new `ready` of each connection; with what is in flight they never add up to more than `total`.

    An idle server keeps a little, the busy ones share what it leaves. Where there are more servers than messages
    allowed, they have their turns: `turn` counts up.
    """
    count = len(flows)
    if count == 0:
        return []
    if total < count:
        chosen = {(turn + place) % count for place in range(total)}
        wanted = [int(place in chosen) for place in range(count)]
    else:
        wanted = _wanted(total, flows)
    room = total - sum(max(flow.ready, flow.in_flight) for flow in flows)
    new: list[int] = []
    for flow, want in zip(flows, wanted, strict=True):
        now = max(flow.ready, flow.in_flight)
        more = max(min(min(want, flow.most) - now, room), 0)
        room -= more
        new.append(now + more if more else min(want, flow.most, now))
    return new


def _wanted(total: int, flows: Sequence[Flow]) -> list[int]:
    count = len(flows)
    even = total // count
    hungry = sum(flow.hungry for flow in flows)
    if hungry in (0, count):
        return [even + (place < total % count) for place in range(count)]
    idle = [max(min(even, flow.in_flight + even // 10), 1) for flow in flows]
    rest = total - sum(keep for keep, flow in zip(idle, flows, strict=True) if not flow.hungry)
    return [rest // hungry if flow.hungry else keep for keep, flow in zip(idle, flows, strict=True)]
