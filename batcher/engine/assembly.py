"""Assemble the engine from what source, sink and settings say. Nothing here runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from batcher.core.buffer import Buffer, FlushPolicy
from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy, RecordLimit
from batcher.core.offsets import Offsets
from batcher.core.rate import RateLimit, RatePolicy
from batcher.core.state import PATIENCE_S, PipelineState
from batcher.engine.decode_loop import DecodeLoop
from batcher.engine.evolution import EvolutionPolicy
from batcher.engine.reconcile import OnExisting
from batcher.engine.retry import RetryPolicy
from batcher.engine.routes import Target
from batcher.engine.shared import SharedState
from batcher.engine.sizer import Sizer
from batcher.engine.write_loop import WriteLoop
from batcher.engine.writer import Writer
from batcher.errors import ConfigurationError
from batcher.protocols import (
    SINK_METHODS,
    SOURCE_METHODS,
    DeadLetterQueue,
    Guarantee,
    Sink,
    SinkInfo,
    SourceInfo,
)
from batcher.protocols.sink import lacking, pressured
from batcher.records import Range
from batcher.telemetry.counters import Counters
from batcher.telemetry.events import Events, GuaranteeAgreed, RetriesEnded, Subscriber, WriteRetried

MAX_WRITERS: Final = 8
"""The most that are taken where nothing is said: beyond that, disks and servers gain nothing from more."""

DeliveryMode = Literal["auto", "exactly-once", "at-least-once"]


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Hold what a pipeline is told, see `Pipeline`. Raise ConfigurationError for what cannot work."""

    name: str
    flush: FlushPolicy = field(default_factory=FlushPolicy)
    memory_bytes: int = 40 << 20
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    poison: DeadLetterPolicy = field(default_factory=DeadLetterPolicy)
    delivery: DeliveryMode = "auto"
    merge_partitions: bool | None = None
    ignore_intents: bool = False
    on_existing: OnExisting = "halt"
    max_records: int | None = None
    stop_timeout_s: float = 25.0
    drain_timeout_s: float = 20.0
    start_timeout_s: float = 30.0
    halt_on_unknown: bool = False
    evolution: EvolutionPolicy = field(default_factory=EvolutionPolicy)
    rate: RatePolicy | None = None
    writers: int | None = None

    def __post_init__(self) -> None:
        if not self.stop_timeout_s > 0:
            raise ConfigurationError("--stop-timeout must be more than 0; try 25s")
        if self.max_records is not None and self.max_records < 1:
            raise ConfigurationError("--max-records must be at least 1")
        if self.writers is not None and self.writers < 1:
            raise ConfigurationError("--batch.writers must be at least 1")
        # This refuses a memory that holds no batch, before anything is opened.
        Buffer(self.flush, self.memory_bytes, mixes_partitions=True)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Say what source and sink guarantee together."""

    source: SourceInfo
    sink: SinkInfo
    guarantee: Guarantee
    reason: str
    """Why it is not more, in the words of the weaker of the two."""
    merges_partitions: bool
    writers: int = 1
    """How many batches are written at once, as long as they have no partition in common."""

    @property
    def recognises(self) -> bool:
        """Return whether the target is asked for messages that the source may deliver again."""
        return not self.source.replayable and "messages" in self.sink.capabilities

    @property
    def exactly_once(self) -> bool:
        """Return whether intents are kept."""
        return self.guarantee == "exactly-once"


@dataclass(frozen=True, slots=True)
class Destination:
    """Hold everything behind the fetch loop for one target, whose sink is open. `name` is empty for the only one."""

    name: str
    sink: Sink
    agreement: Agreement
    counters: Counters
    shared: SharedState
    decode: DecodeLoop
    write: WriteLoop
    writer: Writer


def agreed(source: SourceInfo, sink: SinkInfo, options: PipelineOptions) -> Agreement:
    """Return the guarantee of a run: the weaker of source and sink, or less where less was asked for.

    Raise ConfigurationError where more was asked for than the two keep, and for what the sink cannot do.
    """
    weaker = sink if sink.guarantee == "at-least-once" or source.guarantee == "exactly-once" else source
    if options.delivery == "exactly-once" and weaker.guarantee != "exactly-once":
        which = sink.target if weaker is sink else "the source"
        raise ConfigurationError(f"--delivery exactly-once: {which} cannot keep it: {weaker.reason}")
    if options.on_existing == "skip" and sink.repeats != "query":
        raise ConfigurationError(
            f"--on-existing skip: {sink.target} cannot be completed row by row; use halt, or write to load all"
        )
    if options.on_existing == "write" and sink.once:
        raise ConfigurationError(
            f"--on-existing write: {sink.target} stores no record a second time; use skip to load what is missing"
        )
    if source.overlaps and options.on_existing != "write" and "query" not in sink.capabilities:
        raise ConfigurationError(
            f"a run with an end (kafka.end): {sink.target} cannot be asked for the rows it has, and what another group "
            "has loaded would be there twice; use a target with the columns _topic, _partition, _offset, or one that "
            "has none of these records together with --on-existing write"
        )
    guarantee: Guarantee = "at-least-once" if options.delivery == "at-least-once" else weaker.guarantee
    merges = merging(guarantee, sink, wanted=options.merge_partitions)
    return Agreement(source, sink, guarantee, weaker.reason, merges, writers(sink, options.writers))


def writers(sink: SinkInfo, wanted: int | None = None) -> int:
    """Return how many batches are written to a sink at once; by the cores of this process where none are `wanted`.

    Two at least, so that one waits for its disk while the other encodes; and twice as many as cores where they wait for
    a network most of their time. Each holds a batch with its columns: four of Parquet took 20 MB more than two.
    """
    if not sink.concurrent:
        return 1
    return wanted or min(MAX_WRITERS, max(2, cores()) * (2 if sink.remote else 1))


def cores() -> int:
    """Return on how many cores this process may run, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def merging(guarantee: Guarantee, sink: SinkInfo, *, wanted: bool | None) -> bool:
    """Return whether a batch may hold several partitions; raise ConfigurationError for a target that cannot do it.

    A replay does not come with the same neighbours, so no token recognises it. The target has to be asked. Where
    nothing is `wanted` it is done where it costs nothing of what is kept: where the target knows no tokens anyway.
    """
    if guarantee == "at-least-once":
        return sink.mixes_partitions
    able = sink.mixes_partitions and sink.repeats == "query"
    if wanted and not able:
        raise ConfigurationError(
            f"--batch.merge-partitions: {sink.target} cannot be asked for the records it has; it needs columns "
            "_topic, _partition, _offset, or give --delivery at-least-once"
        )
    return able and not sink.tokens if wanted is None else wanted


def check_capabilities(part: object, info: SourceInfo | SinkInfo) -> None:
    """Raise ConfigurationError for a part that names a capability and lacks a method of it."""
    what, methods = ("sink", SINK_METHODS) if isinstance(info, SinkInfo) else ("source", SOURCE_METHODS)
    missing = lacking(part, methods, info.capabilities)
    if missing:
        raise ConfigurationError(
            f"the {what} {type(part).__qualname__} has no {missing}: give it the method, or take the capability out of "
            f"its {type(info).__name__}"
        )
    if isinstance(info, SinkInfo):
        _check_sink(type(part).__qualname__, info)


def _check_sink(name: str, info: SinkInfo) -> None:
    if info.schema is None and not info.capabilities & {"pin", "pin_topic"}:
        raise ConfigurationError(
            f"the sink {name} has no schema and cannot take one: name the capability pin in its SinkInfo, with pin(), "
            "or give --decode.schema FILE"
        )
    if info.repeats == "query" and "query" not in info.capabilities:
        raise ConfigurationError(
            f"the sink {name} says that it can be asked (repeats is query) and lacks the capability query: name it in "
            "its SinkInfo, with present() and max_offset_above()"
        )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Hold what the targets of a pipeline share."""

    dead_letters: DeadLetterQueue | None
    limit: RecordLimit
    subscribers: tuple[Subscriber, ...]
    dropping: Callable[[], bool] = lambda: False
    """Say whether records are to be skipped now."""
    several: bool = False
    """There are targets besides this one. Then no partition waits for the buffer of another."""


def destination(
    name: str, target: Target, agreement: Agreement, options: PipelineOptions, around: Surroundings
) -> Destination:
    """Return what loads one target, whose sink is open."""
    # Without intents, a batch of another process may have the same range by chance, and nothing says whether the target
    # has it. So its token must not be one that the target knows.
    token = options.name if agreement.exactly_once else f"{options.name}|{secrets.token_hex(4)}"
    asks_always = agreement.source.overlaps and options.on_existing != "write"
    offsets = Offsets(
        token,
        announces=agreement.exactly_once,
        ignores_intents=options.ignore_intents,
        checks=agreement.exactly_once and options.on_existing != "write" and not agreement.source.overlaps,
    )
    flush = options.flush
    if options.rate is not None:
        flush = replace(flush, max_rows=options.rate.rows_of_batch(flush.max_rows))
    buffer = Buffer(flush, options.memory_bytes, mixes_partitions=agreement.merges_partitions)
    patience_s = 0.0 if around.several else PATIENCE_S
    rate = None if options.rate is None else RateLimit(options.rate)
    state = PipelineState(
        buffer, offsets, limit=around.limit, patience_s=patience_s, rate=rate, writers=agreement.writers
    )
    shared = SharedState(state)
    sizer = Sizer(pressured(target.sink, agreement.sink), _scaling(shared))
    counters = Counters()
    events = Events(counters, *around.subscribers)

    def on_retry(error: BaseException, span: Range | None) -> None:
        events.publish(WriteRetried(error, name, span))
        sizer.failed(error)

    writer = Writer(
        target.sink,
        agreement.sink,
        target.format,
        dead_letters=around.dead_letters,
        limit=DeadLetterLimit(options.poison),
        retry=options.retry,
        abort=shared.aborting,
        on_retry=on_retry,
        on_settled=lambda span: events.publish(RetriesEnded(span, name)),
        on_existing=options.on_existing,
        reconcile="always" if asks_always else "replays",
        halt_on_unknown=options.halt_on_unknown,
        releases="release" in agreement.source.capabilities,
        evolution=options.evolution,
        dropping=around.dropping,
    )
    write = WriteLoop(shared, writer, events, sizer, target=name)
    events.publish(GuaranteeAgreed(agreement.guarantee, name, agreement.sink.target))
    return Destination(
        name, target.sink, agreement, counters, shared, DecodeLoop(shared, writer.prepare), write, writer
    )


def _scaling(shared: SharedState) -> Callable[[int], None]:
    def scale(factor: int) -> None:
        with shared.changing() as state:
            state.scale(factor)

    return scale
