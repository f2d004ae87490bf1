"""Amazon SQS, and what speaks its protocol, as a source."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batcher.plugins import PluginContext, takes
from batcher.sources.sqs.settings import Sqs

if TYPE_CHECKING:
    from batcher.protocols import Source
    from batcher.protocols.publisher import Publisher

LAST_WAIT: Final = timedelta(seconds=1)


@takes(Sqs, section="sqs")
def plugin(options: Sqs, context: PluginContext) -> Source:
    """Return the source, not open yet. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.settings.model import BatchSection  # noqa: PLC0415 - as said above
    from batcher.sources.receipts.source import ReceiptSource  # noqa: PLC0415 - as said above
    from batcher.sources.sqs.gateway import SqsGateway  # noqa: PLC0415 - as said above

    max_wait_s = context.section(BatchSection).max_wait.total_seconds()
    if context.until_eof:
        # The last request of all is waited for, and an end that is near needs no long ones.
        options = options.model_copy(update={"wait": min(options.wait, LAST_WAIT)})
    gateway = SqsGateway(options, max_wait_s=max_wait_s)
    return ReceiptSource(gateway, worker=options.worker, until_eof=context.until_eof)


def publisher_of(options: Sqs, *, create: bool) -> Publisher:
    """Return what sends messages to the queue, see `batcher.protocols.publisher`."""
    from batcher.sources.sqs.publisher import SqsPublisher  # noqa: PLC0415 - as said above

    return SqsPublisher(options, create=create)


plugin.publisher = publisher_of  # type: ignore[attr-defined]
