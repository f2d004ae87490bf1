"""What no column takes is named and counted, and never anything else."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.json import census
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import RAW_JSON, Decoded, UnknownField
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
    decoder = JsonFormat().decoder(SCHEMA)
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
