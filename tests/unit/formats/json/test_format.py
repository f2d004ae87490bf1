"""What becomes of one record, case by case; and of blocks, at sizes where every path is taken."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import RAW_JSON, Decoded, Partition
from batcher.testing.values import make_batch, make_records


def decode(*values: bytes | str | None, schema: pa.Schema, **options: Any) -> Decoded:
    return JsonFormat(JsonOptions(**options)).decoder(schema).decode(make_batch(make_records(values)))


def column(kind: pa.DataType, *, nullable: bool = True, metadata: dict[bytes, bytes] | None = None) -> pa.Schema:
    return pa.schema([pa.field("x", kind, nullable, metadata)])


INT = column(pa.int64())
RAW = column(pa.string(), metadata={RAW_JSON: b"1"})
STRUCT = column(pa.struct([pa.field("a", pa.int8(), nullable=False), ("b", pa.string())]))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (pa.int64(), "9223372036854775807", 2**63 - 1),
        (pa.uint64(), "18446744073709551615", 2**64 - 1),
        (pa.int8(), "-128", -128),
        (pa.int64(), "5.0", 5),
        (pa.int64(), "5e2", 500),
        (pa.float64(), "9007199254740992", 2.0**53),
        (pa.float64(), "0.1", 0.1),
        (pa.float32(), "16777216", 2.0**24),
        (pa.bool_(), "true", True),
        (pa.string(), '"\\u0000é\\ud83d\\ude00"', "\0é😀"),
        (pa.large_string(), '"x"', "x"),
        (pa.binary(), '"é"', b"\xc3\xa9"),
        (pa.decimal128(10, 2), "1.250", Decimal("1.25")),
        (pa.decimal128(10, 2), '"99999999.99"', Decimal("99999999.99")),
        (pa.decimal128(5, -2), "12300", Decimal(12300)),
        (pa.decimal256(60, 2), "1" * 50, Decimal("1" * 50)),
        (pa.date32(), '"2024-02-29"', date(2024, 2, 29)),
        (pa.list_(pa.int8()), "[1,null]", [1, None]),
        (pa.struct([("a", pa.date32())]), '{"a":"1969-12-31","z":0}', {"a": date(1969, 12, 31)}),
        (pa.map_(pa.string(), pa.int64()), '{"a":1,"b":null}', [("a", 1), ("b", None)]),
        (pa.map_(pa.string(), pa.list_(pa.date32())), '{"":["2024-01-01"]}', [("", [date(2024, 1, 1)])]),
        (pa.int64(), "null", None),
    ],
)
def test_a_value_that_fits_is_stored_as_it_is(kind: pa.DataType, text: str, value: Any) -> None:
    decoded = decode(f'{{"x":{text}}}', schema=column(kind))
    assert decoded.rejections == ()
    assert decoded.table["x"].to_pylist() == [value]


@pytest.mark.parametrize(
    ("raw", "schema", "reason", "path"),
    [
        ("", INT, "empty", None),
        (" \n", INT, "empty", None),
        ("null", INT, "not_object", None),
        ("[1]", INT, "not_object", None),
        ('{"x":1', INT, "syntax", None),
        ('{"x":01}', INT, "syntax", None),
        ('{"x":1,}', INT, "syntax", None),
        ('{"y":NaN}', INT, "syntax", None),
        ('{"y":-Inf}', INT, "syntax", None),
        ("\ufeff{}", INT, "syntax", None),
        ('{"y":"\n"}', INT, "syntax", None),
        ('{"y":"\0"}', INT, "syntax", None),
        ("{}\0", INT, "trailing_data", None),
        ("{}{}", INT, "trailing_data", None),
        ("{}\nnull\n{}", INT, "trailing_data", None),
        ("{} x", INT, "trailing_data", None),
        (b'{"y":"\xff"}', INT, "encoding", None),
        (b'{"y":"\xed\xa0\x80"}', INT, "encoding", None),
        ('{"y":"\\udc00"}', INT, "encoding", None),
        ('{"x":"1"}', INT, "type", "x"),
        ('{"x":true}', INT, "type", "x"),
        ('{"x":{}}', INT, "type", "x"),
        ('{"x":9223372036854775808}', INT, "overflow", "x"),
        ('{"x":' + "9" * 5000 + "}", INT, "overflow", "x"),
        ('{"x":1e999999999999999999999}', INT, "overflow", "x"),
        ('{"x":1.5}', INT, "precision", "x"),
        ('{"x":1,"x":1}', INT, "duplicate", "x"),
        ('{"x":1,"\\u0078":1}', INT, "duplicate", "x"),
        ('{"x":256}', column(pa.uint8()), "overflow", "x"),
        ('{"x":-1}', column(pa.uint64()), "overflow", "x"),
        ('{"x":9007199254740993}', column(pa.float64()), "precision", "x"),
        ('{"x":16777217}', column(pa.float32()), "precision", "x"),
        ('{"x":1e400}', column(pa.float64()), "overflow", "x"),
        ('{"x":' + "9" * 5000 + "}", column(pa.float64()), "overflow", "x"),
        ('{"x":1e39}', column(pa.float32()), "overflow", "x"),
        ('{"x":100000000}', column(pa.decimal128(10, 2)), "overflow", "x"),
        ('{"x":1.255}', column(pa.decimal128(10, 2)), "precision", "x"),
        ('{"x":"a"}', column(pa.decimal128(10, 2)), "type", "x"),
        ('{"x":"2023-02-29"}', column(pa.date32()), "timestamp", "x"),
        ('{"x":"2024-01-01T00:00:00"}', column(pa.date32()), "timestamp", "x"),
        ('{"x":"soon"}', column(pa.timestamp("ms")), "timestamp", "x"),
        ('{"x":"2300-01-01"}', column(pa.timestamp("ns")), "timestamp", "x"),
        ('{"x":1e30}', column(pa.timestamp("ms")), "timestamp", "x"),
        ('{"x":null}', column(pa.int64(), nullable=False), "null", "x"),
        ("{}", column(pa.int64(), nullable=False), "missing", "x"),
        ('{"x":{"b":""}}', STRUCT, "missing", "x.a"),
        ('{"x":{"a":null}}', STRUCT, "null", "x.a"),
        ('{"x":{"a":200}}', STRUCT, "overflow", "x.a"),
        ('{"x":[1,null]}', column(pa.list_(pa.field("item", pa.int8(), nullable=False))), "null", "x[]"),
        ('{"x":{"k":null}}', column(pa.map_(pa.string(), pa.field("v", pa.int8(), nullable=False))), "null", "x[]"),
        ('{"x":{"k":1,"k":2}}', column(pa.map_(pa.string(), pa.int8())), "duplicate", "x"),
        ('{"x":{"k":1,"k":2}}', RAW, "duplicate", "x"),
        ('{"y":' + "[" * 64 + "]" * 64 + "}", INT, "too_deep", None),
        ("[" * 500_000, INT, "too_deep", None),
        ('{"y":"' + "y" * (1 << 20) + '"}', INT, "too_large", None),
    ],
)
def test_a_bad_record_is_named_with_reason_and_field(
    raw: bytes | str, schema: pa.Schema, reason: str, path: str | None
) -> None:
    # A good neighbour on either side shows that the row stays with its message.
    good = '{"x":{"a":1}}' if schema is STRUCT else '{"x":null}' if schema.field(0).nullable else '{"x":7}'
    decoded = decode(good, raw, good, schema=schema)
    (rejection,) = decoded.rejections
    assert (rejection.position, rejection.reason, rejection.path) == (1, reason, path)
    assert decoded.positions.to_pylist() == [0, 2]
    assert "\n" not in rejection.message
    assert path is None or rejection.message.startswith(f"field {path}: ")


@pytest.mark.parametrize(("raw", "path"), [('{"z":1}', "z"), ('{"x":{"a":1,"z":1}}', "x.z"), ('{"\\u001b":1}', "?")])
def test_unknown_fields_are_ignored_or_rejected_at_every_depth(raw: str, path: str) -> None:
    assert decode(raw, schema=STRUCT).rejections == ()
    (rejection,) = decode(raw, schema=STRUCT, on_unknown="reject").rejections
    assert (rejection.reason, rejection.path) == ("unknown_field", path)


def test_no_message_quotes_a_value() -> None:
    secret = "hunter2"
    raws = [
        f'{{"x":"{secret}"}}',
        f"{secret}",
        f'{{"x":{secret}}}',
        f'{{"{secret}',
        f"{{}}{secret}",
        f'{{"x":"{secret}\\q"}}',
    ]
    for schema in (INT, column(pa.timestamp("s")), column(pa.date32()), column(pa.decimal128(5, 2))):
        decoded = decode(*raws, schema=schema)
        assert len(decoded.rejections) == len(raws)
        assert not any(secret in rejection.message for rejection in decoded.rejections)


NOON = datetime(2024, 5, 6, 12, 0, 0, 123_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        '"2024-05-06T12:00:00.123Z"',
        '"2024-05-06T12:00:00.123"',
        '"2024-05-06 12:00:00.123"',
        '"2024-05-06T14:00:00.123+02:00"',
        '"2024-05-06T06:30:00.123-0530"',
        '"2024-05-06T12:00:00.123999999Z"',
        '"2024-05-06T12:00:00.12399999999999Z"',
        '"2024-05-06t12:00:00,123z"',
        "1714996800.123",
        "1714996800.12399999999",
        "1714996800123",
        "1714996800123.9",
        "1714996800123456",
        "1714996800123456789",
        '"1714996800123"',
        "1.714996800123e9",
    ],
)
@pytest.mark.parametrize("other", ['"2024-05-06T12:00:00Z"', "1714996800", "null"])
def test_every_form_of_a_timestamp_means_the_same_whatever_its_neighbours_use(text: str, other: str) -> None:
    schema = column(pa.timestamp("ms", "UTC"))
    decoded = decode(f'{{"x":{text}}}', f'{{"x":{other}}}', schema=schema)
    assert decoded.rejections == ()
    assert decoded.table["x"][0].as_py() == NOON


def test_a_text_without_zone_is_utc_also_in_a_column_with_another_zone() -> None:
    decoded = decode('{"x":"2024-05-06T12:00:00.123"}', schema=column(pa.timestamp("ms", "Asia/Tokyo")))
    assert decoded.table["x"][0].as_py() == NOON


@pytest.mark.parametrize(
    ("text", "seconds"), [('"1969-12-31T23:59:59.5"', -1), ("-0.5", -1), ("-1.0", -1), ("-100000000000", -(10**8))]
)
def test_finer_than_the_unit_is_floored_also_before_1970(text: str, seconds: int) -> None:
    decoded = decode(f'{{"x":{text}}}', schema=column(pa.timestamp("s")))
    assert decoded.table["x"].combine_chunks().view(pa.int64()).to_pylist() == [seconds]


def test_raw_json_keeps_any_value_as_compact_text() -> None:
    raws = ['{ "b": [1.50, "é", null], "a": {} }', '"s"', "9" * 5000, "true", "null"]
    decoded = decode(*(f'{{"x": {raw}}}' for raw in raws), schema=RAW)
    assert decoded.table["x"].to_pylist() == ['{"b":[1.50,"é",null],"a":{}}', '"s"', "9" * 5000, "true", None]


@pytest.mark.parametrize(
    "kind",
    [
        pa.time32("s"),
        pa.duration("s"),
        pa.binary(16),
        pa.float16(),
        pa.struct([]),
        pa.map_(pa.int64(), pa.string()),
        pa.list_(pa.time64("us")),
        pa.struct([pa.field("a", pa.int8()), pa.field("a", pa.int8())]),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_a_type_that_json_cannot_fill_is_refused_at_the_start_and_named(kind: pa.DataType) -> None:
    with pytest.raises(ConfigurationError, match="column x"):
        JsonFormat().decoder(column(kind))


def test_a_schema_without_columns_and_impossible_limits_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no columns"):
        JsonFormat().decoder(pa.schema([]))
    for depth, size in ((0, 100), (1000, 100), (64, 0)):
        with pytest.raises(ConfigurationError):
            JsonOptions(max_depth=depth, max_message_bytes=size)


def test_tombstones_are_skipped_or_rejected() -> None:
    decoded = decode('{"x":1}', None, schema=INT)
    assert (decoded.skipped.to_pylist(), decoded.rejections, decoded.table.num_rows) == ([1], (), 1)
    (rejection,) = decode('{"x":1}', None, schema=INT, tombstones="reject").rejections
    assert (rejection.position, rejection.reason) == (1, "tombstone")


def test_positions_count_over_all_runs_and_slices() -> None:
    runs = [
        make_records([f'{{"x":{i}}}' for i in range(start, start + 9)], partition=Partition("t", start)).slice(2, 4)
        for start in (0, 10)
    ]
    decoded = JsonFormat().decoder(INT).decode(make_batch(*runs))
    assert decoded.positions.to_pylist() == list(range(8))
    assert decoded.table["x"].to_pylist() == [2, 3, 4, 5, 12, 13, 14, 15]
    alone = JsonFormat().decoder(INT).decode(make_batch(runs[1]))
    assert alone.table["x"].to_pylist() == [12, 13, 14, 15]


POISON = {
    "type": b'{"id":"x"}',
    "overflow": b'{"id":99999999999999999999}',
    "syntax": b'{"id":1,"note":{"x":1}',
    "trailing_data": b'{"id":1}\nnull\n{"id":2}',
    "empty": b"",
    "duplicate": b'{"id":1,"id":2}',
    "timestamp": b'{"id":1,"at":"now"}',
    "missing": b"{}",
    "precision": b'{"id":1.5}',
    "too_deep": b'{"id":1,"z":' + b"[" * 65 + b"]" * 65 + b"}",
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "reasons", [[reason] for reason in POISON] + [list(POISON)], ids=lambda names: "-".join(names[:2])
)
@pytest.mark.parametrize("piece_bytes", [8 << 20, 300_000])
def test_in_a_block_of_many_megabytes_exactly_the_bad_records_are_found(
    piece_bytes: int, reasons: list[str], indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.formats.policy.PIECE_BYTES", piece_bytes)
    schema = pa.schema(
        [pa.field("id", pa.int64(), nullable=False), ("at", pa.timestamp("ms", "UTC")), ("note", pa.string())]
    )
    count = 12_000
    values: list[bytes | None] = [
        json.dumps(
            {"id": i, "at": 1_700_000_000_000 + i if i % 3 else "2024-05-06T12:00:00Z", "note": "n" * 300},
            indent=indent,
        ).encode()
        for i in range(count)
    ]
    bad = {
        position: reasons[number % len(reasons)]
        for number, position in enumerate([0, 1, *range(500, count, 997), count - 1])
    }
    for position, reason in bad.items():
        values[position] = POISON[reason]
    values[7] = values[7000] = None
    decoded = decode(*values, schema=schema)
    assert decoded.skipped.to_pylist() == [7, 7000]
    assert {rejection.position: rejection.reason for rejection in decoded.rejections} == bad
    assert decoded.table["id"].to_pylist() == decoded.positions.to_pylist()
    assert len(decoded.positions) == count - len(bad) - 2
    assert len(decoded.table.to_batches()) == 1


def test_a_message_greater_than_a_block_of_the_reader_is_read() -> None:
    big = '{"x":1,"y":"' + "y" * 3_000_000 + '"}'
    decoded = decode('{"x":0}', big, '{"x":2}', schema=INT, max_message_bytes=1 << 22)
    assert decoded.table["x"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], pa.int64()),
        (["1", "18446744073709551615"], pa.uint64()),
        (["1", "1.5"], pa.float64()),
        (["null", "true"], pa.bool_()),
        (["null"], pa.null()),
        (["[]", "[null]"], pa.list_(pa.null())),
        (['{"a":null}'], pa.struct([("a", pa.null())])),
        (['"2024-01-01T00:00:00.1234567Z"'], pa.timestamp("ns", "UTC")),
        (['"2024-01-01T00:00:00.1234560Z"'], pa.timestamp("us", "UTC")),
        (['"2024-01-01T00:00:00.1234567Z"', '"1600-01-01T00:00:00Z"'], pa.timestamp("us", "UTC")),
        (['"a"'], pa.string()),
        (['"2024-01-01"'], pa.string()),
        (['"2024-01-01T00:00:00Z"', '"2024-01-01 00:00:00.5"'], pa.timestamp("us", "UTC")),
        (['"2024-01-01T00:00:00Z"', '"soon"'], pa.string()),
        (["[]", "[1]", "[1.5,null]"], pa.list_(pa.float64())),
        (['{"a":1}', '{"b":"x","a":null}'], pa.struct([("a", pa.int64()), ("b", pa.string())])),
    ],
)
def test_the_inferred_type_holds_every_value(values: list[str], kind: pa.DataType) -> None:
    schema = JsonFormat().infer(make_batch(make_records([f'{{"x":{value}}}' for value in values])))
    assert schema == pa.schema([("x", kind)])
    assert not schema.field("x").metadata


@pytest.mark.parametrize(
    "values", [["1", '"a"'], ["{}"], ["1.5", "9007199254740993"], ["-1", "18446744073709551615"], ["1e400"]]
)
def test_what_no_type_holds_is_inferred_as_json_text(values: list[str]) -> None:
    schema = JsonFormat().infer(make_batch(make_records([f'{{"x":{value}}}' for value in values])))
    assert schema is not None
    assert schema.field("x").type == pa.string()
    assert RAW_JSON in schema.field("x").metadata


@pytest.mark.parametrize(
    ("usual", "mistake", "kind"),
    [
        ("1", '"many"', pa.int64()),
        ('"2026-01-01T00:00:00Z"', '"yesterday"', pa.timestamp("us", "UTC")),
        ('"word"', "{}", pa.string()),
        ("true", "1", pa.bool_()),
    ],
)
def test_a_rare_value_of_another_kind_is_a_dead_letter_and_does_not_shape_the_schema(
    usual: str, mistake: str, kind: pa.DataType
) -> None:
    batch = make_batch(make_records([f'{{"x":{mistake}}}', *[f'{{"x":{usual}}}'] * 20]))
    schema = JsonFormat().infer(batch)
    assert schema == pa.schema([("x", kind)])

    decoded = JsonFormat().decoder(schema).decode(batch)
    assert [rejection.position for rejection in decoded.rejections] == [0]


def test_what_one_value_in_twenty_is_counts_as_a_kind_of_its_own() -> None:
    schema = JsonFormat().infer(make_batch(make_records(['{"x":"many"}', *['{"x":1}'] * 19])))
    assert schema is not None
    assert RAW_JSON in schema.field("x").metadata


def test_bad_records_and_tombstones_have_no_say_in_a_schema() -> None:
    batch = make_batch(make_records(["", '{"x":', None, '{"x":1}', '{"x":"a"}{}']))
    assert JsonFormat().infer(batch) == INT


def test_a_field_named_like_a_coordinate_is_proposed_because_only_the_target_knows_which_it_has() -> None:
    batch = make_batch(make_records(['{"x":1,"_value":7}']))
    assert JsonFormat().infer(batch) == pa.schema([("x", pa.int64()), ("_value", pa.int64())])
    assert JsonFormat().infer(make_batch(make_records(["", None, "[]"]))) is None
