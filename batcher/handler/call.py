"""Call a handler, and say in one value what became of the call.

Done is None: nothing is made for most messages. Whatever a handler raises ends here, also SystemExit: a handler must
not be able to end a thread of ours.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from batcher.handler.message import Drop, Message, Reject, Retry

Kind = Literal["done", "retry", "rejected", "dropped", "error", "timeout", "crash"]
"""What became of a call. `retry`: the handler asked for it. `error`: it raised. `crash`: its process died."""

KINDS: Final[tuple[Kind, ...]] = ("done", "retry", "rejected", "dropped", "error", "timeout", "crash")

AGAIN: Final[frozenset[Kind]] = frozenset({"retry", "error", "timeout", "crash"})
"""What is tried again, until a message has had all its attempts."""


class CallOutcome(NamedTuple):
    """Say what became of a message. `message` is one line for people, which quotes no value."""

    kind: Kind
    message: str = ""
    delay_s: float | None = None
    """For `retry`: the seconds that the handler asked for; None for the wait of the settings."""
    reason: str = ""
    """For `rejected`: one word for counting."""


Result = CallOutcome | None
"""None where the message is done and there is nothing to say about it."""

Results = Sequence[Result]
"""What became of the messages of one call, in their order."""

Unit = Sequence[Message]
"""The messages of one call: one, or a list where the handler takes lists."""

RETURNED_FALSE: Final = CallOutcome("retry", "it returned False")
DROPPED: Final = CallOutcome("dropped")


def called(handler: Callable[[Any], object], unit: Unit, *, as_list: bool) -> Results:
    """Call a handler with a message, or with a list of them, and return what became of each."""
    try:
        result = handler(unit if as_list else unit[0])
    except BaseException as error:  # whatever it is, it is about this message
        return [_of_error(error)] * len(unit)
    if result is None or result is True:
        return (None,) * len(unit)
    return _of_results(result, len(unit), as_list=as_list)


async def awaited(handler: Callable[[Any], Any], unit: Unit, *, as_list: bool, timeout_s: float | None) -> Results:
    """Do what `called` does for an `async def`, cancelled after `timeout_s`. Raise CancelledError at a stop."""
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            result = await handler(unit if as_list else unit[0])
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return [_of_error(error)] * len(unit)
    except BaseException as error:  # as above
        if limit.expired():
            return [timed_out(timeout_s)] * len(unit)
        return [_of_error(error)] * len(unit)
    if result is None or result is True:
        return (None,) * len(unit)
    return _of_results(result, len(unit), as_list=as_list)


def timed_out(timeout_s: float | None) -> CallOutcome:
    """Return the outcome of a call that took longer than it may."""
    return CallOutcome("timeout", f"it took longer than {timeout_s:g} s")


def holds_back(result: Result, attempt: int, max_attempts: int) -> bool:
    """Return whether a message comes again, so that those of its key have to wait for it."""
    return result is not None and result.kind in AGAIN and attempt < max_attempts


def _of_results(result: object, count: int, *, as_list: bool) -> Results:
    if not as_list or not isinstance(result, list | tuple):
        return [_of_result(result)] * count
    if len(result) != count:
        return [CallOutcome("error", f"it returned {len(result)} outcomes for {count} messages")] * count
    return [_of_result(one) for one in result]


def _of_result(result: object) -> Result:
    if result is None or result is True:
        return None
    if result is False:
        return RETURNED_FALSE
    if isinstance(result, BaseException):
        return _of_error(result)
    if isinstance(result, type) and issubclass(result, BaseException):
        return _of_error(result())
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        return CallOutcome("error", "it returned something to be awaited; write it as async def")
    # Many functions return something; only to ignore it in silence would be wrong.
    return CallOutcome("done", f"it returned {type(result).__name__}, which is ignored; None or True means done")


def _of_error(error: BaseException) -> CallOutcome:
    if isinstance(error, Retry):
        return _again(error)
    if isinstance(error, Reject):
        return CallOutcome("rejected", " ".join(str(error.why).split()), reason=error.reason)
    if isinstance(error, Drop):
        return DROPPED
    # Not its text: that often quotes the value.
    return CallOutcome("error", f"it raised {type(error).__name__}{_place(error)}")


def _again(error: Retry) -> CallOutcome:
    delay: object = error.delay
    if isinstance(delay, timedelta):
        delay = delay.total_seconds()
    if delay is None or (isinstance(delay, int | float) and math.isfinite(delay)):
        return CallOutcome("retry", f"it asked for another attempt{_place(error)}", delay)
    return CallOutcome("error", f"it raised Retry with what is no number of seconds{_place(error)}")


def _place(error: BaseException) -> str:
    """Name the line that raised, or that called what raised: the last one that is no library's."""
    found = ""
    # Not extract_tb, which reads the lines themselves.
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file.endswith(".py") and file != __file__ and "site-packages" not in file:
            found = f" ({Path(file).name} line {line})"
    return found
