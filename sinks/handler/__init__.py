"""Hand records to a function of the user's own, which says what becomes of each.

work           the calls of a block: who takes which, in which order, and what became of them
threads        a pool of threads, each of which calls
processes      a pool of threads, each of which has a process call
coroutines     a thread with an event loop, and as many calls at once as there are workers
timers         how long calls took, by outcome
sink           makes calls of a block, and an `Outcome` of what became of them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.plugins import PluginContext, takes
from sinks.handler.settings import HandlerSection

if TYPE_CHECKING:
    from batcher.protocols import Sink


@takes(HandlerSection, section="handler")
def plugin(options: HandlerSection, context: PluginContext = PluginContext()) -> Sink:  # noqa: B008 - frozen
    """Return a sink that is not open yet. Nothing heavy is imported before this is called."""
    from sinks.handler.sink import HandlerOptions, HandlerSink  # noqa: PLC0415 - as said above

    timeout = options.timeout
    return HandlerSink(
        options.function or "",
        HandlerOptions(
            pool=options.pool,
            workers=options.workers,
            batch=options.batch,
            order=options.order,
            max_attempts=options.max_attempts,
            timeout_s=None if timeout is None else timeout.total_seconds(),
            waits=context.waits,
        ),
    )
