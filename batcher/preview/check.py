"""Decode a sample for the columns that a target has, and say what would become of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from batcher.core.buffer import FlushPolicy
from batcher.core.fields import ColumnWatch
from batcher.engine.blocks import block_of
from batcher.engine.evolution import Evolution
from batcher.formats.outcome import renumbered
from batcher.preview.report import columns_of
from batcher.preview.sample import Sample, decoded
from batcher.protocols import Format, SinkInfo
from batcher.records import RESCUED, Batch, Partition, Records, Rejection, UnknownField

Refuse = Callable[[pa.RecordBatch], Sequence[Rejection]]
"""Return the rows that the target would refuse."""

SHOWN: Final = 20
"""Reasons, fields and columns that are named at most."""

_SMALL_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Say why records are refused; the first of them stands for all with the same reason and field."""

    reason: str
    message: str
    records: int
    first: str
    """Where the first one is: topic, partition and offset."""


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Say how large batches will be: `rows` and `bytes` of raw records, and which trigger comes first."""

    trigger: str
    rows: int
    nbytes: int
    records_per_second: float
    """Of all partitions, by the times of the newest records."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Say what would become of the records of a sample."""

    target: str
    guarantee: str
    reason: str
    looked_at: int
    log_offsets: int
    rows: int
    skipped: int
    """Records without a value."""
    filtered: int
    """Records that a transform leaves out."""
    refusals: tuple[Refusal, ...]
    unknown: tuple[tuple[str, int], ...]
    """Fields that no column takes, with the records that have a value there."""
    empty_columns: tuple[str, ...]
    notes: tuple[str, ...]
    size: BatchSize | None
    """None where the times of the records say nothing."""
    new_columns: tuple[str, ...] = ()
    """The columns that the target would be given, with their types."""

    @property
    def whole(self) -> bool:
        """Return whether everything in the records would be stored."""
        return not self.refusals and not self.unknown


def fit_of(
    sample: Sample,
    format_: Format,
    info: SinkInfo,
    schema: pa.Schema,
    *,
    flush: FlushPolicy,
    refuse: Refuse | None = None,
    evolution: Evolution | None = None,
) -> Fit:
    """Return what would become of a sample whose records go into columns of `schema`.

    `evolution` says which columns the target would be given first. It is not asked to give them.
    """
    batch = sample.batch
    if evolution is not None and RESCUED.name not in schema.names:
        schema = evolution.pinned(schema)
    schema, found = decoded(batch, format_, schema)
    rejected = list(found.rejections)
    rows = len(found.positions)
    watch = ColumnWatch(info.target, schema)
    watch.observe(found.table)
    if refuse is not None and rows:
        block = block_of(info, batch, found)
        refused = refuse(block.table.to_batches()[0])
        rejected += renumbered(refused, found.positions)
        rows -= len(refused)
    new = () if evolution is None else evolution.candidates("", schema, batch, found.unknown)
    added = {field.name: field.type for field in new}
    return Fit(
        info.target,
        f"{info.guarantee} {info.condition}".rstrip(),
        info.reason,
        sample.rows,
        sample.log_offsets,
        rows,
        len(found.skipped) - len(found.filtered),
        len(found.filtered),
        tuple(_refusals(batch, rejected)),
        tuple((one.path, one.records) for one in sorted(found.unknown, key=_frequent) if one.path not in added),
        tuple(name for name in watch.without_value if name != RESCUED.name),
        found.notes,
        size_of(sample, flush, mixes=info.mixes_partitions and info.repeats in ("none", "token", "merge")),
        tuple(f"{name} ({kind})" for name, kind in added.items()),
    )


def size_of(sample: Sample, flush: FlushPolicy, *, mixes: bool) -> BatchSize | None:
    """Return how large batches will be once the pipeline has caught up; with `mixes` partitions share a batch."""
    rates: dict[Partition, float] = {}
    for run in sample.runs:
        # The newest run of each partition is the last one.
        rates[run.partition] = _rate(run)
    total = sum(rates.values())
    if not total:
        return None
    lanes = 1 if mixes else sum(1 for rate in rates.values() if rate)
    each = sample.nbytes / sample.rows
    sizes = {
        "rows": float(flush.max_rows),
        "bytes": flush.max_bytes / max(1.0, each),
        "time": max(1.0, total / lanes * flush.max_wait_s),
    }
    trigger = min(sizes, key=lambda one: sizes[one])
    rows = round(sizes[trigger])
    return BatchSize(trigger, rows, round(rows * each), total)


def lines(fit: Fit) -> Iterator[str]:
    """Yield what would become of the records, for people."""
    parts = [f"{fit.rows:,} fit"]
    parts += [f"{sum(one.records for one in fit.refusals):,} would be refused"] if fit.refusals else []
    parts += [f"{fit.filtered:,} would be filtered by the transform"] if fit.filtered else []
    parts += [f"{fit.skipped:,} have no value and would be skipped"] if fit.skipped else []
    yield f"{fit.target}: of {fit.looked_at:,} records ({fit.log_offsets:,} in the log) {', '.join(parts)}"
    if fit.refusals:
        yield ""
        rows = [(f"{one.records:,}", one.reason, one.first, one.message) for one in fit.refusals[:SHOWN]]
        yield from columns_of([("records", "reason", "first seen", "why"), *rows])
        yield from _more(fit.refusals)
    if fit.unknown:
        yield ""
        fields = [(f"{count:,}", path) for path, count in fit.unknown[:SHOWN]]
        yield from columns_of([("records", "field that no column takes"), *fields])
        yield from _more(fit.unknown)
    if fit.new_columns:
        yield ""
        yield f"columns that would be added: {', '.join(fit.new_columns[:SHOWN])}"
        yield from _more(fit.new_columns)
    if fit.empty_columns:
        yield ""
        yield f"columns without a value: {', '.join(fit.empty_columns[:SHOWN])}"
        yield from _more(fit.empty_columns)
    for note in fit.notes:
        yield f"note: {note}"
    yield ""
    yield f"guarantee: {fit.guarantee}: {fit.reason}" if fit.reason else f"guarantee: {fit.guarantee}"
    yield f"batches: {_size(fit.size)}"


def facts(fit: Fit) -> dict[str, Any]:
    """Return the same for programs."""
    return {
        "target": fit.target,
        "looked_at": fit.looked_at,
        "log_offsets": fit.log_offsets,
        "rows": fit.rows,
        "skipped": fit.skipped,
        "filtered": fit.filtered,
        "refused": [
            {"reason": one.reason, "message": one.message, "records": one.records, "first": one.first}
            for one in fit.refusals
        ],
        "unknown_fields": dict(fit.unknown),
        "new_columns": list(fit.new_columns),
        "empty_columns": list(fit.empty_columns),
        "notes": list(fit.notes),
        "guarantee": fit.guarantee,
        "reason": fit.reason,
        "batch": None
        if fit.size is None
        else {
            "trigger": fit.size.trigger,
            "rows": fit.size.rows,
            "bytes": fit.size.nbytes,
            "records_per_second": round(fit.size.records_per_second, 3),
        },
    }


def _refusals(batch: Batch, rejections: Sequence[Rejection]) -> Iterator[Refusal]:
    """Yield one for each reason and field, the most frequent first."""
    first: dict[tuple[str, str | None], Rejection] = {}
    counts: Counter[tuple[str, str | None]] = Counter()
    for one in rejections:
        key = (one.reason, one.path)
        first.setdefault(key, one)
        counts[key] += 1
    for key, count in counts.most_common():
        one = first[key]
        record = batch.record(one.position)
        yield Refusal(one.reason, one.message, count, f"{record.partition} {record.offset}")


def _frequent(one: UnknownField) -> tuple[int, str]:
    return -one.records, one.path


def _rate(run: Records) -> float:
    """Return the records a second of a run, 0 where its times do not say."""
    first, last = run.timestamps_ms[0].as_py(), run.timestamps_ms[len(run) - 1].as_py()
    if first is None or last is None or last - first < 1000:
        return 0.0
    return (len(run) - 1) * 1000.0 / float(last - first)


def _size(size: BatchSize | None) -> str:
    if size is None:
        return "how large they will be cannot be told from the times of the records"
    cause = {"rows": "--batch.max-rows", "bytes": "--batch.max-bytes", "time": "--batch.max-wait"}[size.trigger]
    told = (
        f"about {size.rows:,} records ({size.nbytes / (1 << 20):.1f} MiB) each, by {cause}, at "
        f"{size.records_per_second:,.0f} records a second"
    )
    small = size.trigger == "time" and size.rows < _SMALL_ROWS
    return f"{told}; a longer --batch.max-wait makes fewer and larger ones" if small else told


def _more(found: Sequence[object]) -> Iterator[str]:
    if len(found) > SHOWN:
        yield f"and {len(found) - SHOWN} more"
