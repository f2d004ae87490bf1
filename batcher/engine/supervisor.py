"""Run the threads of an engine, watch over them, and stop them in order.

A thread that dies takes the pipeline with it; the first failure is the reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from batcher.engine.assembly import Engine
from batcher.errors import BatcherError

log = structlog.get_logger(__name__)

WATCH_S: Final = 0.05
"""How often the main thread checks for a signal, a dead thread or the deadline."""

CLOSE_SHARE: Final = 0.15
"""The share of the stop timeout kept for leaving the group after the drain was given up."""

LEAVE_S: Final = 5.0
"""How long threads get to return after an abort before they are left behind: a hanging write cannot be interrupted."""


class ThreadSupervisor:
    """Run an engine until it has drained, failed or was told to stop.

    `stops` returns how often a stop was asked for: once means a drain, twice the end at once.
    """

    def __init__(self, engine: Engine, stops: Callable[[], int], stop_timeout_s: float) -> None:
        self._engine = engine
        self._shared = engine.shared
        self._stops = stops
        self._stop_timeout_s = stop_timeout_s
        self.failure: BaseException | None = None
        """The error that ended the first thread that failed. Any thread may read it."""
        # Daemons: a write that hangs in a server's hands must not keep the process from ending.
        self.threads = [
            threading.Thread(target=lambda script=script, name=name: self._live(name, *script), name=name, daemon=True)
            for name, script in (
                ("fetch", (engine.fetch.run, engine.fetch.leave)),
                ("decode", (engine.decode.run,)),
                ("write", (engine.write.run,)),
            )
        ]

    def run(self) -> list[str]:
        """Return when all threads have ended or are left behind, with the names of the latter. Main thread."""
        for thread in self.threads:
            thread.start()
        self._watch()
        return [thread.name for thread in self.threads if thread.is_alive()]

    def _live(self, name: str, *script: Callable[[], None]) -> None:
        # Each part runs, even after one that failed: the failure is known before the group is left.
        for part in script:
            self._guarded(name, part)

    def _guarded(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # it is raised again in the main thread
            if self._shared.phase == "aborted":
                log.debug("thread_ended", thread=name, error=type(error).__name__)
                return
            # The first failure is the reason; what fails while the others stop is its consequence.
            self.failure = self.failure or error
            # An expected error is reported once, with its reason, by the caller of `run`. Only a bug gets another line.
            level = log.debug if isinstance(error, BatcherError) else log.error
            level("thread_failed", thread=name, error=type(error).__name__)
            if name != "fetch" and isinstance(error, BatcherError):
                # What is durable by now would be written again at every restart if it were not committed.
                self._shared.halt(writing_failed=name == "write")
            else:
                self._shared.abort()

    def _watch(self) -> None:
        deadline: float | None = None
        leave_by: float | None = None
        while alive := [thread for thread in self.threads if thread.is_alive()]:
            alive[0].join(WATCH_S)
            now = time.monotonic()
            if self._stops() == 1 and deadline is None:
                deadline = now + self._stop_timeout_s * (1 - CLOSE_SHARE)
                log.info("stopping", timeout_s=self._stop_timeout_s)
                self._shared.drain("stop")
            if self.failure is not None and deadline is None:
                deadline = now + LEAVE_S
            late = deadline is not None and now > deadline
            if (self._stops() > 1 or late) and self._shared.phase != "aborted":
                log.warning("stop_cut_short", reason="deadline" if late else "second signal")
                self._shared.abort()
            if self._shared.phase == "aborted":
                leave_by = leave_by or now + min(LEAVE_S, self._stop_timeout_s * CLOSE_SHARE)
                if now > leave_by:
                    return
