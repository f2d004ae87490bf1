"""Wait at the start for servers that do not answer yet: brokers, targets and proxies start in any order.

What is opened runs on a thread of its own, so that the main thread can hear signals while a driver hangs. A thread that
hangs is left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import structlog

from batcher.errors import DrainTimeout, SinkUnavailable, Unreachable

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOK_S: Final = 0.1
"""How often a stop is looked for."""

FIRST_PAUSE_S: Final = 0.25
MAX_PAUSE_S: Final = 2.0

SAY_AFTER_S: Final = 2.0
"""How long the first attempt may take before the log says what is waited for."""

LEAST_ATTEMPT_S: Final = 10.0
"""An attempt that hangs is given up when the time is over, but not before it had this long: a slow answer is one."""


class Patience:
    """Decide whether something is tried again: for `timeout_s` from now on, and until `stopped` says so.

    `what` names it in messages. `wait` sleeps.
    """

    def __init__(
        self,
        what: str,
        timeout_s: float,
        stopped: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.what = what
        self.timeout_s = timeout_s
        self._stopped = stopped
        self._clock = clock
        self._wait = wait
        self._began = clock()
        self._pause_s = FIRST_PAUSE_S
        self._said = False
        self.reason = ""
        """Why it is still waited for; empty before the first attempt failed."""

    @property
    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self._began + self.timeout_s - self._clock()

    def check(self) -> None:
        """Raise DrainTimeout when a stop was asked for."""
        if self._stopped():
            raise DrainTimeout(
                f"stopped before it had begun, while waiting for {self.what}; nothing was read, start it again"
            )

    def remind(self) -> None:
        """Log what is waited for, where an attempt takes long and nothing was logged yet."""
        if self._clock() - self._began > SAY_AFTER_S:
            self._say("no answer yet")

    def after(self, error: Exception) -> None:
        """Wait before the next attempt; raise Unreachable when the time is over, DrainTimeout after a stop."""
        if self.left_s <= self._pause_s:
            waited = f"; waited {self.timeout_s:g} s for it, see --start-timeout" if self.timeout_s else ""
            raise Unreachable(f"{error}{waited}") from error
        self._say(str(error))
        self.reason = f"{self.what}: {error}"
        until = self._clock() + self._pause_s
        while (rest := until - self._clock()) > 0:
            self.check()
            self._wait(min(LOOK_S, rest))
        self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)

    def _say(self, reason: str) -> None:
        if not self._said and self.timeout_s:
            self._said = True
            log.warning(
                "waiting_at_start",
                waiting_for=self.what,
                error=reason,
                at_most_s=round(max(self.left_s, 0.0), 1),
                hint="it is tried again until then; see --start-timeout",
            )


def opened(open_: Callable[[], T], patience: Patience, threads: list[threading.Thread]) -> T:
    """Return what `open_` returns, called again while it raises Unreachable or SinkUnavailable.

    Each call is on a thread of its own, which is added to `threads`. Raise Unreachable when the time is over,
    DrainTimeout at a stop, and anything else that `open_` raises.
    """
    while True:
        try:
            return _Attempt(open_, patience, threads).result()
        except (Unreachable, SinkUnavailable) as error:
            patience.after(error)


class _Attempt(Generic[T]):
    """Run one call on a thread."""

    def __init__(self, open_: Callable[[], T], patience: Patience, threads: list[threading.Thread]) -> None:
        self._open = open_
        self._patience = patience
        self._done = threading.Event()
        self._values: list[T] = []
        self._error: BaseException | None = None
        thread = threading.Thread(target=self._run, name="opening", daemon=True)
        threads.append(thread)
        thread.start()

    def _run(self) -> None:
        try:
            self._values.append(self._open())
        except BaseException as error:  # it is raised again in the thread that waits
            self._error = error
        finally:
            self._done.set()

    def result(self) -> T:
        patience = self._patience
        give_up_at = time.monotonic() + max(patience.left_s, LEAST_ATTEMPT_S)
        while not self._done.wait(LOOK_S):
            patience.check()
            patience.remind()
            if patience.timeout_s and time.monotonic() > give_up_at:
                raise _gave_up(patience)
        if self._error is not None:
            raise self._error
        return self._values[0]


def _gave_up(patience: Patience) -> Unreachable:
    return Unreachable(f"{patience.what} took the connection and has not answered")
