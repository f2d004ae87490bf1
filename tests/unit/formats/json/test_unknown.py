"""What no column takes is named and counted, and never anything else."""

from __future__ import annotations

import json
from typing import Any, Final

import pyarrow as pa
import pytest

from batcher.formats.json import census
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import RAW_JSON, RESCUED, Decoded, UnknownField
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("user", pa.struct([("name", pa.string())])),
        ("items", pa.list_(pa.struct([("sku", pa.string())]))),
    ]
)


def decode(documents: list[Any], schema: pa.Schema = SCHEMA, **options: Any) -> Decoded:
    raw = [document if isinstance(document, str) else json.dumps(document) for document in documents]
    return JsonFormat(JsonOptions(**options)).decoder(schema).decode(make_batch(make_records(raw)))


def found(decoded: Decoded) -> dict[str, tuple[int, int]]:
    return {one.path: (one.records, one.position) for one in decoded.unknown}


def test_each_unknown_field_is_counted_with_the_first_record_that_has_it() -> None:
    decoded = decode([{"id": 1}, {"id": 2, "city": "Rome"}, {"id": 3, "city": "Oslo", "zip": 7}])
    assert found(decoded) == {"city": (2, 1), "zip": (1, 2)}
    assert not decoded.estimated


def test_fields_inside_objects_and_lists_are_named_by_their_path() -> None:
    decoded = decode([{"user": {"name": "a", "age": 3}}, {"items": [{"sku": "x"}, {"sku": "y", "price": 2}]}])
    assert found(decoded) == {"user.age": (1, 0), "items[].price": (1, 1)}


def test_a_field_that_is_null_loses_nothing_and_is_not_counted() -> None:
    assert found(decode([{"id": 1, "city": None}, {"id": 2, "user": {"age": None}}])) == {}


def test_what_a_record_that_was_refused_has_is_not_lost_and_not_counted() -> None:
    decoded = decode([{"id": "no number", "city": "Rome"}, {"id": 1, "zip": 7}])
    assert [one.position for one in decoded.rejections] == [0]
    assert found(decoded) == {"zip": (1, 1)}


def test_an_object_kept_as_text_has_no_unknown_fields() -> None:
    schema = pa.schema([pa.field("any", pa.string(), metadata={RAW_JSON: b"1"})])
    assert found(decode([{"any": {"a": 1}, "b": 2}], schema)) == {"b": (1, 0)}


def test_the_keys_of_a_map_are_no_fields_but_those_of_its_objects_are() -> None:
    schema = pa.schema([("m", pa.map_(pa.string(), pa.struct([("x", pa.int64())])))])
    assert found(decode([{"m": {"a": {"x": 1}, "b": {"x": 2, "y": 3}}}], schema)) == {"m[].y": (1, 0)}


@pytest.mark.parametrize("policy", ["ignore", "reject", "halt"])
def test_without_warn_nothing_is_counted(policy: str) -> None:
    decoded = decode([{"id": 1, "city": "Rome"}], on_unknown=policy)
    assert decoded.unknown == ()
    assert len(decoded.rejections) == (policy != "ignore")


@pytest.mark.parametrize("position", [0, 1, 49_999, 99_999])
def test_one_record_in_a_hundred_thousand_with_a_new_field_is_found(position: int) -> None:
    documents: list[Any] = ['{"id":1}'] * 100_000
    documents[position] = '{"id":1,"rare":true}'
    assert found(decode(documents)) == {"rare": (1, position)}


def test_a_field_that_comes_while_others_are_usual_is_found_within_the_blocks_looked_at_whole() -> None:
    decoder = JsonFormat().decoder(SCHEMA)
    usual = ['{"id":1,"usual":1}'] * (census.SMALL + 1)
    rare = [*usual[1:], '{"id":1,"rare":1}']
    named: set[str] = set()
    for _ in range(census.CAREFUL + census.EVERY):
        named |= found(decoder.decode(make_batch(make_records(usual)))).keys()
    assert named == {"usual"}
    for _ in range(census.EVERY):
        named |= found(decoder.decode(make_batch(make_records(rare)))).keys()
    assert named == {"usual", "rare"}


def test_counts_out_of_a_sample_are_scaled_up_and_say_so() -> None:
    decoder = JsonFormat(JsonOptions(native="off")).decoder(SCHEMA)
    half = ['{"id":1,"usual":1}', '{"id":1}'] * 5_000
    for _ in range(census.CAREFUL):
        decoded = decoder.decode(make_batch(make_records(half)))
        assert decoded.unknown == (UnknownField("usual", 5_000, 0),)
        assert not decoded.estimated
    decoder.decode(make_batch(make_records(half)))
    decoded = decoder.decode(make_batch(make_records(half)))
    assert decoded.estimated
    assert decoded.unknown[0].path == "usual"


def test_a_dictionary_in_the_place_of_a_record_is_searched_for_a_bounded_number_of_fields() -> None:
    decoded = decode([{f"key{number}": 1 for number in range(start, start + 100)} for start in range(0, 5_000, 100)])
    assert len(decoded.unknown) == census.MAX_PATHS


def test_the_name_of_a_field_is_fit_for_a_log() -> None:
    decoded = decode([{"id": 1, "a\x1b[31m\n" + "x" * 100: 1}])
    (path,) = found(decoded)
    assert path.isprintable()
    assert len(path) <= 64


def test_a_batch_in_pieces_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.formats.policy.PIECE_BYTES", 200)
    decoded = decode([{"id": number, "city": "Rome"} for number in range(100)])
    assert found(decoded) == {"city": (100, 0)}


EXACT: Final = "evolve"


def test_where_columns_are_made_of_fields_every_block_is_looked_at_whole() -> None:
    decoder = JsonFormat(JsonOptions(EXACT)).decoder(SCHEMA)
    usual = ['{"id":1,"usual":1}'] * (census.SMALL + 1)
    for number in range(census.CAREFUL + 2 * census.EVERY):
        documents = [*usual[:500], f'{{"id":1,"rare{number}":1}}', *usual]
        decoded = decoder.decode(make_batch(make_records(documents)))
        assert found(decoded)[f"rare{number}"] == (1, 500)
        assert not decoded.estimated


def test_a_field_beside_one_that_only_the_strict_reader_can_read_is_found() -> None:
    # msgspec takes no number beyond what a double holds.
    documents = ['{"id":1e0,"rare":1e400}', '{"id":2}']
    decoded = decode(documents, on_unknown=EXACT)
    assert found(decoded) == {"rare": (1, 0)}


def test_types_for_new_fields_hold_what_is_in_them_and_no_other_field_is_proposed() -> None:
    form = JsonFormat(JsonOptions(EXACT))
    documents = [{"id": 1, "a": 1, "b": 1.5, "c": "2026-01-31T00:00:00Z", "d": [1], "e": {"x": 1}, "f": None, "z": 1}]
    batch = make_batch(make_records([json.dumps(document) for document in documents]))
    assert form.proposed(batch, {"a", "b", "c", "d", "e", "f"}).equals(
        pa.schema(
            [
                ("a", pa.int64()),
                ("b", pa.float64()),
                ("c", pa.timestamp("us", "UTC")),
                ("d", pa.list_(pa.int64())),
                ("e", pa.struct([("x", pa.int64())])),
            ]
        )
    )


def test_a_name_that_is_written_with_escapes_is_found() -> None:
    form = JsonFormat(JsonOptions(EXACT))
    batch = make_batch(make_records(['{"\\u0061b":1}', '{"gr\\u00f6\\u00dfe":2}', '{"größe":3}']))
    assert form.proposed(batch, {"ab", "größe"}).names == ["ab", "größe"]


RESCUING = SCHEMA.insert(1, RESCUED)


def rescued(*documents: Any, schema: pa.Schema = RESCUING, **options: Any) -> list[str | None]:
    decoded = decode(list(documents), schema, on_unknown="rescue", **options)
    assert decoded.table.schema.equals(schema)
    assert decoded.unknown == ()
    kept: list[str | None] = decoded.table["_rescued"].to_pylist()
    return kept


def test_what_has_no_column_is_kept_as_compact_json_in_the_shape_of_the_record() -> None:
    assert rescued(
        '{"id": 1, "n": 1.10, "big": 1e400, "t": "a\\u00e9\\n", "o": {"b" : [1, 2.0, null]}, "none": null}',
        {"id": 2},
        {"id": 3, "user": {"name": "ann", "age": 7}, "items": [{"sku": "a"}, {"sku": "b", "qty": 2}]},
        {"id": 4, "user": None, "items": [None]},
    ) == [
        '{"n":1.10,"big":1e400,"t":"aé\\n","o":{"b":[1,2.0,null]}}',
        None,
        '{"user":{"age":7},"items":[null,{"qty":2}]}',
        None,
    ]


def test_the_field_named_like_the_column_for_the_rest_is_a_part_of_the_rest() -> None:
    assert rescued({"id": 1, "_rescued": "mine"}) == ['{"_rescued":"mine"}']


def test_maps_keep_the_entries_with_something_unknown() -> None:
    schema = pa.schema([("m", pa.map_(pa.string(), pa.struct([("x", pa.int64())]))), RESCUED])
    assert rescued({"m": {"a": {"x": 1}, "b": {"x": 2, "y": 3}}}, schema=schema) == ['{"m":{"b":{"y":3}}}']


def test_names_of_another_case_are_no_rest_where_case_does_not_count() -> None:
    assert rescued({"ID": 1, "User": {"NAME": "a", "Age": 2}}, match="insensitive") == ['{"User":{"Age":2}}']
    assert rescued({"ID": 1}) == ['{"ID":1}']


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ('{"id":1,"x":1,"x":2}', "x"),
        ('{"id":1,"x":{"y":1,"y":2}}', "x"),
        ('{"id":1,"user":{"z":1,"z":null}}', "user.z"),
    ],
)
def test_a_rest_that_nobody_can_read_back_refuses_its_record_only(document: str, path: str) -> None:
    decoded = decode(['{"id":0,"x":1}', document, '{"id":2}'], RESCUING, on_unknown="rescue")
    assert [(one.position, one.reason, one.path) for one in decoded.rejections] == [(1, "duplicate", path)]
    assert decoded.table["_rescued"].to_pylist() == ['{"x":1}', None]
    assert decoded.positions.to_pylist() == [0, 2]


def test_records_that_are_refused_otherwise_are_still_refused() -> None:
    decoded = decode([{"id": "no number", "x": 1}], RESCUING, on_unknown="rescue")
    assert [(one.reason, one.path) for one in decoded.rejections] == [("type", "id")]


def test_without_the_column_for_the_rest_fields_are_counted_exactly() -> None:
    assert found(decode([{"id": 1, "x": 1}], on_unknown="rescue")) == {"x": (1, 0)}
