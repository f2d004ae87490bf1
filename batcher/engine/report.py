"""Say what a pipeline did and what it is doing, from a snapshot and the counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from batcher.core.state import Snapshot
from batcher.engine.assembly import Destination
from batcher.protocols import Guarantee
from batcher.records import Batch, Partition
from batcher.telemetry.counters import Counted
from batcher.telemetry.status import BufferStatus, InFlight, LastError, PartitionStatus, Status, TargetStatus


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """Say what a run has done to one of several targets."""

    written: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    duplicates_suppressed: int = 0
    failed: str = ""
    """Why it was given up; empty where that is not so."""
    filtered: int = 0
    """Those of the skipped that a transform filtered."""
    released: int = 0
    """Given back to their queue, because the sink deferred them: they come again."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Say what a run has done.

    After a complete drain `consumed == written + duplicates_suppressed + dead_lettered + skipped + released`.
    """

    consumed: int
    written: int
    dead_lettered: int
    skipped: int
    duplicates_suppressed: int
    batches: int
    bytes: int
    seconds: float
    delivery: Guarantee | None
    """What was guaranteed; None where the run ended before source and target were known."""
    dead_letter_reasons: Mapping[str, int] = field(default_factory=dict)
    """Dead letters, by reason, the most frequent first."""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)
    """Rows that had a value in a field that no column takes, by field, the most frequent first."""
    unknown_fields_estimated: bool = False
    """These counts were scaled up from samples."""
    columns_without_value: tuple[str, ...] = ()
    """Columns that no record had a value for."""
    targets: Mapping[str, TargetSummary] = field(default_factory=dict)
    """What was done to each target, by name, where there are several."""
    filtered: int = 0
    """Those of the skipped that a transform filtered."""
    released: int = 0
    """Given back to their queue, because the sink deferred them: they come again."""
    paused: int = 0
    """Those of the skipped that came while the off switch dropped records."""

    @property
    def rows_per_second(self) -> float:
        """Return the records made durable a second, over the whole run."""
        return (self.written + self.dead_lettered) / self.seconds if self.seconds > 0 else 0.0


def summary_of(
    counted: Counted,
    seconds: float,
    guarantee: Guarantee | None,
    columns_without_value: tuple[str, ...],
    targets: Mapping[str, TargetSummary],
) -> Summary:
    """Return what was done so far."""
    counts = counted.counts
    return Summary(
        consumed=counts.consumed,
        written=counts.written,
        dead_lettered=counts.dead_lettered,
        skipped=counts.skipped,
        duplicates_suppressed=counts.duplicates_suppressed,
        batches=counts.batches,
        bytes=counts.consumed_bytes,
        seconds=seconds,
        delivery=guarantee,
        dead_letter_reasons=counted.dead_letter_reasons,
        unknown_fields=counted.unknown_fields,
        unknown_fields_estimated=counted.unknown_fields_estimated,
        columns_without_value=columns_without_value,
        targets=targets,
        filtered=counts.filtered,
        released=counts.released,
        paused=counts.paused,
    )


def target_summary(one: Destination, failed: str) -> TargetSummary:
    """Return what was done to one of several targets."""
    counts = one.counters.counts
    return TargetSummary(
        counts.written,
        counts.dead_lettered,
        counts.skipped,
        counts.duplicates_suppressed,
        failed,
        counts.filtered,
        counts.released,
    )


def with_counters(status: Status, counted: Counted) -> Status:
    """Return a status with what was counted so far."""
    return replace(
        status,
        last_error=counted.last_error,
        last_commit_age_s=counted.last_commit_age_s,
        counts=counted.counts,
        dead_letter_reasons=counted.dead_letter_reasons,
        unknown_fields=counted.unknown_fields,
        unknown_fields_estimated=counted.unknown_fields_estimated,
    )


def with_targets(
    status: Status,
    targets: Mapping[str, TargetStatus],
    snapshots: Sequence[Snapshot],
    *,
    stopped: Mapping[Partition, str],
    lag: Mapping[Partition, int],
) -> Status:
    """Return a status with what is going on; `stopped` are partitions from which nothing is read, with the reason.

    `targets` and `snapshots` go together, in one order.
    """
    found = list(targets.values())
    flying = [one.in_flight for one in found if one.in_flight is not None]
    waiting = {name: one.waiting_for for name, one in targets.items() if one.waiting_for and not one.failed}
    # As long as one target is written to, the pipeline waits for nothing.
    idle = len(waiting) == len(found)
    return replace(
        status,
        waiting_for="; ".join(dict.fromkeys(f"{name}: {why}" if name else why for name, why in waiting.items()))
        if idle
        else "",
        partitions={
            **{part: PartitionStatus(stopped=reason) for part, reason in stopped.items()},
            **{
                part: PartitionStatus(at, snapshot.committed.get(part), lag.get(part), part in snapshot.paused)
                for snapshot in snapshots
                for part, at in snapshot.read.items()
            },
        },
        buffer=_sum_of(one.buffer for one in found),
        in_flight=max(flying, key=lambda one: one.age_s, default=None),
        writing=tuple(sorted((each for one in found for each in one.writing), key=lambda one: -one.age_s)),
        writers=sum(one.writers for one in found) or 1,
        targets=targets if len(found) > 1 or "" not in targets else {},
    )


def target_status(one: Destination, snapshot: Snapshot, failed: str) -> TargetStatus:
    """Return how it is with one target."""
    counts, error, batch = one.counters.counts, one.counters.last_error, snapshot.in_flight

    def described(batch: Batch, age_s: float) -> InFlight:
        tries = one.counters.attempts(batch.ranges[0])
        return InFlight(batch.number, batch.trigger, batch.rows, batch.nbytes, batch.ranges, age_s, tries)

    return TargetStatus(
        one.agreement.sink.target,
        one.agreement.guarantee,
        one.agreement.reason,
        waiting_for(snapshot, error),
        failed,
        BufferStatus(snapshot.rows, snapshot.nbytes, snapshot.limit_bytes, snapshot.age_s, snapshot.due_in_s),
        None if batch is None else described(batch, snapshot.in_flight_s),
        tuple(described(*each) for each in snapshot.writing),
        snapshot.writers,
        error,
        counts.written,
        counts.dead_lettered,
        counts.skipped,
        counts.duplicates_suppressed,
        counts.batches,
        counts.retries,
        counts.filtered,
        counts.released,
    )


def _sum_of(buffers: Iterable[BufferStatus]) -> BufferStatus:
    found = list(buffers)
    ages = [one.age_s for one in found if one.age_s is not None]
    due = [one.due_in_s for one in found if one.due_in_s is not None]
    return BufferStatus(
        sum(one.rows for one in found),
        sum(one.bytes for one in found),
        sum(one.limit_bytes or 0 for one in found),
        max(ages, default=None),
        min(due, default=None),
    )


def waiting_for(snapshot: Snapshot, error: LastError | None) -> str:
    """Say in words why nothing is being written; empty while something is."""
    if held_up := _held_up(snapshot):
        return held_up
    if snapshot.in_flight is not None:
        failing = error is not None and not error.recovered
        return f"the target: {error.message}" if failing and error is not None else ""
    if not snapshot.read:
        return "partitions to be assigned"
    if snapshot.due_in_s is None and snapshot.replaying:
        return f"the rest of what was announced for {min(snapshot.replaying)}"
    if not snapshot.rows:
        return "records"
    return f"more records, or {snapshot.due_in_s:.1f} s to pass" if snapshot.due_in_s else ""


def _held_up(snapshot: Snapshot) -> str:
    """Say what keeps a batch from being written that could be; empty where nothing does."""
    if snapshot.held:
        return "its pause, or its off switch, to end"
    if snapshot.awaits_commit:
        return "the broker to store a commit"
    return f"the rate of batch.rate, for {snapshot.rate_wait_s:.1f} s" if snapshot.rate_wait_s > 0 else ""
