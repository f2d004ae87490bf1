"""Where records come from. A source is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batcher.plugins import Registry

if TYPE_CHECKING:
    from batcher.protocols import Source

registry: Final[Registry[Source]] = Registry(
    "source",
    setting="source",
    group="batcher.sources",
    built_in={
        "kafka": "batcher.sources.kafka:plugin",
        "nsq": "batcher.sources.nsq:plugin",
        "queue": "batcher.sources.queue:plugin",
        "share": "batcher.sources.share:plugin",
        "sqs": "batcher.sources.sqs:plugin",
    },
    methods=("open", "fetch", "pause", "resume", "commit", "close"),
)
"""What `--source` may name."""
