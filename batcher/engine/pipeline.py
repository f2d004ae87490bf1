"""The pipeline, which loads a source into a sink. This is the Python API.

    main thread        run(): open sink, queue and source (start.py), put the engine together (assembly.py), start the
                       threads and watch them (supervisor.py), close, report (report.py)
    thread "fetch"     the source; nothing else touches it             (fetch_loop.py)
    thread "decode"    bytes into columns, one batch ahead             (decode_loop.py)
    thread "write"     target and dead letters; "write2" … beside it,  (write_loop.py)
                       where the sink takes several blocks at a time

Stopping: `stop` ends reading. Everything buffered is sealed, written and committed; then the group is left. `abort`, or
the deadline, ends retries at once and commits nothing more. Both only set flags, so that a signal handler may call
them. A thread that dies takes the pipeline with it: its exception comes out of `run`.

It is long because it is the whole of the Python API: what is given, the life of a run, and what is told of it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final, TypeVar, cast

import structlog

from batcher import native
from batcher.core.buffer import FlushPolicy
from batcher.core.limits import DeadLetterPolicy, RecordLimit
from batcher.core.rate import RatePolicy
from batcher.engine.assembly import (
    Agreement,
    DeliveryMode,
    Destination,
    PipelineOptions,
    Surroundings,
    agreed,
    check_capabilities,
)
from batcher.engine.dispatcher import Dispatcher
from batcher.engine.evolution import EvolutionPolicy
from batcher.engine.fetch_loop import FetchLoop
from batcher.engine.off_switch import OffSwitch
from batcher.engine.reconcile import OnExisting
from batcher.engine.report import Summary, summary_of, target_status, target_summary, with_counters, with_targets
from batcher.engine.retry import RetryPolicy
from batcher.engine.routes import Routes, Target
from batcher.engine.shared_queue import SharedQueue
from batcher.engine.start import Patience, opened
from batcher.engine.supervisor import ThreadSupervisor
from batcher.engine.targets import Targets
from batcher.errors import ConfigurationError, DrainTimeout
from batcher.protocols import DeadLetterQueue, Format, Guarantee, LagAware, Measure, Sink, SinkInfo, Source, SourceInfo
from batcher.protocols.measure import summed
from batcher.protocols.sink import measuring
from batcher.records import Partition
from batcher.telemetry.counters import Counted, Counters, together
from batcher.telemetry.events import Events, Subscriber
from batcher.telemetry.status import State, Status

log = structlog.get_logger(__name__)

T = TypeVar("T")

STUCK_S: Final = 150.0
"""How long a round of the fetch loop may take: half of librdkafka's default `max.poll.interval.ms`."""

READY_PATIENCE_S: Final = 30.0
"""How long the target may refuse before the process says that it is not ready."""


class Pipeline:
    """Load a source into a sink, or into the targets of `Routes`. Build it, call `run` once from the main thread.

    `name` (the consumer group) is part of every token. `stop_timeout_s` bounds the time from `stop` to the return of
    `run`, as far as the sink's calls return. `drain_timeout_s` bounds how long a partition that is taken away is held
    for its batch in flight; the source may allow less. `start_timeout_s` is how long a target or broker that does not
    answer at the start is waited for. With `halt_on_unknown` a record that the format refuses for an unknown field
    stops the pipeline. `merge_partitions` says whether a batch may hold several partitions where intents are kept: None
    where that costs nothing of what is kept. `evolution` says whether unknown fields become columns. `rate` bounds the
    rows a second that each target gets. `writers` is how many batches of different partitions are written at once: by
    the cores where it is None, and 1 where the sink takes one at a time. `switch` pauses it from outside. `subscribers`
    hear of what happens (`telemetry.events`).
    """

    def __init__(
        self,
        source: Source,
        sink: Sink | Routes,
        format_: Format | None = None,
        *,
        name: str,
        dead_letters: DeadLetterQueue | None = None,
        flush: FlushPolicy | None = None,
        memory_bytes: int = 40 << 20,
        retry: RetryPolicy | None = None,
        poison: DeadLetterPolicy | None = None,
        delivery: DeliveryMode = "auto",
        merge_partitions: bool | None = None,
        ignore_intents: bool = False,
        on_existing: OnExisting = "halt",
        max_records: int | None = None,
        stop_timeout_s: float = 25.0,
        drain_timeout_s: float = 20.0,
        start_timeout_s: float = 30.0,
        halt_on_unknown: bool = False,
        evolution: EvolutionPolicy = EvolutionPolicy(),  # noqa: B008 - frozen
        rate: RatePolicy | None = None,
        writers: int | None = None,
        switch: OffSwitch | None = None,
        subscribers: Collection[Subscriber] = (),
    ) -> None:
        self._source = source
        self._routes = sink if isinstance(sink, Routes) else None
        self._only = None if isinstance(sink, Routes) else _target(sink, format_)
        self._dead_letters = dead_letters
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
            evolution,
            rate,
            writers,
        )
        self._switch = switch or OffSwitch()
        self._counters = Counters()
        self._events = Events(self._counters, *subscribers)
        self._fetch = FetchLoop(source, self._events, drain_timeout_s=drain_timeout_s)
        self._targets = self._targets_for(tuple(subscribers))
        self._stops = 0
        self._opening: list[threading.Thread] = []
        self._opening_source: list[threading.Thread] = []
        self._sinks: list[Sink] = []
        self._sink_info: SinkInfo | None = None
        self._source_info: SourceInfo | None = None
        self._states: Dispatcher | None = None
        self._supervisor: ThreadSupervisor | None = None
        self._patience: Patience | None = None
        self._ended = False
        self._started = 0.0

    @property
    def guarantee(self) -> Guarantee:
        """Return what this run guarantees: the weakest of its targets.

        It is decided when source and sink are opened. A topic that comes later can bring a target that keeps less.
        """
        weakest = self._weakest
        return "at-least-once" if weakest is None else weakest.guarantee

    def stop(self) -> None:
        """Ask for a drain. Safe in a signal handler: sets a flag that `run` sees within 0.1 s."""
        self._stops = max(self._stops, 1)

    def abort(self) -> None:
        """Ask for the end at once, committing nothing more. Safe in a signal handler."""
        self._stops = 2

    def pause(self, by: str) -> None:
        """Read and write nothing until `resume`; `by` says who did it, for `status`. Any thread, also before `run`."""
        self._switch.pause(by)

    def resume(self) -> None:
        """End a `pause`. What its off switch holds stays held. Any thread."""
        self._switch.resume()

    def flush(self) -> None:
        """Write what waits at this moment, due or not; while it is held, afterwards. Any thread."""
        for one in list(self._targets.open.values()):
            with one.shared.changing() as state:
                state.flush()

    def run(self) -> Summary:
        """Run until stopped or until the source comes to its end, and return what was done.

        Raise Unreachable or SinkMisconfigured when it cannot start, DrainTimeout when the stop was cut short, and
        any error that ended a thread.
        """
        _begin_log()
        self._started = time.monotonic()
        stuck: list[str] = []
        try:
            source = self._source_info = self._open()
            states = self._states = self._dispatcher(source)
            supervisor = self._supervisor = ThreadSupervisor(
                self._fetch,
                states,
                lambda: self._stops,
                self._options.stop_timeout_s,
                several=self._routes is not None,
            )
            for one in self._targets.open.values():
                states.add(one.shared)
                supervisor.add(one)
            self._switch.start(lambda: states.hold(held=self._switch.holding))
            self._fetch.begin(states)
            stuck = supervisor.run()
        finally:
            self._switch.close()
            self._targets.end()
            for one in self._targets.open.values():
                one.writer.decoding.settle()
            self._close()
            self._ended = True
        if supervisor.failure is not None:
            raise supervisor.failure
        if states.phase == "aborted":
            raise self._cut_short(states, stuck)
        for error in supervisor.failed_targets.values():
            raise error
        if self._fetch.stopped:
            reason = next(iter(self._fetch.stopped.values()))
            raise ConfigurationError(f"nothing was read from {len(self._fetch.stopped)} partitions: {reason}")
        return self.summary()

    def summary(self) -> Summary:
        """Return what was done so far; also after `run` raised."""
        found = self._targets.open if self._routes is not None else {}
        targets = {name: target_summary(one, self._failure_of(name)) for name, one in sorted(found.items())}
        kept = None if self._weakest is None else self._weakest.guarantee
        return summary_of(self._counted, self._uptime_s, kept, self._columns_without_value, targets)

    @property
    def backlog(self) -> tuple[int | None, bool]:
        """Return the records that are left to read, None where that is not known. Any thread.

        And whether those are all that the source has, whoever reads them: a queue does not share itself out beforehand.
        """
        lags = [one.lag for one in self.status().partitions.values()]
        whole = self._source_info is not None and not self._source_info.replayable
        known = self._fetch.joined and None not in lags
        return sum(lag for lag in lags if lag is not None) if known else None, whole

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
        if self._switch.off:
            # Whatever the target does: nothing is written to it, or everything is dropped.
            return self._switch.dropping, self._switch.doing
        errors = [one.counters.last_error for one in self._targets.open.values()]
        refusing = [one for one in errors if one and not one.recovered and one.since_s > READY_PATIENCE_S]
        # One target of several that does not answer is no reason to take the whole process for not ready.
        if refusing and len(refusing) == len(errors):
            error = refusing[0]
            return False, f"the target has refused for {error.since_s:.0f} s: {error.kind}: {error.message}"
        return True, ""

    def status(self) -> Status:
        """Return what is going on now. Any thread."""
        weakest, targets = self._weakest, self._targets.open
        opened = ", ".join(one.agreement.sink.target for _, one in sorted(targets.items()))
        status = Status(
            self._state(),
            delivery=self.guarantee,
            delivery_reason=weakest.reason if weakest else "",
            target=opened or (self._sink_info.target if self._sink_info else ""),
            group=self._options.name,
            uptime_s=self._uptime_s,
            native=native.jobs(),
            columns_without_value=self._columns_without_value,
            off_switch=self._switch.doing,
            measures=self._measures,
        )
        status = with_counters(status, self._counted)
        if self._states is None:
            return replace(status, waiting_for=self._waits_for_opening)
        snapshots = {name: one.shared.snapshot() for name, one in sorted(targets.items())}
        found = {name: target_status(targets[name], each, self._failure_of(name)) for name, each in snapshots.items()}
        return with_targets(status, found, list(snapshots.values()), stopped=self._fetch.stopped, lag=self._lag())

    @property
    def _weakest(self) -> Agreement | None:
        """Return the agreement of the target that keeps least; None before there is one."""
        found = [one.agreement for one in self._targets.open.values()]
        return min(found, key=lambda one: one.exactly_once, default=None)

    @property
    def _counted(self) -> Counted:
        return together([self._counters, *(one.counters for one in self._targets.open.values())])

    def _failure_of(self, name: str) -> str:
        error = None if self._supervisor is None else self._supervisor.failed_targets.get(name)
        return "" if error is None else str(error)

    @property
    def _uptime_s(self) -> float:
        return time.monotonic() - self._started if self._started else 0.0

    @property
    def _waits_for_opening(self) -> str:
        source_first = self._routes is not None
        opened = self._source_info if source_first else self._sink_info
        return "the source to open" if (opened is None) == source_first else "the target to open"

    @property
    def _columns_without_value(self) -> tuple[str, ...]:
        return tuple(
            f"{name}: {column}" if name else column
            for name, one in sorted(self._targets.open.items())
            for column in one.writer.decoding.columns_without_value
        )

    @property
    def _measures(self) -> tuple[Measure, ...]:
        asked = (measuring(one.sink, one.agreement.sink) for one in self._targets.open.values())
        return summed(measure for sink in asked if sink is not None for measure in sink.measures())

    def _lag(self) -> Mapping[Partition, int]:
        if self._source_info is None or "lag" not in self._source_info.capabilities:
            return {}
        return cast("LagAware", self._source).lag()

    def _state(self) -> State:
        if self._supervisor is not None and self._supervisor.failure is not None:
            return "failed"
        if self._ended:
            return "stopped"
        if self._states is None:
            return "starting"
        states: Mapping[str, State] = {"running": "running", "draining": "draining", "aborted": "stopped"}
        return states[self._states.phase]

    def _targets_for(self, subscribers: tuple[Subscriber, ...]) -> Targets:
        several = self._routes is not None
        queue = self._dead_letters
        around = Surroundings(
            SharedQueue(queue) if several and queue is not None else queue,
            RecordLimit(self._options.max_records),
            subscribers,
            lambda: self._switch.dropping,
            several,
        )
        return Targets(self._routes, self._options, around, self._added)

    def _dispatcher(self, source: SourceInfo) -> Dispatcher:
        memory_bytes = None if self._routes is None else self._options.memory_bytes
        return Dispatcher(lambda topic: self._targets.find(source, topic), memory_bytes)

    def _added(self, one: Destination) -> None:
        """Take in a target that was opened while the pipeline runs."""
        assert self._states is not None
        assert self._supervisor is not None
        self._sinks.append(one.sink)
        self._states.add(one.shared)
        self._supervisor.add(one)

    def _open(self) -> SourceInfo:
        return self._open_all(self._routes) if self._routes is not None else self._open_only()

    def _open_only(self) -> SourceInfo:
        """Open the only target, then the source."""
        assert self._only is not None
        sink = self._sink_info = self._open_sink(self._only, "the target")
        self._open_dead_letters()
        # What the sink alone cannot guarantee is said before a broker is asked for anything.
        agreed(SourceInfo(keeps_intents=True), sink, self._options)
        source = self._open_source()
        self._targets.add("", self._only, source, sink)
        return source

    def _open_all(self, routes: Routes) -> SourceInfo:
        """Open the source, which knows the topics, then their targets."""
        self._open_dead_letters()
        source = self._source_info = self._open_source()
        if "offer" not in source.capabilities:
            raise ConfigurationError(f"--route: the source {type(self._source).__qualname__} has no capability offer")
        names = {topic: routes.target_of(topic) for topic in source.topics}
        if lost := sorted(topic for topic, name in names.items() if name is None):
            raise ConfigurationError(
                f"no --route is for {', '.join(lost[:8])}{' …' if len(lost) > 8 else ''}; give one for every topic, "
                "such as --route '(.*)=$1' as the last"
            )
        for name in sorted({name for name in names.values() if name is not None}):
            target = routes.make(name, [topic for topic, found in names.items() if found == name])
            self._targets.add(name, target, source, self._open_sink(target, f"target {name}"))
        return source

    def _open_sink(self, target: Target, what: str) -> SinkInfo:
        self._sinks.append(target.sink)
        info = self._opened(target.sink.open, what)
        check_capabilities(target.sink, info)
        return info

    def _open_dead_letters(self) -> None:
        if self._dead_letters is not None:
            self._opened(self._dead_letters.open, "the dead-letter queue")

    def _open_source(self) -> SourceInfo:
        source = self._opened(self._fetch.open, "the brokers", self._opening_source)
        check_capabilities(self._source, source)
        return source

    def _opened(self, open_: Callable[[], T], what: str, threads: list[threading.Thread] | None = None) -> T:
        patience = self._patience = Patience(what, self._options.start_timeout_s, lambda: self._stops > 0)
        return opened(open_, patience, self._opening if threads is None else threads)

    def _cut_short(self, states: Dispatcher, stuck: list[str]) -> DrainTimeout:
        busy = f" (still busy: {', '.join(stuck)})" if stuck else ""
        return DrainTimeout(
            f"stopped before everything was durable{busy}; nothing is lost, {states.abandoned_offsets} records "
            f"will be read again. Start again, or give more time with --stop-timeout"
        )

    def _close(self) -> None:
        threads = [*self._opening, *(self._supervisor.threads if self._supervisor is not None else [])]
        if any(thread.is_alive() for thread in (*threads, *self._targets.threads)):
            return  # it hangs inside the sink or the queue: closing these could hang as well
        if self._supervisor is None and not any(thread.is_alive() for thread in self._opening_source):
            self._source.close()
        for sink in self._sinks:
            sink.close()
        if self._dead_letters is not None:
            self._dead_letters.close()


def _target(sink: Sink, format_: Format | None) -> Target:
    if format_ is None:
        raise ConfigurationError("a pipeline into one sink needs a format: give Pipeline(source, sink, format_, …)")
    return Target(sink, format_)


def _begin_log() -> None:
    if not structlog.is_configured():
        # Used as a library. structlog's own default would put logs among the program's output.
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    if native.failure():
        log.warning("native_extension_not_used", reason=native.failure(), hint="Python does the same, slower")
