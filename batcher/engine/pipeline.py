"""Assemble the threads, watch over them, and stop them in order. This is the Python API.

    main thread        run(): open the sink and the queue (start.py), start the threads, wait, close, report
    thread "consumer"  the source and nothing else touches it          (fetch_loop.py)
    thread "decoder"   bytes into columns, one batch ahead             (write_loop.py)
    thread "flusher"   write, dead letters                             (write_loop.py)

Stopping: `stop` ends reading; everything buffered is sealed, delivered and committed; then the group is left.
`abort`, or the deadline, ends retries at once and commits nothing more. Both only set flags, so that a signal
handler may call them. A thread that dies takes the pipeline with it: its exception comes out of `run`.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import structlog

from batcher.core.buffer import BoundedBuffer, FlushPolicy
from batcher.core.limits import PoisonLimit, PoisonPolicy
from batcher.core.offsets import Ledger
from batcher.core.sizing import Pace
from batcher.engine.decoding import Decoding
from batcher.engine.fetch_loop import Consumer
from batcher.engine.retry import RetryPolicy
from batcher.engine.shared import Exchange, Snapshot
from batcher.engine.start import Patience, opened
from batcher.engine.write_loop import Flusher
from batcher.engine.writer import Delivery, OnExisting
from batcher.errors import BatcherError, ConfigurationError, DrainTimeout
from batcher.protocols import DeadLetterQueue, Format, Guarantee, LagAware, Sink, SinkInfo, Source
from batcher.telemetry.observer import Observer
from batcher.telemetry.status import InFlight, LastError, PartitionStatus, State, Status

if TYPE_CHECKING:  # it loads Prometheus, which most runs do without
    from batcher.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

T = TypeVar("T")

DeliveryMode = Literal["auto", "exactly-once", "at-least-once"]

WATCH_S: Final = 0.05
"""How often the main thread looks for a signal, a dead thread or the deadline."""

CLOSE_SHARE: Final = 0.15
"""The share of the stop timeout kept for leaving the group after the drain was given up."""

STUCK_S: Final = 150.0
"""How long a round of the consumer thread may take: half of librdkafka's default `max.poll.interval.ms`."""

LEAVE_UNOPENED_S: Final = 0.1
"""How long the consumer thread gets to open the source when a stop came before it had."""

READY_PATIENCE_S: Final = 30.0
"""How long the target may refuse before the process says that it is not ready."""

LEAVE_S: Final = 5.0
"""How long threads get to return after an abort before they are left behind: a hanging write cannot be interrupted."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Say what a run did.

    After a complete drain `consumed == written + duplicates_suppressed + dead_lettered + skipped`.
    """

    consumed: int
    written: int
    dead_lettered: int
    skipped: int
    duplicates_suppressed: int
    batches: int
    bytes: int
    seconds: float
    delivery: Guarantee
    dead_letter_reasons: Mapping[str, int] = field(default_factory=dict)
    """Dead letters, by reason, the most frequent first."""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)
    """Rows that had a value in a field that no column takes, by field, the most frequent first."""
    unknown_fields_estimated: bool = False
    """These counts were scaled up from samples."""
    columns_without_value: tuple[str, ...] = ()
    """Columns that no record had a value for."""

    @property
    def rows_per_second(self) -> float:
        """Return the records made durable a second, over the whole run."""
        return (self.written + self.dead_lettered) / self.seconds if self.seconds > 0 else 0.0


class Pipeline:
    """Load a source into a sink. Build it, call `run` once from the main thread.

    `name` (the consumer group) is part of every token. `stop_timeout_s` bounds the time from `stop` to the
    return of `run`, as far as the sink's calls return; `drain_timeout_s` how long a partition that is taken away is
    held for its batch in flight; `start_timeout_s` is how long a target or broker that does not answer at the start is
    waited for. With `halt_on_unknown` a record that the format refuses for an unknown field stops the pipeline.
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
        poison: PoisonPolicy | None = None,
        delivery: DeliveryMode = "auto",
        merge_partitions: bool = False,
        ignore_intents: bool = False,
        on_existing: OnExisting = "halt",
        max_records: int | None = None,
        stop_timeout_s: float = 25.0,
        drain_timeout_s: float = 20.0,
        start_timeout_s: float = 30.0,
        halt_on_unknown: bool = False,
        metrics: Metrics | None = None,
    ) -> None:
        if not stop_timeout_s > 0:
            raise ConfigurationError("--stop-timeout must be more than 0; try 25s")
        if max_records is not None and max_records < 1:
            raise ConfigurationError("--max-records must be at least 1")
        self._source = source
        self._sink = sink
        self._format = format_
        self._name = name
        self._dead_letters = dead_letters
        self._flush = flush or FlushPolicy()
        self._memory_bytes = memory_bytes
        BoundedBuffer(
            self._flush, memory_bytes, mixes_partitions=True
        )  # refuses impossible settings before anything is opened
        self._retry = retry or RetryPolicy()
        self._poison = poison or PoisonPolicy()
        self._delivery = delivery
        self._merge_partitions = merge_partitions
        self._ignore_intents = ignore_intents
        self._on_existing = on_existing
        self._max_records = max_records
        self._stop_timeout_s = stop_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._start_timeout_s = start_timeout_s
        self._halt_on_unknown = halt_on_unknown
        self._stops = 0
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._observer = Observer(metrics)
        self._info: SinkInfo | None = None
        self._ended = False
        self._started = 0.0
        self._exchange: Exchange | None = None
        self._consumer: Consumer | None = None
        self._decoding: Decoding | None = None
        self._patience: Patience | None = None
        self.guarantee: Guarantee = "at-least-once"
        """What this run keeps: decided when the target was opened, and never changed after that."""
        self._metrics = metrics
        if metrics is not None:
            metrics.watch(self.status)

    def stop(self) -> None:
        """Ask for a drain. Safe in a signal handler: sets a flag that `run` sees within 0.1 s."""
        self._stops = max(self._stops, 1)

    def abort(self) -> None:
        """Ask for the end at once, committing nothing more. Safe in a signal handler."""
        self._stops = 2

    def run(self) -> Summary:
        """Run until stopped or until the source has come to its end, and return what was done.

        Raise Unreachable or SinkMisconfigured when it cannot start, DrainTimeout when the stop was cut short, and
        whatever ended a thread.
        """
        if not structlog.is_configured():
            # Used as a library: structlog's own default would put logs among the program's output.
            structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
        self._started = time.monotonic()
        try:
            info = self._info = self._open()
            exchange, threads = self._assemble(info)
            self._threads += threads
            for thread in threads:
                thread.start()
            self._watch(exchange, threads)
            stuck = [thread.name for thread in threads if thread.is_alive()]
        finally:
            if self._decoding is not None:
                self._decoding.settle()
            self._close()
            self._ended = True
        if self._failure is not None:
            raise self._failure
        if exchange.phase == "aborted":
            busy = f" (still busy: {', '.join(stuck)})" if stuck else ""
            raise DrainTimeout(
                f"stopped before everything was durable{busy}; nothing is lost, {exchange.abandoned_offsets} records "
                f"will be read again. Start again, or give more time with --stop-timeout"
            )
        if self._consumer is not None and self._consumer.stopped:
            raise ConfigurationError(
                f"nothing was read from {len(self._consumer.stopped)} partitions: "
                f"{next(iter(self._consumer.stopped.values()))}; --ignore-intents starts at the committed offset"
            )
        return self.summary()

    def summary(self) -> Summary:
        """Return what was done so far; also after `run` raised."""
        counts = self._observer.counts
        return Summary(
            consumed=counts.consumed,
            written=counts.written,
            dead_lettered=counts.dead_lettered,
            skipped=counts.skipped,
            duplicates_suppressed=counts.duplicates_suppressed,
            batches=counts.batches,
            bytes=counts.consumed_bytes,
            seconds=time.monotonic() - self._started if self._started else 0.0,
            delivery=self.guarantee,
            dead_letter_reasons=self._observer.dead_letter_reasons,
            unknown_fields=self._observer.unknown_fields,
            unknown_fields_estimated=self._observer.unknown_fields_estimated,
            columns_without_value=self._columns_without_value,
        )

    @property
    def alive(self) -> bool:
        """Tell whether the consumer thread still turns its rounds, whatever the target does. Any thread."""
        if self._failure is not None:
            return False
        return self._consumer is None or self._ended or self._consumer.silent_s < STUCK_S

    @property
    def ready(self) -> tuple[bool, str]:
        """Tell whether the process does its work, and if not, why. Any thread.

        A member without partitions, because there are more members than partitions, is ready: it stands by.
        """
        state = self._state()
        if state == "starting" and self._patience is not None and self._patience.reason:
            return False, f"waiting for {self._patience.reason}"
        if state != "running":
            return False, state
        if self._consumer is None or not self._consumer.joined:
            unopened = self._consumer.unopened if self._consumer is not None else ""
            return False, f"waiting for {unopened}" if unopened else "no partitions assigned yet"
        error = self._observer.last_error
        if error is not None and not error.recovered and error.since_s > READY_PATIENCE_S:
            return False, f"the target has refused for {error.since_s:.0f} s: {error.kind}: {error.message}"
        return True, ""

    def status(self) -> Status:
        """Return what is going on now. Any thread."""
        snapshot = self._exchange.snapshot() if self._exchange is not None else None
        status = Status(
            self._state(),
            delivery=self.guarantee,
            delivery_reason=self._info.reason if self._info else "",
            target=self._info.target if self._info else "",
            group=self._name,
            last_error=self._observer.last_error,
            last_commit_age_s=self._observer.last_commit_age_s,
            uptime_s=time.monotonic() - self._started if self._started else 0.0,
            counts=self._observer.counts,
            dead_letter_reasons=self._observer.dead_letter_reasons,
            unknown_fields=self._observer.unknown_fields,
            unknown_fields_estimated=self._observer.unknown_fields_estimated,
            columns_without_value=self._columns_without_value,
        )
        if snapshot is None or self._consumer is None:
            return replace(status, waiting_for="the target to open")
        paused = self._consumer.paused
        lag = self._source.lag() if isinstance(self._source, LagAware) else {}
        batch = snapshot.in_flight
        return replace(
            status,
            waiting_for=waiting_for(snapshot, status.last_error),
            partitions={
                **{part: PartitionStatus(stopped=reason) for part, reason in self._consumer.stopped.items()},
                **{
                    part: PartitionStatus(at, snapshot.committed.get(part), lag.get(part), part in paused)
                    for part, at in snapshot.read.items()
                },
            },
            buffer=snapshot.buffer,
            in_flight=InFlight(
                batch.number,
                batch.trigger,
                batch.rows,
                batch.nbytes,
                batch.ranges,
                snapshot.in_flight_s,
                self._observer.attempts,
            )
            if batch
            else None,
        )

    @property
    def _columns_without_value(self) -> tuple[str, ...]:
        return () if self._decoding is None else self._decoding.columns_without_value

    def _state(self) -> State:
        if self._failure is not None:
            return "failed"
        if self._ended:
            return "stopped"
        if self._exchange is None:
            return "starting"
        return {"running": "running", "draining": "draining", "aborted": "stopped"}[self._exchange.phase]  # type: ignore[return-value]

    def _open(self) -> SinkInfo:
        info = self._opened(self._sink.open, "the target")
        if self._dead_letters is not None:
            self._opened(self._dead_letters.open, "the dead-letter queue")
        if self._delivery == "exactly-once" and info.guarantee != "exactly-once":
            raise ConfigurationError(f"--delivery exactly-once: {info.target} cannot keep it: {info.reason}")
        if self._on_existing == "skip" and not info.verifies_replays:
            raise ConfigurationError(
                f"--on-existing skip: {info.target} cannot be completed row by row; use halt, or write to load all"
            )
        self.guarantee = "at-least-once" if self._delivery == "at-least-once" else info.guarantee
        if self._metrics is not None:
            self._metrics.delivery(self.guarantee)
        log.info(
            "pipeline_started",
            delivery=self.guarantee,
            target=info.target,
            target_could_keep=info.guarantee,
            reason=info.reason,
            merges_partitions=self._merges(info),
            dead_letters=self._dead_letters is not None,
        )
        return info

    def _opened(self, open_: Callable[[], T], what: str) -> T:
        patience = self._patience = Patience(what, self._start_timeout_s, lambda: self._stops > 0)
        return opened(open_, patience, self._threads)

    def _merges(self, info: SinkInfo) -> bool:
        """Tell whether a batch may hold several partitions; raise ConfigurationError for a target that cannot do it.

        A replay does not come with the same neighbours, so no token recognises it: the target has to be asked.
        """
        if self.guarantee == "at-least-once":
            return info.mixes_partitions and not info.by_topic
        if self._merge_partitions and not (info.mixes_partitions and info.verifies_replays):
            raise ConfigurationError(
                f"--batch.merge-partitions: {info.target} cannot be asked for the records it has; it needs columns "
                "_topic, _partition, _offset, or give --delivery at-least-once"
            )
        return self._merge_partitions

    def _assemble(self, info: SinkInfo) -> tuple[Exchange, list[threading.Thread]]:
        exactly_once = self.guarantee == "exactly-once"
        buffer = BoundedBuffer(self._flush, self._memory_bytes, mixes_partitions=self._merges(info))
        ledger = Ledger(
            self._name,
            announces=exactly_once,
            ignores_intents=self._ignore_intents,
            checks=exactly_once and self._on_existing != "write",
        )
        exchange = self._exchange = Exchange(buffer, ledger)
        # Without intents a batch may come again with the same range by chance, from another process, and nobody knows
        # whether the target has it: then its token must not be one that the target knows.
        name = self._name if exactly_once else f"{self._name}|{secrets.token_hex(4)}"
        pace = Pace(self._sink, exchange.stretch)

        def on_retry(error: BaseException) -> None:
            self._observer.retried(error)
            pace.failed(error)

        delivery = Delivery(
            self._sink,
            info,
            self._format,
            dead_letters=self._dead_letters,
            poison=PoisonLimit(self._poison),
            retry=self._retry,
            abort=exchange.aborting,
            name=name,
            on_retry=on_retry,
            on_existing=self._on_existing,
            halt_on_unknown=self._halt_on_unknown,
        )
        self._decoding = delivery.decoding
        consumer = self._consumer = Consumer(
            self._source,
            exchange,
            self._observer,
            max_records=self._max_records,
            drain_timeout_s=self._drain_timeout_s,
            start_timeout_s=self._start_timeout_s,
        )
        flusher = Flusher(exchange, delivery, self._observer, pace)
        # Daemons: a write that hangs in a server's hands must not keep the process from ending.
        return exchange, [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (
                ("consumer", lambda: self._live(exchange, "consumer", consumer.run, consumer.leave)),
                ("decoder", lambda: self._live(exchange, "decoder", flusher.run_decoder)),
                ("flusher", lambda: self._live(exchange, "flusher", flusher.run)),
            )
        ]

    def _live(self, exchange: Exchange, name: str, *script: Callable[[], None]) -> None:
        # Each part runs, also after one that failed: the failure is known before the group is left.
        for part in script:
            self._guarded(exchange, name, part)

    def _guarded(self, exchange: Exchange, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # the supervisor re-raises it in the main thread
            if exchange.phase == "aborted":
                log.debug("thread_ended", thread=name, error=type(error).__name__)
                return
            # The first failure is the reason; what fails while the others stop is its consequence.
            self._failure = self._failure or error
            # What was foreseen is said once, with its reason, by whoever called `run`; only a bug is worth a line more.
            level = log.debug if isinstance(error, BatcherError) else log.error
            level("thread_failed", thread=name, error=type(error).__name__)
            if name != "consumer" and isinstance(error, BatcherError):
                # What is durable by now would be written again at every restart if it stayed uncommitted.
                exchange.halt(writing_failed=name == "flusher")
            else:
                exchange.abort()

    def _watch(self, exchange: Exchange, threads: list[threading.Thread]) -> None:
        deadline: float | None = None
        leave_by: float | None = None
        while alive := [thread for thread in threads if thread.is_alive()]:
            alive[0].join(WATCH_S)
            now = time.monotonic()
            if self._consumer is not None:
                self._consumer.remind()
            if self._stops and self._consumer is not None and not self._consumer.opened:
                # The client may hang in there, and nothing was read: nobody has to wait for it.
                exchange.drain("stop")
                alive[0].join(LEAVE_UNOPENED_S)
                if not self._consumer.opened:
                    self._failure = self._failure or DrainTimeout(
                        "stopped before it had begun, while waiting for the brokers; nothing was read, start it again"
                    )
                    exchange.abort()
                    return
            if self._stops == 1 and deadline is None:
                deadline = now + self._stop_timeout_s * (1 - CLOSE_SHARE)
                log.info("stopping", timeout_s=self._stop_timeout_s)
                exchange.drain("stop")
            if self._failure is not None and deadline is None:
                deadline = now + LEAVE_S
            late = deadline is not None and now > deadline
            if (self._stops > 1 or late) and exchange.phase != "aborted":
                log.warning("stop_cut_short", reason="deadline" if late else "second signal")
                exchange.abort()
            if exchange.phase == "aborted":
                leave_by = leave_by or now + min(LEAVE_S, self._stop_timeout_s * CLOSE_SHARE)
                if now > leave_by:
                    return

    def _close(self) -> None:
        if any(thread.is_alive() and thread.name != "consumer" for thread in self._threads):
            return  # it hangs inside the sink or the queue: closing them under it could hang as well
        self._sink.close()
        if self._dead_letters is not None:
            self._dead_letters.close()


def waiting_for(snapshot: Snapshot, error: LastError | None) -> str:
    """Say in words why nothing is being written; empty while something is."""
    if snapshot.awaits_commit:
        return "the broker to store a commit"
    if snapshot.in_flight is not None:
        failing = error is not None and not error.recovered
        return f"the target: {error.message}" if failing and error is not None else ""
    if not snapshot.read:
        return "partitions to be assigned"
    if snapshot.buffer.due_in_s is None and snapshot.replaying:
        return f"the rest of what was announced for {min(snapshot.replaying)}"
    if not snapshot.buffer.rows:
        return "records"
    return f"more records, or {snapshot.buffer.due_in_s:.1f} s to pass" if snapshot.buffer.due_in_s else ""
