"""SIGTERM and SIGINT while something is measured."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from batcher.engine.pipeline import Pipeline


class Interrupts:
    """Turn the first SIGTERM or SIGINT into an early end of the present pass, after which nothing more is measured.

    The second one breaks the pass off. In both cases what was made for measuring is removed. The third one kills.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._pipeline: Pipeline | None = None
        self._raises = False

    def listen(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; only flags are set, except in `at_once`."""
        self.seen += 1
        if self.seen > 1:
            signal.signal(number, signal.SIG_DFL)
        if self._pipeline is not None:
            (self._pipeline.stop if self.seen == 1 else self._pipeline.abort)()
        if self._raises:
            raise KeyboardInterrupt

    def wanted(self) -> bool:
        """Return whether there was a signal."""
        return self.seen > 0

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was a signal."""
        if self.seen:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise KeyboardInterrupt at a signal as long as the context is open, where nothing is made or measured yet."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False

    @contextmanager
    def running(self, pipeline: Pipeline) -> Iterator[None]:
        """Let signals stop a pipeline as long as the context is open."""
        self._pipeline = pipeline
        if self.seen:
            pipeline.stop()
        try:
            yield
        finally:
            self._pipeline = None
