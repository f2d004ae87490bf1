"""Log what is waited for while a member of a group has no partitions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

FIRST_AFTER_S: Final = 3.0
"""Joining a group takes less when no member is missing."""

AGAIN_AFTER_S: Final = 15.0

INSTANCE_HINT: Final = "a process with the same --kafka.instance as the one before it does not wait"
SPARE_HINT: Final = "more members than partitions, or one that is slow to give some up: this one stands by"


class Wait:
    """Log that there are no partitions yet: after a moment, then now and then, until a dead member must have timed out.

    `at_most_s` is the session timeout: how long the group waits for a member that died. `instance` is the static
    membership, with which a successor is let in at once.
    """

    def __init__(
        self, group: str, at_most_s: float, instance: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group = group
        self._at_most_s = at_most_s
        self._instance = instance
        self._clock = clock
        self._since: float | None = None
        self._say_at = 0.0

    def begin(self) -> None:
        """Record that partitions are wanted and there are none."""
        if self._since is None:
            self._since = self._clock()
            self._say_at = self._since + FIRST_AFTER_S

    def over(self) -> None:
        """Record that partitions came."""
        self._since = None

    def look(self) -> None:
        """Log it, if it is time."""
        if self._since is None or (now := self._clock()) < self._say_at:
            return
        waited_s = round(now - self._since)
        # The group misses a member a little after its session ends, and assigns anew a little after that.
        if waited_s > self._at_most_s + AGAIN_AFTER_S:
            log.info("no_partitions", group=self._group, waited_s=waited_s, hint=SPARE_HINT)
            self._since = None
            return
        log.info(
            "waiting_for_partitions",
            group=self._group,
            waited_s=waited_s,
            at_most_s=self._at_most_s,
            reason="the group waits for its members to answer, and for one that died until its session is over",
            **({} if self._instance else {"hint": INSTANCE_HINT}),
        )
        self._say_at = now + AGAIN_AFTER_S
