"""NSQ as a source, by a client of our own over plain sockets. Nothing heavy is imported before it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.sources.nsq.settings import Nsq

if TYPE_CHECKING:
    from batcher.protocols import Source
    from batcher.protocols.publisher import Publisher


@takes(Nsq, section="nsq")
def plugin(options: Nsq, context: PluginContext) -> Source:
    """Return the source, not open yet. Raise ConfigurationError without a channel, and for unreadable certificates."""
    from batcher.settings.model import BatchSection  # noqa: PLC0415 - as said above
    from batcher.sources.nsq.gateway import gateway_of  # noqa: PLC0415
    from batcher.sources.receipts.source import ReceiptSource  # noqa: PLC0415

    if not options.channel:  # not in `lacking`: who publishes needs none
        raise ConfigurationError("which channel? --nsq.channel CHANNEL")
    longest_batch_s = context.section(BatchSection).max_wait.total_seconds()
    gateway = gateway_of(options, longest_batch_s=longest_batch_s)
    return ReceiptSource(gateway, worker=options.worker, until_eof=context.until_eof)


def publisher(options: Nsq, *, create: bool) -> Publisher:
    """Return what publishes to the topic; NSQ makes it with the first message, whatever `create` says.

    Raise ConfigurationError or Unreachable.
    """
    from batcher.sources.nsq.publisher import NsqPublisher  # noqa: PLC0415 - as said above

    del create
    return NsqPublisher(options)


plugin.publisher = publisher  # type: ignore[attr-defined]
