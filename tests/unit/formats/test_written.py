"""Records of several schemas in one batch: each is read with its own, and all come together in their order."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from batcher.errors import SchemasUnavailable
from batcher.formats.avro.codec import CODEC, aliases_of
from batcher.formats.framing import Framing
from batcher.formats.json.limits import JsonOptions
from batcher.formats.schema_registry import SchemaAwaited
from batcher.formats.writer_schema import SchemaKey, SchemaReader, SchemaUnknown, WriterSchema
from batcher.formats.written import MAX_READERS, WrittenFormat
from batcher.records import RESCUED, Batch, Decoded, Partition
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)
OLD: Any = {
    "type": "record",
    "name": "E",
    "fields": [{"name": "id", "type": "long"}, {"name": "fname", "type": "string"}],
}
NEW: Any = {
    "type": "record",
    "name": "E",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "first", "type": "string", "aliases": ["fname"]},
        {"name": "score", "type": ["null", "double"], "default": None},
    ],
}
TARGET = pa.schema([pa.field("id", pa.int64(), nullable=False), ("fname", pa.string())])


class Known:
    """Schemas by their id; an exception in the place of one is raised."""

    def __init__(self, schemas: Mapping[int, WriterSchema | Exception]) -> None:
        self.schemas = dict(schemas)
        self.asked: list[int] = []

    def get(self, key: SchemaKey) -> WriterSchema:
        self.asked.append(key.id)
        found = self.schemas.get(key.id, SchemaUnknown(f"{key} is not registered"))
        if isinstance(found, Exception):
            raise found
        return found


def known() -> Known:
    return Known({7: WriterSchema("avro", json.dumps(OLD)), 9: WriterSchema("avro", json.dumps(NEW))})


def framed(schema_id: int, schema: Any, **row: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def old(number: int) -> bytes:
    return framed(7, OLD, id=number, fname=f"old {number}")


def new(number: int, score: float | None = None) -> bytes:
    return framed(9, NEW, id=number, first=f"new {number}", score=score)


def batch_of(*values: bytes | None) -> Batch:
    return make_batch(make_records(list(values), partition=A))


def format_of(schemas: Known | None = None, **options: Any) -> WrittenFormat:
    return WrittenFormat(CODEC, Framing("confluent"), schemas or known(), JsonOptions(**options))


def decode(batch: Batch, schemas: Known | None = None, schema: pa.Schema = TARGET, **options: Any) -> Decoded:
    return format_of(schemas, **options).decoder(schema).decode(batch)


def reasons(decoded: Decoded) -> list[tuple[int, str]]:
    return [(one.position, one.reason) for one in decoded.rejections]


def test_records_of_two_schemas_come_together_in_the_order_of_the_batch() -> None:
    decoded = decode(batch_of(new(0), old(1), new(2), None, b"\0", old(4)[:-1], old(5)))

    assert decoded.table.schema.equals(TARGET)
    assert decoded.table.to_pylist() == [
        {"id": 0, "fname": "new 0"},
        {"id": 1, "fname": "old 1"},
        {"id": 2, "fname": "new 2"},
        {"id": 5, "fname": "old 5"},
    ]
    assert decoded.positions.to_pylist() == [0, 1, 2, 6]
    assert reasons(decoded) == [(4, "unframed"), (5, "truncated")]
    assert decoded.skipped.to_pylist() == [3]


def test_several_partitions_keep_their_positions() -> None:
    runs = make_records([old(0)], partition=B, first_offset=3), make_records([new(1), old(2)], partition=A)
    batch = make_batch(*runs).joined()
    decoded = decode(batch)

    assert [batch.record(row).offset for row in decoded.positions.to_pylist()] == [0, 1, 3]
    assert decoded.table["id"].to_pylist() == [1, 2, 0]


def test_fields_without_a_column_are_counted_over_all_schemas_where_they_have_a_value() -> None:
    decoded = decode(batch_of(old(0), new(1), new(2, 0.5), new(3, 0.5)))

    assert [(one.path, one.records, one.position) for one in decoded.unknown] == [("score", 2, 2)]
    refused = decode(batch_of(old(0), new(1), new(2, 0.5)), on_unknown="reject")
    assert (reasons(refused), refused.table.num_rows) == ([(2, "unknown_field")], 2)


def test_a_schema_that_nobody_knows_costs_its_records_and_is_looked_for_again() -> None:
    schemas = known()
    decoder = format_of(schemas).decoder(TARGET)
    batch = batch_of(old(0), framed(8, OLD, id=1, fname="x"), old(2))

    assert reasons(decoder.decode(batch)) == [(1, "unknown_schema")]
    schemas.schemas[8] = schemas.schemas[7]
    assert decoder.decode(batch).table["fname"].to_pylist() == ["old 0", "x", "old 2"]


@pytest.mark.parametrize("error", [SchemasUnavailable("down"), SchemaAwaited("not yet")])
def test_a_registry_that_cannot_answer_stops_the_batch_and_nothing_of_it_is_refused(error: Exception) -> None:
    schemas = known()
    schemas.schemas[9] = error
    for call in (decode, lambda batch, found: format_of(found).infer(batch)):
        with pytest.raises(SchemasUnavailable):
            call(batch_of(old(0), new(1)), schemas)


@pytest.mark.parametrize(
    ("written", "reason", "message"),
    [
        (WriterSchema("protobuf", "message E {}"), "schema_kind", "schema 8 is protobuf; load it with --decode.format"),
        (WriterSchema("avro", '{"type":"record"}'), "schema", "schema 8 cannot be read: "),
        (WriterSchema("avro", "nonsense"), "schema", "schema 8 cannot be read: "),
    ],
)
def test_a_schema_that_cannot_be_read_costs_its_records(written: WriterSchema, reason: str, message: str) -> None:
    schemas = known()
    schemas.schemas[8] = written
    decoded = decode(batch_of(b"\0\0\0\0\x08abc", old(1)), schemas)

    assert reasons(decoded) == [(0, reason)]
    assert decoded.rejections[0].message.startswith(message)
    assert decoded.positions.to_pylist() == [1]


def test_the_columns_of_a_target_without_any_are_those_of_all_schemas_and_may_be_null() -> None:
    proposed = format_of().infer(batch_of(new(0), old(1)))

    assert proposed == pa.schema(
        [("id", pa.int64()), ("fname", pa.string()), ("first", pa.string()), ("score", pa.float64())]
    )
    assert format_of().infer(batch_of(None, b"bare", old(0)[:-1])) is None
    assert format_of().infer(batch_of(framed(8, OLD, id=1, fname="x"))) is None


def test_a_batch_of_nothing_but_tombstones_has_the_schema_and_no_rows() -> None:
    decoded = decode(batch_of(None, None))

    assert decoded.table.schema.equals(TARGET)
    assert (decoded.table.num_rows, decoded.skipped.to_pylist()) == (0, [0, 1])


def test_records_of_a_file_s_schema_need_no_frame() -> None:
    format_ = WrittenFormat(CODEC, Framing("none"), Known({0: WriterSchema("avro", json.dumps(OLD))}), JsonOptions())
    decoded = format_.decoder(TARGET).decode(batch_of(old(3)[5:], old(4)[5:]))

    assert decoded.table["id"].to_pylist() == [3, 4]


def test_readers_are_bounded_in_number_and_a_schema_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WriterSchema] = []

    def reader(written: WriterSchema, key: SchemaKey, target: pa.Schema | None) -> SchemaReader:
        made.append(written)
        return CODEC.reader(written, key, target)

    codec = replace(CODEC, reader=reader)
    monkeypatch.setattr("batcher.formats.written.MAX_READERS", 2)
    schemas = Known({number: WriterSchema("avro", json.dumps(OLD)) for number in range(4)})
    decoder = WrittenFormat(codec, Framing("confluent"), schemas, JsonOptions()).decoder(TARGET)
    for _ in range(3):
        decoder.decode(batch_of(framed(1, OLD, id=1, fname="x")))
    assert len(made) == 1
    for number in range(4):
        decoder.decode(batch_of(framed(number, OLD, id=1, fname="x")))

    assert len(decoder._lanes) <= 2
    assert MAX_READERS > 2


def test_aliases_are_found_at_any_depth() -> None:
    inner = {"type": "record", "name": "I", "fields": [{"name": "city", "type": "string", "aliases": ["town"]}]}
    outer = {
        "type": "record",
        "name": "O",
        "fields": [
            {"name": "home", "type": ["null", inner]},
            {"name": "others", "type": {"type": "array", "items": "I"}, "aliases": ["more"]},
        ],
    }
    found = aliases_of(WriterSchema("avro", json.dumps(outer)))

    assert found == {"home.town": ["city"], "more": ["others"], "others.town": ["city"]}


def test_new_fields_of_a_writer_are_proposed_with_the_type_it_gives_them() -> None:
    batch = batch_of(old(0), new(1, 2.5))
    decoded = decode(batch, on_unknown="evolve")
    assert [(one.path, one.records, one.position) for one in decoded.unknown] == [("score", 1, 1)]
    proposed = format_of(on_unknown="evolve").proposed(batch, {"score"})
    assert proposed.equals(pa.schema([("score", pa.float64())]))


def test_of_names_that_differ_by_case_one_is_proposed_where_they_are_one() -> None:
    schema = {"type": "record", "name": "E", "fields": [{"name": name, "type": "long"} for name in ("id", "aB", "ab")]}
    schemas = Known({5: WriterSchema("avro", json.dumps(schema))})
    batch = batch_of(framed(5, schema, id=1, aB=2, ab=3))
    assert format_of(schemas, match="insensitive").proposed(batch, {"aB", "ab"}).names == ["aB"]
    assert format_of(schemas).proposed(batch, {"aB", "ab"}).names == ["aB", "ab"]


def test_what_has_no_column_is_kept_for_each_record_whatever_schema_it_has() -> None:
    schema = pa.schema([RESCUED, *TARGET])
    decoded = decode(batch_of(old(0), new(1, 2.5), new(2)), schema=schema, on_unknown="rescue")
    assert decoded.table.schema.equals(schema)
    assert decoded.table["_rescued"].to_pylist() == [None, '{"score":2.5}', None]
    assert decoded.unknown == ()
