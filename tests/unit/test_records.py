"""The columns of records stay together, whatever is done with them."""

from __future__ import annotations

import pyarrow as pa

from batcher.engine.blocks import block_of
from batcher.protocols import SinkInfo
from batcher.records import Batch, Decoded, Partition, Records

LANE = Partition("queue", 0)


def run(first: int, *, named: bool = True) -> Records:
    numbers = range(first, first + 3)
    return Records(
        LANE,
        pa.array(numbers, pa.int64()),
        pa.array([None] * 3, pa.int64()),
        pa.array([None] * 3, pa.binary()),
        pa.array([b"%d" % number for number in numbers], pa.binary()),
        ids=pa.array([f"m{number}" for number in numbers]) if named else None,
        attempts=pa.array(numbers, pa.int32()) if named else None,
    )


def test_the_queues_name_of_a_message_and_its_attempt_follow_it_through_filter_slice_and_concat() -> None:
    joined = Records.concat([run(1), run(4, named=False), run(7)])
    assert joined.ids is not None
    assert joined.ids.to_pylist() == ["m1", "m2", "m3", None, None, None, "m7", "m8", "m9"]

    kept = joined.filter(pa.array([number % 2 == 1 for number in range(9)]))
    assert kept is not None
    assert kept.slice(1, 2).offsets.to_pylist() == [4, 6]
    last = kept.slice(3)
    assert last.ids is not None
    assert last.attempts is not None
    assert (last.ids.to_pylist(), last.attempts.to_pylist()) == (["m8"], [8])


def test_a_target_with_the_columns_gets_them_and_a_sink_of_raw_columns_too() -> None:
    batch = Batch((run(1), run(4, named=False)), "rows").joined()
    decoded = Decoded(pa.table({"n": [0, 2, 5]}), pa.array([0, 2, 5], pa.int64()))
    block = block_of(SinkInfo("t", decoded.table.schema, ("_message_id", "_attempt"), raw=True), batch, decoded)

    assert block.table.select(["_message_id", "_attempt"]).to_pylist() == [
        {"_message_id": "m1", "_attempt": 1},
        {"_message_id": "m3", "_attempt": 3},
        {"_message_id": None, "_attempt": None},
    ]
    assert block.raw is not None
    assert block.raw.ids is not None
    assert block.raw.ids.to_pylist() == ["m1", "m3", None]


def test_records_of_a_source_that_names_no_messages_have_nulls_there() -> None:
    batch = Batch((run(1, named=False),), "rows").joined()
    assert batch.coordinate("_message_id").null_count == batch.coordinate("_attempt").null_count == 3


def test_the_place_of_a_record_is_that_of_the_record() -> None:
    batch = Batch((run(1), run(4)), "rows")
    for position in range(batch.rows):
        record = batch.record(position)
        assert batch.place(position) == (record.partition, record.offset) == (LANE, position + 1)
