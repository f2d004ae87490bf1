"""How long a run of tests may take: its two forms, how long things are waited for, and the loop that waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")

LONG: Final = os.environ.get("BATCHER_TEST_LONG") == "1"
"""Whether this is the long form: with more records, every case, and the tests that are marked `long`."""

PATIENCE_S: Final = 60.0
"""How long things are waited for that take a second on a machine with nothing else to do."""


def wait_for(condition: Callable[[], _T | None], what: str, timeout_s: float = PATIENCE_S) -> _T:
    """Return what the condition returns once that is true; raise TimeoutError saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005  # another thread is there soon, another process is not
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain: {what}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)
    return found
