"""JSON columns: a document is stored as it is, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.errors import BlockRejected, RowsRejected, SinkMisconfigured
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.clickhouse import plugin
from sinks.clickhouse.json_text import skipped

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

Stored = Callable[[str, str], Any]


@pytest.fixture
def stored(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> Stored:
    """Return a function that writes a document into a column of a type and returns what is there then."""

    def write(kind: str, document: str) -> Any:
        table = new_table()
        chdb_engine.execute(f"CREATE TABLE {table} (i UInt32, j {kind}) ENGINE = MergeTree ORDER BY i")
        sink = plugin({"dsn": chdb_engine.dsn, "table": table})
        schema = sink.open().schema
        try:
            sink.write(make_block(pa.Table.from_pylist([{"i": 1, "j": document}], schema=schema)))
        finally:
            sink.close()
        return json.loads(chdb_engine.rows(f"SELECT toString(j) FROM {table}")[0][0])

    return write


@pytest.mark.parametrize(
    "document",
    [
        '{"a":18446744073709551615,"b":-9223372036854775808}',
        '{"a":[true,false,null]}',
        '{"a":[1,"x",{"b":[2]}]}',
        '{"a":[[1],["x"]],"c":1.5}',
        '{"a":"123456789012345678901234567890"}',
        '{"a":"x,true,"}',
        '{"a":[{"b":true},{"b":false}]}',
        '{"a":[{"b":true},{"b":1}]}',
        '{"a":[true,[true],{"b":1}]}',
        '{"a":[9007199254740993,1.5,"x"]}',
        '{"a":[9007199254740992,1.5]}',
        '{"a":[null,1,{"c":1}]}',
        '{"a":["2024-02-29","2026-02-30T12:00:00Z","2026-13-01","x2026-02-30"]}',
    ],
)
def test_a_document_that_the_column_takes_comes_out_as_it_went_in(stored: Stored, document: str) -> None:
    # As text: to Python true is 1.
    assert json.dumps(stored("JSON", document)) == json.dumps(json.loads(document))


@pytest.mark.parametrize(
    ("document", "path", "reason"),
    [
        ('{"a":{"b":123456789012345678901234567890}}', "j.a.b", "overflow"),
        ('{"a":-9223372036854775809}', "j.a", "overflow"),
        ('{"a":[[18446744073709551616]]}', "j.a", "overflow"),
        ('{"a":[true,1]}', "j.a", "mixed"),
        ('{"a":[{"b":["x",false]}]}', "j.a.b", "mixed"),
        ('{"a":[[true],[1]]}', "j.a", "mixed"),
        ('{"a":[9007199254740993,1.5]}', "j.a", "precision"),
        ('{"a":[[-9007199254740993],[1e3]]}', "j.a", "precision"),
        ('{"a":[null,[1]]}', "j.a", "null"),
        ('{"a":[[null],[[1]]]}', "j.a", "null"),
        ('{"a":"2026-02-30"}', "j.a", "timestamp"),
        ('{"a":["2026/4/31"]}', "j.a", "timestamp"),
        ('{"a":"2026-01-31 24:00:00"}', "j.a", "timestamp"),
        ('{"a":"2026-01-31T23:59:60"}', "j.a", "timestamp"),
        ('{"a":"2026-01-31 12:00:00.1234567891"}', "j.a", "precision"),
    ],
)
def test_a_document_that_the_column_would_change_is_refused(
    stored: Stored, document: str, path: str, reason: str
) -> None:
    with pytest.raises(RowsRejected) as raised:
        stored("JSON", document)
    assert [(one.path, one.reason) for one in raised.value.rejections] == [(path, reason)]


@pytest.mark.parametrize(
    "document",
    [
        '{"a": 123456789012345678901234567890}',
        '{"a": [ true , 1 ]}',
        '{"a":\n[9007199254740993, 1.5]}',
        '{"a":[[ 1 ], null ]}',
    ],
)
def test_spaces_hide_nothing_that_the_column_would_change(stored: Stored, document: str) -> None:
    with pytest.raises(RowsRejected):
        stored("JSON", document)


TYPED = "JSON(ts DateTime64(3), d Decimal(5, 2), n Nullable(UInt8), s String, `a.b` Int16)"
GOOD = {"ts": "2026-01-31T12:00:00.123Z", "d": 1.25, "n": 7, "s": "x", "a": {"b": -5}, "free": [1]}


def test_typed_paths_hold_what_fits_them(stored: Stored) -> None:
    assert stored(TYPED, json.dumps(GOOD)) == GOOD | {"ts": "2026-01-31 12:00:00.123"}
    without = {key: value for key, value in GOOD.items() if key != "n"}
    assert stored(TYPED, json.dumps(without)) == GOOD | {"ts": "2026-01-31 12:00:00.123", "n": None}


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        ({"ts": "soon"}, "j.ts", "timestamp"),
        ({"ts": True}, "j.ts", "timestamp"),
        ({"ts": "1776-07-04T12:00:00Z"}, "j.ts", "range"),
        ({"d": 1.256}, "j.d", "precision"),
        ({"d": 1234567}, "j.d", "overflow"),
        ({"d": "1.256"}, "j.d", "precision"),
        ({"d": "much"}, "j.d", "type"),
        ({"n": 300}, "j.n", "overflow"),
        ({"n": 1.5}, "j.n", "precision"),
        ({"s": 5}, "j.s", "type"),
        ({"s": None}, "j.s", "missing"),
        ({"a": {}}, "j.a.b", "missing"),
        ({"a": {"b": "5"}}, "j.a.b", "type"),
    ],
)
def test_what_a_typed_path_would_bend_is_refused_and_named(
    stored: Stored, change: dict[str, Any], path: str, reason: str
) -> None:
    with pytest.raises(RowsRejected) as raised:
        stored(TYPED, json.dumps(GOOD | change))
    assert [(one.path, one.reason) for one in raised.value.rejections] == [(path, reason)]


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        ("DateTime64(3)", "1700000000000", "2023-11-14 22:13:20.000"),
        ("DateTime64(3)", "1700000000.5", "2023-11-14 22:13:20.500"),
        ("DateTime64(9)", "1700000000123456789", "2023-11-14 22:13:20.123456789"),
        ("DateTime64(3)", '"2026-01-31T12:00:00.1239Z"', "2026-01-31 12:00:00.123"),
        ("DateTime64(3, 'UTC')", '"2026-01-31T12:00:00+02:00"', "2026-01-31 10:00:00.000"),
        ("DateTime64(3, 'Asia/Tokyo')", '"2026-01-31 12:00:00"', "2026-01-31 21:00:00.000"),
        ("DateTime64(3)", '"1969-12-31T23:59:59.995Z"', "1969-12-31 23:59:59.995"),
        ("DateTime64(3)", "5", "1970-01-01 00:00:05.000"),
        ("DateTime", "1700000000000", "2023-11-14 22:13:20"),
        ("Date", '"2026-01-31"', "2026-01-31"),
    ],
)
def test_times_of_typed_paths_are_read_as_columns_are(stored: Stored, kind: str, value: str, held: str) -> None:
    assert stored(f"JSON(at {kind})", f'{{"at":{value}}}') == {"at": held}


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("Array(Decimal(5, 2))", "[1.25,1.256]", "precision"),
        ("Array(DateTime64(3))", '["soon"]', "timestamp"),
        ("Array(UInt8)", "null", "missing"),
        ("Array(UInt8)", "[null]", "missing"),
        ("Tuple(x UInt8, y Decimal(5, 2))", '{"x":1}', "missing"),
        ("Tuple(x UInt8)", '{"x":1,"z":2}', "unknown"),
        ("Map(String, UInt8)", '{"x":300}', "overflow"),
        ("Float32", "16777217", "precision"),
        ("Float32", "1e40", "overflow"),
        ("Float64", "9007199254740993", "precision"),
        ("JSON(b UInt8)", '{"b":300}', "overflow"),
        ("Array(JSON)", '[{"b":[true,1]}]', "mixed"),
    ],
)
def test_what_lists_and_parts_of_a_typed_path_would_bend_is_refused(
    stored: Stored, kind: str, value: str, reason: str
) -> None:
    with pytest.raises(RowsRejected) as raised:
        stored(f"JSON(at {kind})", f'{{"at":{value}}}')
    assert [(one.path, one.reason) for one in raised.value.rejections] == [("j.at", reason)]


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        ("Array(DateTime64(3))", "[1700000000000]", '["2023-11-14 22:13:20.000"]'),
        ("Array(Array(Nullable(UInt8)))", "[[1,null],[]]", "[[1,null],[]]"),
        ("Tuple(x Nullable(UInt8), y String)", '{"y":"ä"}', '{"x":null,"y":"ä"}'),
        ("Tuple(UInt8, String)", '{"1":5,"2":"x"}', '[5,"x"]'),
        ("Map(LowCardinality(String), Decimal(5, 2))", '{"x":1.25}', '{"x":1.25}'),
        ("Nullable(Float64)", "0.1", "0.1"),
        ("Array(JSON)", '[{"b":[1,"x"]}]', '[{"b":[1,"x"]}]'),
        ("Dynamic", '[1,"x"]', '[1,"x"]'),
    ],
)
def test_lists_and_parts_of_typed_paths_hold_what_fits_them(stored: Stored, kind: str, value: str, held: str) -> None:
    assert stored(f"JSON(at {kind})", f'{{"at":{value}}}') == {"at": json.loads(held)}


@pytest.mark.parametrize("value", ["12345678901234567890.0123456789", '"12345678901234567890.0123456789"'])
def test_digits_of_a_typed_decimal_are_all_kept(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], value: str
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (j JSON(d Decimal(38, 10))) ENGINE = MergeTree ORDER BY tuple()")
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    sink.open()
    sink.write(make_block(pa.table({"j": [f'{{"d":{value}}}']})))
    sink.close()
    assert chdb_engine.rows(f"SELECT toString(j.d) FROM {table}") == [("12345678901234567890.0123456789",)]


def test_a_path_whose_name_begins_as_a_limit_does_is_checked(stored: Stored) -> None:
    with pytest.raises(RowsRejected):
        stored("JSON(max_a UInt8, max_dynamic_paths=8)", '{"max_a":300}')


def test_a_path_whose_values_cannot_be_checked_is_refused_at_the_start(stored: Stored) -> None:
    with pytest.raises(SinkMisconfigured, match=r"column j .*Variant.*cannot be made for a path"):
        stored("JSON(at Variant(UInt8, String))", '{"at":300}')


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ('{"n":1,"n":2}', "duplicate"),
        ('{"n":1,"b":' + '{"b":' * 2000 + "1" + "}" * 2001, "depth"),
        ('{"n":1,', "json"),
        ('{"n":1,"b":NaN}', "json"),
    ],
)
def test_a_document_that_cannot_be_read_costs_its_record_alone(stored: Stored, document: str, reason: str) -> None:
    with pytest.raises(RowsRejected) as raised:
        stored("JSON(n UInt8)", document)
    assert [(one.path, one.reason) for one in raised.value.rejections] == [("j", reason)]


def test_half_a_character_costs_its_record_alone(stored: Stored) -> None:
    with pytest.raises(BlockRejected):
        stored("JSON(n UInt8)", r'{"n":1,"s":"\ud800"}')


def test_a_key_with_dots_is_the_path_of_that_name(stored: Stored) -> None:
    with pytest.raises(RowsRejected):
        stored("JSON(`a.b` Int16)", '{"a.b":"x"}')
    assert stored("JSON(`a.b` Int16)", '{"a.b":5}') == {"a": {"b": 5}}


def test_paths_that_a_column_drops_are_named_at_the_start(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (i UInt32, j JSON(SKIP secret)) ENGINE = MergeTree ORDER BY i")
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    with capture_logs() as logs:
        sink.open()
    sink.close()
    (said,) = [line for line in logs if line["event"] == "json_paths_dropped"]
    assert (said["column"], said["paths"]) == ("j", ["secret"])


def test_paths_that_a_column_drops_are_known() -> None:
    assert skipped("JSON(a UInt8, SKIP x.y, SKIP REGEXP '^q', max_dynamic_paths=8)") == ["x.y", "REGEXP '^q'"]
    assert skipped("JSON") == []
