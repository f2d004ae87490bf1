"""Say what a pipeline did and what it is doing, from a snapshot and the counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from batcher.core.state import Snapshot
from batcher.protocols import Guarantee
from batcher.records import Partition
from batcher.telemetry.counters import Counters
from batcher.telemetry.status import BufferStatus, InFlight, LastError, PartitionStatus, Status


@dataclass(frozen=True, slots=True)
class Summary:
    """Say what a run has done.

    After a complete drain `consumed == written + duplicates_suppressed + dead_lettered + skipped`.
    """

    consumed: int
    written: int
    dead_lettered: int
    skipped: int
    duplicates_suppressed: int
    batches: int
    bytes: int
    seconds: float
    delivery: Guarantee
    dead_letter_reasons: Mapping[str, int] = field(default_factory=dict)
    """Dead letters, by reason, the most frequent first."""
    unknown_fields: Mapping[str, int] = field(default_factory=dict)
    """Rows that had a value in a field that no column takes, by field, the most frequent first."""
    unknown_fields_estimated: bool = False
    """These counts were scaled up from samples."""
    columns_without_value: tuple[str, ...] = ()
    """Columns that no record had a value for."""
    filtered: int = 0
    """Those of the skipped that a transform filtered."""

    @property
    def rows_per_second(self) -> float:
        """Return the records made durable a second, over the whole run."""
        return (self.written + self.dead_lettered) / self.seconds if self.seconds > 0 else 0.0


def summary_of(
    counters: Counters, seconds: float, guarantee: Guarantee, columns_without_value: tuple[str, ...]
) -> Summary:
    """Return what was done so far."""
    counts = counters.counts
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
        dead_letter_reasons=counters.dead_letter_reasons,
        unknown_fields=counters.unknown_fields,
        unknown_fields_estimated=counters.unknown_fields_estimated,
        columns_without_value=columns_without_value,
        filtered=counts.filtered,
    )


def with_counters(status: Status, counters: Counters) -> Status:
    """Return a status with what was counted so far."""
    return replace(
        status,
        last_error=counters.last_error,
        last_commit_age_s=counters.last_commit_age_s,
        counts=counters.counts,
        dead_letter_reasons=counters.dead_letter_reasons,
        unknown_fields=counters.unknown_fields,
        unknown_fields_estimated=counters.unknown_fields_estimated,
    )


def with_snapshot(
    status: Status,
    snapshot: Snapshot,
    *,
    stopped: Mapping[Partition, str],
    lag: Mapping[Partition, int],
    attempts: int,
) -> Status:
    """Return a status with what is going on; `stopped` are partitions from which nothing is read, with the reason."""
    batch = snapshot.in_flight
    return replace(
        status,
        waiting_for=waiting_for(snapshot, status.last_error),
        partitions={
            **{part: PartitionStatus(stopped=reason) for part, reason in stopped.items()},
            **{
                part: PartitionStatus(at, snapshot.committed.get(part), lag.get(part), part in snapshot.paused)
                for part, at in snapshot.read.items()
            },
        },
        buffer=BufferStatus(snapshot.rows, snapshot.nbytes, snapshot.limit_bytes, snapshot.age_s, snapshot.due_in_s),
        in_flight=InFlight(
            batch.number, batch.trigger, batch.rows, batch.nbytes, batch.ranges, snapshot.in_flight_s, attempts
        )
        if batch
        else None,
    )


def waiting_for(snapshot: Snapshot, error: LastError | None) -> str:
    """Say in words why nothing is being written; empty while something is."""
    if snapshot.awaits_commit:
        return "the broker to store a commit"
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
