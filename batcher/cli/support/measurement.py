"""What `bench` measures: parts made from the settings that leave nothing behind, and the order of the passes."""

from __future__ import annotations

import argparse
import secrets as random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from batcher.settings import Settings, section_of
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.bench.figures import Figures, Run, Setup, Stage
    from batcher.bench.interrupts import Interrupts
    from batcher.bench.passes import Plan
    from batcher.protocols import Sink, SinkInfo, Source
    from batcher.records import Records
    from batcher.sources.kafka.options import KafkaOptions

FROM_TOPIC: Final = 1_000_000
GENERATED: Final = 500_000

REPEATS: Final = 3
"""Runs of the pipeline: their spread says how large a difference has to be to mean something."""

SAMPLE_BYTES: Final = 64 << 20
"""Records kept in memory to measure decoding and writing alone: some 300,000 of the usual kind."""

INFERRED: Final = 2000
INFERRED_RUNS: Final = 2
"""Records, and runs of made-up ones, from which a schema is inferred where the target has none."""

PATIENCE_S: Final = 10.0
"""How long a scratch target that does not answer is asked again where --retry.max-elapsed is not given."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Hold what is measured: where records come from, what the target is like, and how to run."""

    settings: Settings
    arguments: argparse.Namespace
    interrupts: Interrupts
    info: SinkInfo
    plan: Plan
    options: KafkaOptions | None
    """None for made-up records, which are in `made`."""
    made: Sequence[Records]
    pins: bool = False
    """Whether the target had no schema and is given that of `info`."""

    @staticmethod
    def of(settings: Settings, arguments: argparse.Namespace, template: str | None, interrupts: Interrupts) -> Subject:
        """Return the subject. The target is asked, and records are made up if there is a template.

        Raise ConfigurationError, Unreachable or SinkMisconfigured.
        """
        from batcher.bench.readers import generated

        name = f"batcher_bench_{random.token_hex(4)}"
        info = described(settings)
        records = arguments.records or (GENERATED if template else FROM_TOPIC)
        runs: Sequence[Records] = ()
        if template is not None:
            runs = generated(template, records, interrupts.wanted)
            interrupts.check()
        plan = _plan(settings, name, records, arguments.seconds)
        options = None if template else _options(settings, name)
        return Subject(settings, arguments, interrupts, info, plan, options, runs)

    def changed(self, settings: Settings) -> Subject:
        """Return the same with other settings."""
        plan = _plan(settings, self.plan.name, self.plan.records, self.plan.seconds)
        options = None if self.options is None else _options(settings, self.plan.name)
        return replace(self, settings=settings, plan=plan, options=options)

    def figures(self, reading: Mapping[str, Stage], partitions: int) -> Figures:
        """Measure the pipeline and its later stages. Raise as the parts do, KeyboardInterrupt after a signal."""
        from batcher.bench.figures import Figures
        from batcher.bench.memory import peak_memory_bytes

        runs = [self.run(f"pipeline {number} of {REPEATS}") for number in range(1, REPEATS + 1)]
        # This comes before a sample is kept in memory, which no pipeline does.
        peak = peak_memory_bytes()
        return Figures(self._setup(partitions), {**reading, **self._stages()}, runs, peak)

    def run(self, called: str) -> Run:
        """Run the pipeline once. Raise ConfigurationError where no record came."""
        from batcher.bench.passes import pipeline
        from batcher.cli.support import wiring
        from batcher.errors import ConfigurationError

        with self._target() as sink:
            format_ = wiring.format_of(self.settings)
            done = pipeline(self._source(), sink, format_, self.plan, self.interrupts.running)
        self.interrupts.check()
        if not done.rows:
            raise ConfigurationError(f"no record came within {self.plan.seconds:g} s: give more time with --for")
        self.say(f"{called}: {done.rows:,} records, {done.rows_per_second:,.0f}/s")
        return done

    def say(self, text: str) -> None:
        """Tell people how far the measurement is."""
        if not self.arguments.quiet:
            print(f"batcher: {text}", file=sys.stderr, flush=True)

    def reading(self) -> tuple[Mapping[str, Stage], int]:
        """Measure reading alone, if anything is read, and return the stages and how many partitions there are.

        Raise ConfigurationError where there is no record.
        """
        from batcher.bench import readers
        from batcher.errors import ConfigurationError
        from batcher.sources.kafka.detached import DetachedSource

        options = self.options
        if options is None:
            return {}, len({run.partition for run in self.made})
        looking = DetachedSource(options)
        try:
            with self.interrupts.at_once():
                looking.open(readers.Listening())
            places = looking.places
        finally:
            looking.close()
        if not any(end > first for first, end in places.values()) and not self._live:
            topics = ",".join(options.topics)
            raise ConfigurationError(f"-t {topics}: there is no record from {self.settings.section(Kafka).start} on")
        if self._live:
            # Records that come in have a rate of their own; the client's would be the same.
            return {}, len(places)
        plan, stop = self.plan, self.interrupts.wanted
        # Twice, because the first time brokers have to read the log into their memory.
        bare = [readers.consume(options, places, plan.records, plan.seconds, stop) for _ in range(2)]
        best = max(bare, key=lambda stage: stage.rows_per_second)
        self.interrupts.check()
        self.say(f"consume: {best.rows:,} records, {best.rows_per_second:,.0f}/s")
        fetch = readers.fetch(options, plan.records, plan.seconds, stop)
        self.interrupts.check()
        self.say(f"fetch: {fetch.rows:,} records, {fetch.rows_per_second:,.0f}/s")
        return {"consume": best, "fetch": fetch}, len(places)

    def settled(self) -> Subject:
        """Return the same with the schema that the first records give a target without one.

        A run infers it once in its life; in a run of some seconds that would show. Raise ConfigurationError where none
        of them can be read.
        """
        from batcher.bench import readers
        from batcher.cli.support import wiring
        from batcher.errors import ConfigurationError
        from batcher.records import Batch, merged

        if self.info.schema is not None:
            return self
        runs = list(self.made[:INFERRED_RUNS])
        if self.options is not None:
            runs = readers.sample(self.options, INFERRED, SAMPLE_BYTES, self.plan.seconds, self.interrupts.wanted)
        self.interrupts.check()
        if not runs:
            return self
        schema = wiring.format_of(self.settings).infer(Batch(merged(runs), "end"))
        if schema is None:
            count, what = sum(map(len, runs)), self.settings.decode.format
            raise ConfigurationError(
                f"{self.info.target} has no schema yet, and not one of the first {count:,} records can be read as "
                f"{what} to infer one from: is it the right topic? --decode.schema FILE measures it all the same"
            )
        return replace(self, info=replace(self.info, schema=schema), pins=True)

    def _stages(self) -> dict[str, Stage]:
        from batcher.bench import readers
        from batcher.bench.passes import stages
        from batcher.cli.support import wiring

        plan, stop = self.plan, self.interrupts.wanted
        runs = self.made
        if self.options is not None:
            runs = readers.sample(self.options, plan.records, SAMPLE_BYTES, plan.seconds, stop)
        with self._target() as sink:
            found = stages(runs, sink, wiring.format_of(self.settings), plan, stop)
        self.interrupts.check()
        self.say(f"decode and write: {found[0].rows:,} records")
        return {stage.name: stage for stage in found if stage.name != "write" or self._scratch}

    @property
    def _scratch(self) -> bool:
        return bool(self.arguments.target == "scratch")

    @property
    def _live(self) -> bool:
        return bool(self.settings.section(Kafka).topics) and self.settings.section(Kafka).start == "latest"

    def _source(self) -> Source:
        from batcher.bench.readers import Replayed
        from batcher.sources.kafka.detached import DetachedSource

        return Replayed(self.made) if self.options is None else DetachedSource(self.options)

    @contextmanager
    def _target(self) -> Iterator[Sink]:
        """Yield an empty target for one pass: tokens and names of files are the same in each pass."""
        from batcher.bench.passes import Discarding
        from batcher.cli.support import wiring
        from batcher.errors import ConfigurationError
        from batcher.protocols import Rehearsable
        from batcher.protocols.sink import pinning

        if not self._scratch:
            yield Discarding(self.info)
            return
        sink = wiring.sink_of(self.settings)
        if not isinstance(sink, Rehearsable):
            raise ConfigurationError(
                f"--target scratch: the sink {self.settings.sink} cannot make a target like its own; leave it out"
            )
        with sink.rehearsal(f"{self.plan.name}_{random.token_hex(2)}") as copy:
            if self.pins and self.info.schema is not None:
                takes = pinning(copy, copy.open())
                if takes is not None:
                    takes.pin(self.info.schema)
                copy.close()
            yield copy

    def _setup(self, partitions: int) -> Setup:
        from batcher.bench.figures import Setup
        from batcher.engine.assembly import cores
        from batcher.formats.json.shape import needs_rewriting

        settings, info, plan = self.settings, self.info, self.plan
        section = section_of(settings, "sink")[1]
        slow = [field.name for field in info.schema or () if needs_rewriting([field])]
        weaker = settings.delivery == "at-least-once"
        return Setup(
            topics=settings.section(Kafka).topics,
            live=self._live,
            partitions=partitions,
            sink=settings.sink or "",
            keeps=not info.discards,
            scratch=self._scratch,
            target=info.target,
            delivery="at-least-once" if weaker else info.guarantee,
            max_rows=plan.flush.max_rows,
            max_bytes=plan.flush.max_bytes,
            max_wait_s=plan.flush.max_wait_s,
            memory_bytes=plan.memory_bytes,
            merges=plan.merges(info),
            may_merge=info.repeats == "query",
            faster=() if section is None else tuple(section.faster()),
            for_large_batches=section is not None and section.for_large_batches,
            slow_columns=tuple(slow),
            given=frozenset(settings.section(Kafka).options),
            cores=cores(),
        )


def _plan(settings: Settings, name: str, records: int, seconds: float) -> Plan:
    from batcher.bench.passes import Plan
    from batcher.cli.support import wiring

    batch = settings.batch
    return Plan(
        name=name,
        flush=wiring.flush_of(settings),
        memory_bytes=int(batch.memory),
        delivery=settings.delivery,
        merge_partitions=batch.merge_partitions,
        retry=wiring.retry_of(settings, PATIENCE_S),
        stop_timeout_s=settings.stop_timeout.total_seconds(),
        records=records,
        seconds=seconds,
    )


def _options(settings: Settings, name: str) -> KafkaOptions:
    """Return what to read: under a name of its own, to the end of what is there, past what has expired."""
    from batcher.cli.support import wiring

    group = name.replace("_", "-")
    kafka = settings.section(Kafka).model_copy(update={"group": group, "instance": None, "on_gap": "skip"})
    live = kafka.start == "latest"
    return wiring.kafka_options_of(settings.model_copy(update={"kafka": kafka, "until_eof": not live}))


def described(settings: Settings) -> SinkInfo:
    """Return what the target is like. A sink that cannot tell before it is open is opened, and closed again."""
    from batcher.cli.support import wiring
    from batcher.errors import SinkUnavailable, Unreachable
    from batcher.protocols import Rehearsable

    sink = wiring.sink_of(settings)
    try:
        if isinstance(sink, Rehearsable):
            return sink.described()
        try:
            return sink.open()
        finally:
            sink.close()
    except SinkUnavailable as error:
        raise Unreachable(str(error)) from error
