"""The lease: the right to write a partition, confirmed by the last commit that was accepted for it.

A broker takes commits from the owner of a partition alone. So a commit that was accepted proves that the partition was
ours when the request was sent, and nothing proves it later than that. Pure; times are of any monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Lease:
    """Know when the right to write one partition was last confirmed, and whether it is to be confirmed again."""

    confirmed_at: float = -math.inf
    """When the last accepted commit was sent."""
    asked_at: float = -math.inf
    renewals: int = 0
    """How often a renewal was asked for: two commits that ask differ in it, so reading one back proves that it was the
    later one that was stored."""

    def ask(self, now: float) -> None:
        """Have a commit made although there is nothing new to say, to learn whether we are still the owner."""
        self.renewals += 1
        self.asked_at = now

    def confirm(self, sent_at: float) -> None:
        """Note that a commit sent at `sent_at` was accepted."""
        self.confirmed_at = sent_at

    def holds(self, since: float) -> bool:
        """Return whether a commit sent at or after `since` was accepted."""
        return self.confirmed_at >= since

    @property
    def asked(self) -> bool:
        """Return whether a commit is still to answer the last question."""
        return self.confirmed_at < self.asked_at
