"""Call a function with the records of a block, and say what became of each.

It neither waits nor tries again: a message that is to come again is deferred, and where it waits is the delivery's
business. How often one was tried is counted here, unless its source counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import structlog

from batcher.errors import ConfigurationError
from batcher.handler.call import AGAIN, CallOutcome
from batcher.handler.child import ChildTask
from batcher.handler.function import HandlerFault, checked, found, is_async, place_of, place_of_function
from batcher.plugins import RetryWaits
from batcher.protocols import Measure, SinkInfo
from batcher.records import Block, Deferral, Outcome, Rejection, whole_token
from sinks.handler.settings import THREADS_KEEP_NO_TIME, OrderKind, PoolKind
from sinks.handler.timers import CallTimer, distributions
from sinks.handler.work import ATTEMPT, UNBEGUN, BlockWork, Row, lanes_of

if TYPE_CHECKING:
    from sinks.handler.pool import CallPool

log = structlog.get_logger(__name__)

Handler = str | type[Any] | Callable[[Any], object]
"""A function that takes a message or a list of them, a class whose instances do, or where either is."""

PLACE: Final = slice(2, 5)
"""Where topic, partition and offset of a message are among its arguments."""

MAX_NOTES: Final = 50
"""How many different faults of a handler are told in the log."""

NOTED: Final = frozenset({"done", "error", "timeout", "crash"})
"""What is told in the log; for the others the handler has decided it."""

CALLERS: Final[dict[PoolKind, str]] = {"thread": "threads", "process": "processes", "async": "calls at once"}

REASONS: Final = {"retry": "attempts", "error": "attempts", "timeout": "timeout", "crash": "crash"}
"""The reason in the dead letter of a message that has had all its attempts, by what became of the last."""


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """Say how a handler is called; the fields are those of the section [handler].

    Raise ConfigurationError for what cannot work.
    """

    pool: PoolKind = "auto"
    workers: int = 10
    batch: int = 0
    order: OrderKind = "none"
    max_attempts: int = 5
    timeout_s: float | None = None
    waits: RetryWaits = field(default_factory=RetryWaits)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("workers", self.workers, 1),
            ("batch", self.batch, 0),
            ("max-attempts", self.max_attempts, 1),
        ):
            if value < least:
                raise ConfigurationError(f"--handler.{name} must be at least {least}")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ConfigurationError("--handler.timeout must be more than 0, or none")


class HandlerSink:
    """Call a handler with records. It is a name such as `my.app:handle`, or the function itself."""

    def __init__(self, handler: Handler, options: HandlerOptions = HandlerOptions()) -> None:
        self._handler = handler
        self._options = options
        self._pool: CallPool | None = None
        self._timers: Sequence[CallTimer] = ()
        self._kind: PoolKind = "thread"
        self._work: BlockWork | None = None
        self._stopping = False
        self._token = ""
        self._failures: dict[Hashable, int] = {}
        """How often each message was tried that comes again, by its place."""
        self._deferred = 0
        self._noted: set[str] = set()

    def open(self) -> SinkInfo:
        options = self._options
        name = self._handler if isinstance(self._handler, str) else getattr(self._handler, "__qualname__", "handler")
        try:
            pool = self._pool = self._made()
            pool.start()
        except HandlerFault as fault:
            # Of several processes some may have started.
            self.close()
            raise ConfigurationError(f"--handler.function {name}: {fault}") from fault
        self._timers = pool.timers
        return SinkInfo(
            f"handler {name} ({options.workers} {CALLERS[self._kind]})",
            None,
            ("_topic", "_partition", "_offset"),
            reason="a function cannot be asked what it has done, so it may be called again with the same message",
            capabilities=frozenset({"pin", "interrupt", "measure"}),
            raw=True,
            acts=True,
        )

    def pin(self, proposed: pa.Schema) -> pa.Schema:
        """Take any columns: messages are handed over as they came."""
        return proposed

    def write(self, block: Block) -> Outcome | None:
        assert self._pool is not None
        if not block.rows:
            return None
        if whole_token(block.token) != self._token:
            # Whatever of the batch before came to no end, it was taken away from us.
            self._token = whole_token(block.token)
            self._failures.clear()
        rows = self._rows(block)
        options = self._options
        work = self._work = BlockWork(
            rows,
            lanes_of(self._keys(rows), len(rows), options.batch),
            ordered=options.order != "none",
            max_attempts=options.max_attempts,
            workers=options.workers,
        )
        if self._stopping:
            work.stop()
        else:
            self._pool.run(work)
        outcome = self._outcome(work)
        self._deferred = len(outcome.deferred)
        return outcome if outcome.named() else None

    def interrupt(self, *, at_once: bool) -> None:
        """Begin no further call; with `at_once` give those up that go on."""
        self._stopping = True
        pool, work = self._pool, self._work
        if pool is not None and work is not None:
            if at_once:
                pool.give_up(work)
            else:
                pool.stop(work)

    def measures(self) -> Sequence[Measure]:
        """Return how long calls took, by outcome, and what the pool is doing."""
        work = self._work
        return (
            Measure(
                "handler_seconds",
                "Calls of the handler, for each message.",
                "histogram",
                distributions(self._timers),
                "outcome",
            ),
            Measure(
                "handler_running",
                "Workers that are busy with the handler.",
                "gauge",
                {"": float(0 if work is None else work.running)},
            ),
            Measure("handler_workers", "Calls that can go on at once.", "gauge", {"": float(self._options.workers)}),
            Measure(
                "handler_deferred",
                "Messages of the last block that come again.",
                "gauge",
                {"": float(self._deferred)},
            ),
        )

    def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _made(self) -> CallPool:
        """Return the pool, not started. Raise HandlerFault for a handler that it cannot call."""
        options = self._options
        as_list = options.batch > 0
        here = str(Path.cwd())
        if here not in sys.path and "" not in sys.path:
            # As for plug-ins: a console script does not have the working directory on its path.
            sys.path.append(here)
        handler = found(place_of(self._handler)) if isinstance(self._handler, str) else self._handler
        checked(handler, as_list=as_list)
        kind = self._kind = _kind(options, asynchronous=is_async(handler))
        if kind == "async":
            from sinks.handler.coroutines import AsyncPool  # noqa: PLC0415 - only the pool that is used is loaded

            return AsyncPool(handler, options.workers, as_list=as_list, timeout_s=options.timeout_s)
        if kind == "process":
            from sinks.handler.processes import ProcessPool  # noqa: PLC0415 - as above

            place = place_of(self._handler) if isinstance(self._handler, str) else place_of_function(handler)
            paths = tuple(here if path == "" else path for path in sys.path)
            task = ChildTask(place, paths, as_list, options.max_attempts)
            return ProcessPool(task, options.workers, timeout_s=options.timeout_s)
        from sinks.handler.threads import ThreadPool  # noqa: PLC0415 - as above

        return ThreadPool(handler, options.workers, as_list=as_list)

    def _rows(self, block: Block) -> list[Row]:
        """Return the arguments of the messages."""
        raw = block.raw
        assert raw is not None
        count = block.rows
        nothing = [None] * count
        places = [block.table[name].to_pylist() for name in ("_topic", "_partition", "_offset")]
        attempts = [1] * count if raw.attempts is None else [one or 1 for one in raw.attempts.to_pylist()]
        headers = nothing if raw.headers is None else [_by_name(listed) for listed in raw.headers.to_pylist()]
        rows = list(
            zip(
                raw.values.to_pylist(),
                raw.keys.to_pylist(),
                *places,
                raw.timestamps_ms.to_pylist(),
                headers,
                nothing if raw.ids is None else raw.ids.to_pylist(),
                attempts,
                strict=True,
            )
        )
        if not self._failures:
            return rows
        return [
            (*row[:ATTEMPT], row[ATTEMPT] + failed) if (failed := self._failures.get(row[PLACE])) else row
            for row in rows
        ]

    def _keys(self, rows: Sequence[Row]) -> list[Hashable] | None:
        match self._options.order:
            case "none":
                return None
            case "key":
                return [row[1] for row in rows]
            case "partition":
                return [row[2:4] for row in rows]

    def _outcome(self, work: BlockWork) -> Outcome:
        if not any(work.results) and not self._failures:
            return Outcome()
        rejected: list[Rejection] = []
        deferred: list[Deferral] = []
        dropped: list[int] = []
        for lane in work.lanes:
            wait_s, behind = 0.0, False
            for row in (row for unit in lane for row in unit):
                result = work.results[row]
                if result is UNBEGUN:
                    deferred.append(self._unbegun(row, wait_s if behind else None))
                elif result is not None and work.comes_again(row):
                    # The first one decides when the rest of the lane comes again: so they come together.
                    delay_s = self._delay(result, work.rows[row])
                    wait_s, behind = (wait_s, True) if behind else (delay_s, True)
                    deferred.append(Deferral(row, wait_s if work.ordered else delay_s, result.message))
                    self._failed(work.rows[row])
                else:
                    self._failures.pop(work.rows[row][PLACE], None)
                    if result is not None:
                        self._ended(row, result, work, rejected, dropped)
                if result is not None:
                    self._note(result)
        return Outcome(tuple(rejected), tuple(deferred), tuple(dropped))

    def _unbegun(self, row: int, wait_s: float | None) -> Deferral:
        """Return when a message comes again that was not tried; `wait_s` is given where one before it is waited for."""
        if wait_s is not None:
            return Deferral(row, wait_s, "behind a message that comes again")
        if self._stopping:
            return Deferral(row, 0.0, "the pipeline stops")
        return Deferral(row, self._options.waits.after(1), "no process can be started")

    def _ended(
        self, row: int, result: CallOutcome, work: BlockWork, rejected: list[Rejection], dropped: list[int]
    ) -> None:
        """Note a message that does not come again and is not simply done."""
        if result.kind == "dropped":
            dropped.append(row)
        elif result.kind == "rejected":
            rejected.append(Rejection(row, result.reason, result.message))
        elif result.kind in AGAIN:
            attempts = work.rows[row][ATTEMPT]
            times = "once" if attempts == 1 else f"{attempts} times"
            message = f"the handler was called {times}, and at last {result.message}"
            rejected.append(Rejection(row, REASONS[result.kind], message))

    def _delay(self, result: CallOutcome, row: Row) -> float:
        wait_s = self._options.waits.after(row[ATTEMPT]) if result.delay_s is None else result.delay_s
        return max(wait_s, 0.0)

    def _failed(self, row: Row) -> None:
        self._failures[row[PLACE]] = self._failures.get(row[PLACE], 0) + 1

    def _note(self, result: CallOutcome) -> None:
        """Log each fault of the handler once; messages and metrics say how often."""
        if result.kind in NOTED and result.message not in self._noted and len(self._noted) < MAX_NOTES:
            self._noted.add(result.message)
            log.warning("handler_fault", outcome=result.kind, reason=result.message)


def _kind(options: HandlerOptions, *, asynchronous: bool) -> PoolKind:
    """Return the kind of pool. Raise HandlerFault for one that cannot call the handler."""
    kind = options.pool
    if kind == "auto":
        kind = "async" if asynchronous else "thread"
    if asynchronous and kind != "async":
        raise HandlerFault(f"is an async def, which --handler.pool {kind} does not await: use auto or async")
    if kind == "async" and not asynchronous:
        raise HandlerFault("is no async def, and would keep all others waiting: use --handler.pool thread or process")
    if kind == "thread" and options.timeout_s is not None:
        raise HandlerFault(f"would be called with --handler.timeout, and {THREADS_KEEP_NO_TIME}")
    return kind


def _by_name(listed: Any) -> dict[str, bytes | None] | None:
    return {one["key"]: one["value"] for one in listed} if listed else None
