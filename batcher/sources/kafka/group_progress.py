"""What the other members of the group still have to do, for a member that stops at the end.

A member that leaves as soon as its own partitions are at their ends may leave records behind. A rebalance takes
partitions from it, with what it had read and not written, and may give it some that it no longer reads.
Some member has to stay to take those over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

from batcher.errors import SourceLost
from batcher.records import Partition
from batcher.sources.kafka.offsets import StartOffsets

ASK_EVERY_S: Final = 0.5


class GroupProgress:
    """Return whether the group has committed all that was there at the start, except for what is ours.

    Of two members, at most one gets this answer while it has something that is not committed: the other one waits for
    that. `patience_s` is how long to wait for a partition where nothing moves. Its last offsets may be control records,
    which are never committed. Or it has no owner until a dead member is missed.
    """

    def __init__(
        self,
        offsets: StartOffsets,
        partitions: Collection[Partition],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._offsets = offsets
        self._ends = {partition: offsets.watermarks(partition)[1] for partition in partitions}
        self._patience_s = patience_s
        self._clock = clock
        self._behind: Mapping[Partition, int | None] = {}
        self._moved_at = clock()
        self._asked_at: float | None = None
        self._through = False

    def moved(self) -> None:
        """Record that partitions came or went: patience begins anew, and what was known is outdated."""
        self._moved_at = self._clock()
        self._asked_at = None

    def through(self, ours: Collection[Partition]) -> bool:
        """Return whether nothing is left to do for other members. It asks the broker now and then."""
        now = self._clock()
        if self._asked_at is None or now - self._asked_at >= ASK_EVERY_S:
            self._through = self._ask(ours, now)
            self._asked_at = now
        return self._through

    def _ask(self, ours: Collection[Partition], now: float) -> bool:
        theirs = [partition for partition in self._ends if partition not in ours]
        try:
            committed = self._offsets.committed(theirs) if theirs else {}
        except SourceLost:
            return False
        behind = {
            partition: at.next_offset if (at := committed.get(partition)) else None
            for partition in theirs
            if partition not in committed or committed[partition].next_offset < self._ends[partition]
        }
        if behind != self._behind:
            self._behind, self._moved_at = behind, now
        return not behind or now - self._moved_at >= self._patience_s
