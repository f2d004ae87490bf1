"""What a running pipeline reports about itself: one snapshot, for `/status`, for the metrics and for people.

A `Status` is made by the pipeline in one go and never changes, so what it says fits together. Times are ages in
seconds by the monotonic clock. It holds no record and no secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Final, Literal, get_args

from batcher.protocols import Distribution, Guarantee, Measure
from batcher.records import Partition, Range, Trigger

State = Literal["starting", "running", "draining", "stopped", "failed"]
"""`draining`: a stop was asked for, or the end was reached, and what is buffered is being written."""

TargetState = Literal["running", "failing", "failed"]
"""`failing`: it does not take its records now, which come again. `failed`: it was given up."""

TARGET_STATES: Final[tuple[TargetState, ...]] = get_args(TargetState)

STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Say how far one assigned partition is. A value that is not known yet is None."""

    next_offset: int | None = None
    """The offset that will be read next."""
    committed_offset: int | None = None
    """Everything below it is durable, and a successor starts here."""
    lag: int | None = None
    """Records in the log that are not committed yet, as the client counts them."""
    paused: bool = False
    stopped: str = ""
    """Why nothing is read from it although it is assigned to us; empty where that is not so."""


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """Say what waits in memory."""

    rows: int = 0
    bytes: int = 0
    limit_bytes: int | None = None
    age_s: float | None = None
    """Since the oldest record came in; None while nothing waits."""
    due_in_s: float | None = None
    """Until a batch is sealed for its age; None while nothing waits."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """Describe the batch that is being delivered."""

    number: int
    trigger: Trigger
    rows: int
    bytes: int
    ranges: tuple[Range, ...] = ()
    age_s: float = 0.0
    """Since it was sealed."""
    attempts: int = 1
    """How often the target was tried."""


@dataclass(frozen=True, slots=True)
class LastError:
    """Say what went wrong last, and whether it still does."""

    kind: str
    """The class of the exception, as in `batcher.errors`."""
    message: str
    since_s: float
    """Since it was first seen in this row of failures."""
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Count since the start.

    `consumed == written + duplicates_suppressed + dead_lettered + skipped + released` plus what is still on its way.
    """

    consumed: int = 0
    consumed_bytes: int = 0
    written: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    filtered: int = 0
    """Those of the skipped that a transform filtered."""
    paused: int = 0
    """Those of the skipped that came while the off switch dropped records."""
    duplicates_suppressed: int = 0
    batches: int = 0
    retries: int = 0
    rebalances: int = 0
    released: int = 0
    """Given back to their queue, because the sink deferred them: they come again."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """Say how it is with one of several targets."""

    target: str
    """What its sink calls it."""
    delivery: Guarantee
    delivery_reason: str = ""
    waiting_for: str = ""
    failed: str = ""
    """Why nothing more is written to it; empty where that is not so."""
    buffer: BufferStatus = BufferStatus()
    in_flight: InFlight | None = None
    """The batch that has been in flight longest."""
    writing: tuple[InFlight, ...] = ()
    """The batches that are being written, the oldest first: at most `writers` of them."""
    writers: int = 1
    last_error: LastError | None = None
    written: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    duplicates_suppressed: int = 0
    batches: int = 0
    retries: int = 0
    filtered: int = 0
    """Those of the skipped that a transform filtered."""
    released: int = 0
    """Given back to their queue, because the sink deferred them: they come again."""

    @property
    def state(self) -> TargetState:
        """Return in one word how it is."""
        if self.failed:
            return "failed"
        return "running" if self.last_error is None or self.last_error.recovered else "failing"


@dataclass(frozen=True, slots=True)
class Status:
    """Say what a pipeline guarantees, how far it is, and what it waits for.

    With several targets the guarantee is the weakest of theirs, `buffer` is their sum, and `targets` has each by name.
    """

    state: State
    delivery: Guarantee = "at-least-once"
    delivery_reason: str = ""
    """One sentence why it is no stronger guarantee."""
    target: str = ""
    group: str = ""
    waiting_for: str = ""
    """Why nothing is being written at this moment, in words for people; empty while something is."""
    off_switch: str = ""
    """What the off switch does, in words for people; empty while it is on, or where there is none."""
    partitions: Mapping[Partition, PartitionStatus] = field(default_factory=dict)
    buffer: BufferStatus = BufferStatus()
    in_flight: InFlight | None = None
    """The batch that has been in flight longest."""
    writing: tuple[InFlight, ...] = ()
    """The batches that are being written, the oldest first: at most `writers` of them."""
    writers: int = 1
    """How many batches of different partitions may be written at once; of several targets the sum."""
    last_error: LastError | None = None
    last_commit_age_s: float | None = None
    uptime_s: float = 0.0
    counts: Counts = Counts()
    dead_letter_reasons: Mapping[str, int] = field(default_factory=dict)
    """Dead letters, by reason."""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)
    """Rows that had a value in a field that no column takes, by field (`a.b`)."""
    unknown_fields_estimated: bool = False
    """These counts were scaled up from samples."""
    columns_without_value: tuple[str, ...] = ()
    """Columns that no record had a value for so far."""
    native: tuple[str, ...] = ()
    """What the native extension does in this process, such as `decode`; empty where Python does everything."""
    targets: Mapping[str, TargetStatus] = field(default_factory=dict)
    """The targets by name, where there are several."""
    measures: tuple[Measure, ...] = ()
    """What the sink measures of itself; of several targets their sums."""

    def to_dict(self) -> dict[str, Any]:
        """Return the same for JSON: partitions become a list, in order, with topic and number.

        `lag` is added: the sum over the partitions whose lag is known, None if there is none. `measures` are by name.
        """
        plain: dict[str, Any] = {one.name: _plain(getattr(self, one.name)) for one in fields(self)}
        plain["partitions"] = [
            {"topic": partition.topic, "partition": partition.number, **_plain(status)}
            for partition, status in sorted(self.partitions.items())
        ]
        lags = [status.lag for status in self.partitions.values() if status.lag is not None]
        plain["measures"] = {one.name: measured(one) for one in self.measures}
        plain["lag"] = sum(lags) if lags else None
        return plain


def measured(measure: Measure) -> Any:
    """Return the values of a measure for JSON: by label where it has one."""
    values = {
        label: {"count": value.count, "sum": round(value.total, 3)} if isinstance(value, Distribution) else value
        for label, value in measure.values.items()
    }
    return values if measure.label else values.get("")


def _plain(thing: Any) -> Any:
    if isinstance(thing, Range):
        return {
            "topic": thing.partition.topic,
            "partition": thing.partition.number,
            "first": thing.first,
            "last": thing.last,
        }
    if is_dataclass(thing):
        return {one.name: _plain(getattr(thing, one.name)) for one in fields(thing)}
    if isinstance(thing, Mapping):
        return {name: _plain(value) for name, value in thing.items()}
    if isinstance(thing, tuple):
        return [_plain(one) for one in thing]
    return round(thing, 3) if isinstance(thing, float) else thing
