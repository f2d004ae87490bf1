"""A thread with an event loop, on which as many calls of an `async def` go on at once as there are workers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

from batcher.handler.call import awaited
from batcher.handler.function import made
from sinks.handler.timers import CallTimer
from sinks.handler.work import BlockWork


class AsyncPool:
    """Call an `async def` (`pool.CallPool`). The loop stays the same, so that a client belongs to it for good."""

    def __init__(self, handler: Any, workers: int, *, as_list: bool, timeout_s: float | None) -> None:
        self._handler = handler
        self._call: Any = handler
        self._workers = workers
        self._as_list = as_list
        self._timeout_s = timeout_s
        self._timer = CallTimer()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def timers(self) -> Sequence[CallTimer]:
        return (self._timer,)

    def start(self) -> None:
        self._call = made(self._handler)
        self._loop = loop = asyncio.new_event_loop()
        threading.Thread(target=self._live, args=(loop,), name="handler loop", daemon=True).start()

    def run(self, work: BlockWork) -> None:
        assert self._loop is not None
        for _ in range(work.workers):
            work.enter()
        self._loop.call_soon_threadsafe(self._begin, work)
        work.wait()

    def stop(self, work: BlockWork) -> None:
        work.stop()

    def give_up(self, work: BlockWork) -> None:
        work.stop(at_once=True)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    def close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            self._cancel()
            loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _begin(self, work: BlockWork) -> None:
        for _ in range(work.workers):
            task = asyncio.get_running_loop().create_task(self._drive(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _drive(self, work: BlockWork) -> None:
        try:
            while (lane := work.take()) is not None:
                for unit in lane:
                    if work.stopping:
                        return
                    began = time.perf_counter()
                    results = await awaited(
                        self._call, work.message_unit(unit), as_list=self._as_list, timeout_s=self._timeout_s
                    )
                    self._timer.observe(results, time.perf_counter() - began)
                    work.settle(unit, results)
                    if work.holds_up(unit):
                        break
        finally:
            work.leave()
