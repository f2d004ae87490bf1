"""The section [handler]. Light: the command line is made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from batcher.options import Advice, Fault, Flag, OptionalDuration, Section

PoolKind = Literal["auto", "thread", "process", "async"]
"""What calls the handler."""

OrderKind = Literal["none", "key", "partition"]
"""Which messages are handled one after the other."""

THREADS_KEEP_NO_TIME = (
    "a thread cannot be ended, so threads keep no time: use --handler.pool process, or write the function as async def"
)


class HandlerSection(Section):
    """The function of `--sink handler`. Records go to it as they came: the format is raw unless you name one."""

    function: Annotated[str | None, Flag(metavar="MODULE:FUNCTION")] = None
    """Your function, called with each message; or a class, made once and then called."""
    pool: PoolKind = "auto"
    """What calls it; auto: async for an `async def`, else threads. A process survives a handler that kills it."""
    workers: Annotated[int, Field(gt=0, le=10_000), Flag(metavar="N")] = 10
    """Threads, processes, or calls at once of an `async def`."""
    batch: Annotated[int, Field(ge=0), Flag(metavar="N")] = 0
    """Call it with lists of at most this many messages; 0: with one message."""
    order: OrderKind = "none"
    """Handle the messages of a key, or of a partition, one after the other; none: in any order."""
    max_attempts: Annotated[int, Field(gt=0), Flag(metavar="N")] = 5
    """A message that is still not done after this many attempts becomes a dead letter. The waits are --retry.*."""
    timeout: Annotated[OptionalDuration, Flag(metavar="none|TIME")] = None
    """How long a call may take: an async call is cancelled, a process killed. Threads keep no time."""

    routed: ClassVar[str] = "function"
    implied: ClassVar[Mapping[str, str]] = {
        "decode.format": "raw",
        # A stop waits for a batch, and a crash repeats one. And no message should wait long for others.
        "batch.max_rows": "1000",
        "batch.max_wait": "100ms",
    }

    def lacking(self) -> Iterator[Fault]:
        if not self.function:
            yield Fault("function", "which function? my.module:handle")

    def impossible(self) -> Iterator[Fault]:
        if self.timeout is None:
            return
        if self.timeout <= timedelta(0):
            yield Fault("timeout", "is none or more than 0s")
        elif self.pool == "thread":
            yield Fault("timeout", THREADS_KEEP_NO_TIME)

    def faster(self) -> Iterator[Advice]:
        yield Advice("more calls at once, where the function waits", ("--handler.workers", f"{self.workers * 4}"))
        if not self.batch:
            yield Advice("lists of messages, where the function can take them", ("--handler.batch", "100"))
