"""What lake tables take of Arrow's types, and what becomes of the values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import RowsRejected
from sinks.lake import types


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (pa.uint8(), pa.int16()),
        (pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 0)),
        (pa.timestamp("ns"), pa.timestamp("us")),
        (pa.timestamp("s", "Europe/Berlin"), pa.timestamp("us", "UTC")),
        (pa.date64(), pa.date32()),
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.binary(16), pa.binary()),
        (pa.decimal64(10, 2), pa.decimal128(10, 2)),
        (pa.large_list(pa.uint8()), pa.list_(pa.int16())),
        (pa.list_(pa.uint8(), 2), pa.list_(pa.int16())),
        (pa.map_(pa.string(), pa.uint32()), pa.map_(pa.string(), pa.int64())),
        (pa.struct([pa.field("a", pa.uint8(), nullable=False)]), pa.struct([("a", pa.int16())])),
    ],
)
def test_what_lake_tables_have_no_type_for_is_widened_at_any_depth(given: pa.DataType, stored: pa.DataType) -> None:
    assert types.lake_type(given) == stored
    assert types.lake_schema(pa.schema([pa.field("x", given, nullable=False)])) == pa.schema([("x", stored)])
    assert types.takes(stored, given)


@pytest.mark.parametrize(
    "kind", [pa.time32("s"), pa.duration("ms"), pa.decimal256(40, 2), pa.float16(), pa.month_day_nano_interval()]
)
def test_what_has_no_type_is_refused_with_the_path_of_its_column(kind: pa.DataType) -> None:
    assert types.lake_type(kind) is None
    problem = types.problem(pa.schema([("a", pa.struct([("b", pa.list_(kind))]))]))
    assert problem is not None
    assert "'a.b[]'" in problem
    assert str(kind) in problem


def test_two_columns_that_differ_in_large_letters_only_are_refused() -> None:
    assert "large letters" in (types.problem(pa.schema([("Id", pa.int8()), ("id", pa.int8())])) or "")


def test_values_are_converted_with_their_nulls_wherever_a_slice_begins() -> None:
    schema = pa.schema(
        [
            ("n", pa.uint64()),
            ("l", pa.large_list(pa.struct([("a", pa.uint8()), ("none", pa.null())]))),
            ("m", pa.map_(pa.string(), pa.uint16())),
            ("s", pa.struct([("t", pa.timestamp("ns", "Europe/Berlin"))])),
        ]
    )
    rows: list[dict[str, Any]] = [
        {"n": 2**64 - 1, "l": [{"a": 255}, None], "m": [("k", 1)], "s": {"t": 1_000}},
        {"n": None, "l": None, "m": None, "s": None},
        {"n": 1, "l": [], "m": [], "s": {"t": None}},
        {"n": 2, "l": [{"a": None}], "m": [("x", None), ("y", 2)], "s": {"t": -1_000}},
    ]
    table = pa.Table.from_pylist(rows, schema)
    columns = pa.schema(
        [
            ("n", pa.decimal128(20, 0)),
            ("l", pa.list_(pa.struct([("a", pa.int16()), ("later", pa.string())]))),
            ("m", pa.map_(pa.string(), pa.int32())),
            ("s", pa.struct([("t", pa.timestamp("us", "UTC"))])),
            ("new", pa.string()),
        ]
    )
    for start in range(len(rows)):
        found = types.converted(table.slice(start), columns)
        found.validate(full=True)
        assert found.schema == columns
        assert found["n"].to_pylist() == [None if r["n"] is None else Decimal(r["n"]) for r in rows[start:]]
        assert found["m"].to_pylist() == [r["m"] for r in rows[start:]]
        assert found["s"].is_null().to_pylist() == [r["s"] is None for r in rows[start:]]
        lists = [None if r["l"] is None else [e and {**e, "later": None} for e in r["l"]] for r in rows[start:]]
        for entry in (e for one in lists for e in one or () if e):
            entry.pop("none", None)
        assert found["l"].to_pylist() == lists
        assert found["new"].null_count == len(rows) - start


def test_a_time_that_would_be_cut_refuses_its_row_and_no_other() -> None:
    table = pa.table({"id": [1, 2, 3], "at": pa.array([1_000, 1_001, None], pa.timestamp("ns"))})
    with pytest.raises(RowsRejected) as caught:
        types.converted(table, pa.schema([("id", pa.int64()), ("at", pa.timestamp("us"))]))
    assert [(one.position, one.path) for one in caught.value.rejections] == [(1, "at")]
    assert "1001" not in str(caught.value)


def test_a_number_with_a_fraction_never_becomes_a_whole_one() -> None:
    assert not types.takes(pa.int64(), pa.float64())
    assert not types.takes(pa.float64(), pa.int64())
    assert not types.takes(pa.list_(pa.int64()), pa.list_(pa.float64()))
    assert not types.takes(pa.struct([("a", pa.int64())]), pa.struct([("b", pa.int64())]))
