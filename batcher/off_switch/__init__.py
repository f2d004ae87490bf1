"""Where a person says that a pipeline has to pause: a file, or a key in Redis. Only what is asked for is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

STOPPED: Final = "stopped"
"""What the key, or the file, has to say."""

Ask = Callable[[], bool]
"""Return whether the switch is off now. Raise OSError, or ValueError for an answer that is none."""


def file_says(path: Path) -> Ask:
    """Return what asks a file: it says so by being there, empty or with the word."""

    def ask() -> bool:
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip() in ("", STOPPED)
        except FileNotFoundError:
            return False

    return ask


def redis_says(url: str, key: str) -> Ask:
    """Return what asks a key of Redis. Raise ValueError for a URL that is none."""
    from batcher.off_switch.redis import RedisKey  # noqa: PLC0415 - only where it is asked for

    value = RedisKey(url, key)
    return lambda: value.get() == STOPPED.encode()
