"""A thread that gets on only when it is told to: every order of two threads, one step at a time and always the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 20.0
"""How long a fiber may run from one pause to the next before it counts as hanging."""


class Killed(BaseException):
    """End a fiber, or the code of a process that it belongs to, at this very point."""


class Fiber:
    """Run a function in a thread of its own, from one `pause` to the next. One thread resumes it, while it waits.

    What the function raises comes out of `resume`; Killed only ends it.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self.point = "start"
        """Where it pauses."""
        self.ended = False
        self._run = run
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._order: BaseException | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    @property
    def current(self) -> bool:
        """Return whether the caller runs inside this fiber."""
        return threading.current_thread() is self._thread

    def pause(self, point: str) -> None:
        """Hand back to whoever resumed this fiber, and wait to be resumed. Called inside."""
        self.point = point
        self._back.release()
        self._go.acquire()
        order, self._order = self._order, None
        if order is not None:
            raise order

    def resume(self, order: BaseException | None = None) -> str:
        """Let it go on, with `order` raised where it paused if given, and return where it pauses next."""
        self._order = order
        self._go.release()
        if not self._back.acquire(timeout=PATIENCE_S):
            raise TimeoutError(f"hangs behind {self.point!r}")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return self.point

    def kill(self) -> None:
        """End it where it is, if it has not ended yet."""
        if not self.ended:
            self.resume(Killed())

    def _main(self) -> None:
        self._go.acquire()
        try:
            if self._order is None:
                self._run()
        except Killed:
            pass
        except BaseException as error:  # it comes out of `resume`
            self._failure = error
        self.ended = True
        self._back.release()


class FiberLock:
    """Be a lock between fibers: one that finds it taken pauses, instead of keeping the only thread that runs."""

    def __init__(self, pause: Callable[[str], None]) -> None:
        self._pause = pause
        self._taken = False

    def __enter__(self) -> None:
        while self._taken:
            self._pause("waiting")
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False
