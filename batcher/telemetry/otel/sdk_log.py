"""What OpenTelemetry says of itself: one line now and then instead of one for each attempt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from batcher.telemetry import logs

EVERY_S: Final = 60.0

LOGGER: Final = "opentelemetry"
"""The parent of all loggers of its libraries."""


class SdkLogHandler(logging.Handler):
    """Log what it is given, once in `EVERY_S`; say then how often there was something in between. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._counting = threading.Lock()
        self._unsaid = 0
        self._said_at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Log a warning or an error, or count it."""
        with self._counting:
            now = self._clock()
            if self._said_at is not None and now - self._said_at < EVERY_S:
                self._unsaid += 1
                return
            unsaid, self._unsaid, self._said_at = self._unsaid, 0, now
        # A traceback would be that of their threads, and says nothing to people.
        cause = record.exc_info[1] if record.exc_info else None
        logs.get(__name__).warning(
            "otel_export_failed",
            error=record.getMessage() if cause is None else f"{record.getMessage()} {type(cause).__name__}: {cause}",
            **({"unsaid": unsaid} if unsaid else {}),
            hint="the pipeline goes on; this is said once a minute at most",
        )


def listen(handler: logging.Handler) -> None:
    """Let a handler have what the libraries of OpenTelemetry log, and nobody else."""
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.propagate = False


def leave(handler: logging.Handler) -> None:
    """Undo `listen`."""
    logger = logging.getLogger(LOGGER)
    logger.removeHandler(handler)
    logger.propagate = True
