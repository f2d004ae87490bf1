"""SIGTERM and SIGINT for as long as a verb runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heard_by(listen: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Send both signals to `listen` while the context is open, then put the old handlers back. Main thread only."""
    old = {number: signal.signal(number, listen) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
