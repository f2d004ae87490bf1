"""Columns that were read with the schema of their writer, fitted to a target."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats.fit import Fitted, Fitter, fit, validate
from batcher.formats.json.limits import JsonOptions
from batcher.formats.writer_schema import SchemaKey
from batcher.records import COLUMN_TYPE, RAW_JSON, RESCUED, UnknownField

KEY = SchemaKey(7)
DAY = dt.date(2024, 5, 6)
AT = dt.datetime(2024, 5, 6, 1, 2, 3, 456789, dt.UTC)
RAW = pa.field("c", pa.string(), metadata={RAW_JSON: b"1"})


def one(values: list[Any], source: pa.DataType, to: pa.DataType | pa.Field, **options: Any) -> Fitted:
    """Fit one column to another one, both of the name `c`."""
    column = to if isinstance(to, pa.Field) else pa.field("c", to)
    table = pa.table({"c": pa.array(values, source)})
    return fit(table, pa.schema([column]), key=KEY, options=JsonOptions(**options))


FITS = [
    (5, pa.int64(), 5, pa.int8()),
    (2**64 - 1, pa.uint64(), 2**64 - 1, pa.uint64()),
    (Decimal("5.00"), pa.decimal128(10, 2), 5, pa.int8()),
    (2**53 + 2, pa.int64(), 2.0**53 + 2, pa.float64()),
    (0.1, pa.float64(), 0.10000000149011612, pa.float32()),
    (math.inf, pa.float64(), math.inf, pa.float32()),
    (0.5, pa.float32(), 0.5, pa.float64()),
    (Decimal("0.10"), pa.decimal128(10, 2), 0.1, pa.float64()),
    (Decimal("1.500"), pa.decimal128(20, 3), Decimal("1.50"), pa.decimal128(5, 2)),
    (7, pa.int32(), Decimal("7.00"), pa.decimal128(5, 2)),
    ("-1.5e1", pa.string(), Decimal("-15.00"), pa.decimal256(50, 2)),
    ("0.05", pa.large_string(), Decimal("0.05"), pa.decimal128(2, 2)),
    (True, pa.bool_(), True, pa.bool_()),
    (b"\xc3\xa4", pa.binary(), "ä", pa.string()),
    (b"ab", pa.binary(2), "ab", pa.large_string()),
    ("ä", pa.string(), b"\xc3\xa4", pa.binary()),
    (b"\xff\x00", pa.binary(2), b"\xff\x00", pa.binary()),
    (b"\xff\x00", pa.binary(), b"\xff\x00", pa.binary(2)),
    ("red", pa.dictionary(pa.int8(), pa.string()), "red", pa.string()),
    ("red", pa.string_view(), "red", pa.string()),
    (uuid.UUID(int=1).bytes, pa.uuid(), "00000000-0000-0000-0000-000000000001", pa.string()),
    (AT, pa.timestamp("us", "UTC"), AT.replace(microsecond=456000), pa.timestamp("ms", "UTC")),
    (AT.replace(tzinfo=None), pa.timestamp("us"), AT, pa.timestamp("us", "UTC")),
    (AT, pa.timestamp("us", "UTC"), "2024-05-06T01:02:03.456789Z", pa.string()),
    (AT, pa.timestamp("us", "+02:00"), "2024-05-06T01:02:03.456789Z", pa.string()),
    (DAY, pa.date32(), dt.datetime(2024, 5, 6, tzinfo=dt.UTC), pa.timestamp("ms", "UTC")),
    (DAY, pa.date64(), DAY, pa.date32()),
    (DAY, pa.date32(), "2024-05-06", pa.string()),
    ("2024-05-06", pa.string(), DAY, pa.date32()),
    ("2024-05-06T01:02:03.456789+00:00", pa.string(), AT, pa.timestamp("us", "UTC")),
    (1_714_957_323, pa.int64(), AT.replace(microsecond=0), pa.timestamp("us", "UTC")),
    (1_714_957_323.5, pa.float64(), AT.replace(microsecond=500_000), pa.timestamp("us", "UTC")),
    (dt.time(1, 2, 3, 999), pa.time64("us"), dt.time(1, 2, 3), pa.time32("s")),
    (dt.time(1, 2, 3), pa.time32("s"), dt.time(1, 2, 3), pa.time64("us")),
    ([1, 2], pa.list_(pa.int64(), 2), [1, 2], pa.list_(pa.int8())),
    ([1, None], pa.large_list(pa.int64()), [1, None], pa.list_(pa.int8())),
    ([(1, 5)], pa.map_(pa.int64(), pa.int64()), [("1", 5)], pa.map_(pa.string(), pa.int8())),
    ({"a": 1}, pa.struct([("a", pa.int64())]), '{"a":1}', pa.string()),
    ([("k", 1.5)], pa.map_(pa.string(), pa.float64()), b'{"k":1.5}', pa.binary()),
    ([{"a": 'q"'}, None], pa.list_(pa.struct([("a", pa.string())])), '[{"a":"q\\""},null]', pa.string()),
]


@pytest.mark.parametrize(("value", "source", "wanted", "to"), FITS, ids=str)
def test_a_value_that_fits_is_the_same_value_in_the_type_of_the_column(
    value: Any, source: pa.DataType, wanted: Any, to: pa.DataType
) -> None:
    fitted = one([None, value, value], source, to)
    assert fitted.rejections == ()
    assert fitted.table["c"].to_pylist() == [None, wanted, wanted]


REFUSED = [
    (5, 300, pa.int64(), pa.int8(), "overflow"),
    (5, -1, pa.int64(), pa.uint64(), "overflow"),
    (Decimal("5.0"), Decimal("5.5"), pa.decimal128(10, 1), pa.int8(), "precision"),
    (Decimal("5.0"), Decimal("500.5"), pa.decimal128(10, 1), pa.int8(), "overflow"),
    (1, 2**53 + 1, pa.int64(), pa.float64(), "precision"),
    (2**24, 2**24 + 1, pa.int64(), pa.float32(), "precision"),
    (1.5, 1e39, pa.float64(), pa.float32(), "overflow"),
    (Decimal(1), Decimal(10**39), pa.decimal256(50, 0), pa.float32(), "overflow"),
    (Decimal(1), Decimal(2**53 + 1), pa.decimal128(20, 0), pa.float64(), "precision"),
    (Decimal("1.20"), Decimal("1.25"), pa.decimal128(5, 2), pa.decimal128(5, 1), "precision"),
    (Decimal("1.20"), Decimal("100.00"), pa.decimal128(5, 2), pa.decimal128(3, 1), "overflow"),
    (1, 1000, pa.int64(), pa.decimal128(5, 2), "overflow"),
    ("1", "1000", pa.string(), pa.decimal128(5, 2), "overflow"),
    ("1", "0.001", pa.string(), pa.decimal128(5, 2), "precision"),
    ("1", "one", pa.string(), pa.decimal128(5, 2), "type"),
    (b"a", b"\xff", pa.binary(), pa.string(), "encoding"),
    (b"ab", b"abc", pa.binary(), pa.binary(2), "length"),
    (0, 2**62, pa.timestamp("s"), pa.timestamp("ns", "UTC"), "timestamp"),
    (DAY, dt.date(2900, 1, 1), pa.date32(), pa.timestamp("ns"), "timestamp"),
    ("2024-05-06", "2024-05-06T01:00", pa.string(), pa.date32(), "timestamp"),
    ("2024-05-06", "soon", pa.string(), pa.timestamp("ms"), "timestamp"),
    (1e9, math.nan, pa.float64(), pa.timestamp("ms"), "timestamp"),
    (0, 2**62, pa.timestamp("s"), pa.string(), "timestamp"),
    ({"a": 1.5}, {"a": math.nan}, pa.struct([("a", pa.float64())]), pa.string(), "type"),
    ({"a": b"a"}, {"a": b"\xff"}, pa.struct([("a", pa.binary())]), pa.string(), "encoding"),
    ([1], [1, 300], pa.list_(pa.int64()), pa.list_(pa.int8()), "overflow"),
    ([("a", 1)], [("a", 1), ("a", 2)], pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.int8()), "duplicate"),
    ([("a", 1)], [("a", 1), ("a", 2)], pa.map_(pa.string(), pa.int64()), pa.string(), "duplicate"),
]


@pytest.mark.parametrize(("good", "bad", "source", "to", "reason"), REFUSED, ids=str)
def test_exactly_the_value_that_does_not_fit_is_refused(
    good: Any, bad: Any, source: pa.DataType, to: pa.DataType, reason: str
) -> None:
    fitted = one([good, bad, None, good], source, to)
    (refused,) = fitted.rejections
    assert (refused.position, refused.reason) == (1, reason)
    assert fitted.rows.to_pylist() == [0, 2, 3]
    assert fitted.table["c"].null_count == 1
    assert fitted.table.schema == pa.schema([("c", to)])
    assert fitted.notes == ()


def test_a_refusal_names_the_field_both_types_and_the_schema_and_no_value() -> None:
    column = pa.field("c", pa.int8(), metadata={COLUMN_TYPE: b"Int8"})
    (refused,) = one([123456], pa.int64(), column).rejections
    assert refused.path == "c"
    assert refused.message == (
        "field c: the number is outside the range of the column; the column's type is Int8; "
        "schema 7 writes integer of 64 bits"
    )


NEVER = [
    (1.0, pa.float64(), pa.int64()),
    (1.0, pa.float64(), pa.decimal128(5, 2)),
    (True, pa.bool_(), pa.int8()),
    ("1", pa.string(), pa.int8()),
    ("1", pa.string(), pa.float64()),
    (1, pa.int64(), pa.bool_()),
    (1, pa.int64(), pa.date32()),
    (AT, pa.timestamp("us"), pa.date32()),
    (AT, pa.timestamp("us"), pa.int64()),
    (1, pa.int64(), pa.string()),
    (1, pa.int64(), pa.binary(8)),
    (1, pa.int64(), pa.time32("s")),
    (1, pa.int64(), pa.list_(pa.int64())),
    ([1], pa.list_(pa.int64()), pa.int64()),
    ([1], pa.list_(pa.int64()), pa.struct([("a", pa.int64())])),
    ({"a": 1}, pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64())),
]


@pytest.mark.parametrize(("value", "source", "to"), NEVER, ids=str)
def test_a_type_that_never_fits_refuses_each_value_and_one_note_says_so(
    value: Any, source: pa.DataType, to: pa.DataType
) -> None:
    table = pa.table({"c": pa.array([value, None, value], source)})
    fitter = Fitter(table.schema, pa.schema([("c", to)]), key=KEY)
    fitted = fitter.fit(table)
    assert [(refused.position, refused.reason) for refused in fitted.rejections] == [(0, "type"), (2, "type")]
    assert fitted.table["c"].to_pylist() == [None]
    (note,) = fitted.notes
    assert note.startswith("column c: no value fits")
    assert "schema 7" in note
    assert fitter.fit(table).notes == ()


def test_a_type_that_never_fits_is_not_noted_as_long_as_there_is_no_value() -> None:
    fitted = one([None], pa.float64(), pa.int64())
    assert fitted.table["c"].to_pylist() == [None]
    assert fitted.notes == ()


@pytest.mark.parametrize(("value", "kind", "text"), [(1.5, pa.float64(), "1.5"), (True, pa.bool_(), "true")])
def test_a_column_of_decode_text_takes_numbers_and_booleans_as_json(value: Any, kind: pa.DataType, text: str) -> None:
    assert one([value], kind, pa.string(), text=frozenset({"c"})).table["c"].to_pylist() == [text]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ('a"\n', pa.string(), r'"a\"\n"'),
        (1, pa.int64(), "1"),
        (Decimal("1.20"), pa.decimal128(5, 2), "1.20"),
        (AT, pa.timestamp("ms", "UTC"), '"2024-05-06T01:02:03.456Z"'),
        ({}, pa.struct([]), "{}"),
        ([[1], [], None], pa.list_(pa.list_(pa.int64())), "[[1],[],null]"),
    ],
    ids=str,
)
def test_a_column_that_keeps_json_takes_anything_and_texts_in_quotes(value: Any, kind: pa.DataType, text: str) -> None:
    assert one([None, value], kind, RAW).table["c"].to_pylist() == [None, text]


def test_a_time_finer_than_its_column_is_floored_also_before_1970_and_noted_once() -> None:
    table = pa.table({"c": pa.array([-1, -1000, 1999], pa.timestamp("ms"))})
    fitter = Fitter(table.schema, pa.schema([("c", pa.timestamp("s"))]), key=KEY)
    fitted = fitter.fit(table)
    assert fitted.table["c"].combine_chunks().view(pa.int64()).to_pylist() == [-1, -1, 1]
    assert [note.split(":")[0] for note in fitted.notes] == ["column c"]
    assert "finer than its seconds" in fitted.notes[0]
    assert fitter.fit(table).notes == ()


def test_a_null_where_none_may_be_refuses_its_row_and_a_null_parent_does_not() -> None:
    inner = pa.field("a", pa.int8(), nullable=False)
    target = pa.schema([("c", pa.struct([inner])), ("l", pa.list_(pa.field("item", pa.int8(), nullable=False)))])
    table = pa.table(
        {
            "c": pa.array([{"a": 1}, {"a": None}, None, None], pa.struct([("a", pa.int64())])),
            "l": pa.array([[1], [1], None, [1, None]], pa.list_(pa.int64())),
        }
    )
    fitted = fit(table, target, key=KEY)
    assert [(r.position, r.reason, r.path) for r in fitted.rejections] == [(1, "null", "c.a"), (3, "null", "l[]")]
    assert fitted.table.to_pylist() == [{"c": {"a": 1}, "l": [1]}, {"c": None, "l": None}]


def test_a_column_that_the_writer_lacks_is_null_or_refuses_where_it_needs_a_value() -> None:
    inner = pa.struct([pa.field("need", pa.int8(), nullable=False)])
    table = pa.table({"c": pa.array([{"a": 1}, None], pa.struct([("a", pa.int64())]))})
    fitted = fit(table, pa.schema([("c", inner), ("other", pa.int8())]), key=KEY)
    assert [(r.position, r.reason, r.path) for r in fitted.rejections] == [(0, "missing", "c.need")]
    assert fitted.table.to_pylist() == [{"c": None, "other": None}]


def test_the_first_fault_in_the_order_of_the_writer_is_told() -> None:
    table = pa.table({"b": [300], "a": [300]})
    target = pa.schema([("a", pa.int8()), ("b", pa.int8()), pa.field("c", pa.int8(), nullable=False)])
    assert [r.path for r in fit(table, target, key=KEY).rejections] == ["b"]


def nested_table() -> pa.Table:
    return pa.table(
        {
            "id": [1, 300, 3, 4],
            "new": [None, "x", "y", "z"],
            "s": [{"a": 1, "n": 1}, {"a": 1, "n": 1}, {"a": 1, "n": None}, None],
            "l": [[{"a": 1, "n": None}, {"a": 1, "n": 2}], None, [], [{"a": 1, "n": 2}, {"a": 1, "n": 2}]],
            "none": pa.nulls(4),
        }
    )


NESTED = pa.schema(
    [("id", pa.int8()), ("s", pa.struct([("a", pa.int8())])), ("l", pa.list_(pa.struct([("a", pa.int8())])))]
)


def test_fields_that_no_column_takes_are_counted_exactly_in_the_rows_that_fit() -> None:
    fitted = fit(nested_table(), NESTED, key=KEY)
    assert fitted.rows.to_pylist() == [0, 2, 3]
    assert fitted.unknown == (UnknownField("new", 2, 2), UnknownField("s.n", 1, 0), UnknownField("l[].n", 2, 0))


@pytest.mark.parametrize("policy", ["reject", "halt"])
def test_a_value_that_no_column_takes_refuses_its_row_by_option_and_a_null_does_not(policy: str) -> None:
    fitted = fit(nested_table(), NESTED, key=KEY, options=JsonOptions(policy))  # type: ignore[arg-type]
    assert [(r.position, r.reason, r.path) for r in fitted.rejections] == [
        (0, "unknown_field", "s.n"),
        (1, "overflow", "id"),
        (2, "unknown_field", "new"),
        (3, "unknown_field", "new"),
    ]
    assert fitted.unknown == ()


def test_nothing_is_unknown_inside_a_column_that_keeps_json() -> None:
    assert fit(nested_table().select(["l"]), pa.schema([("l", pa.string())]), key=KEY).unknown == ()


def test_names_match_by_case_only_when_asked() -> None:
    table, target = pa.table({"UserId": [1]}), pa.schema([("userid", pa.int8())])
    assert fit(table, target, key=KEY).table.to_pylist() == [{"userid": None}]
    assert fit(table, target, key=KEY, options=JsonOptions(match="insensitive")).table.to_pylist() == [{"userid": 1}]


def test_the_own_spelling_wins_and_of_two_others_none_is_certain() -> None:
    options = JsonOptions(match="insensitive")
    target = pa.schema([("id", pa.int8())])
    both = fit(pa.table({"ID": [1], "id": [2]}), target, key=KEY, options=options)
    assert both.table.to_pylist() == [{"id": 2}]
    assert [one.path for one in both.unknown] == ["ID"]
    neither = fit(pa.table({"ID": [1], "Id": [2]}), target, key=KEY, options=options)
    assert [(r.reason, r.path) for r in neither.rejections] == [("duplicate", "id")]


def test_an_alias_fills_a_column_only_where_its_own_name_is_absent() -> None:
    table = pa.table({"old": [1], "older": [2], "s": [{"was": 3}]})
    target = pa.schema([("new", pa.int8()), ("s", pa.struct([("is", pa.int8())]))])
    aliases = {"new": ["gone", "old", "older"], "s.is": ["was"]}
    fitted = fit(table, target, key=KEY, aliases=aliases)
    assert fitted.table.to_pylist() == [{"new": 1, "s": {"is": 3}}]
    assert [one.path for one in fitted.unknown] == ["older"]
    own = fit(pa.table({"old": [1], "new": [2]}), target, key=KEY, aliases=aliases)
    assert own.table["new"].to_pylist() == [2]
    for names in (("new", "old"), ("old", "new")):
        target = pa.schema([(name, pa.int8()) for name in names])
        assert fit(pa.table({"old": [1]}), target, key=KEY, aliases=aliases).table.to_pylist() == [
            {"new": None, "old": 1}
        ]


def test_the_first_value_of_a_column_without_a_type_is_told_unless_its_row_is_refused() -> None:
    target = pa.schema([("id", pa.int8()), ("later", pa.null())])
    table = pa.table({"id": [300, 1], "later": [5, None]})
    assert not fit(table, target, key=KEY).outgrown
    assert fit(pa.table({"id": [1], "later": [5]}), target, key=KEY).outgrown


def test_columns_in_chunks_and_without_rows_are_fitted() -> None:
    target = pa.schema([("c", pa.int8()), ("d", pa.list_(pa.int8()))])
    chunked = pa.concat_tables([pa.table({"c": [1], "d": [[1]]}), pa.table({"c": [300], "d": [[2]]})])
    assert fit(chunked, target, key=KEY).rows.to_pylist() == [0]
    empty = fit(chunked.schema.empty_table(), target, key=KEY)
    assert (empty.table.num_rows, len(empty.rows), empty.rejections) == (0, 0, ())


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (pa.schema([]), "has no columns"),
        (pa.schema([("x", pa.run_end_encoded(pa.int32(), pa.int8()))]), "column x is"),
        (pa.schema([("x", pa.int8()), ("x", pa.int8())]), "occurs twice"),
        (pa.schema([("x", pa.map_(pa.int8(), pa.int8()))]), "keys of int8"),
        (pa.schema([("x", pa.list_(pa.struct([("y", pa.duration("s"))])))]), r"column x\[\].y is"),
        (pa.schema([pa.field("x", pa.int8(), metadata={RAW_JSON: b"1"})]), "takes JSON as text"),
    ],
)
def test_a_target_that_nothing_can_fill_is_refused_when_it_is_made(schema: pa.Schema, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        validate(schema)


def test_columns_that_differ_by_case_only_are_refused_where_case_does_not_count() -> None:
    target = pa.schema([("a", pa.int8()), ("A", pa.int8())])
    with pytest.raises(ConfigurationError, match="differ by case"):
        fit(pa.table({"a": [1]}), target, key=KEY, options=JsonOptions(match="insensitive"))


def test_what_no_column_takes_is_kept_as_json_in_the_shape_of_the_record() -> None:
    inner = pa.struct([("x", pa.int64()), ("y", pa.timestamp("ms", "UTC"))])
    known = pa.struct([("x", pa.int64())])
    source = pa.schema(
        [
            ("price", pa.decimal128(5, 2)),
            ("s", inner),
            ("l", pa.list_(inner)),
            ("m", pa.map_(pa.string(), inner)),
            pa.field("any", pa.string(), metadata={RAW_JSON: b"1"}),
        ]
    )
    whole = {"x": 1, "y": AT.replace(microsecond=0)}
    table = pa.table(
        {
            "price": [Decimal("1.10"), None, None],
            "s": [whole, {"x": 1, "y": None}, None],
            "l": [[whole, {"x": 2, "y": None}], [], None],
            "m": [[("k", whole), ("q", {"x": 3, "y": None})], None, []],
            "any": ['{"a":1.0}', None, None],
        },
        source,
    )
    target = pa.schema([("s", known), ("l", pa.list_(known)), ("m", pa.map_(pa.string(), known)), RESCUED])
    fitted = fit(table, target, key=KEY, options=JsonOptions("rescue"))
    at = '{"y":"2024-05-06T01:02:03.000Z"}'
    assert fitted.table["_rescued"].to_pylist() == [
        f'{{"price":1.10,"s":{at},"l":[{at},null],"m":{{"k":{at}}},"any":{{"a":1.0}}}}',
        None,
        None,
    ]
    assert fitted.unknown == ()
    assert fitted.table["s"].to_pylist() == [{"x": 1}, {"x": 1}, None]


def test_what_json_cannot_hold_refuses_its_record_where_it_is_to_be_kept() -> None:
    table = pa.table({"c": [1, 2, 3], "odd": [1.5, math.nan, None]})
    fitted = fit(table, pa.schema([("c", pa.int64()), RESCUED]), key=KEY, options=JsonOptions("rescue"))
    (refused,) = fitted.rejections
    assert (refused.position, refused.reason, refused.path) == (1, "type", "odd")
    assert "_rescued keeps it as JSON; schema 7 writes it" in refused.message
    assert fitted.table["_rescued"].to_pylist() == ['{"odd":1.5}', None]
