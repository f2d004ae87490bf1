"""What the names of Connect's types mean for a column, and what has none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.connect.meaning import DECIMAL, VARIABLE, Named, meaning_of
from batcher.records import RAW_JSON

UTC = dt.UTC
ZONED = "io.debezium.time.ZonedTimestamp"


def convert(kind: pa.DataType, named: Named, *values: Any) -> tuple[pa.Field, list[Any], Mapping[int, Any]]:
    meaning = meaning_of(pa.field("x", kind), named)
    found, faults = meaning.convert(pa.array([None, *values], kind).slice(1))
    assert found.type.equals(meaning.field.type)
    return meaning.field, found.to_pylist(), faults


@pytest.mark.parametrize(
    ("name", "kind", "value", "meant"),
    [
        ("io.debezium.time.Date", pa.int32(), -1, dt.date(1969, 12, 31)),
        ("org.apache.kafka.connect.data.Date", pa.int32(), 19000, dt.date(2022, 1, 8)),
        ("io.debezium.time.Timestamp", pa.int64(), 1500, dt.datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)),
        ("io.debezium.time.MicroTimestamp", pa.int64(), -1, dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
        ("org.apache.kafka.connect.data.Timestamp", pa.int64(), 0, dt.datetime(1970, 1, 1, tzinfo=UTC)),
        ("io.debezium.time.Time", pa.int32(), 3_600_000, dt.time(1)),
        ("io.debezium.time.MicroTime", pa.int64(), 1, dt.time(0, 0, 0, 1)),
        (
            "io.debezium.time.ZonedTimestamp",
            pa.string(),
            "2020-01-01T01:00:00+01:00",
            dt.datetime(2020, 1, 1, tzinfo=UTC),
        ),
        (
            "io.debezium.time.ZonedTimestamp",
            pa.string(),
            "2020-01-01T00:00:00.5Z",
            dt.datetime(2020, 1, 1, 0, 0, 0, 500_000, UTC),
        ),
        ("io.debezium.data.Uuid", pa.string(), "a", "a"),
        ("io.debezium.time.MicroDuration", pa.int64(), 5, 5),
        ("io.debezium.time.Year", pa.int32(), 2020, 2020),
        ("somebody.elses.Name", pa.int64(), 5, 5),
    ],
)
def test_a_named_type_becomes_the_type_that_is_meant(name: str, kind: pa.DataType, value: Any, meant: Any) -> None:
    _, found, faults = convert(kind, Named(name), value, None)
    assert (found, faults) == ([meant, None], {})


def test_nanoseconds_stay_what_they_are() -> None:
    field, _, _ = convert(pa.int64(), Named("io.debezium.time.NanoTimestamp"), 1)
    assert field.type == pa.timestamp("ns", "UTC")


@pytest.mark.parametrize(
    ("name", "kind", "value", "reason"),
    [
        ("io.debezium.time.Time", pa.int32(), 86_400_000, "overflow"),
        ("io.debezium.time.MicroTime", pa.int64(), -1, "overflow"),
        (ZONED, pa.string(), "yesterday", "timestamp"),
        (ZONED, pa.string(), "1700000000", "timestamp"),
    ],
)
def test_a_value_that_cannot_be_meant_is_a_fault_of_its_row(
    name: str, kind: pa.DataType, value: Any, reason: str
) -> None:
    _, _, faults = convert(kind, Named(name), None, value)
    assert {row: why.reason for row, why in faults.items()} == {1: reason}
    assert faults[1].message.startswith("field x: ")


def test_decimals_have_the_scale_of_their_schema() -> None:
    named = Named(DECIMAL, {"scale": "2", "connect.decimal.precision": "10"}, base64=True)
    field, found, faults = convert(pa.string(), named, "BNI=", None, "1234", "x", "////////////")
    assert field.type == pa.decimal128(10, 2)
    assert found[:3] == [Decimal("12.34"), None, Decimal("-26588.24")]
    assert {row: why.reason for row, why in faults.items()} == {3: "base64"}
    assert found[4] == Decimal("-0.01")

    _, found, _ = convert(pa.binary(), Named(DECIMAL, {"scale": "0"}), b"\xff")
    assert found == [Decimal(-1)]


def test_decimals_of_no_fixed_scale_are_exact_or_refused() -> None:
    kind = pa.struct([("scale", pa.int32()), ("value", pa.string())])
    named = Named(VARIABLE, children={"value": Named(base64=True)})
    values = [
        {"scale": 2, "value": "BNI="},
        {"scale": 0, "value": "BNI="},
        {"scale": 38, "value": "AQ=="},
        None,
        {"scale": 39, "value": "AQ=="},
        {"scale": 1, "value": None},
        {"scale": None, "value": "AQ=="},
        {"scale": 1, "value": "!"},
    ]
    _, found, faults = convert(kind, named, *values)
    assert found[:4] == [Decimal("12.34"), Decimal(1234), Decimal("1e-38"), None]
    assert {row: why.reason for row, why in faults.items()} == {
        4: "overflow",
        5: "overflow",
        6: "overflow",
        7: "base64",
    }


def test_json_in_text_is_a_value_of_any_type_as_its_text() -> None:
    field, found, _ = convert(pa.string(), Named("io.debezium.data.Json"), '{"a":1}')
    assert (found, (field.metadata or {})[RAW_JSON]) == (['{"a":1}'], b"1")


def test_names_are_found_in_structs_and_lists() -> None:
    day = Named("io.debezium.time.Date")
    kind = pa.struct([("plain", pa.int32()), ("days", pa.list_(pa.int32()))])
    named = Named(children={"days": Named(item=day)})
    _, found, faults = convert(kind, named, {"plain": 1, "days": [0, None]}, None, {"plain": None, "days": None})
    assert found == [{"plain": 1, "days": [dt.date(1970, 1, 1), None]}, None, {"plain": None, "days": None}]
    assert not faults

    late = Named(children={"days": Named(item=Named("io.debezium.time.Time"))})
    _, _, faults = convert(kind, late, {"plain": 1, "days": []}, {"plain": 1, "days": [0, -1]})
    assert [(row, why.path) for row, why in faults.items()] == [(1, "x.days[]")]
