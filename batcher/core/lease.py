"""The lease: the right to write a partition, confirmed by the last commit that was accepted for it.

A broker takes commits only from the owner of a partition. So an accepted commit proves that the partition was ours when
the request was sent. Nothing proves it later than that. Pure; times are of any monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Lease:
    """Know when the right to write one partition was last confirmed, and whether it has to be confirmed again."""

    confirmed_at: float = -math.inf
    """When the last accepted commit was sent."""
    asked_at: float = -math.inf
    renewals: int = 0
    """How often a renewal was asked for. Two commits that ask differ in it, so reading one back proves that the later
    one was stored."""

    def ask(self, now: float) -> None:
        """Ask for a commit although there is nothing new to commit, to learn whether we are still the owner."""
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
        """Return whether the last question still waits for its commit."""
        return self.confirmed_at < self.asked_at
