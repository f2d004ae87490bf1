"""What a table is called, what it is made of, and what its coordinates hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import BlockRejected, RowsRejected, SinkMisconfigured
from batcher.records import COLUMN_TYPE
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.clickhouse import plugin
from sinks.clickhouse.options import ClickHouseOptions

pytest_plugins = ["batcher.testing.clickhouse_plugin"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("t", (None, "t")),
        ("d.t", ("d", "t")),
        ("my-db.new-table", ("my-db", "new-table")),
        ("`ev.v1`", (None, "ev.v1")),
        ("`ev.v1`.`new-t`", ("ev.v1", "new-t")),
        ("d.`ev.v1`", ("d", "ev.v1")),
        ("`ev.v1`.t", ("ev.v1", "t")),
        ("`a``b`", (None, "a`b")),
    ],
)
def test_a_table_is_named_as_in_a_statement(name: str, found: tuple[str | None, str]) -> None:
    options = ClickHouseOptions.parse({"dsn": "http://h", "table": name})
    assert (options.database, options.table) == found


def test_a_database_and_a_table_with_dashes_and_dots_are_written_to(chdb_engine: EmbeddedEngine) -> None:
    chdb_engine.execute("CREATE DATABASE `my-db`")
    chdb_engine.execute("CREATE TABLE `my-db`.`ev.v1-new` (i UInt32) ENGINE = MergeTree ORDER BY i")
    sink = plugin({"dsn": chdb_engine.dsn, "table": "`my-db`.`ev.v1-new`"})
    sink.open()
    sink.write(make_block(pa.table({"i": pa.array([7], pa.uint32())})))
    sink.close()
    assert chdb_engine.rows("SELECT i FROM `my-db`.`ev.v1-new`") == [(7,)]


def test_a_table_that_is_not_there_is_looked_for_by_name(chdb_engine: EmbeddedEngine) -> None:
    chdb_engine.execute("CREATE TABLE near_orders (i UInt32) ENGINE = MergeTree ORDER BY i")
    sink = plugin({"dsn": chdb_engine.dsn, "table": "near_order"})
    with pytest.raises(SinkMisconfigured, match=r"database default has no table near_order.*there is near_orders"):
        sink.open()


@pytest.mark.parametrize(
    ("statement", "engine"),
    [
        ("CREATE VIEW {} AS SELECT 1 AS i", "View"),
        ("CREATE TABLE {} (i UInt32) ENGINE = Merge(currentDatabase(), 'nothing')", "Merge"),
        ("CREATE TABLE {} (i UInt32) ENGINE = Memory", "Memory"),
        ("CREATE TABLE {} (i UInt32) ENGINE = Null", "Null"),
        ("CREATE MATERIALIZED VIEW {} (i UInt8) ENGINE = MergeTree ORDER BY i AS SELECT 1 AS i", "MaterializedView"),
        (
            "CREATE DICTIONARY {} (i UInt64, v String) PRIMARY KEY i SOURCE(NULL()) LAYOUT(FLAT()) LIFETIME(0)",
            "Dictionary",
        ),
    ],
)
def test_what_keeps_no_rows_is_refused_at_the_start_by_its_engine(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], statement: str, engine: str
) -> None:
    table = new_table()
    chdb_engine.execute(statement.format(table))
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    with pytest.raises(SinkMisconfigured, match=f"engine {engine} "):
        sink.open()


def test_a_table_in_memory_is_taken_where_that_is_said(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (i UInt32) ENGINE = Memory")
    sink = plugin({"dsn": chdb_engine.dsn, "table": table, "allow_memory": True})
    assert sink.open().guarantee == "at-least-once"
    sink.close()


def test_a_table_of_a_database_in_memory_is_refused_unless_that_is_said(chdb_engine: EmbeddedEngine) -> None:
    chdb_engine.execute("CREATE DATABASE forgetful ENGINE = Memory")
    chdb_engine.execute("CREATE TABLE forgetful.t (i UInt32) ENGINE = MergeTree ORDER BY i")
    options = {"dsn": chdb_engine.dsn, "table": "forgetful.t"}
    with pytest.raises(SinkMisconfigured, match="the database's engine Memory"):
        plugin(options).open()
    sink = plugin(options | {"allow_memory": True})
    sink.open()
    sink.close()


def written(engine: EmbeddedEngine, table: str, rows: list[dict[str, Any]], **columns: Any) -> None:
    sink = plugin({"dsn": engine.dsn, "table": table})
    info = sink.open()
    try:
        block = make_block(pa.Table.from_pylist(rows, schema=info.schema), coordinates=info.coordinates)
        data = block.table
        for name, values in columns.items():
            place = data.schema.get_field_index(name)
            data = data.set_column(place, data.field(place), pa.array(values, data.field(place).type))
        sink.write(type(block)(data.combine_chunks(), block.positions, block.token, block.ranges))
    finally:
        sink.close()


@pytest.mark.parametrize(
    ("kind", "times", "held"),
    [
        ("DateTime", [-5, 0, 2**33 * 1000], ["1970-01-01 00:00:00", "1970-01-01 00:00:00", "2106-02-07 06:28:15"]),
        ("Nullable(DateTime)", [-5, 1000, 2**33 * 1000], [None, "1970-01-01 00:00:01", None]),
        ("DateTime", [-(2**63), 1500], ["1970-01-01 00:00:00", "1970-01-01 00:00:01"]),
        ("Nullable(DateTime)", [2**32 * 1000 - 1, 2**32 * 1000], ["2106-02-07 06:28:15", None]),
        ("DateTime64(0)", [-(2**63), 2**63 - 1], ["1900-01-01 00:00:00", "2299-12-31 23:59:59"]),
        ("DateTime64(1)", [-5, 10**15], ["1969-12-31 23:59:59.9", "2299-12-31 23:59:59.9"]),
        ("DateTime64(2)", [-5, 10**15], ["1969-12-31 23:59:59.99", "2299-12-31 23:59:59.99"]),
        ("DateTime64(3)", [-5, 10**15], ["1969-12-31 23:59:59.995", "2299-12-31 23:59:59.999"]),
        ("Nullable(DateTime64(9))", [-5, 10**14], ["1969-12-31 23:59:59.995000000", None]),
        ("UInt64", [-5, 7], ["0", "7"]),
        ("Nullable(UInt64)", [-5, 7], [None, "7"]),
        ("Int64", [-5, 10**15], ["-5", str(10**15)]),
    ],
)
def test_a_record_is_not_lost_for_a_time_that_the_column_cannot_hold(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], kind: str, times: list[int], held: list[str | None]
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (i UInt32, _timestamp {kind}) ENGINE = MergeTree ORDER BY i")
    written(chdb_engine, table, [{"i": i} for i in range(len(times))], _timestamp=times)
    found = chdb_engine.rows(f"SELECT toString(_timestamp) FROM {table} ORDER BY i")
    assert [None if value in (None, "\\N") else value for (value,) in found] == held


@pytest.mark.parametrize("digits", range(3, 10))
def test_the_time_of_a_record_keeps_its_milliseconds_where_the_column_has_room_for_them(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], digits: int
) -> None:
    table = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {table} (i UInt32, _timestamp DateTime64({digits})) ENGINE = MergeTree ORDER BY i"
    )
    written(chdb_engine, table, [{"i": 0}, {"i": 1}], _timestamp=[1_700_000_000_123, -123])
    assert chdb_engine.rows(f"SELECT toUnixTimestamp64Milli(_timestamp) FROM {table} ORDER BY i") == [
        (1_700_000_000_123,),
        (-123,),
    ]


@pytest.mark.parametrize(("kind", "held"), [("String", '{"b": 2,"a":1}'), ("JSON", '{"a":1,"b":2}')])
def test_the_whole_message_goes_into_a_column_value(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], kind: str, held: str
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (i UInt32, _value {kind}) ENGINE = MergeTree ORDER BY i")
    written(chdb_engine, table, [{"i": 1}], _value=[b'{"b": 2,"a":1}'])
    assert chdb_engine.rows(f"SELECT toString(_value) FROM {table}") == [(held,)]


def test_an_ephemeral_column_is_filled_for_the_columns_that_are_made_of_it(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {table} (i UInt32, raw String EPHEMERAL 'none', n UInt32 DEFAULT length(raw)) "
        "ENGINE = MergeTree ORDER BY i"
    )
    written(chdb_engine, table, [{"i": 1, "raw": "abc"}, {"i": 2}])
    written(chdb_engine, table, [{"i": 3}])
    assert chdb_engine.rows(f"SELECT i, n FROM {table} ORDER BY i") == [(1, 3), (2, 4), (3, 4)]


def test_lists_of_a_nested_that_differ_in_length_are_one_record_s_fault(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (i UInt32, n Nested(a String, b String)) ENGINE = MergeTree ORDER BY i")
    good = {"n.a": ["x"], "n.b": ["y"]}
    with pytest.raises(RowsRejected) as raised:
        written(chdb_engine, table, [{"i": 1, **good}, {"i": 2, "n.a": ["x", "xx"], "n.b": ["y"]}])
    (rejection,) = raised.value.rejections
    assert (rejection.position, rejection.reason) == (1, "length")
    assert rejection.message == "n.b: has another number of items than n.a"


def test_a_row_for_which_a_default_fails_is_suspected_alone(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {table} (i UInt32, n UInt32, d UInt32 DEFAULT intDiv(100, n)) ENGINE = MergeTree ORDER BY i"
    )
    with pytest.raises(BlockRejected, match="153") as raised:
        written(chdb_engine, table, [{"i": 1, "n": 5}, {"i": 2, "n": 0}])
    assert raised.value.suspect
    assert chdb_engine.rows(f"SELECT count() FROM {table}") == [(0,)]


@pytest.mark.parametrize(
    "expression",
    ["toUInt8(s)", "toDecimal32(s, 2)", "intDiv(6, length(s))", "throwIf(s = '')", "CAST(s AS Enum8('42' = 1))"],
)
@pytest.mark.parametrize("kind", ["DEFAULT", "MATERIALIZED"])
def test_a_row_for_which_an_expression_fails_is_looked_for(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], kind: str, expression: str
) -> None:
    table = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {table} (i UInt32, s String, d String {kind} toString({expression})) "
        "ENGINE = MergeTree ORDER BY i"
    )
    with pytest.raises(BlockRejected):
        written(chdb_engine, table, [{"i": 1, "s": "42"}, {"i": 2, "s": ""}])
    assert chdb_engine.rows(f"SELECT count() FROM {table}") == [(0,)]


def test_columns_say_what_clickhouse_calls_their_types(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(
        f"CREATE TABLE {table} (i UInt32, t Tuple(at DateTime, n Nullable(UInt8))) ENGINE = MergeTree ORDER BY i"
    )
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    schema = sink.open().schema
    sink.close()
    assert schema is not None
    assert schema.field("i").metadata[COLUMN_TYPE] == b"UInt32"
    assert schema.field("t").type.field("at").metadata[COLUMN_TYPE] == b"DateTime"
    assert schema.field("t").type.field("n").metadata[COLUMN_TYPE] == b"Nullable(UInt8)"
