"""What each type of Protobuf becomes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

pytest.importorskip("ptars", reason="needs the extra [protobuf]")

from batcher.formats.protobuf.codec import CODEC
from batcher.formats.writer_schema import SchemaKey, WriterSchema
from batcher.records import RAW_JSON
from tests.harness.protobuf import held, number, read, reader, value

TIMES = 'import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";'
WRAPPERS = 'import "google/protobuf/wrappers.proto";'
ANY = 'import "google/protobuf/struct.proto"; import "google/protobuf/any.proto";'
DATE = 'import "google/type/date.proto";'


def test_numbers_texts_and_bytes_have_the_types_of_their_names() -> None:
    body = (
        "message M { double a = 1; float b = 2; int32 c = 3; sint64 d = 4; fixed32 e = 5; uint64 f = 6; bool g = 7; "
        "string h = 8; bytes i = 9; sfixed64 j = 10; }"
    )
    kinds = [pa.float64(), pa.float32(), pa.int32(), pa.int64(), pa.uint32(), pa.uint64(), pa.bool_()]
    found = reader(body).schema

    assert found.types == [*kinds, pa.string(), pa.binary(), pa.int64()]
    assert not any(field.nullable for field in found)


def test_what_is_not_there_is_zero_or_null_as_protobuf_can_tell() -> None:
    body = (
        "message I { int32 x = 1; } message M { int32 a = 1; optional int32 b = 2; I c = 3; oneof o { string d = 4; } }"
    )
    found = read(reader(body), b"", number(1, 0) + number(2, 0) + held(3, b"") + held(4, b""))

    assert found.table.to_pylist() == [
        {"a": 0, "b": None, "c": None, "d": None},
        {"a": 0, "b": 0, "c": {"x": 0}, "d": ""},
    ]
    assert [field.nullable for field in found.table.schema] == [False, True, True, True]


def test_a_declared_default_stands_for_what_is_not_there() -> None:
    body = (
        'enum E { X = 3; Y = 4; } message M { optional string a = 1 [default = "hey"]; optional int32 b = 2; '
        "optional E c = 3 [default = Y]; optional E d = 4; required bool e = 5; }"
    )
    found = read(reader(body, syntax="proto2"), number(5, 1), held(1, b"") + number(3, 3) + number(5, 0))

    assert found.table.to_pylist() == [
        {"a": "hey", "b": None, "c": "Y", "d": None, "e": True},
        {"a": "", "b": None, "c": "X", "d": None, "e": False},
    ]


def test_editions_are_read_as_proto3_is() -> None:
    text = 'edition = "2023"; package t; message M { int32 a = 1; int32 b = 2 [features.field_presence = IMPLICIT]; }'
    found = read(CODEC.reader(WriterSchema("protobuf", text), SchemaKey(), None), b"")
    assert found.table.to_pylist() == [{"a": None, "b": 0}]


def test_enums_are_their_names_and_numbers_without_a_name_their_digits() -> None:
    body = "enum E { option allow_alias = true; A = 0; B = 1; C = 1; N = -1; } message M { repeated E e = 1; }"

    assert value(body, held(1, b"\0\1\5") + number(1, -1)) == ["A", "B", "5", "N"]


def test_an_unknown_number_of_a_closed_enum_keeps_its_place() -> None:
    body = "enum E { A = 0; B = 1; } message M { repeated E e = 1; }"

    assert value(body, number(1, 1) + number(1, 9) + number(1, 0), syntax="proto2") == ["B", "9", "A"]


def test_lists_and_maps_hold_any_type_and_keys_are_text() -> None:
    body = "message I { int32 x = 1; } message M { map<bool, I> m = 1; }"
    entry = number(1, 1) + held(2, number(1, 7))

    assert value(body, held(1, entry) + held(1, b"")) == [("true", {"x": 7}), ("false", {"x": 0})]


def test_times_are_in_microseconds_and_in_nanoseconds_where_the_target_has_them() -> None:
    body = TIMES + "message M { google.protobuf.Timestamp ts = 1; }"
    payload = held(1, number(1, 1_700_000_000) + number(2, 123_456_789))
    coarse = reader(body)
    fine = reader(body, target=pa.schema([("TS", pa.timestamp("ns"))]))

    assert coarse.schema.field("ts").type == pa.timestamp("us", "UTC")
    found = read(coarse, payload)
    assert found.table["ts"].to_pylist() == [datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC)]
    assert found.notes == (
        "field ts: times are finer than microseconds and cut down to them; a column of nanoseconds keeps them whole",
    )
    assert read(coarse, held(1, number(2, 5_000))).notes == found.notes, "a reader may repeat what was true once"
    assert read(fine, payload).table["ts"].cast(pa.int64()).to_pylist() == [1_700_000_000_123_456_789]


def test_the_first_and_the_last_time_of_protobuf_are_not_bent() -> None:
    body = TIMES + "message M { google.protobuf.Timestamp ts = 1; }"

    assert value(body, held(1, number(1, -62_135_596_800))) == datetime(1, 1, 1, tzinfo=UTC)
    assert value(body, held(1, number(1, 253_402_300_799))) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_durations_are_seconds() -> None:
    body = TIMES + "message M { google.protobuf.Duration d = 1; }"

    assert value(body, held(1, number(1, -5) + number(2, -500_000_001))) == Decimal("-5.500000001")
    assert value(body, held(1, number(1, 315_576_000_000))) == Decimal(315_576_000_000)


def test_a_date_is_a_date_and_an_empty_one_is_null() -> None:
    body = DATE + "message M { google.type.Date d = 1; repeated google.type.Date e = 2; }"
    leap = held(1, number(1, 2024) + number(2, 2) + number(3, 29))

    assert value(body, leap) == date(2024, 2, 29)
    assert value(body, held(1, b"")) is None
    assert read(reader(body), held(2, b"")).table["e"].to_pylist() == [[None]]


def test_a_wrapper_is_its_value_or_null() -> None:
    body = WRAPPERS + "message M { google.protobuf.Int64Value a = 1; repeated google.protobuf.BoolValue b = 2; }"

    assert value(body, b"") is None
    assert value(body, held(1, b"")) == 0
    assert value(body, held(1, number(1, -7))) == -7
    assert read(reader(body), held(2, b"") + held(2, number(1, 1))).table["b"].to_pylist() == [[False, True]]


def test_struct_and_any_are_json_text() -> None:
    body = (
        ANY + "message P { int64 big = 1; bytes b = 2; } "
        "message M { google.protobuf.Struct s = 1; google.protobuf.Any a = 2; }"
    )
    found = reader(body)
    assert [field.metadata for field in found.schema] == [{RAW_JSON: b"1"}] * 2

    packed = held(1, b"type.googleapis.com/t.P") + held(2, number(1, 2**53 + 1) + held(2, b"\xff"))
    unknown = held(1, b"x/y.Z") + held(2, b"\xff")
    rows = read(found, held(2, packed), held(2, unknown), held(1, b"")).table.to_pylist()
    assert rows == [
        {"s": None, "a": '{"@type":"type.googleapis.com/t.P","big":9007199254740993,"b":"/w=="}'},
        {"s": None, "a": '{"@type":"x/y.Z","value":"/w=="}'},
        {"s": "{}", "a": None},
    ]


def test_json_text_is_the_same_in_every_process() -> None:
    body = ANY + "message M { google.protobuf.Struct s = 1; }"
    entries = [held(1, held(1, key) + held(2, held(3, b"v"))) for key in (b"b", b"a", b"c")]

    assert value(body, held(1, b"".join(entries))) == '{"a":"v","b":"v","c":"v"}'

    body = "message M { M m = 1; map<int32, int32> n = 2; }"
    inside = b"".join(held(2, number(1, key) + number(2, key)) for key in (9, 3, 7, 1, 8, 2))
    assert value(body, held(1, inside)) == '{"m":null,"n":{"1":1,"2":2,"3":3,"7":7,"8":8,"9":9}}'


def test_a_message_inside_itself_is_json_text_there() -> None:
    body = "message M { string name = 1; repeated M kids = 2; M next = 3; }"
    leaf = held(1, b"x")
    found = read(reader(body), held(2, leaf) + held(2, b""), held(3, leaf))

    assert found.table.to_pylist() == [
        {"name": "", "kids": ['{"name":"x","kids":[],"next":null}', '{"name":"","kids":[],"next":null}'], "next": None},
        {"name": "", "kids": [], "next": '{"name":"x","kids":[],"next":null}'},
    ]


def test_messages_deeper_than_arrow_hands_over_are_json_text() -> None:
    levels = 40
    body = "message M39 { int32 x = 1; }" + "".join(
        f"message M{level} {{ repeated M{level + 1} m = 1; }}" for level in range(levels - 1)
    )
    payload = number(1, 7)
    for _ in range(levels - 1):
        payload = held(1, payload)

    text = str(value(body, payload, message="M0"))
    assert '"x":7' in text


def test_pieces_of_one_message_are_one_message() -> None:
    body = ANY + "message I { int32 x = 1; repeated int32 y = 2; } message M { I i = 1; google.protobuf.Struct s = 2; }"
    one, two = (held(1, held(1, key) + held(2, held(3, key))) for key in (b"a", b"b"))
    payload = held(1, number(1, 5)) + held(2, one) + held(1, number(2, 6)) + held(2, two)

    assert read(reader(body), payload).table.to_pylist() == [{"i": {"x": 5, "y": [6]}, "s": '{"a":"a","b":"b"}'}]


def test_of_a_oneof_the_last_member_that_was_written_counts() -> None:
    body = "message I { int32 x = 1; int32 y = 2; } message M { oneof o { int32 a = 1; string b = 2; I c = 3; } }"
    both = number(1, 5) + held(2, b"s")
    torn = held(3, number(1, 1)) + number(1, 5) + held(3, number(2, 2))
    rows = read(reader(body), both, held(2, b"s") + number(1, 5), torn).table.to_pylist()

    assert rows == [
        {"a": None, "b": "s", "c": None},
        {"a": 5, "b": None, "c": None},
        {"a": None, "b": None, "c": {"x": 0, "y": 2}},
    ]
