"""Make the parts of a pipeline from the settings. The one place that knows sinks, sources and formats by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from batcher.errors import ConfigurationError, SettingRefused
from batcher.formats.json.limits import Epoch
from batcher.settings import Settings, UsageError, secrets

if TYPE_CHECKING:
    from batcher.core.limits import DeadLetterPolicy
    from batcher.engine.pipeline import Pipeline
    from batcher.engine.retry import RetryPolicy
    from batcher.protocols import DeadLetterQueue, Format, Sink, Source
    from batcher.sources.kafka.options import KafkaOptions, Start
    from batcher.telemetry.metrics import Metrics

EPOCHS: Final[tuple[Epoch, ...]] = get_args(Epoch)

DEAD_LETTER_TIMEOUT_S: Final = 30.0

DRAIN_TIMEOUT_S: Final = 20.0
"""How long a partition that is taken away is held for its batch in flight; half the session timeout if that is less."""


@contextmanager
def before_opening() -> Iterator[None]:
    """Make every refusal of a part that is only made, not opened, a SettingRefused: the world was not looked at."""
    try:
        yield
    except SettingRefused:
        raise
    except ConfigurationError as error:
        raise SettingRefused(str(error)) from error


def metrics_of(settings: Settings) -> Metrics | None:
    """Return the metrics to count in, or None where nobody asks for them."""
    if settings.http.addr is None:
        return None
    from batcher.telemetry.metrics import Metrics

    return Metrics(settings.sink or "")


@contextmanager
def answering(settings: Settings, metrics: Metrics | None, pipeline: Pipeline) -> Iterator[None]:
    """Answer over HTTP while the context is open, where the settings say so. Raise ConfigurationError."""
    if metrics is None or settings.http.addr is None:
        yield
        return
    from batcher.telemetry import logs
    from batcher.telemetry.http import WebServer

    def alive() -> bool:
        return pipeline.alive

    def ready() -> tuple[bool, str]:
        return pipeline.ready

    server = WebServer(settings.http.addr, metrics, pipeline.status, alive, ready)
    server.start()
    logs.get(__name__).info("listening", addr=server.addr, paths="/metrics /livez /readyz /status")
    try:
        yield
    finally:
        server.stop()


@before_opening()
def pipeline_of(settings: Settings, metrics: Metrics | None = None) -> Pipeline:
    """Return the pipeline that the settings describe; nothing is opened yet. Raise SettingRefused."""
    from batcher.core.buffer import FlushPolicy
    from batcher.engine.pipeline import Pipeline

    batch = settings.batch
    options = kafka_options_of(settings)
    pipeline = Pipeline(
        source_of(options),
        sink_of(settings),
        format_of(settings),
        name=settings.kafka.group or "",
        dead_letters=dead_letters_of(settings),
        flush=FlushPolicy(batch.max_rows, int(batch.max_bytes), batch.max_wait.total_seconds()),
        memory_bytes=int(batch.memory),
        retry=retry_of(settings),
        poison=poison_of(settings),
        delivery=settings.delivery,
        merge_partitions=batch.merge_partitions,
        ignore_intents=settings.ignore_intents,
        on_existing=settings.on_existing,
        max_records=settings.max_records,
        stop_timeout_s=settings.stop_timeout.total_seconds(),
        drain_timeout_s=min(DRAIN_TIMEOUT_S, options.session_timeout_s / 2),
        start_timeout_s=settings.start_timeout.total_seconds(),
        halt_on_unknown=settings.decode.on_unknown == "halt",
        subscribers=() if metrics is None else (metrics,),
    )
    if metrics is not None:
        metrics.watch(pipeline.status)
    return pipeline


def retry_of(settings: Settings, patience_s: float | None = None) -> RetryPolicy:
    """Return the waits; where the settings name no end of them, they end after `patience_s`, None for never."""
    from batcher.engine.retry import RetryPolicy

    given = settings.retry
    elapsed_s = patience_s if given.max_elapsed is None else given.max_elapsed.total_seconds()
    return RetryPolicy(given.strategy, given.wait.total_seconds(), given.max_wait.total_seconds(), elapsed_s)


def poison_of(settings: Settings) -> DeadLetterPolicy:
    """Return how many records may be refused."""
    from batcher.core.limits import DeadLetterPolicy

    return DeadLetterPolicy(settings.dlq.max_ratio, settings.dlq.max_consecutive, settings.dlq.max_bisect)


def _clickhouse_password(settings: Settings) -> str | Callable[[], str] | None:
    """Return the password, or what reads it anew where it came from a file."""
    password = settings.clickhouse.password
    if password is None:
        return None
    read_again = _secrets_again(settings, "clickhouse.password")
    if read_again is None:
        return password.get_secret_value()

    def fresh() -> str:
        found = read_again().clickhouse.password
        return found.get_secret_value() if found else ""

    return fresh


@before_opening()
def sink_options(settings: Settings) -> dict[str, object]:
    """Return what a sink's plugin is given: its own section with secrets revealed, without what is not set.

    A sink that has no section gets `--options`. A schema file becomes the option `schema`.
    """
    given: dict[str, object]
    match settings.sink:
        case "clickhouse":
            section = settings.clickhouse
            given = {
                "dsn": section.dsn.get_secret_value(),
                "table": section.table,
                "user": section.user,
                "password": _clickhouse_password(settings),
                "settings": dict(section.settings),
                "insert_timeout_s": section.insert_timeout.total_seconds(),
                "allow_memory": section.allow_memory,
            }
        case "parquet":
            given = {**settings.parquet.model_dump(), "topics": settings.kafka.topics}
        case _:
            given = dict(settings.options)
    if settings.decode.schema_source != "auto":
        if settings.sink == "clickhouse":
            raise ConfigurationError("--decode.schema: a ClickHouse table has its own schema; leave it at auto")
        from batcher.formats.schema_file import read_schema

        given["schema"] = read_schema(Path(settings.decode.schema_source))
    return {name: value for name, value in given.items() if value is not None}


@before_opening()
def sink_of(settings: Settings) -> Sink:
    """Return the sink, not open yet. Raise SettingRefused for an unknown name and for options it refuses."""
    import sinks
    from batcher.errors import BatcherError

    name = settings.sink or ""
    plugin, options = sinks.load(name), sink_options(settings)
    try:
        made = plugin(options)
    except BatcherError:
        raise
    except Exception as error:  # somebody else's: whatever it raises while it is made is their bug
        raise ConfigurationError(f"--sink {name}: cannot be made: {type(error).__name__}: {error}") from error
    lacking = [method for method in ("open", "write", "close") if not callable(getattr(made, method, None))]
    if lacking:
        raise ConfigurationError(f"--sink {name}: what it makes has no {lacking[0]}(), so it is no sink")
    return made


def source_of(options: KafkaOptions) -> Source:
    """Return the source, not open yet."""
    from batcher.sources.kafka.source import KafkaSource

    return KafkaSource(options)


@before_opening()
def kafka_options_of(settings: Settings) -> KafkaOptions:
    """Return what the source is told. Raise SettingRefused for what it refuses."""
    from batcher.sources.kafka.options import KafkaOptions

    kafka = settings.kafka
    options = KafkaOptions(
        brokers=kafka.brokers or "",
        topics=kafka.topics,
        group=kafka.group or "",
        start=start_of(kafka.start),
        properties=kafka.options,
        until_eof=settings.until_eof,
        on_gap=kafka.on_gap,
        allow_insecure=kafka.allow_insecure,
        instance=kafka.instance,
        excluded_topics=frozenset([settings.dlq.topic] if settings.dlq.topic else []),
        reload=_properties_again(settings),
    )
    if settings.workers == 1:
        return options
    # As long as a rebalance may take: a dead member is missed, and a living one writes its last batch.
    return replace(options, patience_s=options.session_timeout_s + DRAIN_TIMEOUT_S)


def _properties_again(settings: Settings) -> Callable[[], Mapping[str, str]] | None:
    read_again = _secrets_again(settings, "kafka.options")
    return None if read_again is None else lambda: read_again().kafka.options


def _secrets_again(settings: Settings, key: str) -> Callable[[], Settings] | None:
    """Return what reads the secret files of a key anew and hides what they hold; None where it has no file.

    What is returned raises ConfigurationError where a file cannot be read.
    """
    read_again = settings.read_again(key)
    if read_again is None:
        return None
    from batcher.telemetry import logs

    def fresh() -> Settings:
        try:
            found = read_again()
        except UsageError as error:
            raise ConfigurationError(str(error)) from error
        logs.hide(tuple(secrets(found)))
        return found

    return fresh


def start_of(text: str) -> Start:
    """Return where to start: a time as epoch milliseconds."""
    match text:
        case "earliest" | "latest":
            return text
        case _ if text.isdecimal():
            return int(text)
        case _:
            return int(datetime.fromisoformat(text).timestamp() * 1000)


@before_opening()
def format_of(settings: Settings) -> Format:
    """Return the encoding of the records."""
    from batcher import formats
    from batcher.formats.json.format import JsonOptions

    section = settings.decode
    return formats.load(section.format)(
        JsonOptions(
            on_unknown=section.on_unknown,
            match=section.match,
            text=text_columns(section.text),
            epoch=epoch_units(section.epoch),
            max_message_bytes=int(section.max_message_bytes),
            max_depth=section.max_depth,
            tombstones=section.tombstones,
        )
    )


def text_columns(given: Sequence[str]) -> frozenset[str]:
    """Return the columns of `--decode.text`; `*` for all. Raise ConfigurationError."""
    words = frozenset(given) - {"strict"}
    if "strict" in given and words:
        raise ConfigurationError("--decode.text: strict stands alone; name columns, or any")
    return frozenset("*") if "any" in words else words


def epoch_units(given: Sequence[str]) -> dict[str, Epoch]:
    """Return the units of `--decode.epoch` by column; `*` is for all others. Raise ConfigurationError."""
    units: dict[str, Epoch] = {}
    for word in given:
        column, _, unit = word.rpartition("=")
        if unit not in EPOCHS:
            raise ConfigurationError(f"--decode.epoch {word}: the unit is one of {', '.join(EPOCHS)}")
        units[column or "*"] = unit
    return units


@before_opening()
def dead_letters_of(settings: Settings) -> DeadLetterQueue | None:
    """Return the place for refused records, or None: then the first one stops the pipeline."""
    group = settings.kafka.group or ""
    if settings.dlq.topic:
        from batcher.dead_letters.kafka import KafkaDeadLetterQueue

        # A send cannot be interrupted: it has to come to an end within a stop.
        timeout_s = min(DEAD_LETTER_TIMEOUT_S, settings.stop_timeout.total_seconds() / 2)
        brokers, topic = settings.kafka.brokers or "", settings.dlq.topic
        return KafkaDeadLetterQueue(brokers, topic, settings.kafka.options, group, timeout_s)
    if settings.dlq.path:
        from batcher.dead_letters.directory import DirectoryDeadLetterQueue

        return DirectoryDeadLetterQueue(settings.dlq.path, group)
    return None
