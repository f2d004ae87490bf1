"""A field that had no value yet gets its type with the first one, and no value is lost before."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.json import inference
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.formats.json.inference import infer_schema
from batcher.growth import has_untyped
from batcher.records import RAW_JSON, Batch
from batcher.testing.values import make_batch, make_records

NULL = pa.null()


def batch_of(*values: Any) -> Batch:
    return make_batch(make_records([json.dumps({"id": 1, "x": value}) for value in values]))


def schema_of(kind: pa.DataType) -> pa.Schema:
    return pa.schema([("id", pa.int64()), ("x", kind)])


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (NULL, None),
        (pa.list_(NULL), []),
        (pa.list_(NULL), [None]),
        (pa.list_(NULL), None),
        (pa.struct([("a", NULL)]), {"a": None}),
        (pa.struct([("a", NULL)]), {}),
        (pa.list_(pa.struct([("a", NULL), ("b", pa.int64())])), [{"a": None, "b": 1}]),
    ],
)
def test_what_has_no_value_still_fits(kind: pa.DataType, value: Any) -> None:
    decoded = JsonFormat().decoder(schema_of(kind)).decode(batch_of(value, None))
    assert not decoded.outgrown
    assert (len(decoded.positions), decoded.rejections) == (2, ())
    decoded.table.validate(full=True)


CASES = [
    (NULL, 5, pa.int64()),
    (NULL, "word", pa.string()),
    (NULL, False, pa.bool_()),
    (NULL, {"a": {"b": 1}}, pa.struct([("a", pa.struct([("b", pa.int64())]))])),
    (NULL, {"a": None}, pa.struct([("a", NULL)])),
    (NULL, [], pa.list_(NULL)),
    (NULL, [[1]], pa.list_(pa.list_(pa.int64()))),
    (pa.list_(NULL), ["a"], pa.list_(pa.string())),
    (
        pa.struct([("a", NULL), ("b", pa.int8())]),
        {"a": 1, "b": 2},
        pa.struct([("a", pa.int64()), ("b", pa.int8())]),
    ),
    (pa.list_(pa.struct([("a", NULL)])), [{"a": 1.5}], pa.list_(pa.struct([("a", pa.float64())]))),
]


@pytest.mark.parametrize(("kind", "value", "grown"), CASES)
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_the_first_value_outgrows_the_schema_however_rare_it_is(
    kind: pa.DataType, value: Any, grown: pa.DataType, count: int
) -> None:
    batch = batch_of(*[None] * count, value, *[None] * count)
    form = JsonFormat()
    assert form.decoder(schema_of(kind)).decode(batch).outgrown
    schema = form.grow(schema_of(kind), batch)
    assert schema == schema_of(grown)
    decoded = form.decoder(schema).decode(batch)
    assert not decoded.outgrown
    assert decoded.rejections == ()
    assert decoded.table["x"][count].as_py() == value


def test_an_object_without_fields_becomes_json_kept_as_text() -> None:
    schema = JsonFormat().grow(schema_of(NULL), batch_of({}))
    assert schema.field("x").metadata == {RAW_JSON: b"1"}


def test_a_value_that_is_refused_in_any_case_gives_no_type() -> None:
    batch = make_batch(make_records(['{"id":1,"x":{"a":1,"a":2}}', '{"id":"word","x":5}']))
    decoded = JsonFormat().decoder(schema_of(NULL)).decode(batch)
    assert not decoded.outgrown
    assert [one.reason for one in decoded.rejections] == ["duplicate", "type"]


def test_growth_comes_to_an_end_where_a_neighbour_is_bad() -> None:
    # The unknown object has a key twice, which nobody minds: the value of x still counts.
    batch = make_batch(make_records(['{"id":1,"x":5,"other":{"a":1,"a":2}}']))
    form = JsonFormat()
    assert form.decoder(schema_of(NULL)).decode(batch).outgrown
    grown = form.grow(schema_of(NULL), batch)
    assert not form.decoder(grown).decode(batch).outgrown


def test_everything_else_of_the_schema_stays_as_it_is() -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.int8(), nullable=False),
            pa.field("j", pa.string(), metadata={RAW_JSON: b"1"}),
            pa.field("x", NULL),
        ],
        metadata={b"k": b"v"},
    )
    batch = make_batch(make_records(['{"id":1,"j":{"a":1},"x":1,"new":2}']))
    grown = JsonFormat(JsonOptions(text=frozenset("*"))).grow(schema, batch)
    assert grown.equals(schema.set(2, pa.field("x", pa.int64())).with_metadata({b"k": b"v"}), check_metadata=True)


def test_a_schema_says_whether_it_has_places_without_a_type() -> None:
    assert has_untyped(schema_of(pa.list_(pa.struct([("a", NULL)]))))
    assert not has_untyped(schema_of(pa.list_(pa.int64())))


def test_an_object_without_fields_proposes_no_schema() -> None:
    assert JsonFormat().infer(make_batch(make_records(["{}", "{}"]))) is None


def test_all_of_the_first_batch_shapes_the_schema() -> None:
    texts = pa.array([b'{"a":1}'] * 2_500 + [b'{"a":1,"late":2}'] * 400)
    schema = infer_schema(texts, JsonOptions())
    assert schema is not None
    assert schema.names == ["a", "late"]


def test_finer_times_far_into_the_first_batch_shape_the_schema() -> None:
    coarse, fine = '{"at":"2026-01-31T12:00:00.123456Z"}', '{"at":"2026-01-31T12:00:00.1234567Z"}'
    schema = JsonFormat().infer(make_batch(make_records([*[coarse] * 5_000, fine])))
    assert schema == pa.schema([("at", pa.timestamp("ns", "UTC"))])


@pytest.mark.parametrize(("odd", "kind"), [(50, "int64"), (900, "string")])
def test_what_fits_counts_for_whether_the_rest_is_a_mistake(odd: int, kind: str) -> None:
    texts = ['{"a":1,"b":"x"}'] * 9_000 + ['{"a":"one","b":"x"}'] * odd
    schema = JsonFormat().infer(make_batch(make_records(texts)))
    assert schema is not None
    assert str(schema.field("a").type) == kind


def test_where_time_is_short_records_from_all_over_the_batch_are_looked_at() -> None:
    moments = iter(range(10**9))
    texts = pa.array([b'{"a":1}'] * 50_000 + [b'{"a":1,"late":2}'] * 50_000)
    schema = infer_schema(texts, JsonOptions(), budget_s=30, clock=lambda: float(next(moments)))
    assert schema is not None
    assert schema.names == ["a", "late"]


BIG = '"n":99999999999999999999'
"""A number that no type holds: the column is JSON kept as text from the first one on."""

LATE = [
    f"{{{BIG}}}",
    '{"n":1,"late":2}',
    '{"n":1,"o":{"b":1}}',
    '{"n":1,"both":{"c":1}}',
    '{"n":1,"deep":{"list":[{"d":1}]}}',
    '{"n":1,"at":"2026-01-31T12:00:00.1234567Z"}',
    '{"n":1.5}',
    '{"n":"text"}',
    '{"n":1,"u":18446744073709551615}',
]


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("empty", ["", ',"o":{}', ',"deep":{"list":[{}]}'])
def test_beside_json_kept_as_text_all_records_shape_the_schema_as_if_each_was_looked_at(late: str, empty: str) -> None:
    usual = ['{"n":1,"at":"2026-01-31T12:00:00Z","both":5%s}' % empty, '{"n":2,"both":"x","u":3}']  # noqa: UP031
    texts = [f"{{{BIG}}}", *usual * 1500, *[late] * 40, *usual * 20]
    looked = infer_schema(pa.array([text.encode() for text in texts]), JsonOptions(), budget_s=1e9)

    found = JsonFormat().infer(make_batch(make_records(texts)))

    assert found is not None
    assert found.equals(looked, check_metadata=True)


def test_beside_json_kept_as_text_only_records_that_do_not_fit_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    look = inference._look

    def counted(root: Any, texts: Any, rows: Any, options: Any) -> None:
        some = list(rows)
        looked.extend(some)
        look(root, texts, some, options)

    monkeypatch.setattr(inference, "_look", counted)
    texts = [f"{{{BIG}}}", *['{"n":1,"both":5}', '{"n":2,"both":"x"}'] * 5000, '{"n":1,"late":2}']

    found = JsonFormat().infer(make_batch(make_records(texts)))

    assert found is not None
    assert found.names == ["n", "both", "late"]
    assert len(looked) == 2001
