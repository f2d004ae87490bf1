"""The sink against the real engine, embedded: what arrives, what never changes on the way, what is refused."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.errors import BatcherError, BlockRejected, RowsRejected, SinkMisconfigured, SinkOverwhelmed
from batcher.plugins import PluginContext
from batcher.protocols import Pressured, Reconcilable, Sink, SinkInfo
from batcher.records import HEADERS_TYPE, SORTED, Block, Partition
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import EVENTS_0, make_block
from sinks.clickhouse import plugin
from tests.harness.processes import run_code

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

UUID = "5e89f531-6f55-471d-8c8e-8e4449a3ab51"
IN_WINDOW = "SETTINGS non_replicated_deduplication_window = 100"


class Target:
    """Own one table of the shared engine and a sink open on it."""

    def __init__(self, engine: EmbeddedEngine, name: str, columns: str, tail: str = IN_WINDOW) -> None:
        self.engine = engine
        self.name = name
        engine.execute(f"CREATE TABLE {name} (i UInt32, {columns}) ENGINE = MergeTree ORDER BY i {tail}")
        self.sink: Sink = plugin({"dsn": engine.dsn, "table": name})
        self.info: SinkInfo = self.sink.open()
        assert self.info.schema is not None
        self.schema: pa.Schema = self.info.schema

    def block(self, rows: list[dict[str, Any]], token: str = "token", first_offset: int = 0) -> Block:
        table = pa.Table.from_pylist([{"i": i, **row} for i, row in enumerate(rows)], schema=self.schema)
        return make_block(table, token=token, first_offset=first_offset, coordinates=self.info.coordinates)

    def count(self) -> int:
        return int(self.engine.rows(f"SELECT count() FROM {self.name}")[0][0])

    def values(self, what: str = "toString(c)") -> list[Any]:
        return [row[0] for row in self.engine.rows(f"SELECT {what} FROM {self.name} ORDER BY i")]


@pytest.fixture
def target(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> Iterator[Callable[..., Target]]:
    made: list[Target] = []

    def make(columns: str, tail: str = IN_WINDOW) -> Target:
        made.append(Target(chdb_engine, new_table(), columns, tail))
        return made[-1]

    yield make
    for one in made:
        one.sink.close()


def at(*fields: int) -> dt.datetime:
    return dt.datetime(*fields, tzinfo=dt.UTC)  # type: ignore[misc, arg-type]


ARRIVES: list[tuple[str, list[Any], list[str]]] = [
    ("UInt8", [0, 255], ["0", "255"]),
    ("Int8", [-128, 127], ["-128", "127"]),
    ("UInt64", [0, 2**64 - 1], ["0", "18446744073709551615"]),
    ("Int64", [-(2**63), 2**63 - 1], ["-9223372036854775808", "9223372036854775807"]),
    ("Int128", [Decimal(-5), Decimal(10**38 - 1)], ["-5", str(10**38 - 1)]),
    ("UInt256", [Decimal(0), Decimal(7)], ["0", "7"]),
    ("Float32", [1.5, float("nan"), float("-inf")], ["1.5", "nan", "-inf"]),
    ("Float64", [0.1, 1e300], ["0.1", "1e300"]),
    ("Bool", [True, False], ["true", "false"]),
    ("String", ["", "ä\0b"], ["", "ä\0b"]),
    ("FixedString(3)", ["abc", "ä"], ["abc", "ä"]),
    ("LowCardinality(String)", ["a", "b", "a"], ["a", "b", "a"]),
    ("LowCardinality(Nullable(String))", ["a", None], ["a", "\\N"]),
    ("LowCardinality(FixedString(2))", ["ab", "cd"], ["ab", "cd"]),
    ("Decimal(9, 2)", [Decimal("-9999999.99"), Decimal("0.01")], ["-9999999.99", "0.01"]),
    ("Decimal(38, 10)", [Decimal("1.0000000001")], ["1.0000000001"]),
    ("Decimal(76, 4)", [Decimal("1.2567")], ["1.2567"]),
    ("Date", [dt.date(1970, 1, 1), dt.date(2149, 6, 6)], ["1970-01-01", "2149-06-06"]),
    ("Date32", [dt.date(1900, 1, 1), dt.date(2299, 12, 31)], ["1900-01-01", "2299-12-31"]),
    ("DateTime('UTC')", [at(1970, 1, 1), at(2106, 2, 7, 6, 28, 15)], ["1970-01-01 00:00:00", "2106-02-07 06:28:15"]),
    ("DateTime('Asia/Tokyo')", [at(2026, 1, 1, 12)], ["2026-01-01 21:00:00"]),
    ("DateTime64(3, 'UTC')", [at(1900, 1, 1), at(2299, 12, 31, 23, 59, 59, 999000)],
     ["1900-01-01 00:00:00.000", "2299-12-31 23:59:59.999"]),
    ("DateTime64(1, 'UTC')", [at(2026, 1, 1, 0, 0, 0, 100000)], ["2026-01-01 00:00:00.1"]),
    ("DateTime64(6, 'Asia/Tokyo')", [at(2026, 1, 1, 0, 0, 0, 123456)], ["2026-01-01 09:00:00.123456"]),
    ("DateTime64(9, 'UTC')", [2**63 - 1, -1], ["2262-04-11 23:47:16.854775807", "1969-12-31 23:59:59.999999999"]),
    ("UUID", [UUID, UUID.upper(), UUID.replace("-", "")], [UUID] * 3),
    ("IPv4", ["0.0.0.0", "255.255.255.255", "1.2.3.4"], ["0.0.0.0", "255.255.255.255", "1.2.3.4"]),
    ("IPv6", ["::1", "2001:DB8::1", "1.2.3.4"], ["::1", "2001:db8::1", "::ffff:1.2.3.4"]),
    ("Enum8('a' = -1, 'b\\'c' = 2)", ["b'c", "a"], ["b'c", "a"]),
    ("Enum16('x' = -5, '' = 300)", ["", "x"], ["", "x"]),
    ("Array(Int32)", [[1, 2], [], [3]], ["[1,2]", "[]", "[3]"]),
    ("Array(Nullable(UUID))", [[UUID, None]], [f"['{UUID}',NULL]"]),
    ("Array(Array(String))", [[["a"], []], []], ["[['a'],[]]", "[]"]),
    ("Map(String, Int64)", [[("a", 1), ("b", -2)], []], ["{'a':1,'b':-2}", "{}"]),
    ("Map(LowCardinality(String), Array(IPv4))", [[("a", ["1.2.3.4"])]], ["{'a':['1.2.3.4']}"]),
    ("Map(UUID, Nullable(Enum8('k' = 1)))", [[(UUID, "k")], [(UUID, None)]],
     [f"{{'{UUID}':'k'}}", f"{{'{UUID}':NULL}}"]),
    ("Tuple(a Int32, `b c` Nullable(String))", [{"a": 1, "b c": None}], ["(1,NULL)"]),
    ("Tuple(Int32, IPv6)", [{"1": 1, "2": "::5"}], ["(1,'::5')"]),
    ("Array(Tuple(a Date, b Decimal(9, 1)))", [[{"a": dt.date(2026, 1, 2), "b": Decimal("1.5")}]],
     ["[('2026-01-02',1.5)]"]),
    ("SimpleAggregateFunction(sum, UInt64)", [7], ["7"]),
    ("JSON", ['{"a":{"b":[1,2]},"c":null}', "{}"], ['{"a":{"b":[1,2]}}', "{}"]),
    ("Nullable(UInt8)", [None, 0], ["\\N", "0"]),
    ("Nullable(UUID)", [None, UUID], ["\\N", UUID]),
    ("Nullable(IPv4)", [None, "1.2.3.4"], ["\\N", "1.2.3.4"]),
    ("Nullable(Enum8('a' = 1))", ["a", None], ["a", "\\N"]),
    ("Nullable(DateTime64(3, 'UTC'))", [None, at(2026, 1, 1)], ["\\N", "2026-01-01 00:00:00.000"]),
    ("Nullable(Decimal(9, 2))", [None, Decimal("1.25")], ["\\N", "1.25"]),
]  # fmt: skip


@pytest.mark.parametrize(("type_name", "given_", "expected"), ARRIVES, ids=[case[0] for case in ARRIVES])
def test_what_arrives_is_what_was_sent(
    target: Callable[..., Target], type_name: str, given_: list[Any], expected: list[str]
) -> None:
    table = target(f"c {type_name}")
    table.sink.write(table.block([{"c": value} for value in given_]))
    assert table.values("ifNull(toString(c), '\\\\N')") == expected


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), number=st.integers(0, 5))
def test_a_number_arrives_unchanged_or_is_rejected(
    chdb_engine: EmbeddedEngine, numbers: list[int], number: int
) -> None:
    type_name = ["UInt8", "Int16", "UInt32", "UInt64", "Float32", "Float64"][number]
    chdb_engine.execute(f"CREATE OR REPLACE TABLE numbers (i UInt32, c {type_name}) ENGINE = MergeTree ORDER BY i")
    sink = plugin({"dsn": chdb_engine.dsn, "table": "numbers"})
    sink.open()
    wide = pa.table({"i": pa.array(range(len(numbers)), pa.uint32()), "c": pa.array(numbers, pa.int64())})
    try:
        sink.write(make_block(wide))
    except RowsRejected:
        numbers = []
    finally:
        sink.close()
    assert [int(row[0]) for row in chdb_engine.rows("SELECT toInt64(c) FROM numbers ORDER BY i")] == numbers


DEFAULTS: list[tuple[str, list[Any], list[str]]] = [
    ("UInt8 DEFAULT 9", [None, 0], ["9", "0"]),
    ("UInt32 DEFAULT i + 100", [None, 3], ["100", "3"]),
    ("String DEFAULT 'x'", [None, ""], ["x", ""]),
    ("LowCardinality(String) DEFAULT 'x'", [None, "a"], ["x", "a"]),
    ("FixedString(3) DEFAULT 'abc'", [None, "a"], ["abc", "a"]),
    ("Bool DEFAULT true", [None, False], ["true", "false"]),
    ("Decimal(9, 2) DEFAULT 5", [None, Decimal("1.25")], ["5", "1.25"]),
    ("Int128 DEFAULT 7", [None, Decimal(3)], ["7", "3"]),
    ("Date DEFAULT '2020-01-01'", [None, dt.date(2021, 1, 1)], ["2020-01-01", "2021-01-01"]),
    ("DateTime64(3, 'UTC') DEFAULT '2020-01-01'", [None, at(2021, 1, 1)],
     ["2020-01-01 00:00:00.000", "2021-01-01 00:00:00.000"]),
    ("UUID DEFAULT '5e89f531-6f55-471d-8c8e-8e4449a3ab51'", [None, UUID.replace("5", "6")],
     [UUID, UUID.replace("5", "6")]),
    ("IPv4 DEFAULT '1.1.1.1'", [None, "1.2.3.4"], ["1.1.1.1", "1.2.3.4"]),
    ("IPv6 DEFAULT '::5'", [None, "::6"], ["::5", "::6"]),
    ("Enum8('a' = 1, 'b' = 2) DEFAULT 'b'", [None, "a"], ["b", "a"]),
    ("Array(UInt8) DEFAULT []", [None, [1]], ["[]", "[1]"]),
    ("Map(String, UInt8) DEFAULT map()", [None, [("a", 1)]], ["{}", "{'a':1}"]),
    ("Tuple(a UInt8) DEFAULT tuple(7)", [None, {"a": 1}], ["(7)", "(1)"]),
    ("JSON DEFAULT '{}'", [None, '{"a":1}'], ["{}", '{"a":1}']),
    ("Nullable(UInt8) DEFAULT 9", [None, 3], ["\\N", "3"]),
]  # fmt: skip


@pytest.mark.parametrize(("column", "given_", "expected"), DEFAULTS, ids=[case[0] for case in DEFAULTS])
def test_a_missing_value_becomes_the_default(
    target: Callable[..., Target], column: str, given_: list[Any], expected: list[str]
) -> None:
    table = target(f"c {column}")
    assert table.schema.field("c").nullable
    table.sink.write(table.block([{"c": value} for value in given_]))
    assert table.values("ifNull(toString(c), '\\\\N')") == expected


@pytest.mark.parametrize(
    "type_name", ["UInt8", "String", "Array(UInt8)", "Map(String, UInt8)", "Tuple(a UInt8)", "UUID"]
)
def test_a_null_never_becomes_zero_beside_a_column_with_a_default(
    target: Callable[..., Target], type_name: str
) -> None:
    table = target(f"c {type_name}, d UInt8 DEFAULT 1")
    assert not table.schema.field("c").nullable
    with pytest.raises(RowsRejected):
        table.sink.write(table.block([{"c": None, "d": None}]))
    assert table.count() == 0


@pytest.mark.parametrize("type_name", ["Array(UInt8)", "Map(String, UInt8)"])
def test_a_null_inside_never_becomes_zero_beside_a_column_with_a_default(
    target: Callable[..., Target], type_name: str
) -> None:
    table = target(f"c {type_name}, d UInt8 DEFAULT 1")
    inside = [("a", None)] if "Map" in type_name else [None]
    with pytest.raises(RowsRejected):
        table.sink.write(table.block([{"c": inside}]))
    assert table.count() == 0


def test_an_array_whose_default_is_not_empty_has_to_be_there(target: Callable[..., Target]) -> None:
    table = target("c Array(UInt8) DEFAULT [7], j JSON DEFAULT '{\"k\":1}'")
    assert not table.schema.field("c").nullable
    assert not table.schema.field("j").nullable


def test_the_same_token_twice_is_one_copy(target: Callable[..., Target]) -> None:
    table = target("c UInt8")
    block = table.block([{"c": n} for n in range(100)])
    table.sink.write(block)
    table.sink.write(block)
    table.sink.write(table.block([{"c": 1}], token="other"))
    assert len(table.values()) == 101


def test_tokens_alone_are_not_enough_for_an_engine_that_dies_with_its_process(target: Callable[..., Target]) -> None:
    assert target("c UInt8").info.guarantee == "at-least-once"
    assert target(f"c UInt8, {COORDINATES}").info.guarantee == "exactly-once"


COORDINATES = (
    "_topic LowCardinality(String), _partition UInt16, _offset UInt64, _timestamp DateTime('UTC'), _key String"
)


def test_a_table_without_a_window_is_asked_what_it_has(target: Callable[..., Target]) -> None:
    table = target(f"c UInt8, {COORDINATES}", tail="")
    assert table.info.guarantee == "exactly-once"
    block = table.block([{"c": n} for n in range(5)], first_offset=10)
    table.sink.write(block)
    table.engine.execute(f"DELETE FROM {table.name} WHERE _offset = 12")
    table.sink.write(block)
    assert sorted(table.values("toInt64(_offset)")) == [10, 11, 12, 13, 14]


def test_a_table_that_can_keep_nothing_says_the_cure_and_the_cure_works(
    target: Callable[..., Target], chdb_engine: EmbeddedEngine
) -> None:
    table = target("c UInt8", tail="")
    assert table.info.guarantee == "at-least-once"
    chdb_engine.execute(table.info.reason[table.info.reason.index("ALTER") :])
    assert table.sink.open().guarantee == "exactly-once"


def test_coordinates_are_filled_whatever_integers_hold_them(target: Callable[..., Target]) -> None:
    table = target(f"c UInt8, {COORDINATES}")
    assert table.info.coordinates == ("_topic", "_partition", "_offset", "_timestamp", "_key")
    table.sink.write(table.block([{"c": 1}], first_offset=7))
    row = table.engine.rows(f"SELECT _topic, _partition, _offset, toString(_timestamp), _key FROM {table.name}")
    assert row == [("events", 0, 7, "2023-11-14 22:13:20", "")]


def test_keys_are_bytes(target: Callable[..., Target]) -> None:
    table = target(f"c UInt8, {COORDINATES}")
    block = table.block([{"c": 1}])
    keyed = block.table.set_column(
        block.table.schema.get_field_index("_key"), "_key", pa.array([b"\xff\x00"], pa.binary())
    )
    table.sink.write(Block(keyed, block.positions, "t", block.ranges))
    assert table.values("hex(_key)") == ["FF00"]


HEADERS = pa.array(
    [
        [{"key": "a", "value": b"1"}, {"key": "b", "value": None}, {"key": "a", "value": b"\xff"}],
        None,
        [],
        [{"key": "a", "value": b"2"}],
    ],
    HEADERS_TYPE,
)


@pytest.mark.parametrize(
    ("kind", "shown", "expected"),
    [
        ("Map(String, String)", "hex(_headers['a']), hex(_headers['b'])", [("FF", ""), ("", ""), ("", ""), ("32", "")]),
        (
            "Map(LowCardinality(String), Nullable(String))",
            "hex(_headers['a']), mapKeys(_headers)",
            [("FF", ["b", "a"]), (None, []), (None, []), ("32", ["a"])],
        ),
        (
            "Array(Tuple(String, String))",
            "_headers.1, arrayMap(h -> hex(h.2), _headers)",
            [(["a", "b", "a"], ["31", "", "FF"]), ([], []), ([], []), (["a"], ["32"])],
        ),
        (
            "Array(Tuple(name String, value Nullable(String)))",
            "_headers.value[2]",
            [(None,), (None,), (None,), (None,)],
        ),
    ],
)
def test_headers_are_a_map_in_which_the_last_holds_or_an_array_of_all(
    target: Callable[..., Target], kind: str, shown: str, expected: list[tuple[Any, ...]]
) -> None:
    table = target(f"c UInt8, _headers {kind}")
    assert table.info.coordinates == ("_headers",)
    block = table.block([{"c": number} for number in range(4)])
    filled = block.table.set_column(block.table.schema.get_field_index("_headers"), "_headers", HEADERS)
    table.sink.write(Block(filled, block.positions, "t", block.ranges))
    assert table.engine.rows(f"SELECT {shown} FROM {table.name} ORDER BY c") == expected


def test_a_key_that_the_format_reads_is_a_column_like_any_other(chdb_engine: EmbeddedEngine) -> None:
    columns = "_key Int64, `_key.a` String, _offset Int64"
    chdb_engine.execute(f"CREATE TABLE keyed ({columns}) ENGINE = MergeTree ORDER BY _key")
    context = PluginContext(decoded_coordinates=frozenset({"_key"}))
    sink = plugin({"dsn": chdb_engine.dsn, "table": "keyed"}, context)
    info = sink.open()
    assert info.schema is not None
    assert (info.schema.names, info.coordinates) == (["_key", "_key.a"], ("_offset",))
    data = pa.table({"_key": pa.array([7], pa.int64()), "_key.a": ["x"]})
    sink.write(make_block(data, coordinates=info.coordinates))
    sink.close()
    assert chdb_engine.rows("SELECT _key, `_key.a` FROM keyed") == [(7, "x")]


def test_a_table_of_versions_keeps_exactly_once_under_final_and_names_the_columns_of_its_key(
    chdb_engine: EmbeddedEngine,
) -> None:
    engine = "ReplacingMergeTree(_version, _deleted) ORDER BY (tenant, id)"
    columns = "tenant String, id Int64, name String, _version UInt64, _deleted UInt8"
    chdb_engine.execute(f"CREATE TABLE versions ({columns}) ENGINE = {engine}")
    sink = plugin({"dsn": chdb_engine.dsn, "table": "versions"})
    info = sink.open()
    assert (info.repeats, info.guarantee, info.condition) == ("merge", "exactly-once", "under FINAL")
    assert info.schema is not None
    assert [field.name for field in info.schema if SORTED in (field.metadata or {})] == ["tenant", "id"]
    rows = [("a", 1, "old", 1, 0), ("a", 1, "new", 2, 0), ("a", 2, "x", 3, 0), ("a", 2, "", 4, 1)]
    data = pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=info.schema.names)
    block = make_block(data.cast(info.schema))
    sink.write(block)
    sink.write(block)
    sink.close()
    assert chdb_engine.rows("SELECT tenant, id, name FROM versions FINAL") == [("a", 1, "new")]


def test_a_topic_may_be_any_text(target: Callable[..., Target]) -> None:
    table = target(f"c UInt8, {COORDINATES}")
    assert isinstance(table.sink, Reconcilable)
    hostile = Partition("x' OR 1=1 --", 0)
    data = pa.Table.from_pylist([{"i": 0, "c": 1}], schema=table.schema)
    table.sink.write(make_block(data, partition=hostile, coordinates=table.info.coordinates))
    assert table.sink.present(hostile, 0, 10).to_pylist() == [0]
    assert table.sink.present(EVENTS_0, 0, 10).to_pylist() == []


def test_columns_that_the_table_computes_are_left_to_it(target: Callable[..., Target]) -> None:
    table = target("c UInt8, m UInt8 MATERIALIZED c + 1, a UInt8 ALIAS c + 2, e UInt8 EPHEMERAL 5, d UInt8 DEFAULT e")
    assert table.schema.names == ["i", "c", "e", "d"]
    table.sink.write(table.block([{"c": 1}]))
    assert table.engine.rows(f"SELECT c, m, a, d FROM {table.name}") == [(1, 2, 3, 5)]


def test_parts_of_a_nested_column_are_columns(target: Callable[..., Target]) -> None:
    table = target("n Nested(x UInt8, y String)")
    assert table.schema.names == ["i", "n.x", "n.y"]
    table.sink.write(table.block([{"n.x": [1, 2], "n.y": ["a", "b"]}]))
    assert table.values("toString(n.x)") == ["[1,2]"]


def test_one_block_is_one_part(target: Callable[..., Target]) -> None:
    table = target("c UInt8")
    table.sink.write(table.block([{"c": n % 200} for n in range(70_000)]))
    parts = f"SELECT count() FROM system.parts WHERE active AND table = '{table.name}'"
    assert table.engine.rows(parts) == [(1,)]


def test_a_block_of_two_batches_is_a_bug(target: Callable[..., Target]) -> None:
    table = target("c UInt8")
    block = table.block([{"c": 1}, {"c": 2}])
    halves = pa.concat_tables([block.table.slice(0, 1), block.table.slice(1)])
    with pytest.raises(BatcherError, match="please report") as caught:
        table.sink.write(Block(halves, block.positions, "t", block.ranges))
    assert type(caught.value) is BatcherError
    assert table.count() == 0


def test_a_constraint_rejects_the_block_and_leaves_nothing(target: Callable[..., Target]) -> None:
    secret = "canary-3d90"
    table = target(f"c String, CONSTRAINT other CHECK c != '{secret}'")
    with pytest.raises(BlockRejected) as caught:
        table.sink.write(table.block([{"c": "x"}, {"c": secret}]))
    assert caught.value.reason == "violated_constraint"
    assert table.count() == 0
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in repr(error)
        error = error.__cause__ or error.__context__


def test_a_view_that_throws_halts_because_the_rows_are_stored(target: Callable[..., Target]) -> None:
    table = target("c UInt8")
    view = f"CREATE MATERIALIZED VIEW {table.name}_v ENGINE = MergeTree ORDER BY c AS"
    table.engine.execute(f"{view} SELECT toUInt8(toString(c) || 'x') AS c FROM {table.name}")
    with pytest.raises(SinkMisconfigured, match="views"):
        table.sink.write(table.block([{"c": 1}]))
    table.engine.execute(f"DROP TABLE {table.name}_v")


def test_a_dropped_table_halts(target: Callable[..., Target]) -> None:
    table = target("c UInt8")
    table.engine.execute(f"DROP TABLE {table.name} SYNC")
    with pytest.raises(SinkMisconfigured, match="60"):
        table.sink.write(table.block([{"c": 1}]))


def test_too_many_partitions_in_one_block_halt(target: Callable[..., Target]) -> None:
    table = target("c UInt8", tail="PARTITION BY c")
    with pytest.raises(SinkMisconfigured, match="max_partitions_per_insert_block"):
        table.sink.write(table.block([{"c": n} for n in range(150)]))


@pytest.mark.parametrize("name", ["a b", "a.b", "`q", "x; DROP TABLE victim", 'd"q', "back\\slash", "ünï"])
def test_any_name_of_table_and_column_is_taken_literally(chdb_engine: EmbeddedEngine, name: str) -> None:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    chdb_engine.execute(
        f"CREATE OR REPLACE TABLE default.`{escaped}` (`{escaped}` UInt8) ENGINE = MergeTree ORDER BY ()"
    )
    sink = plugin({"dsn": chdb_engine.dsn, "table": f"default.{name}"})
    info = sink.open()
    sink.write(make_block(pa.table({name: pa.array([5], pa.uint8())})))
    sink.close()
    assert info.schema is not None
    assert info.schema.names == [name]
    assert chdb_engine.rows(f"SELECT `{escaped}` FROM default.`{escaped}`") == [(5,)]


@pytest.mark.parametrize(
    "name",
    [
        "default.victim SELECT 666 --",
        "victim SELECT 666 --",
        "default.victim` SELECT 666 --",
        "`default`.`victim` (c) SELECT 666 --",
        "default.victim\\` SELECT 666 --",
    ],
)
def test_a_hostile_table_name_reaches_no_other_table(chdb_engine: EmbeddedEngine, name: str) -> None:
    chdb_engine.execute("CREATE TABLE IF NOT EXISTS default.victim (c UInt16) ENGINE = MergeTree ORDER BY c")
    sink = plugin({"dsn": chdb_engine.dsn, "table": name})
    with pytest.raises(SinkMisconfigured):
        sink.open()
    assert chdb_engine.rows("SELECT * FROM default.victim") == []


def test_a_missing_table_and_database_are_said(chdb_engine: EmbeddedEngine) -> None:
    for table in ("no_such_table", "no_such_database.t"):
        sink = plugin({"dsn": chdb_engine.dsn, "table": table})
        with pytest.raises(SinkMisconfigured, match="has no table"):
            sink.open()


def test_an_engine_that_forgets_is_refused(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> None:
    name = new_table()
    chdb_engine.execute(f"CREATE TABLE {name} (c UInt8) ENGINE = Buffer('', '', 1, 1, 1, 1, 1, 1, 1)")
    with pytest.raises(SinkMisconfigured, match="Buffer"):
        plugin({"dsn": chdb_engine.dsn, "table": name}).open()


def test_another_path_in_the_same_process_is_refused(chdb_engine: EmbeddedEngine, tmp_path: Path) -> None:
    with pytest.raises(SinkMisconfigured, match="another path"):
        plugin({"dsn": f"chdb://{tmp_path}", "table": "t"}).open()


def opened_elsewhere(path: Path) -> str:
    code = f"import sinks.clickhouse as c; c.plugin({{'dsn': 'chdb://{path}', 'table': 't'}}).open()"
    return run_code(code).stderr.strip().splitlines()[-1]


def test_a_path_that_another_process_has_is_refused(chdb_engine: EmbeddedEngine) -> None:
    line = opened_elsewhere(chdb_engine.path)
    assert line.startswith("batcher.errors.SinkMisconfigured")
    assert "another process has it" in line


def test_a_file_where_the_directory_should_be_is_refused(chdb_engine: EmbeddedEngine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = opened_elsewhere(tmp_path / "file")
    assert line.startswith("batcher.errors.SinkMisconfigured")
    assert "is a file" in line


def test_blocks_on_their_way_to_the_engine_are_readable_by_nobody_else(
    target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    original = tempfile.NamedTemporaryFile

    def spy(*arguments: Any, **options: Any) -> Any:
        file = original(*arguments, **options)
        modes.append(Path(file.name).stat().st_mode & 0o777)
        return file

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", spy)
    before = os.umask(0)
    try:
        table = target("c UInt8")
        table.sink.write(table.block([{"c": 1}]))
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_the_pressure_is_the_share_of_the_parts_from_which_the_server_delays_inserts(
    chdb_engine: EmbeddedEngine, target: Callable[..., Target]
) -> None:
    table = target("c UInt8", "SETTINGS parts_to_delay_insert = 8, parts_to_throw_insert = 6")
    assert isinstance(table.sink, Pressured)
    assert table.sink.pressure() == 0.0
    chdb_engine.execute(f"SYSTEM STOP MERGES {table.name}")

    for number in range(6):
        table.sink.write(table.block([{"c": number}], token=f"{number}", first_offset=number))

    assert table.sink.pressure() == 6 / 8
    with pytest.raises(SinkOverwhelmed):
        table.sink.write(table.block([{"c": 6}], token="6", first_offset=6))
