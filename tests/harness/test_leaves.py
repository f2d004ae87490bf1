"""The checker of documents finds every value that a row lacks, and takes no other one for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from tests.harness.documents import SHAPES, documents
from tests.harness.leaves import Moment, document_of, named, paths_lacking, rows_of


def lacking(text: str, row: dict[str, Any]) -> list[str]:
    return list(paths_lacking(document_of(text.encode()), row))


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('{"a":1}', {"a": 1}),
        ('{"a":1.5}', {"a": 1.5}),
        ('{"a":"x"}', {"a": "x"}),
        ('{"a":null}', {}),
        ('{"a":[]}', {"a": []}),
        ('{"a":{}}', {"a": {}}),
        ('{"a":{"b":[{"c":true}]}}', {"a": {"b": [{"c": True}]}}),
        ('{"a":{"b":1.50}}', {"a": '{"b":1.50}'}),
        ('{"a":"2026-03-01T00:00:01.5Z"}', {"a": Moment(1_772_323_201_500_000_000)}),
        ('{"a":1772323201500}', {"a": "2026-03-01 00:00:01.500"}),
        ('{"a":"12.30"}', {"a": 12.3}),
    ],
)
def test_a_value_that_is_there_is_found_however_it_is_stored(text: str, row: dict[str, Any]) -> None:
    assert lacking(text, row) == []


@pytest.mark.parametrize(
    ("text", "row", "paths"),
    [
        ('{"a":1,"b":2}', {"a": 1}, ["b"]),
        ('{"a":1}', {"a": True}, ["a"]),
        ('{"a":true}', {"a": 1}, ["a"]),
        ('{"a":9007199254740993}', {"a": 9007199254740992.0}, ["a"]),
        ('{"a":"x"}', {"a": None}, ["a"]),
        ('{"a":[]}', {"a": None}, ["a"]),
        ('{"a":{"b":[{"c":1,"d":2}]}}', {"a": {"b": [{"c": 1}]}}, ["a.b[].d"]),
        ('{"a":[1,2]}', {"a": [1]}, ["a[]"]),
        ('{"a":"2026-03-01T00:00:01.5Z"}', {"a": Moment(1_772_323_201_000_000_000)}, ["a"]),
        ('{"a":{"b":1}}', {"a": '{"b":1.0,"c":2}'}, ["a"]),
    ],
)
def test_a_value_that_is_not_there_is_named_by_its_path(text: str, row: dict[str, Any], paths: list[str]) -> None:
    assert lacking(text, row) == paths


def test_a_field_is_named_by_itself_and_by_what_holds_it() -> None:
    assert named("a.b[].c", ["a.b[]"])
    assert named("a.b[].c", ["a"])
    assert named("a/b.x.c", ["a/b.x"])
    assert not named("a.bc", ["a.b"])


def test_times_keep_their_nanoseconds_and_maps_become_objects() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    columns = {
        "at": pa.array([moment], pa.timestamp("ns", "UTC")),
        "tags": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
        "inner": pa.array([{"at": moment}], pa.struct([("at", pa.timestamp("ms", "UTC"))])),
    }
    same = Moment(1_772_323_200_000_000_000)
    assert rows_of(pa.table(columns)) == [{"at": same, "tags": {"k": "v"}, "inner": {"at": same}}]


@pytest.mark.parametrize("shape", SHAPES)
def test_documents_are_the_same_at_every_call(shape: str) -> None:
    assert list(documents(shape, 50)) == list(documents(shape, 50))
    assert list(documents(shape, 50)) != list(documents(shape, 50, seed=12))
