"""A share group of Kafka as a source: several readers of one partition, without an order. A preview, as in Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.protocols import Source


@takes(Kafka, section="kafka")
def plugin(options: Kafka, context: PluginContext) -> Source:
    """Return the source, not open yet. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.sources.kafka import options_of  # noqa: PLC0415 - as said above
    from batcher.sources.receipts.source import ReceiptSource  # noqa: PLC0415 - as said above
    from batcher.sources.share.gateway import ShareGateway  # noqa: PLC0415 - as said above

    if len(options.topics) != 1 or options.topics[0].startswith("^"):
        raise ConfigurationError("--source share: reads one topic, given by its name; -t TOPIC")
    if options.start not in ("earliest", "latest"):
        raise ConfigurationError("--kafka.start: a share group starts at earliest or latest")
    if options.end is not None:
        raise ConfigurationError("--kafka.end: a share group has no offsets of its own; use --source kafka")
    gateway = ShareGateway(options_of(options, context))
    return ReceiptSource(gateway, worker=options.worker, until_eof=context.until_eof)
