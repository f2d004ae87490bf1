"""Fewer and larger batches for a target that cannot merge as fast as it is written to.

Every insert makes a part. A table with too many of them first delays inserts, then refuses them, and trying again with
batches of the same size keeps it there. So batches grow, in rows, bytes and wait, until the target
has recovered; then they shrink back. Only batches that are still to be cut change: a sealed range never does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from batcher.errors import BatcherError, SinkOverwhelmed
from batcher.protocols import Pressured, Sink

CEILING: Final = 16
"""Batches grow to this many times the settings at most: 16 s where they would be written every second."""

GROW_EVERY_S: Final = 10.0
"""A step needs time to show: merges of small parts take seconds."""

SHRINK_EVERY_S: Final = 120.0
"""Much slower than growing, or the size would swing with every merge."""

LOOK_EVERY_S: Final = 15.0
"""How often the target is asked while all is well: the answer costs it some milliseconds."""

HIGH: Final = 0.5
"""The share of what a target bears above which batches grow; at 1.0 it slows inserts down by itself."""

LOW: Final = 0.25

log = structlog.get_logger(__name__)


class Pace:
    """Decide by what factor batches are larger than the settings have them, and tell `stretch`. Flusher thread only."""

    def __init__(self, sink: Sink, stretch: Callable[[int], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._stretch = stretch
        self._sink: Pressured | None = sink if isinstance(sink, Pressured) else None
        self._clock = clock
        self._changed_at = clock()
        self._looked_at = clock()
        self._calm = True
        self.factor = 1

    def failed(self, error: BaseException) -> None:
        """Learn that a write failed and will be tried again."""
        if isinstance(error, SinkOverwhelmed):
            self._calm = False
            self._grow("refused")

    def wrote(self) -> None:
        """Learn that a batch was written, and look at the target once in a while."""
        now = self._clock()
        if self._sink is not None and now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._weigh(self._sink)
        elif self._sink is None:
            self._calm = True
        if self._calm and self.factor > 1 and now - self._changed_at >= SHRINK_EVERY_S:
            self._change(self.factor // 2, "calm")

    def _weigh(self, sink: Pressured) -> None:
        try:
            pressure = sink.pressure()
        except BatcherError as error:
            # Batches are written all the same; a server that does not answer is somebody else's business.
            log.debug("pressure_unknown", error=str(error))
            return
        self._calm = pressure < LOW
        if pressure > HIGH:
            self._grow(f"at {pressure:.0%} of what it bears")

    def _grow(self, reason: str) -> None:
        at_once = self.factor == 1
        if self.factor < CEILING and (at_once or self._clock() - self._changed_at >= GROW_EVERY_S):
            self._change(self.factor * 2, reason)

    def _change(self, factor: int, reason: str) -> None:
        self._changed_at = self._clock()
        self.factor = factor
        self._stretch(factor)
        log.warning("batches_resized", factor=factor, reason=reason, hint="the target has too many parts to merge")
