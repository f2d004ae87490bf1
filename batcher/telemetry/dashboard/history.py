"""The last hour as numbers, in rings of fixed size: five minutes in seconds, an hour in steps of ten. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final

FINE_S: Final = 1.0
FINE: Final = 300
COARSE_S: Final = 10.0
COARSE: Final = 360

Point = Mapping[str, float | None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


SERIES: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "read": _mean,
    "written": _mean,
    "bytes": _mean,
    "dead": _mean,
    "retries": sum,
    "lag": max,
    "p50": _mean,
    "p99": max,
    "buffer": max,
    "rss": max,
}
"""What is kept, and what stands for several points of it: `read`, `written`, `dead` in records a second, `bytes` read a
second, `retries` as a number, `lag` in records, `p50` and `p99` as seconds, `buffer` and `rss` in bytes."""


class Ring:
    """Hold the last points, each with its time; a value that is not known is None."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._columns = {name: array("d", [math.nan]) * size for name in ("t", *SERIES)}
        self._count = 0

    def add(self, t: float, point: Point) -> None:
        """Add a point in place of the oldest."""
        at = self._count % self._size
        self._columns["t"][at] = t
        for name in SERIES:
            value = point.get(name)
            self._columns[name][at] = math.nan if value is None else value
        self._count += 1

    def columns(self, after: float = -math.inf) -> dict[str, list[float | None]]:
        """Return the points later than a time, the oldest first, by column."""
        begin = self._count % self._size if self._count > self._size else 0
        order = [(begin + step) % self._size for step in range(min(self._count, self._size))]
        times = self._columns["t"]
        wanted = [at for at in order if times[at] > after]
        return {name: [_rounded(column[at]) for at in wanted] for name, column in self._columns.items()}


class History:
    """Keep the last five minutes in full and the hour in steps of ten seconds. One thread adds."""

    def __init__(self) -> None:
        self._fine = Ring(FINE)
        self._coarse = Ring(COARSE)
        self._pending: list[Point] = []
        self._step = 0

    def add(self, t: float, point: Point) -> None:
        """Add the point of a second; `t` is in seconds since the epoch."""
        step = int(t // COARSE_S)
        if self._pending and step != self._step:
            self._coarse.add((self._step + 1) * COARSE_S, _summed(self._pending))
            self._pending.clear()
        self._step = step
        self._pending.append(point)
        self._fine.add(t, point)

    def columns(self) -> dict[str, list[float | None]]:
        """Return the hour, the oldest first: in steps of ten seconds, the last five minutes in seconds."""
        fine = self._fine.columns()
        coarse = self._coarse.columns()
        first = fine["t"][0] if fine["t"] else math.inf
        assert first is not None
        old = sum(1 for t in coarse["t"] if t is not None and t < first)
        return {name: coarse[name][:old] + fine[name] for name in fine}


def _summed(points: Sequence[Point]) -> Point:
    found: dict[str, float | None] = {}
    for name, sum_of in SERIES.items():
        values = [value for point in points if (value := point.get(name)) is not None]
        found[name] = sum_of(values) if values else None
    return found


def _rounded(value: float) -> float | None:
    if math.isnan(value):
        return None
    return round(value, 3) if abs(value) < 1000 else float(round(value))
