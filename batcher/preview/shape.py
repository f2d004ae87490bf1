"""Decode a sample as a pipeline would, and say what its records are like and which table they need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from batcher.formats.json.per_column import plain, walk
from batcher.formats.json.shape import is_raw
from batcher.growth import stored
from batcher.preview.fields import FieldProfile, profiles
from batcher.preview.sample import Sample, decoded
from batcher.protocols import Format
from batcher.protocols.proposal import Proposal


@dataclass(frozen=True, slots=True)
class Shape:
    """Say what the records of a sample are like."""

    topics: tuple[str, ...]
    looked_at: int
    log_offsets: int
    rows: int
    """Records that could be read."""
    rejected: Mapping[str, int]
    """Records that could not, by reason."""
    skipped: int
    schema: pa.Schema
    """The columns that hold every readable record; nullable where a record has no value, null where none has one."""
    fields: tuple[FieldProfile, ...]
    mixed: tuple[str, ...] = ()
    """Fields with values of several types. A text column takes them with `--decode.text`."""
    notes: tuple[str, ...] = ()
    filtered: int = 0
    """Those of the skipped that a transform leaves out."""

    def proposal(self, order_by: tuple[str, ...] = ()) -> Proposal:
        """Return what a sink has to know to make a target."""
        distinct = {one.path: one.distinct for one in self.fields if one.distinct is not None}
        return Proposal(self.schema, self.rows, distinct, len(self.topics), order_by)

    @property
    def columns(self) -> pa.Schema:
        """Return the columns whose types are known."""
        return stored(self.schema)


def shape_of(sample: Sample, format_: Format) -> Shape | None:
    """Return what records are like; None where none of them can be read."""
    if not sample.runs:
        return None
    batch = sample.batch
    inferred = format_.infer(batch)
    if inferred is None:
        return None
    inferred, found = decoded(batch, format_, inferred)
    table = found.table
    schema = pa.schema([field.with_nullable(table[field.name].null_count > 0) for field in inferred])
    return Shape(
        sample.topics,
        sample.rows,
        sample.log_offsets,
        table.num_rows,
        dict(Counter(rejection.reason for rejection in found.rejections).most_common()),
        len(found.skipped),
        schema,
        tuple(profiles(table)),
        tuple(plain(path) for path, field in walk(inferred) if is_raw(field)),
        found.notes,
        len(found.filtered),
    )
