"""How old records were when they became durable, as a distribution that can be added up and sent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

LEAST_S: Final = 0.001
GROWTH: Final = 1.1
"""Each step is a tenth longer than the one before: what is read off is right to five percent."""
STEPS: Final = 256
"""The last one begins at a year."""


class Ages:
    """Count records by their age. One thread, or under the lock of its owner."""

    def __init__(self, counts: Mapping[int, float] | None = None) -> None:
        self.counts: dict[int, float] = dict(counts or {})

    def add(self, age_s: float, records: float) -> None:
        """Count some records of an age; what comes from the future is new."""
        step = 0 if age_s <= LEAST_S else min(int(math.log(age_s / LEAST_S, GROWTH)) + 1, STEPS)
        self.counts[step] = self.counts.get(step, 0.0) + records

    def quantile(self, share: float) -> float | None:
        """Return the age in seconds that this share of the records did not exceed; None where there are none."""
        wanted = sum(self.counts.values()) * share
        for step, records in sorted(self.counts.items()):
            wanted -= records
            if wanted <= 0:
                # The middle of the step.
                return LEAST_S if step == 0 else LEAST_S * GROWTH ** (step - 0.5)
        return LEAST_S * GROWTH ** (max(self.counts) - 0.5) if self.counts else None


def added(several: Iterable[Mapping[int, float]]) -> Ages:
    """Return the sum of several distributions."""
    total = Ages()
    for counts in several:
        for step, records in counts.items():
            total.counts[step] = total.counts.get(step, 0.0) + records
    return total
