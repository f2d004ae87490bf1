"""What a part measures of itself, for the metrics and the status: the pipeline asks when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Distribution:
    """Count values by size: `counts` has one entry more than `bounds`, for what is above the last.

    `total` is the sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return sum(self.counts)

    def __add__(self, other: Distribution) -> Distribution:
        """Return both together; their bounds are the same."""
        return replace(
            self,
            counts=tuple(one + two for one, two in zip(self.counts, other.counts, strict=True)),
            total=self.total + other.total,
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """Hold the values of one metric. `name` has its unit at the end and no prefix; `text` says what it is.

    `values` are by the value of `label`; without a label there is one, under the empty text. Those of a histogram are
    `Distribution`. A label has few values, known beforehand.
    """

    name: str
    text: str
    kind: Literal["gauge", "counter", "histogram"]
    values: Mapping[str, float | Distribution] = field(default_factory=dict)
    label: str = ""


def summed(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Return measures with those of one name added up, in the order in which the names come."""
    found: dict[str, Measure] = {}
    for one in measures:
        before = found.get(one.name)
        if before is None:
            found[one.name] = one
            continue
        values = dict(before.values)
        for label, value in one.values.items():
            there = values.get(label)
            values[label] = value if there is None else there + value  # type: ignore[operator]
        found[one.name] = replace(before, values=values)
    return tuple(found.values())
