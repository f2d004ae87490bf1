"""Partitions computed for whole columns are those that Iceberg's transforms say for single values."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.partitioning import PartitionSpec, partition_record_value

from sinks.iceberg.partition import TablePartition, of_rules, parts, problem, spec_for
from sinks.iceberg.types import schema_for
from sinks.parquet.directory import rules_of

TIMES = st.datetimes(*(dt.datetime(year, 6, 1, tzinfo=dt.UTC).replace(tzinfo=None) for year in (1, 9999)))
DRAWN: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int": (pa.int32(), st.integers(-(2**31) + 100, 2**31 - 1)),
    "long": (pa.int64(), st.integers(-(2**63) + 100, 2**63 - 1)),
    "decimal": (pa.decimal128(38, 4), st.integers(-(10**37), 10**37).map(lambda n: Decimal(n).scaleb(0))),
    "string": (pa.string(), st.text(max_size=6)),
    "binary": (pa.binary(), st.binary(max_size=6)),
    "date": (pa.date32(), st.dates()),
    "timestamp": (pa.timestamp("us"), TIMES),
    "timestamptz": (pa.timestamp("us", "UTC"), TIMES.map(lambda at: at.replace(tzinfo=dt.UTC))),
}
RULES = [
    *((name, "{}") for name in ("int", "long", "string", "date", "timestamp", "timestamptz")),
    *((name, "bucket({}, 7)") for name in DRAWN if name != "decimal"),
    *((name, "truncate({}, 3)") for name in ("int", "long", "string")),
    *((name, f"{unit}({{}})") for name in ("date", "timestamp", "timestamptz") for unit in ("year", "month", "day")),
    *((name, "hour({})") for name in ("timestamp", "timestamptz")),
]


def spec_of(rule: str, columns: pa.Schema) -> tuple[PartitionSpec, Any, tuple[TablePartition, ...]]:
    fields = of_rules(rules_of([rule]))
    schema = schema_for(columns)
    assert problem(fields, columns) is None
    return spec_for(fields, schema), schema, fields


@pytest.mark.parametrize(("kind", "rule"), RULES)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_each_row_is_in_the_partition_of_its_value(kind: str, rule: str, data: st.DataObject) -> None:
    arrow, drawn = DRAWN[kind]
    values = data.draw(st.lists(st.none() | drawn, min_size=1, max_size=8))
    columns = pa.schema([("v", arrow), ("row", pa.int64())])
    spec, schema, _ = spec_of(rule.format("v"), columns)
    [field] = spec.fields
    source = schema.find_field(field.source_id).field_type
    rows = pa.table([pa.array(values, arrow), pa.array(range(len(values)), pa.int64())], schema=columns)
    seen = []
    for key, part in parts(rows, spec, schema):
        assert key is not None
        for row in part["row"].to_pylist():
            seen.append(row)
            bare = partition_record_value(field, values[row], schema)
            assert key.partition[0] == field.transform.transform(source)(bare)
    assert sorted(seen) == list(range(len(values)))


@pytest.mark.parametrize(
    ("value", "cut"),
    [
        ("-0.0001", "-0.0003"),
        ("0.0002", "0.0000"),
        ("12345678901234567890123456789.1234", "12345678901234567890123456789.1233"),
    ],
)
def test_a_decimal_is_truncated_by_its_digits(value: str, cut: str) -> None:
    columns = pa.schema([("v", pa.decimal128(38, 4))])
    spec, schema, _ = spec_of("truncate(v, 3)", columns)
    [(key, _)] = list(parts(pa.table({"v": pa.array([Decimal(value)], columns.field(0).type)}), spec, schema))
    assert key is not None
    assert key.partition[0] == Decimal(cut)


def test_a_long_value_makes_a_short_path() -> None:
    columns = pa.schema([("v", pa.string())])
    spec, schema, _ = spec_of("v", columns)
    paths = set()
    for text in ("x" * 10_000, "x" * 9_999 + "y"):
        [(key, _)] = list(parts(pa.table({"v": [text]}), spec, schema))
        assert key is not None
        assert key.partition[0] == text
        assert len(key.to_path()) < 64
        paths.add(key.to_path())
    assert len(paths) == 2
