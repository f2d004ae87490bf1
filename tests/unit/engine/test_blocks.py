"""The coordinate `_value`: the whole message, byte for byte, beside the row that was made of it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batcher.engine.blocks import block_of, halves_of, part_of
from batcher.formats.json.format import JsonFormat
from batcher.protocols import SinkInfo
from batcher.records import COORDINATES, Batch, Block, Decoded, Headers, Partition, Records
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema([("id", pa.int64())])

ODD = [
    b'{"id":0}',
    b' {\n "id" : 1 }\r\n',
    b'{"id":2,"unknown":{"a":[1.50,"\xc3\xa9",null]}}',
    b'{"id":3,"x":"\\u0000"}',
    None,
    b'{"id":4',
    b'{"id":5,"id":5}',
    b'{"id":6.0}',
]
"""Rows in several spellings, a tombstone, and two records that are refused."""


def info(*coordinates: str, raw: bool = False) -> SinkInfo:
    return SinkInfo("memory", SCHEMA, coordinates, raw=raw)


def decode(batch: Batch) -> Decoded:
    return JsonFormat().decoder(SCHEMA).decode(batch)


def values_of(block: Block) -> list[bytes | None]:
    found: list[bytes | None] = block.table["_value"].to_pylist()
    return found


def expected(batch: Batch, block: Block) -> list[bytes | None]:
    return [batch.record(position).value for position in block.positions.to_pylist()]


def chunked(values: list[bytes | None], size: int, first_offset: int = 0) -> Records:
    return Records.concat(
        [
            make_records(values[start : start + size], first_offset=first_offset + start)
            for start in range(0, len(values), size)
        ]
    )


def test_the_value_column_holds_each_message_byte_for_byte() -> None:
    batch = make_batch(make_records(ODD))
    block = block_of(info("_offset", "_value"), batch, decode(batch))
    assert block.table.schema.field("_value").equals(COORDINATES.field("_value"))
    assert values_of(block) == [ODD[row] for row in (0, 1, 2, 3, 7)]
    assert block.table["_offset"].to_pylist() == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_values_in_chunks_and_runs_of_several_partitions_stay_with_their_rows(size: int) -> None:
    other = make_records([b'{"id":%d}' % number for number in range(10, 14)], partition=Partition("other", 3))
    batch = make_batch(chunked(ODD, size), other.slice(1, 2))
    block = block_of(info("_topic", "_partition", "_value"), batch, decode(batch))
    assert values_of(block) == expected(batch, block)
    assert values_of(block)[-2:] == [b'{"id":11}', b'{"id":12}']
    assert len(block.table.to_batches()) == 1


def test_a_tombstone_that_a_format_keeps_as_a_row_has_a_null_for_its_message() -> None:
    batch = make_batch(make_records([None, b"", b"{}"]))
    decoded = Decoded(pa.table({"id": pa.array([1, 2, 3], pa.int64())}), pa.array([0, 1, 2], pa.int64()))
    assert values_of(block_of(info("_value"), batch, decoded)) == [None, b"", b"{}"]


def test_parts_halves_and_replays_of_a_block_keep_message_and_row_together() -> None:
    batch = make_batch(chunked(ODD, 3), replayed=True)
    block = block_of(info("_value"), batch, decode(batch))
    part = part_of(batch, block, [0, 2, 4])
    assert part is not None
    assert values_of(part) == [ODD[0], ODD[2], ODD[7]] == expected(batch, part)
    first, second = halves_of(batch, block)
    assert [*values_of(first), *values_of(second)] == values_of(block)
    assert values_of(second) == expected(batch, second)
    (inner, _) = halves_of(batch, second)
    assert values_of(inner) == expected(batch, inner)


def test_the_values_of_a_whole_batch_in_one_piece_are_not_copied() -> None:
    records = make_records([b'{"id":%d}' % number for number in range(100)])
    batch = make_batch(records)
    block = block_of(info("_value"), batch, decode(batch))
    (column,) = block.table["_value"].chunks
    assert column.buffers()[2].address == records.values.buffers()[2].address


def test_a_batch_in_pieces_costs_one_copy_of_its_values() -> None:
    message = b'{"id":1,"x":"%s"}' % (b"x" * 10_000)
    batch = make_batch(chunked([message] * 100, 10), make_records([message] * 100, partition=Partition("other", 1)))
    decoded = decode(batch)
    before = pa.total_allocated_bytes()
    block = block_of(info("_value"), batch, decoded)
    assert values_of(block) == [message] * 200
    assert pa.total_allocated_bytes() - before < 1.5 * batch.nbytes


@pytest.mark.parametrize("pieces", [1, 3])
def test_raw_columns_hold_the_records_behind_the_rows_of_a_block_and_of_its_parts(pieces: int) -> None:
    headers = [(("kind", b"%d" % number),) if number % 2 else None for number in range(len(ODD))]
    plain = make_records([b'{"id":10}'], partition=Partition("other", 3))
    batch = make_batch(make_records(ODD, keys=[b"%d" % n for n in range(len(ODD))], headers=headers), plain)
    block = block_of(info(raw=True), batch, decode(batch))
    parts = [block, *halves_of(batch, block)] if pieces == 3 else [block]
    for part in parts:
        assert part.raw is not None
        records = [batch.record(position) for position in part.positions.to_pylist()]
        assert part.raw.values.to_pylist() == [record.value for record in records]
        assert part.raw.keys.to_pylist() == [record.key for record in records]
        assert part.raw.timestamps_ms.to_pylist() == [record.timestamp_ms for record in records]
        assert part.raw.headers is not None
        listed = [tuple((one["key"], one["value"]) for one in row or ()) for row in part.raw.headers.to_pylist()]
        assert listed == [record.headers for record in records]
    assert block_of(info(), batch, decode(batch)).raw is None


def test_the_headers_column_holds_all_headers_in_their_order_and_null_for_a_record_without_any() -> None:
    twice: Headers = (("a", b"1"), ("b", None), ("a", b"\xff"))
    with_headers = make_records([b'{"id":0}', b"junk", b'{"id":2}'], headers=[twice, (("lost", b""),), None])
    without = make_records([b'{"id":3}'], partition=Partition("other", 3))
    batch = make_batch(with_headers, without)
    block = block_of(info("_headers"), batch, decode(batch))
    assert block.table.schema.field("_headers").equals(COORDINATES.field("_headers"))
    found = block.table["_headers"].to_pylist()
    assert found == [[{"key": key, "value": value} for key, value in twice], None, None]
