"""The pipeline, which loads a source into a sink. This is the Python API.

    main thread        run(): open sink, queue and source (start.py), put the engine together (assembly.py), start the
                       threads and watch them (supervisor.py), close, report (report.py)
    thread "fetch"     the source; nothing else touches it             (fetch_loop.py)
    thread "decode"    bytes into columns, one batch ahead             (decode_loop.py)
    thread "write"     target and dead letters                         (write_loop.py)

Stopping: `stop` ends reading. Everything buffered is sealed, written and committed; then the group is left. `abort`, or
the deadline, ends retries at once and commits nothing more. Both only set flags, so that a signal handler may call
them. A thread that dies takes the pipeline with it: its exception comes out of `run`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, TypeVar, cast

import structlog

from batcher.core.buffer import FlushPolicy
from batcher.core.limits import DeadLetterPolicy
from batcher.engine.assembly import (
    Agreement,
    DeliveryMode,
    Engine,
    Parts,
    PipelineOptions,
    agreed,
    assembled,
    check_capabilities,
)
from batcher.engine.fetch_loop import FetchLoop
from batcher.engine.reconcile import OnExisting
from batcher.engine.report import Summary, summary_of, with_counters, with_snapshot
from batcher.engine.retry import RetryPolicy
from batcher.engine.start import Patience, opened
from batcher.engine.supervisor import ThreadSupervisor
from batcher.errors import ConfigurationError, DrainTimeout
from batcher.protocols import DeadLetterQueue, Format, Guarantee, LagAware, Sink, SinkInfo, Source, SourceInfo
from batcher.records import Partition
from batcher.telemetry.counters import Counters
from batcher.telemetry.events import Events, GuaranteeAgreed, Subscriber
from batcher.telemetry.status import State, Status

log = structlog.get_logger(__name__)

T = TypeVar("T")

STUCK_S: Final = 150.0
"""How long a round of the fetch loop may take: half of librdkafka's default `max.poll.interval.ms`."""

READY_PATIENCE_S: Final = 30.0
"""How long the target may refuse before the process says that it is not ready."""


class Pipeline:
    """Load a source into a sink. Build it, call `run` once from the main thread.

    `name` (the consumer group) is part of every token. `stop_timeout_s` bounds the time from `stop` to the return of
    `run`, as far as the sink's calls return. `drain_timeout_s` bounds how long a partition that is taken away is held
    for its batch in flight; the source may allow less. `start_timeout_s` is how long a target or broker that does not
    answer at the start is waited for. With `halt_on_unknown` a record that the format refuses for an unknown field
    stops the pipeline. `subscribers` hear of what happens (`telemetry.events`).
    """

    def __init__(
        self,
        source: Source,
        sink: Sink,
        format_: Format,
        *,
        name: str,
        dead_letters: DeadLetterQueue | None = None,
        flush: FlushPolicy | None = None,
        memory_bytes: int = 48 << 20,
        retry: RetryPolicy | None = None,
        poison: DeadLetterPolicy | None = None,
        delivery: DeliveryMode = "auto",
        merge_partitions: bool = False,
        ignore_intents: bool = False,
        on_existing: OnExisting = "halt",
        max_records: int | None = None,
        stop_timeout_s: float = 25.0,
        drain_timeout_s: float = 20.0,
        start_timeout_s: float = 30.0,
        halt_on_unknown: bool = False,
        subscribers: Collection[Subscriber] = (),
    ) -> None:
        self._parts = Parts(source, sink, format_, dead_letters)
        self._options = PipelineOptions(
            name,
            flush or FlushPolicy(),
            memory_bytes,
            retry or RetryPolicy(),
            poison or DeadLetterPolicy(),
            delivery,
            merge_partitions,
            ignore_intents,
            on_existing,
            max_records,
            stop_timeout_s,
            drain_timeout_s,
            start_timeout_s,
            halt_on_unknown,
        )
        self._counters = Counters()
        self._events = Events(self._counters, *subscribers)
        self._fetch = FetchLoop(source, self._events, drain_timeout_s=drain_timeout_s)
        self._stops = 0
        self._opening: list[threading.Thread] = []
        self._opening_source: list[threading.Thread] = []
        self._sink_info: SinkInfo | None = None
        self._agreement: Agreement | None = None
        self._engine: Engine | None = None
        self._supervisor: ThreadSupervisor | None = None
        self._patience: Patience | None = None
        self._ended = False
        self._started = 0.0

    @property
    def guarantee(self) -> Guarantee:
        """Return what this run guarantees. It is decided when source and sink are opened, and never changes."""
        return self._agreement.guarantee if self._agreement is not None else "at-least-once"

    def stop(self) -> None:
        """Ask for a drain. Safe in a signal handler: sets a flag that `run` sees within 0.1 s."""
        self._stops = max(self._stops, 1)

    def abort(self) -> None:
        """Ask for the end at once, committing nothing more. Safe in a signal handler."""
        self._stops = 2

    def run(self) -> Summary:
        """Run until stopped or until the source comes to its end, and return what was done.

        Raise Unreachable or SinkMisconfigured when it cannot start, DrainTimeout when the stop was cut short, and
        any error that ended a thread.
        """
        if not structlog.is_configured():
            # Used as a library. structlog's own default would put logs among the program's output.
            structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
        self._started = time.monotonic()
        stuck: list[str] = []
        try:
            agreement = self._agreement = self._open()
            engine = self._engine = assembled(self._parts, self._options, agreement, self._fetch, self._events)
            supervisor = self._supervisor = ThreadSupervisor(engine, lambda: self._stops, self._options.stop_timeout_s)
            stuck = supervisor.run()
        finally:
            if self._engine is not None:
                self._engine.writer.decoding.settle()
            self._close()
            self._ended = True
        if supervisor.failure is not None:
            raise supervisor.failure
        if engine.shared.phase == "aborted":
            raise self._cut_short(engine, stuck)
        if self._fetch.stopped:
            raise ConfigurationError(
                f"nothing was read from {len(self._fetch.stopped)} partitions: "
                f"{next(iter(self._fetch.stopped.values()))}; --ignore-intents starts at the committed offset"
            )
        return self.summary()

    def summary(self) -> Summary:
        """Return what was done so far; also after `run` raised."""
        return summary_of(self._counters, self._uptime_s, self.guarantee, self._columns_without_value)

    @property
    def alive(self) -> bool:
        """Return whether the fetch loop still turns its rounds, whatever the target does. Any thread."""
        if self._supervisor is None:
            return True
        if self._supervisor.failure is not None:
            return False
        return self._ended or self._fetch.silent_s < STUCK_S

    @property
    def ready(self) -> tuple[bool, str]:
        """Return whether the process does its work, and if not, why. Any thread.

        A member is also ready without partitions, because there are more members than partitions: it stands by.
        """
        state = self._state()
        if state == "starting" and self._patience is not None and self._patience.reason:
            return False, f"waiting for {self._patience.reason}"
        if state != "running":
            return False, state
        if not self._fetch.joined:
            return False, "no partitions assigned yet"
        error = self._counters.last_error
        if error is not None and not error.recovered and error.since_s > READY_PATIENCE_S:
            return False, f"the target has refused for {error.since_s:.0f} s: {error.kind}: {error.message}"
        return True, ""

    def status(self) -> Status:
        """Return what is going on now. Any thread."""
        info, agreement, engine = self._sink_info, self._agreement, self._engine
        status = Status(
            self._state(),
            delivery=self.guarantee,
            delivery_reason=agreement.reason if agreement else "",
            target=info.target if info else "",
            group=self._options.name,
            uptime_s=self._uptime_s,
            columns_without_value=self._columns_without_value,
        )
        status = with_counters(status, self._counters)
        if engine is None:
            return replace(status, waiting_for=self._waits_for_opening)
        return with_snapshot(
            status,
            engine.shared.snapshot(),
            stopped=self._fetch.stopped,
            lag=self._lag(),
            attempts=self._counters.attempts,
        )

    @property
    def _uptime_s(self) -> float:
        return time.monotonic() - self._started if self._started else 0.0

    @property
    def _waits_for_opening(self) -> str:
        return "the target to open" if self._sink_info is None else "the source to open"

    @property
    def _columns_without_value(self) -> tuple[str, ...]:
        return () if self._engine is None else self._engine.writer.decoding.columns_without_value

    def _lag(self) -> Mapping[Partition, int]:
        if self._agreement is None or "lag" not in self._agreement.source.capabilities:
            return {}
        return cast("LagAware", self._parts.source).lag()

    def _state(self) -> State:
        if self._supervisor is not None and self._supervisor.failure is not None:
            return "failed"
        if self._ended:
            return "stopped"
        if self._engine is None:
            return "starting"
        states: Mapping[str, State] = {"running": "running", "draining": "draining", "aborted": "stopped"}
        return states[self._engine.shared.phase]

    def _open(self) -> Agreement:
        parts = self._parts
        sink = self._sink_info = self._opened(parts.sink.open, "the target")
        check_capabilities(parts.sink, sink)
        if parts.dead_letters is not None:
            self._opened(parts.dead_letters.open, "the dead-letter queue")
        # What the sink alone cannot guarantee is said before a broker is asked for anything.
        agreed(SourceInfo(keeps_intents=True), sink, self._options)
        source = self._opened(self._fetch.open, "the brokers", self._opening_source)
        check_capabilities(parts.source, source)
        agreement = agreed(source, sink, self._options)
        self._events.publish(GuaranteeAgreed(agreement.guarantee))
        log.info(
            "pipeline_started",
            delivery=agreement.guarantee,
            target=sink.target,
            target_could_keep=sink.guarantee,
            reason=agreement.reason,
            merges_partitions=agreement.merges_partitions,
            dead_letters=parts.dead_letters is not None,
        )
        return agreement

    def _opened(self, open_: Callable[[], T], what: str, threads: list[threading.Thread] | None = None) -> T:
        patience = self._patience = Patience(what, self._options.start_timeout_s, lambda: self._stops > 0)
        return opened(open_, patience, self._opening if threads is None else threads)

    def _cut_short(self, engine: Engine, stuck: list[str]) -> DrainTimeout:
        busy = f" (still busy: {', '.join(stuck)})" if stuck else ""
        with engine.shared.asking() as state:
            again = state.abandoned_offsets
        return DrainTimeout(
            f"stopped before everything was durable{busy}; nothing is lost, {again} records "
            f"will be read again. Start again, or give more time with --stop-timeout"
        )

    def _close(self) -> None:
        threads = [*self._opening, *(self._supervisor.threads[1:] if self._supervisor is not None else [])]
        if any(thread.is_alive() for thread in threads):
            return  # it hangs inside the sink or the queue: closing these could hang as well
        if self._supervisor is None and not any(thread.is_alive() for thread in self._opening_source):
            self._parts.source.close()
        self._parts.sink.close()
        if self._parts.dead_letters is not None:
            self._parts.dead_letters.close()
