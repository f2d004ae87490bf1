"""Run the threads of a pipeline, watch over them, and stop them in order.

A thread that dies takes the pipeline with it, the first failure being the reason. Where there are several targets, one
that fails for a reason of its own takes only its own threads with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from batcher.engine.assembly import Destination
from batcher.engine.dispatcher import Dispatcher
from batcher.engine.fetch_loop import FetchLoop
from batcher.errors import BatcherError
from batcher.protocols.sink import stoppable

log = structlog.get_logger(__name__)

WATCH_S: Final = 0.1
"""How often the main thread checks for a signal, a dead thread or the deadline."""

CLOSE_SHARE: Final = 0.15
"""The share of the stop timeout kept for leaving the group after the drain was given up."""

LEAVE_S: Final = 5.0
"""How long threads get to return after an abort before they are left behind: a hanging write cannot be interrupted."""


class ThreadSupervisor:
    """Run the fetch loop and the loops of all targets until they have drained, failed or were told to stop.

    `stops` returns how often a stop was asked for: once means a drain, twice the end at once. A failure of one of
    `several` targets ends that target alone.
    """

    def __init__(
        self,
        fetch: FetchLoop,
        states: Dispatcher,
        stops: Callable[[], int],
        stop_timeout_s: float,
        *,
        several: bool = False,
    ) -> None:
        self._states = states
        self._stops = stops
        self._stop_timeout_s = stop_timeout_s
        self._several = several
        self.failure: BaseException | None = None
        """The error that ended the first thread that failed. Any thread may read it."""
        self.failed_targets: dict[str, BatcherError] = {}
        """The errors that ended single targets, by their names, the first of each."""
        self.fetching = self._thread("fetch", None, fetch.run, fetch.leave)
        self.threads: tuple[threading.Thread, ...] = ()
        """The threads of the targets."""
        self._targets: tuple[Destination, ...] = ()
        self._running = False

    def add(self, one: Destination) -> None:
        """Run the loops of a target. Before `run`, or later on the thread that opened it."""
        suffix = f" {one.name}" if one.name else ""
        writers = range(1, one.agreement.writers + 1)
        added = (
            self._thread(f"decode{suffix}", one, one.decode.run),
            *(self._thread(f"write{number if number > 1 else ''}{suffix}", one, one.write.run) for number in writers),
        )
        self.threads = (*self.threads, *added)
        self._targets = (*self._targets, one)
        if self._running:
            for thread in added:
                thread.start()

    def run(self) -> list[str]:
        """Return when all threads have ended or are left behind, with the names of the latter. Main thread."""
        self._running = True
        for thread in (self.fetching, *self.threads):
            thread.start()
        self._watch()
        return [thread.name for thread in (self.fetching, *self.threads) if thread.is_alive()]

    def _thread(self, name: str, one: Destination | None, *script: Callable[[], None]) -> threading.Thread:
        # Daemons: a write that hangs in a server's hands must not keep the process from ending.
        return threading.Thread(target=lambda: self._live(name, one, *script), name=name, daemon=True)

    def _live(self, name: str, one: Destination | None, *script: Callable[[], None]) -> None:
        # Each part runs, even after one that failed: the failure is known before the group is left.
        for part in script:
            self._guarded(name, one, part)

    def _guarded(self, name: str, one: Destination | None, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # it is raised again in the main thread
            if self._states.phase == "aborted":
                log.debug("thread_ended", thread=name, error=type(error).__name__)
                return
            # An expected error is reported once, with its reason, by the caller of `run`. Only a bug gets another line.
            level = log.debug if isinstance(error, BatcherError) else log.error
            level("thread_failed", thread=name, error=type(error).__name__)
            if one is None or not isinstance(error, BatcherError):
                # The first failure is the reason; what fails while the others stop is its consequence.
                self.failure = self.failure or error
                self._states.abort()
                return
            if self._several:
                self._give_up(one, error)
            else:
                self.failure = self.failure or error
            # What is durable by now would be written again at every restart if it were not committed.
            one.shared.halt()

    def _give_up(self, one: Destination, error: BatcherError) -> None:
        if one.name not in self.failed_targets:
            self.failed_targets[one.name] = error
            log.error("target_failed", target=one.name, reason=str(error), hint="the others go on; start again for it")
        self._states.fail(one.shared, f"target {one.name}: {error}")

    def _finish_what_takes_long(self) -> None:
        """Give back what is buffered for sinks that need long for a record, and single records of a batch if we can."""
        for one in self._targets:
            sink = stoppable(one.sink, one.agreement.sink)
            if sink is not None:
                one.shared.halt()
                if "release" in one.agreement.source.capabilities:
                    sink.interrupt(at_once=False)

    def _interrupt_at_once(self) -> None:
        for one in self._targets:
            sink = stoppable(one.sink, one.agreement.sink)
            if sink is not None:
                sink.interrupt(at_once=True)

    def _watch(self) -> None:
        deadline: float | None = None
        leave_by: float | None = None
        while alive := [thread for thread in (self.fetching, *self.threads) if thread.is_alive()]:
            alive[0].join(WATCH_S)
            now = time.monotonic()
            if self._stops() == 1 and deadline is None:
                deadline = now + self._stop_timeout_s * (1 - CLOSE_SHARE)
                log.info(
                    "stopping",
                    timeout_s=self._stop_timeout_s,
                    hint="what was read is written and committed; a second signal ends at once, and loses nothing",
                )
                self._finish_what_takes_long()
                self._states.drain("stop")
            if self.failure is not None and deadline is None:
                deadline = now + LEAVE_S
            late = deadline is not None and now > deadline
            if (self._stops() > 1 or late) and self._states.phase != "aborted":
                log.warning("stop_cut_short", reason="deadline" if late else "second signal")
                self._states.abort()
                self._interrupt_at_once()
            if self._states.phase == "aborted":
                leave_by = leave_by or now + min(LEAVE_S, self._stop_timeout_s * CLOSE_SHARE)
                if now > leave_by:
                    return
