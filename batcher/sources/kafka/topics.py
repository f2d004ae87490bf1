"""The list of topics that is subscribed to, while topics come and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from batcher.sources.kafka.options import KafkaOptions

log = structlog.get_logger(__name__)

GONE_AFTER_S: Final = 5.0
"""How long a named topic has to be missing: brokers that start do not know all yet, and it may be made anew."""


class Absence:
    """Tell whether a named topic that one look has missed is gone: it is if a look some seconds later misses it too."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the last look has missed a topic, and it is too early for another look."""
        return self._since is not None and self._clock() < self._since + GONE_AFTER_S

    def found(self) -> None:
        """Record that a look has found all topics."""
        self._since = None

    def lasts(self) -> bool:
        """Record that a look has missed a topic; return whether it has been missing for long enough."""
        if self._since is None:
            self._since = self._clock()
        return not self.in_doubt


class Topics:
    """Keep `names`, ascending: what the subscription of `options` stands for as far as it is known.

    A topic that an expression found leaves it when it is missing in two looks: brokers that start do not know all yet.
    """

    def __init__(self, options: KafkaOptions, clock: Callable[[], float] = time.monotonic) -> None:
        # With an end to reach, that is the end of what was there at the start.
        self._looking = options.has_expressions and not options.until_eof
        self._every_s = options.topics_refresh_s
        self._clock = clock
        self._next = 0.0
        self._missing: frozenset[str] = frozenset()
        self.names: tuple[str, ...] = ()

    def begin(self, names: Sequence[str]) -> None:
        """Start with the topics that exist."""
        self.names = tuple(names)
        self._next = self._clock() + self._every_s

    def due(self) -> bool:
        """Return whether it is time to look again."""
        return self._looking and self._clock() >= self._next

    def changed(self, names: Sequence[str]) -> bool:
        """Take what a look has found; return whether `names` has changed."""
        self._next = self._clock() + self._every_s
        gone = frozenset(self.names).difference(names)
        now = tuple(sorted({*names, *(gone - self._missing)}))
        came, left = sorted(set(now).difference(self.names)), sorted(set(self.names).difference(now))
        self._missing = gone
        if not came and not left:
            return False
        log.info("topics_changed", came=came, left=left)
        self.names = now
        return True
