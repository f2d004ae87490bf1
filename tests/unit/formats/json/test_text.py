"""`--decode.text`: text columns that take any JSON value."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import COLUMN_TYPE, PLACEHOLDER, RAW_JSON, Decoded
from batcher.testing.values import make_batch, make_records

ANY = frozenset("*")
NESTED = pa.schema(
    [
        ("id", pa.string()),
        ("geo", pa.struct([("name", pa.string()), ("n", pa.int64())])),
        ("tags", pa.list_(pa.string())),
        ("labels", pa.map_(pa.string(), pa.string())),
    ]
)


def decode(*values: str, schema: pa.Schema, text: frozenset[str] = ANY) -> Decoded:
    return JsonFormat(JsonOptions(text=text)).decoder(schema).decode(make_batch(make_records(values)))


def column(kind: pa.DataType, **field: Any) -> pa.Schema:
    return pa.schema([pa.field("x", kind, **field)])


CASES = [
    ('"plain"', "plain"),
    ('""', ""),
    ('"1"', "1"),
    ("1", "1"),
    ("1.50", "1.50"),
    ("-0.0", "-0.0"),
    ("1E+2", "1E+2"),
    ("9" * 60, "9" * 60),
    ("true", "true"),
    ('{ "$oid" : "65f0" }', '{"$oid":"65f0"}'),
    ('{"b":[1.0, null],"a":{}}', '{"b":[1.0,null],"a":{}}'),
    ('["é", "\\u00e9"]', '["é","é"]'),
    ("[]", "[]"),
    ("null", None),
]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_an_id_here_and_an_object_there_fit_one_text_column(kind: pa.DataType) -> None:
    values = [f'{{"x":{text}}}' for text, _ in CASES]
    decoded = decode(*values, schema=column(kind))
    assert decoded.rejections == ()
    wanted = [value for _, value in CASES]
    assert decoded.table["x"].cast(pa.string()).to_pylist() == wanted
    alone = [decode(value, schema=column(kind)).table["x"].cast(pa.string()).to_pylist() for value in values]
    assert alone == [[value] for value in wanted]


def test_a_block_of_strings_with_a_few_objects_keeps_every_row_in_its_place() -> None:
    values = [f'{{"x":{{"n":{n}}}}}' if n % 7 == 3 else f'{{"x":"{n}"}}' for n in range(3000)]
    decoded = decode(*values, schema=column(pa.string()))
    assert decoded.positions.to_pylist() == list(range(3000))
    assert decoded.table["x"].to_pylist() == [f'{{"n":{n}}}' if n % 7 == 3 else str(n) for n in range(3000)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_integers_in_a_text_column_keep_their_spelling_however_many_there_are(kind: pa.DataType) -> None:
    odd = {
        5: "-0",
        6: "0",
        7: "1.0",
        8: "1e2",
        9: "18446744073709551616",
        10: '"007"',
        11: "{}",
        12: "null",
        13: "true",
    }
    texts = [odd.get(n, str(n * 7 - 9000)) for n in range(3000)]
    decoded = decode(*(f'{{"x":{text}}}' for text in texts), schema=column(kind))
    wanted = [None if text == "null" else text.strip('"') for text in texts]
    assert decoded.rejections == ()
    assert decoded.table["x"].cast(pa.string()).to_pylist() == wanted


@pytest.mark.parametrize(
    ("name", "raw", "wanted"),
    [
        ("geo.name", '{"geo":{"name":{"en":"Rome"}}}', {"geo": {"name": '{"en":"Rome"}', "n": None}}),
        ("tags", '{"tags":["a",1,{"b":2}]}', {"tags": ["a", "1", '{"b":2}']}),
        ("tags[]", '{"tags":[1]}', {"tags": ["1"]}),
        ("labels", '{"labels":{"a":1.0}}', {"labels": [("a", "1.0")]}),
    ],
)
def test_a_text_inside_objects_lists_and_maps_is_named_by_its_path(name: str, raw: str, wanted: Any) -> None:
    for schema in (NESTED, pa.schema([NESTED.field(name.split(".", maxsplit=1)[0].removesuffix("[]"))])):
        (row,) = decode(raw, schema=schema, text=frozenset({name})).table.to_pylist()
        assert {key: value for key, value in row.items() if value is not None} == wanted


def test_a_column_that_is_not_named_stays_strict_and_says_which_option_would_help() -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    decoded = decode('{"a":1}', '{"b":1}', schema=schema, text=frozenset({"a"}))
    assert decoded.table["a"].to_pylist() == ["1"]
    (rejection,) = decoded.rejections
    assert (rejection.reason, rejection.path) == ("type", "b")
    assert "--decode.text b takes any value" in rejection.message


def test_a_key_that_occurs_twice_in_an_object_kept_as_text_is_refused() -> None:
    (rejection,) = decode('{"x":{"a":1,"a":2}}', schema=column(pa.string())).rejections
    assert (rejection.reason, rejection.path) == ("duplicate", "x")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", "--decode.text nosuch: is no column; text columns there are: id, geo.name, tags, labels"),
        ("geo.n", "--decode.text geo.n: is no text column; text columns there are: id"),
    ],
)
def test_a_name_that_is_no_text_column_stops_at_the_start_with_those_there_are(name: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + words):
        JsonFormat(JsonOptions(text=frozenset({name}))).decoder(NESTED)


def test_a_first_batch_without_a_readable_record_is_refused_record_by_record_whatever_columns_are_named() -> None:
    form = JsonFormat(JsonOptions(text=frozenset({"_id"}), epoch={"at": "ms"}))
    batch = make_batch(make_records(["", "[]"]))
    assert form.infer(batch) is None
    assert [r.reason for r in form.decoder(PLACEHOLDER).decode(batch).rejections] == ["empty", "not_object"]


@pytest.mark.parametrize(
    ("own", "text"),
    [
        *(
            (name, True)
            for name in ("String", "Nullable(String)", "LowCardinality(Nullable(String))", "FixedString(9)")
        ),
        *((name, False) for name in ("UUID", "Nullable(UUID)", "IPv4", "Enum8('String' = 1)", "LowCardinality(IPv6)")),
    ],
)
def test_a_column_that_only_looks_like_text_stays_strict(own: str, text: bool) -> None:
    schema = column(pa.string(), metadata={COLUMN_TYPE: own.encode()})
    decoded = decode('{"x":1}', schema=schema)
    assert len(decoded.positions) == text
    strict = decode('{"x":1}', schema=schema, text=frozenset()).rejections[0].message
    assert ("--decode.text" in strict) == text
    assert text or strict.endswith(f"the column's type is {own}")


def test_a_column_that_keeps_json_stays_what_it_is() -> None:
    schema = column(pa.string(), metadata={RAW_JSON: b"1"})
    assert decode('{"x":"s"}', schema=schema).table["x"].to_pylist() == ['"s"']
    with pytest.raises(ConfigurationError, match="keeps JSON and takes any value already"):
        decode("{}", schema=schema, text=frozenset({"x"}))


@pytest.mark.parametrize("first", ["1", '"a"', '{"a":1}', "[1]", "null", '"2026-01-01T00:00:00Z"'])
def test_a_named_column_is_inferred_as_text_whatever_comes_first(first: str) -> None:
    form = JsonFormat(JsonOptions(text=frozenset({"x"})))
    schema = form.infer(make_batch(make_records([f'{{"x":{first},"y":1}}'])))
    assert schema == pa.schema([("x", pa.string()), ("y", pa.int64())])
    assert schema is not None
    assert not schema.field("x").metadata


def test_a_named_column_that_comes_later_is_in_the_inferred_schema() -> None:
    form = JsonFormat(JsonOptions(text=frozenset({"_id"})))
    schema = form.infer(make_batch(make_records(['{"y":1}'])))
    assert schema == pa.schema([("y", pa.int64()), ("_id", pa.string())])
    assert form.decoder(schema).decode(make_batch(make_records(['{"_id":{"a":1}}']))).table["_id"].to_pylist() == [
        '{"a":1}'
    ]


def test_with_any_for_all_contradicting_values_are_text_at_every_depth() -> None:
    form = JsonFormat(JsonOptions(text=ANY))
    batch = make_batch(make_records(['{"x":1,"l":[{"a":1}],"n":1}', '{"x":"s","l":[{"a":"s"}],"n":2}']))
    schema = form.infer(batch)
    assert schema == pa.schema(
        [("x", pa.string()), ("l", pa.list_(pa.struct([("a", pa.string())]))), ("n", pa.int64())]
    )
    assert form.decoder(schema).decode(batch).table.to_pylist() == [
        {"x": "1", "l": [{"a": "1"}], "n": 1},
        {"x": "s", "l": [{"a": "s"}], "n": 2},
    ]
