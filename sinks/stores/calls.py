"""Calls of a store, each with a deadline, on a thread that nobody has to wait for.

The client is used by its coroutines, on a loop in a daemon thread. So a caller waits for a lock, which a signal
interrupts in the main thread; several calls go on at a time; and a process may end while the store still thinks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")

UPLOAD_BYTES_PER_S: Final = 1 << 20
"""How slow an upload may be: it has a second more for each of these."""

_LEAVE_S: Final = 1.0


class Calls:
    """Run coroutines for any thread, at most `at_once` of those given to `each` at a time.

    `close` ends what still runs. After it nothing can be called any more.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="object store", daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine returns, or raise what it raises. Any thread but the loop's."""
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def each(self, call: Callable[[Item], Awaitable[T]], items: Iterable[Item]) -> list[T]:
        """Return what a call returns for each item, in their order. The first error ends the others, and is raised."""
        return self.run(self._each(call, list(items)))

    async def _each(self, call: Callable[[Item], Awaitable[T]], items: list[Item]) -> list[T]:
        waiting = iter(enumerate(items))
        results: dict[int, T] = {}

        async def worker() -> None:
            for number, item in waiting:
                results[number] = await call(item)

        tasks = [asyncio.ensure_future(worker()) for _ in range(min(self._at_once, len(items)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return [results[number] for number in range(len(items))]

    def close(self) -> None:
        """End the calls that still run, and the thread. A second call is harmless."""
        if self._loop.is_closed():
            return
        with suppress(Exception):  # a loop that hangs is left behind with its thread
            asyncio.run_coroutine_threadsafe(_ended(), self._loop).result(_LEAVE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LEAVE_S)
        if not self._thread.is_alive():
            self._loop.close()


async def within(seconds: float, call: Awaitable[T]) -> T:
    """Return what a call returns; raise TimeoutError, and end the call, when that takes longer."""
    async with asyncio.timeout(seconds):
        return await call


async def _ended() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
