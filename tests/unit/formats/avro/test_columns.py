"""Which column each Avro type becomes, and what its values look like there."""

from __future__ import annotations

import io
import json
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from batcher.formats.avro.reader import AvroReader
from batcher.formats.writer_schema import WriterSchema
from batcher.records import RAW_JSON


def reader(schema: Any) -> AvroReader:
    return AvroReader(WriterSchema("avro", json.dumps(schema)))


def written(schema: Any, value: Any) -> bytes:
    to = io.BytesIO()
    fastavro.schemaless_writer(to, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return to.getvalue()


def read(schema: Any, *values: Any) -> list[Any]:
    messages = pa.array([written(schema, value) for value in values], pa.binary())
    found = reader(schema).read(messages)
    assert not found.rejections
    found.table.validate(full=True)
    return [row["value"] for row in found.table.to_pylist()]


def logical(base: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": kind, **more}


UUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
AT = datetime(2024, 5, 6, 7, 8, 9, 123000, UTC)
LIST = {"type": "array", "items": ["null", "int"]}
MAP = {"type": "map", "values": "long"}
GEO = {"type": "record", "name": "Geo", "fields": [{"name": "lat", "type": "double"}]}


@pytest.mark.parametrize(
    ("schema", "kind", "values", "columns"),
    [
        ("null", pa.null(), [None], [None]),
        ("boolean", pa.bool_(), [True, False], [True, False]),
        ("int", pa.int32(), [-(2**31), 2**31 - 1, 0], [-(2**31), 2**31 - 1, 0]),
        ("long", pa.int64(), [-(2**63), 2**63 - 1, 2**55, -64, 64], [-(2**63), 2**63 - 1, 2**55, -64, 64]),
        ("float", pa.float32(), [1.5, float("inf")], [1.5, float("inf")]),
        ("double", pa.float64(), [0.1, -0.0], [0.1, -0.0]),
        ("bytes", pa.binary(), [b"", b"\xff"], [b"", b"\xff"]),
        ("string", pa.string(), ["", "ä" * 100], ["", "ä" * 100]),
        ({"type": "fixed", "name": "F", "size": 64}, pa.binary(64), [b"x" * 64], [b"x" * 64]),
        ({"type": "fixed", "name": "F", "size": 65}, pa.binary(), [b"x" * 65], [b"x" * 65]),
        ({"type": "fixed", "name": "F", "size": 0}, pa.binary(), [b""], [b""]),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, pa.string(), ["B", "A"], ["B", "A"]),
        (["null", "int"], pa.int32(), [None, 5], [None, 5]),
        (["int", "null"], pa.int32(), [None, 5], [None, 5]),
        (["int"], pa.int32(), [5], [5]),
        (LIST, pa.list_(pa.int32()), [[], [1, None, 3]], [[], [1, None, 3]]),
        (
            MAP,
            pa.map_(pa.string(), pa.field("value", pa.int64(), nullable=False)),
            [{}, {"a": 1, "b": 2}],
            [[], [("a", 1), ("b", 2)]],
        ),
        (["null", GEO], pa.struct([pa.field("lat", pa.float64(), nullable=False)]), [None, {"lat": 1.5}], None),
        (logical("int", "date"), pa.date32(), [date(1969, 12, 31)], None),
        (logical("int", "time-millis"), pa.time32("ms"), [time(23, 59, 59, 999000)], None),
        (logical("long", "time-micros"), pa.time64("us"), [time(23, 59, 59, 999999)], None),
        (logical("long", "timestamp-millis"), pa.timestamp("ms", "UTC"), [AT], None),
        (logical("long", "timestamp-micros"), pa.timestamp("us", "UTC"), [AT], None),
        (logical("long", "local-timestamp-millis"), pa.timestamp("ms"), [AT.replace(tzinfo=None)], None),
        (logical("long", "local-timestamp-micros"), pa.timestamp("us"), [AT.replace(tzinfo=None)], None),
        (logical("bytes", "decimal", precision=5, scale=2), pa.decimal128(5, 2), [Decimal("-999.99")], None),
        (logical("bytes", "decimal", precision=39), pa.decimal256(39, 0), [Decimal(10**38)], None),
        (
            {"type": "fixed", "name": "D", "size": 9, "logicalType": "decimal", "precision": 20, "scale": 1},
            pa.decimal128(20, 1),
            [Decimal("-1234567890123456789.1")],
            None,
        ),
        (logical("string", "uuid"), pa.string(), [UUID], [str(UUID)]),
    ],
)
def test_the_column_has_the_values_that_fastavro_wrote(
    schema: Any, kind: pa.DataType, values: list[Any], columns: list[Any] | None
) -> None:
    field = reader(schema).schema.field("value")
    assert (field.type, field.nullable) == (kind, None in values)
    assert read(schema, *values) == (values if columns is None else columns)


@pytest.mark.parametrize(
    ("kind", "column"), [("timestamp-nanos", pa.timestamp("ns", "UTC")), ("local-timestamp-nanos", pa.timestamp("ns"))]
)
def test_nanoseconds_are_kept(kind: str, column: pa.DataType) -> None:
    found = reader(logical("long", kind)).read(pa.array([written("long", 1_700_000_000_123_456_789)], pa.binary()))
    assert found.table.column(0)[0].value == 1_700_000_000_123_456_789
    assert found.table.schema.field(0).type == column


def test_a_uuid_of_bytes_is_the_same_text_as_one_of_text() -> None:
    schema = {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}
    found = reader(schema).read(pa.array([UUID.bytes, bytes(16)], pa.binary()))
    assert found.table.column(0).to_pylist() == [str(UUID), str(uuid.UUID(int=0))]
    assert found.table.schema.field(0).type == pa.string()


def test_a_duration_is_its_three_numbers() -> None:
    schema = {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}
    octets = (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little")
    found = reader(schema).read(pa.array([octets], pa.binary()))
    assert found.table.to_pylist() == [{"value": {"months": 1, "days": 2, "milliseconds": 2**32 - 1}}]


def test_a_decimal_may_be_written_with_more_bytes_than_it_needs() -> None:
    schema = logical("bytes", "decimal", precision=38, scale=2)
    messages = [bytes([2 * size]) + (-1234).to_bytes(size, "big", signed=True) for size in (2, 8, 9, 16, 17, 60)]
    found = reader(schema).read(pa.array([*messages, b"\0"], pa.binary()))
    assert found.table.column(0).to_pylist() == [Decimal("-12.34")] * len(messages) + [Decimal("0.00")]


def test_the_fields_of_the_outermost_record_are_the_columns() -> None:
    schema = {
        "type": "record",
        "name": "R",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "geo", "type": GEO},
            {"name": "note", "type": ["null", "int"]},
        ],
    }
    found = reader(schema).read(pa.array([written(schema, {"id": 1, "geo": {"lat": 2.0}, "note": None})], pa.binary()))
    assert found.table.to_pylist() == [{"id": 1, "geo": {"lat": 2.0}, "note": None}]
    assert [field.nullable for field in found.table.schema] == [False, False, True]


ANY = [
    "null",
    "boolean",
    "long",
    "double",
    "string",
    "bytes",
    {"type": "enum", "name": "E", "symbols": ["A", "B"]},
    {"type": "array", "items": "int"},
    {"type": "map", "values": ["null", "int"]},
    {"type": "record", "name": "R", "fields": [{"name": 'a"b', "type": "int"}]},
]


def test_a_value_of_one_of_several_types_is_json_text() -> None:
    values = [None, True, -5, 0.1, float("nan"), float("-inf"), 'ä"\n', b"\xff\0", ("E", "B"), [1, 2], {"k": None}]
    assert read(ANY, *values, ("R", {'a"b': 1})) == [
        None,
        "true",
        "-5",
        "0.1",
        '"NaN"',
        '"-Infinity"',
        '"ä\\"\\n"',
        '"/wA="',
        '"B"',
        "[1,2]",
        '{"k":null}',
        '{"a\\"b":1}',
    ]
    field = reader(ANY).schema.field("value")
    assert (field.type, field.nullable, field.metadata[RAW_JSON]) == (pa.string(), True, b"1")
    assert not reader(["int", "string"]).schema.field("value").nullable


def test_times_and_decimals_in_json_text_are_exact() -> None:
    schema: list[Any] = [
        "null",
        logical("int", "date"),
        logical("long", "timestamp-micros"),
        logical("bytes", "decimal", precision=5, scale=3),
    ]
    kinds = [part if isinstance(part, str) else part["type"] for part in schema]

    def message(branch: int, value: Any) -> bytes:
        return written("long", branch) + written(kinds[branch], value)

    found = reader(schema).read(
        pa.array(
            [
                message(1, -1),
                message(1, 2**31 - 1),
                message(2, 1_700_000_000_000_001),
                message(2, -(2**63)),
                message(3, b"\xff"),
                message(3, b"\x30\x39"),
            ],
            pa.binary(),
        )
    )
    assert found.table.column(0).to_pylist() == [
        '"1969-12-31"',
        '"5881580-07-11"',
        '"2023-11-14T22:13:20.000001Z"',
        str(-(2**63)),
        "-0.001",
        "12.345",
    ]


def test_a_record_inside_itself_is_json_text() -> None:
    tree = {
        "type": "record",
        "name": "Tree",
        "fields": [
            {"name": "name", "type": "string"},
            {"name": "parent", "type": ["null", "Tree"]},
            {"name": "parts", "type": {"type": "array", "items": "Tree"}},
        ],
    }
    leaf: dict[str, Any] = {"name": "b", "parent": None, "parts": []}
    value = {"name": "a", "parent": leaf, "parts": [leaf, {**leaf, "parent": leaf}]}
    found = reader(tree).read(pa.array([written(tree, value), written(tree, leaf)], pa.binary()))
    first, second = found.table.to_pylist()
    assert (first["name"], json.loads(first["parent"]), [json.loads(part) for part in first["parts"]]) == (
        "a",
        leaf,
        value["parts"],
    )
    assert second == leaf
    parent, parts = found.table.schema.field("parent"), found.table.schema.field("parts")
    assert (parent.type, parent.nullable, parent.metadata) == (pa.string(), True, {RAW_JSON: b"1"})
    assert parts.type.value_field.metadata == {RAW_JSON: b"1"}


def test_a_key_that_comes_twice_stays_in_a_map_and_the_last_holds_in_json_text() -> None:
    entries = b"\x04\x02a\x02\x02a\x04\0"
    assert reader({"type": "map", "values": "int"}).read(pa.array([entries], pa.binary())).table.to_pylist() == [
        {"value": [("a", 1), ("a", 2)]}
    ]
    union = ["null", "int", {"type": "map", "values": "int"}]
    assert reader(union).read(pa.array([b"\x04" + entries], pa.binary())).table.to_pylist() == [{"value": '{"a":2}'}]
