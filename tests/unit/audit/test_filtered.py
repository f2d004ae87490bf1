"""Records that a transform leaves out are not missing; those that it would keep are."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batcher.audit.auditor import Auditor
from batcher.audit.filtered import FilteredRecords
from batcher.audit.scope import Scope
from batcher.formats.json.format import JsonFormat
from batcher.protocols import COPIES, Transformed
from batcher.records import Partition, Range, Records
from batcher.testing.transforms import ScriptedTransform
from batcher.testing.values import make_records
from batcher.transforms.format import TransformedFormat

EVENTS_0 = Partition("events", 0)
LOG = make_records(["junk", *(f'{{"id": {n}}}' for n in range(1, 9)), None, '{"id": 10}'])
SCHEMA = pa.schema([("id", pa.int64())])


class Log:
    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        return LOG.offsets, LOG.values.is_null()

    def records(self, asked: Range) -> Iterator[Records]:
        yield LOG.slice(asked.first, asked.last - asked.first + 1)

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        return pa.table([[2, 4], [1, 1]], schema=COPIES)


def even(rows: pa.RecordBatch) -> Transformed:
    return Transformed(rows.filter(pc.equal(pc.bit_wise_and(rows.column("id"), 1), 0)))


@pytest.mark.parametrize("schema", [SCHEMA, None])
def test_what_a_transform_leaves_out_is_counted_and_not_missing(schema: pa.Schema | None) -> None:
    form = TransformedFormat(JsonFormat(), ScriptedTransform(even))
    filtered = FilteredRecords(Log(), form, lambda _: schema).among
    scope = Scope(EVENTS_0, 0, 11, log_first=0, log_next=11, committed=11)
    found = Auditor(Log(), Log(), {EVENTS_0: pa.array([0], pa.int64())}, filtered=filtered).account(scope)
    assert (found.written, found.dead_lettered, found.tombstones, found.filtered) == (2, 1, 1, 4)
    assert [(span.first, span.last) for span in found.missing.spans] == [(6, 6), (8, 8), (10, 10)]
    assert found.records == found.written + found.dead_lettered + found.tombstones + found.filtered + 3
