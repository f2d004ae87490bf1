"""Fields whose names differ from the columns' by case, with `--decode.match insensitive`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import Decoded
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema(
    [("Id", pa.int64()), ("Created_At", pa.timestamp("ms", "UTC")), ("User", pa.struct([("Name", pa.string())]))]
)
INSENSITIVE = JsonOptions(match="insensitive")


def decode(*raw: str, schema: pa.Schema = SCHEMA, options: JsonOptions = INSENSITIVE) -> Decoded:
    return JsonFormat(options).decoder(schema).decode(make_batch(make_records(list(raw))))


def ids(decoded: Decoded) -> list[Any]:
    return [row["Id"] for row in decoded.table.to_pylist()]


@pytest.mark.parametrize("count", [1, 500])
def test_fields_fill_the_columns_whose_names_differ_by_case_only(count: int) -> None:
    decoded = decode(*['{"id":7,"created_at":"2026-01-31T12:00:00Z","USER":{"name":"x"}}'] * count)
    assert decoded.table.to_pylist()[-1]["User"] == {"Name": "x"}
    assert ids(decoded) == [7] * count
    assert decoded.table["Created_At"].null_count == 0
    assert decoded.unknown == ()


def test_without_the_option_they_are_unknown_fields() -> None:
    decoded = decode('{"id":7}', options=JsonOptions())
    assert ids(decoded) == [None]
    assert [one.path for one in decoded.unknown] == ["id"]


def test_the_exact_name_wins_and_the_other_is_an_unknown_field() -> None:
    for raw in ('{"id":1,"Id":2}', '{"Id":2,"id":1}'):
        decoded = decode(*['{"id":5}'] * 100, raw)
        assert ids(decoded)[-1] == 2
        assert [(one.path, one.records) for one in decoded.unknown] == [("id", 1)]


def test_of_two_spellings_neither_of_which_is_exact_neither_is_taken() -> None:
    decoded = decode('{"id":1,"ID":2}')
    assert [(one.reason, one.path) for one in decoded.rejections] == [("duplicate", "Id")]


def test_each_record_may_have_a_spelling_of_its_own() -> None:
    decoded = decode(*['{"id":1}', '{"ID":2}', '{"iD":3}', '{"Id":4}', '{"\\u0049d":5}', '{"\\u0069D":6}'] * 50)
    assert ids(decoded) == [1, 2, 3, 4, 5, 6] * 50


def test_a_name_inside_a_text_is_no_field() -> None:
    decoded = decode('{"id":1,"other":"\\"ID\\":"}', '{"id":2,"other":"ID"}')
    assert ids(decoded) == [1, 2]


def test_columns_that_differ_by_case_only_cannot_be_matched_so() -> None:
    with pytest.raises(ConfigurationError, match="columns userId and userid differ by case only"):
        decode("{}", schema=pa.schema([("userId", pa.int64()), ("userid", pa.int64())]))


def test_a_schema_is_inferred_with_one_column_for_all_spellings() -> None:
    batch = make_batch(make_records(['{"userId":1}', '{"userid":2,"n":{"A":1}}', '{"n":{"a":2}}']))
    schema = JsonFormat(INSENSITIVE).infer(batch)
    assert schema == pa.schema([("userId", pa.int64()), ("n", pa.struct([("A", pa.int64())]))])
    decoded = JsonFormat(INSENSITIVE).decoder(schema).decode(batch)
    assert decoded.table["userId"].to_pylist() == [1, 2, None]


def test_names_beyond_ascii_are_compared_as_they_are() -> None:
    schema = pa.schema([("größe", pa.int64())])
    decoded = decode('{"GRÖSSE":1}', '{"größe":2}', '{"gRöße":3}', schema=schema)
    assert decoded.table["größe"].to_pylist() == [None, 2, 3]
