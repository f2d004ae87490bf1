"""Remove rows: files that have some of them are written again without them, in one commit.

pyiceberg's own delete cannot compute the partitions of what it writes again without a further package, and makes up to
two snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import Table

from batcher.records import Partition
from sinks.iceberg import types
from sinks.iceberg.append import PreparedTransaction, written


def without(
    table: Table, within: BooleanExpression, partition: Partition, spans: Sequence[tuple[int, int]]
) -> PreparedTransaction:
    """Return a transaction, not committed, that removes every row of the offsets in the spans; empty for none.

    `within` is true for all of these rows. The new snapshot has no offsets of its own: those before it hold.
    """
    transaction = PreparedTransaction(table)
    columns = types.columns_of(table.schema())
    producer = transaction.update_snapshot(snapshot_properties={}).overwrite()
    found = False
    for task in table.scan(row_filter=within).plan_files():
        scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
        rows = scan.to_table(tasks=[task])
        doomed = _among(rows, partition, spans)
        if not pc.any(doomed).as_py():
            continue
        found = True
        producer.delete_data_file(task.file)
        kept = rows.filter(pc.invert(doomed))
        for file in written(table, kept.cast(columns).combine_chunks()) if kept.num_rows else ():
            producer.append_data_file(file)
    if found:
        producer.commit()
    return transaction


def _among(rows: pa.Table, partition: Partition, spans: Sequence[tuple[int, int]]) -> pa.ChunkedArray:
    """Return for each row whether it is of the partition and of an offset in the spans; false for null."""
    here = pc.and_(
        pc.equal(rows["_topic"].cast(pa.string()), partition.topic), pc.equal(rows["_partition"], partition.number)
    )
    starts = pa.array(sorted(first for first, _ in spans), pa.int64())
    ends = pa.array(sorted(last for _, last in spans), pa.int64())
    # Spans do not overlap: an offset is in one where more have begun than have ended before it.
    begun = pc.search_sorted(starts, rows["_offset"], side="right")
    ended = pc.search_sorted(ends, rows["_offset"], side="left")
    return pc.fill_null(pc.and_(here, pc.greater(begun, ended)), False)
