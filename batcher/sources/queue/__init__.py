"""The embedded queue: a log in one SQLite file, for machines without any broker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.sources.queue.settings import EmbeddedQueue
from batcher.sources.starts import start_of

if TYPE_CHECKING:
    from batcher.protocols import Publisher, ReadableLog, Source
    from batcher.sources.queue.source import QueueOptions


def publisher_of(options: EmbeddedQueue, *, create: bool) -> Publisher:
    """Return what appends to the queue; with `create` it is made where it is not there. Raise ConfigurationError."""
    from batcher.sources.queue import file  # noqa: PLC0415 - it is not needed for the command line
    from batcher.sources.queue.publisher import QueuePublisher  # noqa: PLC0415 - the same

    if not options.path:
        raise ConfigurationError("which queue? --queue.path FILE")
    path = Path(options.path)
    shape = file.QueueShape(path.stem)
    return QueuePublisher(file.create(path, shape, exist_ok=True) if create else file.opened(path))


def reader_of(options: EmbeddedQueue, context: PluginContext) -> ReadableLog:
    """Return what reads the log again, not open yet."""
    del context
    from batcher.sources.queue.reader import QueueReader  # noqa: PLC0415 - it loads Arrow

    return QueueReader(Path(options.path or ""), options.group or "")


@takes(EmbeddedQueue, section="queue", publisher=publisher_of, reader=reader_of)
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
