"""SIGTERM and SIGINT for as long as a verb runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from batcher.cli.support import early


@contextmanager
def heard_by(listen: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send both signals to `listen` while the context is open, then restore the old handlers. Main thread only."""
    old = {number: signal.signal(number, listen) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        early.over()
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def setting(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on the first signal, as long as the context is open; the second one kills. Main thread only."""

    def listen(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    with heard_by(listen):
        yield
