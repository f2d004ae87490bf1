"""Ask the target how loaded it is, and make batches larger or smaller for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from batcher.core.sizing import Sizing
from batcher.errors import BatcherError, SinkOverwhelmed
from batcher.protocols import Pressured

log = structlog.get_logger(__name__)


class Sizer:
    """Tell `scale` the factor by which batches are larger. Write loops. A `target` of None is never asked."""

    def __init__(
        self, target: Pressured | None, scale: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._target = target
        self._scale = scale
        self._clock = clock
        self._sizing = Sizing(clock())
        self._deciding = threading.Lock()

    def failed(self, error: BaseException) -> None:
        """Learn that a write failed and will be tried again."""
        if isinstance(error, SinkOverwhelmed):
            with self._deciding:
                self._change(self._sizing.refused(self._clock()), "refused")

    def wrote(self) -> None:
        """Learn that a batch was written, and look at the target once in a while."""
        with self._deciding:
            looks = self._target is not None and self._sizing.look_due(self._clock())
            if self._target is None:
                self._sizing.silent()
        if looks and self._target is not None:
            self._look(self._target)
        with self._deciding:
            self._change(self._sizing.wrote(self._clock()), "calm")

    def _look(self, target: Pressured) -> None:
        try:
            pressure = target.pressure()
        except BatcherError as error:
            # Batches are written all the same; a server that does not answer is noticed by the next write.
            log.debug("pressure_unknown", error=str(error))
            return
        with self._deciding:
            self._change(self._sizing.loaded(pressure, self._clock()), f"at {pressure:.0%} of what it bears")

    def _change(self, factor: int | None, reason: str) -> None:
        if factor is not None:
            self._scale(factor)
            log.warning("batches_resized", factor=factor, reason=reason, hint="the target has too many parts to merge")
