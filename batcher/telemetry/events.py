"""What happens in a pipeline, as values, and its subscribers.

The loops publish an event once a fetch, a commit or a batch, never once a record. Metrics, counters, the bench and the
live line subscribe. A subscriber is called on the thread that publishes, and has to return at once. Where there are
several write loops, they may call it at the same time. One that raises is a bug and ends the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from batcher.protocols import Guarantee
from batcher.records import Batch, Delivered, Partition, Position, Range, Records

Phase = Literal["fetch", "backpressure", "commit", "decode", "transform", "write"]
"""Where a thread's time goes. The first three are the fetch loop's; `backpressure` is waiting because the buffer is
full. `decode` and `transform` are the decode loop's, `write` the write loops'; these wait for a batch the rest of the
time."""

CommitOutcome = Literal["ok", "refused", "unconfirmed", "failed"]
RebalanceKind = Literal["assigned", "revoked", "lost"]


@dataclass(frozen=True, slots=True)
class GuaranteeAgreed:
    """Source and sink were asked what they keep together. Once for each target, before its first record."""

    guarantee: Guarantee
    target: str = ""
    """The name of the target; empty where there is only one."""
    described: str = ""
    """What the sink calls it."""


@dataclass(frozen=True, slots=True)
class RecordsFetched:
    """New records went into the buffer. Fetch loop."""

    run: Records


@dataclass(frozen=True, slots=True)
class TimeSpent:
    """A thread spent time in a phase. Published by the thread of that phase."""

    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """Partitions came or went. Fetch loop."""

    kind: RebalanceKind


@dataclass(frozen=True, slots=True)
class CommitAnswered:
    """A commit was answered, or not in time. Fetch loop."""

    outcome: CommitOutcome
    positions: Mapping[Partition, Position] = field(default_factory=dict)
    """What was committed; empty unless all of it was."""
    seconds: float = 0.0
    """How long the answer took, where there was one."""


@dataclass(frozen=True, slots=True)
class WriteRetried:
    """An attempt at the target or the dead-letter queue failed and is followed by another. Write loop, decode loop."""

    error: BaseException
    target: str = ""
    range: Range | None = None
    """The first range of the batch that it was for."""


@dataclass(frozen=True, slots=True)
class RetriesEnded:
    """What failed before went well, or is no longer ours to do. On the thread of the `WriteRetried` before it."""

    range: Range
    target: str = ""


@dataclass(frozen=True, slots=True)
class BatchWritten:
    """Every record of a batch is durable. Each write loop."""

    batch: Batch
    delivered: Delivered
    target: str = ""


Event = (
    GuaranteeAgreed
    | RecordsFetched
    | TimeSpent
    | Rebalanced
    | CommitAnswered
    | WriteRetried
    | RetriesEnded
    | BatchWritten
)

Subscriber = Callable[[Event], None]


class Events:
    """Pass events on to all subscribers, in the order in which they subscribed."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = subscribers

    def publish(self, event: Event) -> None:
        """Tell every subscriber. Any thread."""
        for subscriber in self._subscribers:
            subscriber(event)
