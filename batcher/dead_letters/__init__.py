"""Where refused records are kept. A queue is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batcher.plugins import Registry

if TYPE_CHECKING:
    from batcher.protocols import DeadLetterQueue

registry: Final[Registry[DeadLetterQueue]] = Registry(
    "dead-letter queue",
    setting="dlq.queue",
    group="batcher.dead_letters",
    built_in={
        "directory": "batcher.dead_letters.plugin:directory",
        "kafka": "batcher.dead_letters.plugin:kafka",
    },
    methods=("open", "send", "close"),
)
"""What `--dlq.queue` may name."""
