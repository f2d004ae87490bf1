"""Refusals call a column's type by the target's own word, and say what to do."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from batcher.formats.json.format import JsonFormat
from batcher.records import COLUMN_TYPE
from batcher.testing.values import make_batch, make_records


def message(field: pa.Field, text: str) -> str:
    batch = make_batch(make_records([f'{{"x":{text}}}']))
    (rejection,) = JsonFormat().decoder(pa.schema([field])).decode(batch).rejections
    return rejection.message


def named(name: str, kind: pa.DataType, own: str) -> pa.Field:
    return pa.field(name, kind, metadata={COLUMN_TYPE: own.encode()})


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        (named("x", pa.timestamp("s", "UTC"), "DateTime"), '"soon"', "type, DateTime, can hold"),
        (named("x", pa.timestamp("s", "UTC"), "DateTime"), "1e30", "type, DateTime, can hold"),
        (named("x", pa.timestamp("s", "UTC"), "DateTime"), "{}", "found an object; the column's type is DateTime"),
        (named("x", pa.uint8(), "Nullable(UInt8)"), "256", "type, Nullable(UInt8)"),
        (named("x", pa.uint8(), "Nullable(UInt8)"), "1.5", "type, Nullable(UInt8), has none"),
        (
            named("x", pa.uint8(), "Nullable(UInt8)"),
            '"a"',
            "expected a number, found a string; the column's type is Nullable(UInt8)",
        ),
        (named("x", pa.float32(), "Float32"), "16777217", "type, Float32, cannot hold this integer exactly"),
        (named("x", pa.decimal128(9, 2), "Decimal(9, 2)"), "1.255", "type, Decimal(9, 2)"),
        (pa.field("x", pa.list_(named("item", pa.int8(), "Int8"))), "[200]", "type, Int8"),
        (pa.field("x", pa.struct([named("a", pa.int8(), "Int8")])), '{"a":200}', "type, Int8"),
        (pa.field("x", pa.map_(pa.string(), named("value", pa.int8(), "Int8"))), '{"a":200}', "type, Int8"),
    ],
)
def test_a_refusal_names_the_columns_own_type(field: pa.Field, text: str, words: str) -> None:
    assert words in message(field, text)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (pa.int8(), "200", "integer of 8 bits"),
        (pa.uint16(), "-1", "unsigned integer of 16 bits"),
        (pa.float32(), "1e39", "float of 32 bits"),
        (pa.decimal128(5, 2), "1.255", "decimal(5, 2)"),
        (pa.timestamp("s", "UTC"), '"soon"', "timestamp in seconds"),
        (pa.date32(), '"soon"', "YYYY-MM-DD"),
    ],
)
def test_without_a_name_of_its_own_a_type_is_said_in_plain_words(kind: pa.DataType, text: str, words: str) -> None:
    said = message(pa.field("x", kind), text)
    assert words in said
    assert not re.search(r"timestamp\[|\bu?int\d|date32|\bdouble\b", said)


def test_a_value_that_is_missing_says_that_the_column_needs_one() -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    decoded = JsonFormat().decoder(schema).decode(make_batch(make_records(["{}", '{"x":null}'])))
    assert [r.message for r in decoded.rejections] == [
        "field x: the column needs a value (it is not nullable); the record has no such field",
        "field x: the column needs a value (it is not nullable); the record has null",
    ]
