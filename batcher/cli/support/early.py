"""Signals that come before a loader has begun: while modules and settings are loaded, which takes a second.

Nothing has been read by then and nothing can be lost. So the process ends at once, with the code for "start me again".
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Final

STOPPED: Final = 75

_LINE: Final = b"batcher: stopped before it had begun; nothing was read\n"

_over = False


def listen(words: Sequence[str]) -> None:
    """End the process on SIGTERM and SIGINT from now on, if the words start a loader. Main thread only."""
    if words and words[0] != "run" and not words[0].startswith("-"):
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)


def over() -> None:
    """Ignore what comes from now on: the loader listened meanwhile and has come to its end."""
    global _over  # noqa: PLW0603  # as global as the signals are
    _over = True


def _end(_number: int, _frame: FrameType | None) -> None:
    if _over:
        return
    try:
        os.write(2, _LINE)
    finally:
        os._exit(STOPPED)
