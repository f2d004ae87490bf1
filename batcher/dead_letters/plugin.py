"""The built-in queues as plug-ins. Nothing heavy is imported before one of them is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Dlq
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.protocols import DeadLetterQueue


@takes(Dlq, section="dlq")
def kafka(options: Dlq, context: PluginContext) -> DeadLetterQueue:
    """Return the queue in the topic of `--dlq.topic`, on the brokers that records come from."""
    from batcher.dead_letters.kafka import KafkaDeadLetterQueue  # noqa: PLC0415 - as said above

    source = context.section(Kafka)
    if not source.brokers:
        raise ConfigurationError("--dlq.topic: which brokers have it? -b HOST:PORT, or --dlq.path DIR")
    return KafkaDeadLetterQueue(
        source.brokers, options.topic or "", source.options, context.pipeline, context.send_timeout_s
    )


@takes(Dlq, section="dlq")
def directory(options: Dlq, context: PluginContext) -> DeadLetterQueue:
    """Return the queue in the directory of `--dlq.path`."""
    from batcher.dead_letters.directory import DirectoryDeadLetterQueue  # noqa: PLC0415 - as said above

    return DirectoryDeadLetterQueue(options.path or "", context.pipeline)
