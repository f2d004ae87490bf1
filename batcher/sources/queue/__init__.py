"""The embedded queue: a log in one SQLite file, for machines without any broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batcher.plugins import PluginContext, takes
from batcher.sources.queue.settings import EmbeddedQueue
from batcher.sources.starts import start_of

if TYPE_CHECKING:
    from batcher.protocols import Source
    from batcher.sources.queue.source import QueueOptions


@takes(EmbeddedQueue, section="queue")
def plugin(options: EmbeddedQueue, context: PluginContext) -> Source:
    """Return the source, not open yet. Nothing heavy is imported before this is called."""
    from batcher.sources.queue.source import QueueSource  # noqa: PLC0415 - as said above

    return QueueSource(options_of(options, until_eof=context.until_eof))


def options_of(section: EmbeddedQueue, *, until_eof: bool = False) -> QueueOptions:
    """Return what the source is told."""
    from batcher.sources.queue.source import QueueOptions  # noqa: PLC0415 - it loads Arrow

    return QueueOptions(
        Path(section.path or ""),
        section.group or "",
        start=start_of(section.start),
        on_gap=section.on_gap,
        session_s=section.session.total_seconds(),
        until_eof=until_eof,
    )
