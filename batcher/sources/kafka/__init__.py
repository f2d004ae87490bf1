"""Apache Kafka as a source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batcher.plugins import PluginContext, takes
from batcher.sources.kafka.settings import Kafka
from batcher.sources.starts import place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batcher.protocols import ReadableLog, Source
    from batcher.sources.kafka.options import KafkaOptions


def reader_of(options: Kafka, context: PluginContext) -> ReadableLog:
    """Return what reads the log without the group. Raise ConfigurationError."""
    from batcher.sources.kafka.window import LogReader  # noqa: PLC0415 - it is not needed for the command line

    # librdkafka wants a name, and the reader neither joins nor commits.
    named = options if options.group else options.model_copy(update={"group": "batcher-preview"})
    return LogReader(options_of(named, context))


@takes(Kafka, section="kafka", reader=reader_of)
def plugin(options: Kafka, context: PluginContext) -> Source:
    """Return the source, not open yet. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.sources.kafka.source import KafkaSource  # noqa: PLC0415 - as said above

    told = options_of(options, context)
    source = KafkaSource(told)
    if told.end is None:
        return source
    from batcher.sources.kafka.bounded import BoundedSource, ends_of  # noqa: PLC0415 - as said above

    return BoundedSource(source, lambda: ends_of(told, options.beside))


def options_of(section: Kafka, context: PluginContext) -> KafkaOptions:
    """Return what the source is told. Raise ConfigurationError for what it refuses."""
    from batcher.sources.kafka.options import KafkaOptions  # noqa: PLC0415 - as said above

    options = KafkaOptions(
        brokers=section.brokers or "",
        topics=section.topics,
        group=section.group or "",
        start=place_of(section.start),
        end=None if section.end is None else place_of(section.end),
        properties=section.options,
        until_eof=context.until_eof,
        on_gap=section.on_gap,
        allow_insecure=section.allow_insecure,
        instance=section.instance,
        excluded_topics=context.excluded_topics,
        reload=_properties_again(context),
        native=context.native,
    )
    if context.workers == 1:
        return options
    # As long as a rebalance may take: a dead member times out, and a living one writes its last batch.
    return replace(options, patience_s=options.session_timeout_s + context.drain_timeout_s)


def _properties_again(context: PluginContext) -> Callable[[], Mapping[str, str]] | None:
    again = context.reread("options")
    if again is None:
        return None

    def fresh() -> Mapping[str, str]:
        found = again()
        return found.options if isinstance(found, Kafka) else {}

    return fresh
