"""Load event streams into tables and files in micro-batches.

These are the names for programs that use batcher as a library (`docs/python.md`); each is loaded when it is first asked
for. The packages, from the top: `testing` (for who writes plug-ins), `cli` (the verbs), `bench`, `demo` and `worker`
(a handler for each message), `embedded` and `generate`, `audit` (verify and repair), `engine` (threads and waits),
`telemetry`, `core` (decisions), `dead_letters` and `formats`, `sources`, `settings`, `plugins`, `protocols` (the
contracts), `errors`, `records`, `handler` (what a handler gets and may say) and `options`. Imports point downwards.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from batcher.core.buffer import FlushPolicy as FlushPolicy
    from batcher.core.limits import DeadLetterPolicy as DeadLetterPolicy
    from batcher.engine.pipeline import Pipeline as Pipeline
    from batcher.engine.report import Summary as Summary
    from batcher.engine.retry import RetryPolicy as RetryPolicy
    from batcher.handler.message import Drop as Drop
    from batcher.handler.message import Message as Message
    from batcher.handler.message import Reject as Reject
    from batcher.handler.message import Retry as Retry
    from batcher.protocols import DeadLetterQueue as DeadLetterQueue
    from batcher.protocols import Decoder as Decoder
    from batcher.protocols import Format as Format
    from batcher.protocols import PartitionListener as PartitionListener
    from batcher.protocols import Sink as Sink
    from batcher.protocols import SinkInfo as SinkInfo
    from batcher.protocols import Source as Source
    from batcher.protocols import SourceInfo as SourceInfo
    from batcher.records import Batch as Batch
    from batcher.records import Block as Block
    from batcher.records import DeadLetter as DeadLetter
    from batcher.records import Decoded as Decoded
    from batcher.records import Deferral as Deferral
    from batcher.records import Outcome as Outcome
    from batcher.records import Partition as Partition
    from batcher.records import Position as Position
    from batcher.records import Records as Records
    from batcher.records import Rejection as Rejection
    from batcher.telemetry.status import Status as Status
    from batcher.worker import Worker as Worker

__version__ = "0.1.0"

_HOMES: Final = {
    "FlushPolicy": "core.buffer",
    "DeadLetterPolicy": "core.limits",
    "Pipeline": "engine.pipeline",
    "Summary": "engine.report",
    "RetryPolicy": "engine.retry",
    "Status": "telemetry.status",
    "Worker": "worker",
    **dict.fromkeys(("Drop", "Message", "Reject", "Retry"), "handler.message"),
    **dict.fromkeys(
        ("DeadLetterQueue", "Decoder", "Format", "PartitionListener", "Sink", "SinkInfo", "Source", "SourceInfo"),
        "protocols",
    ),
    **dict.fromkeys(
        (
            "Batch",
            "Block",
            "DeadLetter",
            "Decoded",
            "Deferral",
            "Outcome",
            "Partition",
            "Position",
            "Records",
            "Rejection",
        ),
        "records",
    ),
}
"""Where each public name lives."""

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604  # all of them are texts


def __getattr__(name: str) -> Any:
    """Load a public name; raise AttributeError for any other."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'batcher' has no attribute {name!r}")
    return getattr(importlib.import_module(f"batcher.{home}"), name)


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
