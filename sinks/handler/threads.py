"""A pool of threads of a fixed size, each of which calls the handler."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from batcher.handler.call import called
from batcher.handler.function import HandlerFault, made
from sinks.handler.timers import CallTimer
from sinks.handler.work import BlockWork


class WorkerThreads:
    """Run one function on each of several threads for every block of work. It gets its worker's number.

    They are daemons: a call that does not return must not keep the process from ending.
    """

    def __init__(self, workers: int, drive: Callable[[int, BlockWork], None]) -> None:
        self._workers = workers
        self._drive = drive
        self._given: SimpleQueue[BlockWork | None] = SimpleQueue()

    def start(self) -> None:
        """Start the threads. Raise HandlerFault where the system does not give as many."""
        for number in range(self._workers):
            thread = threading.Thread(target=self._live, args=(number,), name=f"handler {number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise HandlerFault(f"cannot have {self._workers} workers: {error}") from error

    def run(self, work: BlockWork) -> None:
        """Wake up as many as the work needs, and wait for its end."""
        for _ in range(work.workers):
            self._given.put(work)
        work.wait()

    def close(self) -> None:
        """End each thread after its present call."""
        for _ in range(self._workers):
            self._given.put(None)

    def _live(self, number: int) -> None:
        while (work := self._given.get()) is not None:
            work.enter()
            try:
                self._drive(number, work)
            finally:
                work.leave()


class ThreadPool:
    """Call a handler on threads (`pool.CallPool`)."""

    def __init__(self, handler: Any, workers: int, *, as_list: bool) -> None:
        self._handler = handler
        self._call: Callable[[Any], object] = handler
        self._as_list = as_list
        self._timers = [CallTimer() for _ in range(workers)]
        self._threads = WorkerThreads(workers, self._drive)

    @property
    def timers(self) -> Sequence[CallTimer]:
        return self._timers

    def start(self) -> None:
        self._call = made(self._handler)
        self._threads.start()

    def run(self, work: BlockWork) -> None:
        self._threads.run(work)

    def stop(self, work: BlockWork) -> None:
        work.stop()

    def give_up(self, work: BlockWork) -> None:
        work.stop(at_once=True)

    def close(self) -> None:
        self._threads.close()

    def _drive(self, number: int, work: BlockWork) -> None:
        timer, call, as_list = self._timers[number], self._call, self._as_list
        while (lane := work.take()) is not None:
            for unit in lane:
                if work.stopping:
                    return
                began = time.perf_counter()
                results = called(call, work.message_unit(unit), as_list=as_list)
                timer.observe(results, time.perf_counter() - began)
                work.settle(unit, results)
                if work.holds_up(unit):
                    break
