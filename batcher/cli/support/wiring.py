"""Make the parts of a pipeline from the settings: each by its plug-in, which gets its section.

It is long because every part is made in one place, and all of them from the same context.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batcher.errors import ConfigurationError, ExtensionMissing, SettingRefused
from batcher.options import Section
from batcher.plugins import PluginContext, Registry, RetryWaits, registry_of
from batcher.settings import Settings, UsageError, own_section, routed, routes, secrets, section_of

if TYPE_CHECKING:
    import pyarrow as pa

    from batcher.cli.support.page import PipelinePage, Tell
    from batcher.core.buffer import FlushPolicy
    from batcher.core.limits import DeadLetterPolicy
    from batcher.core.rate import RatePolicy
    from batcher.engine.evolution import EvolutionPolicy
    from batcher.engine.off_switch import OffSwitch
    from batcher.engine.pipeline import Pipeline
    from batcher.engine.retry import RetryPolicy
    from batcher.engine.routes import Routes
    from batcher.protocols import DeadLetterQueue, Format, ReadableLog, Sink, Source, Transform
    from batcher.sources.kafka.options import KafkaOptions
    from batcher.telemetry.metrics import Metrics
    from batcher.telemetry.otel.exporter import OtelExporter
    from batcher.telemetry.otel.variables import ExportRequest

DEAD_LETTER_TIMEOUT_S: Final = 30.0

DRAIN_TIMEOUT_S: Final = 20.0
"""How long a partition that is taken away is held for its batch in flight, where the source allows as much."""


@contextmanager
def before_opening() -> Iterator[None]:
    """Turn every refusal of a part that is made but not opened into a SettingRefused: nothing outside was asked.

    The command line is not to blame for what is not installed.
    """
    try:
        yield
    except (SettingRefused, ExtensionMissing):
        raise
    except ConfigurationError as error:
        raise SettingRefused(str(error)) from error


def as_run(settings: Settings) -> Settings:
    """Return the settings with the group that `run` reads for: with an end it is one of its own."""
    name, section = section_of(settings, "source")
    return settings if section is None else settings.model_copy(update={name: section.as_run()})


def export_request() -> ExportRequest:
    """Return what the variables of OpenTelemetry ask for, and keep their secrets out of the log."""
    from batcher.telemetry import logs
    from batcher.telemetry.otel.variables import requested, secrets_in

    logs.hide(tuple(secrets_in(os.environ)))
    return requested(os.environ)


def metrics_of(settings: Settings, export: ExportRequest | None = None) -> Metrics | None:
    """Return the metrics to count in, or None where neither a page nor an export asks for them."""
    if settings.http.addr is None and not (export and export.metrics):
        return None
    from batcher.telemetry.metrics import Metrics

    return Metrics(settings.sink or "")


def exporter_of(
    settings: Settings, export: ExportRequest, metrics: Metrics | None, worker: int | None = None
) -> OtelExporter | None:
    """Return what exports to OpenTelemetry, as a worker with this number; None where that is not asked for."""
    if not export:
        return None
    from batcher.telemetry.otel.exporter import ExportedPipeline, OtelExporter, flush_s

    registry = None if metrics is None else metrics.registry
    group = getattr(section_of(settings, "source")[1], "group", "")
    exported = ExportedPipeline(registry, settings.source, str(group or ""), settings.sink or "", worker)
    return OtelExporter(export, exported, flush_s(settings.stop_timeout.total_seconds()))


def page_of(settings: Settings) -> PipelinePage | None:
    """Return what the page hears of, or None where there is none."""
    if settings.http.addr is None:
        return None
    from batcher.cli.support.page import PipelinePage

    return PipelinePage(settings)


@contextmanager
def answering(
    settings: Settings,
    metrics: Metrics | None,
    pipeline: Pipeline,
    page: PipelinePage | None = None,
    tell: Tell | None = None,
) -> Iterator[None]:
    """Answer over HTTP while the context is open, where the settings say so. Raise ConfigurationError.

    `tell` hears of the address and of each observation of the page.
    """
    if metrics is None or settings.http.addr is None:
        yield
        return
    from batcher.telemetry import logs
    from batcher.telemetry.http import WebServer

    def alive() -> bool:
        return pipeline.alive

    def ready() -> tuple[bool, str]:
        return pipeline.ready

    with ExitStack() as ends:
        pages = None if page is None else ends.enter_context(page.of(pipeline, tell))
        server = WebServer(settings.http.addr, metrics, pipeline.status, alive, ready, pages=pages)
        server.start()
        ends.callback(server.stop)
        paths = "/metrics /livez /readyz /status"
        logs.get(__name__).info("listening", addr=server.addr, paths=paths if pages is None else f"/ {paths}")
        if tell is not None:
            tell({"addr": server.addr})
        yield


@before_opening()
def pipeline_of(
    settings: Settings,
    metrics: Metrics | None = None,
    page: PipelinePage | None = None,
    exporter: OtelExporter | None = None,
) -> Pipeline:
    """Return the pipeline that the settings describe; nothing is opened yet. Raise SettingRefused."""
    from batcher.engine.pipeline import Pipeline

    batch = settings.batch
    several = routes_of(settings)
    pipeline = Pipeline(
        source_of(settings),
        several or sink_of(settings),
        None if several else format_of(settings),
        name=name_of(settings),
        dead_letters=dead_letters_of(settings) if page is None else page.watched(dead_letters_of(settings)),
        flush=flush_of(settings),
        memory_bytes=int(batch.memory),
        retry=retry_of(settings),
        poison=poison_of(settings),
        delivery=settings.delivery,
        merge_partitions=batch.merge_partitions,
        writers=batch.writers,
        ignore_intents=settings.ignore_intents,
        on_existing=settings.on_existing,
        max_records=settings.max_records,
        # What the last export takes is a part of the time of a stop.
        stop_timeout_s=settings.stop_timeout.total_seconds() - (0.0 if exporter is None else exporter.flush_s),
        drain_timeout_s=DRAIN_TIMEOUT_S,
        start_timeout_s=settings.start_timeout.total_seconds(),
        halt_on_unknown=settings.decode.on_unknown == "halt",
        evolution=evolution_of(settings),
        rate=rate_of(settings),
        switch=switch_of(settings),
        subscribers=[
            *([] if metrics is None else [metrics]),
            *([] if page is None else [page.subscriber]),
            *([] if exporter is None else [exporter]),
        ],
    )
    if metrics is not None:
        metrics.watch(pipeline.status)
    return pipeline


def routes_of(settings: Settings) -> Routes | None:
    """Return where each topic goes, where that is not one place for all. Raise SettingRefused."""
    rules = routes(settings)
    if not rules:
        return None
    from batcher.engine.routes import Routes, Target

    def make(name: str, topics: Sequence[str]) -> Target:
        own = routed(settings, name, topics)
        return Target(sink_of(own), format_of(own))

    return Routes(rules, make)


def evolution_of(settings: Settings) -> EvolutionPolicy:
    """Return what becomes of fields that no column takes, besides counting them."""
    from batcher.engine.evolution import EvolutionPolicy

    given = settings.decode
    mode = given.on_unknown if given.on_unknown in ("evolve", "rescue") else "count"
    return EvolutionPolicy(mode, given.max_new_columns)


def flush_of(settings: Settings) -> FlushPolicy:
    """Return when a batch is due."""
    from batcher.core.buffer import FlushPolicy

    batch = settings.batch
    return FlushPolicy(batch.max_rows, int(batch.max_bytes), batch.max_wait.total_seconds())


def rate_of(settings: Settings) -> RatePolicy | None:
    """Return how many rows a second may be written, None where that is not bounded."""
    from batcher.core.rate import RatePolicy

    # Half of the time of a stop is left to what is slow for other reasons.
    rate, stop_s = settings.batch.rate, settings.stop_timeout.total_seconds()
    return None if rate is None else RatePolicy(rate, stop_s / 2)


def switch_of(settings: Settings) -> OffSwitch | None:
    """Return what pauses the pipeline, None where nothing does. Raise ConfigurationError for a URL that is none."""
    given = settings.pause
    if given.file is None and given.redis is None:
        return None
    from batcher.engine.off_switch import OffSwitch
    from batcher.off_switch import file_says, redis_says
    from batcher.options import masked_url

    if given.file is not None:
        return OffSwitch(file_says(Path(given.file)), given.action, f"the file {given.file}")
    assert given.redis is not None
    url = given.redis.get_secret_value()
    try:
        ask = redis_says(url, given.key)
    except ValueError:
        raise ConfigurationError(
            "--pause.redis: is redis://[[user]:password@]host[:port][/database], the database a number"
        ) from None
    return OffSwitch(ask, given.action, f"the key {given.key} of {masked_url(url)}")


def retry_of(settings: Settings, patience_s: float | None = None) -> RetryPolicy:
    """Return the waits; where the settings name no end for them, they end after `patience_s`, None for never."""
    from batcher.engine.retry import RetryPolicy

    given = settings.retry
    elapsed_s = patience_s if given.max_elapsed is None else given.max_elapsed.total_seconds()
    return RetryPolicy(given.strategy, given.wait.total_seconds(), given.max_wait.total_seconds(), elapsed_s)


def poison_of(settings: Settings) -> DeadLetterPolicy:
    """Return how many records may be refused."""
    from batcher.core.limits import DeadLetterPolicy

    return DeadLetterPolicy(settings.dlq.max_ratio, settings.dlq.max_consecutive, settings.dlq.max_bisect)


def name_of(settings: Settings) -> str:
    """Return the pipeline's name: the group of the source, or the source's name where it knows no groups."""
    section = section_of(settings, "source")[1]
    return str(getattr(section, "group", settings.source) or "")


@before_opening()
def source_of(settings: Settings) -> Source:
    """Return the source, not open yet. Raise SettingRefused for an unknown name and for options it refuses."""
    source: Source = _part(settings, registry_of("source"), settings.source)
    return source


@before_opening()
def sink_of(settings: Settings) -> Sink:
    """Return the sink, not open yet. Raise SettingRefused for an unknown name and for options it refuses."""
    sink: Sink = _part(settings, registry_of("sink"), settings.sink or "")
    return sink


@before_opening()
def format_of(settings: Settings) -> Format:
    """Return the encoding of the records, with the transform behind it. Raise SettingRefused for what it refuses."""
    format_ = encoding_of(settings)
    transform = transform_of(settings)
    if transform is None:
        return format_
    from batcher.formats.json import options_of
    from batcher.protocols.transform import Adapting
    from batcher.transforms.format import TransformedFormat

    stated = context_of(settings, "transform").schema
    return TransformedFormat(
        transform.adapted(format_) if isinstance(transform, Adapting) else format_,
        transform,
        stated=None if stated is None else stated(),
        options=options_of(settings.decode),
        most=settings.dlq.max_bisect,
    )


@before_opening()
def transform_of(settings: Settings) -> Transform | None:
    """Return what stands between the encoding and the target, or None. Raise SettingRefused for what it refuses."""
    made = [_part(settings, registry_of("transform"), kind) for kind in transforms(settings)]
    if len(made) < 2:
        return made[0] if made else None
    from batcher.transforms.chain import ChainedTransform

    return ChainedTransform(made)


def transforms(settings: Settings) -> Sequence[str]:
    """Return the transforms in their order: one by its name, which may unpack what the others work on, SQL, Python."""
    given = settings.transform
    sql = given.select is not None or given.where is not None
    own = [kind for kind, wanted in (("sql", sql), ("python", given.python is not None)) if wanted]
    return own if given.kind is None or given.kind in own else [given.kind, *own]


@before_opening()
def encoding_of(settings: Settings) -> Format:
    """Return what reads the records before any transform. Raise SettingRefused as `format_of` does."""
    decode = settings.decode
    if decode.key_format == "bytes":
        if decode.key_framing != "auto" or decode.key_writer_schema is not None:
            flag = "--decode.key-writer-schema" if decode.key_framing == "auto" else "--decode.key-framing"
            raise ConfigurationError(f"{flag}: keys are not read; how are they encoded? --decode.key-format")
        return _format(settings)
    from batcher.formats.wiring import keyed, of_values

    values = _format(settings.model_copy(update={"decode": of_values(decode)}))
    return keyed(values, decode, lambda keys: _format(settings.model_copy(update={"decode": keys}), keys=True))


def _format(settings: Settings, *, keys: bool = False) -> Format:
    decode = settings.decode
    format_: Format = _part(settings, registry_of("format"), decode.format, keys=keys)
    packed = decode.framing == "confluent" or decode.compression != "none" or decode.validation == "on"
    if not packed and decode.writer_schema is None and not decode.message:
        # Most pipelines start without what is needed for that.
        return format_
    from batcher.formats import registry_options
    from batcher.formats.wiring import unpacked

    return unpacked(format_, decode, settings.section(registry_options.SchemaRegistryOptions), keys=keys)


@before_opening()
def dead_letters_of(settings: Settings) -> DeadLetterQueue | None:
    """Return the place for refused records, or None: then the first one stops the pipeline. Raise SettingRefused."""
    name = settings.dlq.queue or ("kafka" if settings.dlq.topic else "directory" if settings.dlq.path else None)
    if name is None:
        return None
    queue: DeadLetterQueue = _part(settings, registry_of("dead-letter queue"), name)
    return queue


@before_opening()
def reader_of(settings: Settings) -> ReadableLog:
    """Return what reads the log of the source again, not open yet. Raise SettingRefused where the source has none."""
    registry = registry_of("source")
    found = registry.find(settings.source)
    reader = getattr(found.make, "reader", None)
    if reader is None or found.model is None:
        raise ConfigurationError(f"--source {settings.source}: what was read from it cannot be read again")
    log: ReadableLog = reader(own_section(settings, registry, found), context_of(settings, found.section))
    return log


@before_opening()
def kafka_options_of(settings: Settings) -> KafkaOptions:
    """Return the options for reading Kafka's log. Raise SettingRefused for what it refuses."""
    from batcher.sources.kafka import options_of
    from batcher.sources.kafka.settings import Kafka

    return options_of(settings.section(Kafka), context_of(settings, "kafka"))


def _part(settings: Settings, registry: Registry[Any], name: str, *, keys: bool = False) -> Any:
    """Return what the plug-in makes of its section; a plug-in without described options gets what `--options` gives."""
    found = registry.find(name)
    context = context_of(settings, found.section, keys=keys)
    if registry.kind == "sink" and transforms(settings):
        # --decode.schema is what the transform gets; a target that takes any columns gets those of its output.
        context = replace(context, schema=None)
    if found.model is not None:
        if registry.kind == "sink" and context.schema is not None and not found.asks:
            raise ConfigurationError(f"--decode.schema: the sink {name} does not take one; leave it at auto")
        return registry.make(found, own_section(settings, registry, found), context)
    options: dict[str, object] = dict(settings.options)
    if registry.kind == "sink" and context.schema is not None:
        options["schema"] = context.schema()
    return registry.make(found, options, context)


def context_of(settings: Settings, section: str, *, keys: bool = False) -> PluginContext:
    """Return the context that the plug-in with this section may use; with `keys` it reads those of records."""
    decode, retry = settings.decode, settings.retry
    decoded = frozenset[str]() if decode.key_format == "bytes" else frozenset({"_key"})
    return PluginContext(
        pipeline=name_of(settings),
        topics=tuple(getattr(section_of(settings, "source")[1], "topics", ())),
        schema=None if decode.schema_source == "auto" else lambda: _schema(decode.schema_source, decoded),
        reread=lambda field: _section_again(settings, section, field),
        sections=settings.sections(),
        keys=keys,
        decoded_coordinates=decoded,
        until_eof=settings.until_eof,
        excluded_topics=frozenset([settings.dlq.topic] if settings.dlq.topic else []),
        workers=settings.workers,
        native=settings.native,
        drain_timeout_s=DRAIN_TIMEOUT_S,
        # A send cannot be interrupted, so it has to end within the time of a stop.
        send_timeout_s=min(DEAD_LETTER_TIMEOUT_S, settings.stop_timeout.total_seconds() / 2),
        waits=RetryWaits(retry.strategy, retry.wait.total_seconds(), retry.max_wait.total_seconds()),
    )


def _schema(file: str, decoded: frozenset[str]) -> pa.Schema:
    from batcher.formats.schema_file import read_schema

    return read_schema(Path(file), decoded)


def _section_again(settings: Settings, section: str, field: str) -> Callable[[], Section] | None:
    """Return a function that reads a field's secret files anew and masks what they hold; None where it has no file.

    The function raises ConfigurationError where a file cannot be read.
    """
    read_again = settings.read_again(f"{section}.{field}")
    if read_again is None:
        return None
    from batcher.telemetry import logs

    def fresh() -> Section:
        try:
            found = read_again()
        except UsageError as error:
            raise ConfigurationError(str(error)) from error
        logs.hide(tuple(secrets(found)))
        again: Section = getattr(found, section)
        return again

    return fresh
