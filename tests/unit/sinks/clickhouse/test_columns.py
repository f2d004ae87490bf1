from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import RowsRejected, SinkMisconfigured
from batcher.records import RAW_JSON
from sinks.clickhouse.columns import slot_for
from sinks.clickhouse.faults import Faults
from sinks.clickhouse.schema import Described, TableShape, quoted

UUID = "5e89f531-6f55-471d-8c8e-8e4449a3ab51"


def shape(**columns: str) -> TableShape:
    return TableShape.read([Described(name, text) for name, text in columns.items()], "db.t")


def rejected(type_name: str, values: list[Any]) -> list[tuple[int, str, str | None]]:
    table = shape(c=type_name)
    batch = pa.RecordBatch.from_arrays([pa.array(values, table.decoded.field("c").type)], ["c"])
    with pytest.raises(RowsRejected) as caught:
        table.fit(batch)
    return [(one.position, one.reason, one.path) for one in caught.value.rejections]


@pytest.mark.parametrize(
    ("type_name", "values", "expected"),
    [
        ("UInt8", [1, None, 2], [(1, "null", "c")]),
        ("UUID", [UUID, "x", None], [(1, "type", "c"), (2, "null", "c")]),
        ("IPv4", ["1.2.3.4", "1.2.3", "1.2.3.256", "01.2.3.4"], [(n, "type", "c") for n in (1, 2, 3)]),
        ("IPv6", ["::1", "1.2.3.4", "::1%eth0", "zz"], [(2, "type", "c"), (3, "type", "c")]),
        ("Enum8('a' = 1)", ["a", "b", ""], [(1, "enum", "c"), (2, "enum", "c")]),
        ("FixedString(2)", ["ab", "a", "abc", "ää"], [(2, "length", "c"), (3, "length", "c")]),
        ("JSON", ['{"a":1}', "[1]", "1", " {}"], [(1, "type", "c"), (2, "type", "c")]),
        ("Array(UInt8)", [[1], [], [2, None], None], [(2, "null", "c"), (3, "null", "c")]),
        ("Array(Array(UUID))", [[[UUID], []], [], [[], [UUID, "x"]]], [(2, "type", "c")]),
        ("Map(String, UUID)", [[("a", UUID)], [], [("b", "x")], None], [(2, "type", "c"), (3, "null", "c")]),
        ("Tuple(a UInt8, b IPv4)", [{"a": 1, "b": "1.1.1.1"}, {"a": None, "b": "x"}, None],
         [(1, "null", "c.a"), (2, "null", "c")]),
        ("Array(Tuple(u Nullable(UUID)))", [[{"u": None}], [{"u": UUID}, {"u": "x"}]], [(1, "type", "c.u")]),
        ("DateTime", [0, 2**32 - 1, 2**32, -1], [(2, "range", "c"), (3, "range", "c")]),
        ("DateTime64(1)", [100, 150, 0], [(1, "precision", "c")]),
        ("DateTime64(3)", [-2_208_988_800_000, -2_208_988_800_001, 10_413_791_999_999, 10_413_792_000_000],
         [(1, "range", "c"), (3, "range", "c")]),
        ("Date", [0, 65535, 65536, -1], [(2, "range", "c"), (3, "range", "c")]),
        ("Date32", [-25_567, -25_568, 120_529, 120_530], [(1, "range", "c"), (3, "range", "c")]),
        ("UInt128", [1, -1], [(1, "overflow", "c")]),
    ],
)  # fmt: skip
def test_a_value_that_would_be_changed_is_named_by_its_row(
    type_name: str, values: list[Any], expected: list[tuple[int, str, str]]
) -> None:
    assert rejected(type_name, values) == expected


@pytest.mark.parametrize(
    ("type_name", "values", "reason"),
    [
        ("UInt8", pa.array([1, 300, -1, 255]), "overflow"),
        ("Float32", pa.array([1.5, 1e300, -1e300, float("inf")]), "overflow"),
        ("Int64", pa.array([1.0, 1.5, 1e300, 2.0]), "overflow"),
        ("Float64", pa.array([1, 2**53 + 1, -(2**53) - 1, 3]), "overflow"),
        ("Decimal(9, 2)", pa.array(["1.25", "1.256", "99999999.99", "0"]).cast(pa.decimal128(20, 3)), "overflow"),
        ("DateTime64(0)", pa.array([1000, 1, 1001, 0], pa.timestamp("ms", "UTC")), "overflow"),
        ("String", pa.array([b"a", b"\xff", b"\xfe", b"b"]).cast(pa.large_binary()), "overflow"),
        ("Array(UInt8)", pa.array([[1, 2], [300], [3, -1], []]), "overflow"),
        (
            "Map(String, UInt8)",
            pa.array([[], [("a", 300)], [("b", -1)], []], pa.map_(pa.string(), pa.int64())),
            "overflow",
        ),
        ("Tuple(a UInt8)", pa.array([{"a": 1}, {"a": 300}, {"a": -1}, {"a": 2}]), "overflow"),
    ],
)
def test_a_wider_type_is_cast_or_its_rows_are_named(type_name: str, values: pa.Array, reason: str) -> None:
    table = shape(c=type_name)
    with pytest.raises(RowsRejected) as caught:
        table.fit(pa.RecordBatch.from_arrays([values], ["c"]))
    assert [(one.position, one.reason) for one in caught.value.rejections] == [(1, reason), (2, reason)]
    good = table.fit(pa.RecordBatch.from_arrays([values.take(pa.array([0, 3]))], ["c"]))
    assert good.num_rows == 2


def test_one_list_that_cannot_be_cast_is_the_fault_of_its_row_alone() -> None:
    table = TableShape.read([Described("n.x", "Array(UInt8)"), Described("n.y", "Array(String)")], "db.t")
    columns = [pa.array([[1], [300], [2]]), pa.array([["a"], ["b"], ["c"]])]
    with pytest.raises(RowsRejected) as caught:
        table.fit(pa.RecordBatch.from_arrays(columns, ["n.x", "n.y"]))
    assert [(one.position, one.reason) for one in caught.value.rejections] == [(1, "overflow")]


@pytest.mark.parametrize(
    ("type_name", "values"),
    [
        ("Date", pa.array([5], pa.timestamp("ms", "UTC"))),
        ("Decimal(9, 2)", pa.array([1.5])),
        ("UInt8", pa.array(["1"])),
        ("Bool", pa.array([2])),
        ("Tuple(a UInt8)", pa.array([{"b": 1}])),
        ("Array(UInt8)", pa.array([["1"]])),
        ("Array(Float32)", pa.array([[1e300]])),
    ],
)
def test_a_type_of_another_kind_is_nobodys_row(type_name: str, values: pa.Array) -> None:
    with pytest.raises(SinkMisconfigured, match="column c"):
        shape(c=type_name).fit(pa.RecordBatch.from_arrays([values], ["c"]))


def test_columns_of_slices_keep_their_rows() -> None:
    slot = slot_for("c", "Map(String, Array(UUID))")
    values = pa.array([[("a", ["x"])], [("b", [UUID])], [], [("c", [UUID]), ("d", ["y"])]], slot.codec.decoded).slice(1)
    faults = Faults("c")
    slot.encode(values, faults)
    assert [one.position for one in faults.rejections()] == [2]
    sent = slot.encode(values.slice(0, 2), Faults("c"))
    assert sent.to_pylist() == [[("b", [bytes.fromhex(UUID.replace("-", ""))])], []]


def test_uuids_of_a_slice_with_nulls_keep_their_places() -> None:
    slot = slot_for("c", "Nullable(UUID)")
    values = pa.array([UUID, None, UUID.upper(), UUID.replace("-", "")], pa.string()).slice(1)
    packed = bytes.fromhex(UUID.replace("-", ""))
    assert slot.encode(values, Faults("c")).to_pylist() == [None, packed, packed]


def test_messages_name_the_field_and_quote_no_value() -> None:
    table = shape(c="Tuple(a Enum8('x' = 1))")
    with pytest.raises(RowsRejected) as caught:
        table.fit(pa.RecordBatch.from_arrays([pa.array([{"a": "SECRET"}])], ["c"]))
    assert "c.a" in caught.value.rejections[0].message
    assert "SECRET" not in str(caught.value)


def test_json_columns_take_any_object_as_text() -> None:
    field = shape(c="JSON").decoded.field("c")
    assert field.type == pa.string()
    assert RAW_JSON in field.metadata


@pytest.mark.parametrize(
    "type_name", ["Variant(Int32, String)", "AggregateFunction(sum, UInt64)", "Time", "Point", "Array(Dynamic)"]
)
def test_a_type_that_cannot_be_filled_is_refused_by_column_and_type(type_name: str) -> None:
    with pytest.raises(SinkMisconfigured, match="column c of type") as caught:
        shape(c=type_name, d="String")
    assert type_name in str(caught.value)


def test_columns_that_the_table_computes_are_no_part_of_a_block() -> None:
    kinds = ["", "DEFAULT", "MATERIALIZED", "ALIAS", "EPHEMERAL"]
    described = [Described(kind.lower() or "plain", "UInt8", kind) for kind in kinds]
    assert TableShape.read(described, "t").decoded.names == ["plain", "default", "ephemeral"]


def test_a_field_is_required_unless_nullable_or_with_a_default_the_engine_honours() -> None:
    described = [
        Described("plain", "UInt8"),
        Described("nullable", "Nullable(UInt8)"),
        Described("default", "UInt8", "DEFAULT"),
        Described("tags", "Array(UInt8)", "DEFAULT", empty_default=True),
        Described("seven", "Array(UInt8)", "DEFAULT", empty_default=False),
    ]
    fields = {field.name: field.nullable for field in TableShape.read(described, "t").decoded}
    assert fields == {"plain": False, "nullable": True, "default": True, "tags": True, "seven": False}


def test_coordinates_are_known_by_name_and_apart_from_the_schema() -> None:
    table = shape(_offset="UInt64", id="UInt8", _topic="LowCardinality(String)")
    assert table.decoded.names == ["id"]
    assert table.coordinates == ("_topic", "_offset")


@pytest.mark.parametrize(
    ("name", "type_name"),
    [("_offset", "String"), ("_partition", "Float64"), ("_timestamp", "Date"), ("_key", "UInt8"), ("_topic", "UUID")]
    + [("_headers", kind) for kind in ("String", "Map(String, UInt8)", "Array(String)", "Array(Tuple(String))")],
)
def test_a_coordinate_of_a_senseless_type_is_refused(name: str, type_name: str) -> None:
    with pytest.raises(SinkMisconfigured, match=name):
        shape(id="UInt8", **{name: type_name})


def test_a_table_of_coordinates_alone_is_refused() -> None:
    with pytest.raises(SinkMisconfigured, match="no column"):
        shape(_offset="Int64")


def test_a_column_that_went_away_is_not_a_rows_fault() -> None:
    with pytest.raises(SinkMisconfigured, match="column gone"):
        shape(c="UInt8").fit(pa.RecordBatch.from_pydict({"c": pa.array([1], pa.uint8()), "gone": pa.array([1])}))
    with pytest.raises(SinkMisconfigured, match="column d"):
        shape(c="UInt8", d="UInt8").fit(pa.RecordBatch.from_pydict({"c": pa.array([1], pa.uint8())}))


@pytest.mark.parametrize("name", ["t", "a b", "`", "``", "\\", "`; DROP TABLE x; --", 'q"', "a.b"])
def test_quoting_leaves_no_way_out(name: str) -> None:
    text = quoted(name)
    inner = text[1:-1].replace("\\\\", "").replace("\\`", "")
    assert text[0] == text[-1] == "`"
    assert "`" not in inner
    assert not inner.endswith("\\")
