"""A table that is altered while it is written to: values are never bent, and new columns are used at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.errors import RowsRejected, SchemaChanged, SinkMisconfigured, SinkUnavailable
from batcher.protocols import Sink
from batcher.records import RAW_JSON
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.clickhouse import plugin
from sinks.clickhouse.addition import widens as can_be_widened
from sinks.clickhouse.addition import with_columns
from sinks.clickhouse.catalog import Catalog, Version
from sinks.clickhouse.guarantee import Storage
from sinks.clickhouse.schema import Described
from sinks.clickhouse.sink import ClickHouseSink
from sinks.clickhouse.watch import TableWatch

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

COORDINATES = "_topic String, _partition Int32, _offset Int64"


class Altered:
    """Own a table with a column `c`, and a sink open on it."""

    def __init__(self, engine: EmbeddedEngine, name: str, kind: str) -> None:
        self.engine, self.name = engine, name
        engine.execute(f"CREATE TABLE {name} (i UInt32, c {kind}, {COORDINATES}) ENGINE = MergeTree ORDER BY i")
        self.sink: Sink = plugin({"dsn": engine.dsn, "table": name})
        info = self.sink.open()
        assert info.schema is not None
        self.schema: pa.Schema = info.schema
        self.written = 0

    def alter(self, what: str) -> None:
        self.engine.execute(f"ALTER TABLE {self.name} {what}")

    def write(self, *values: Any) -> None:
        rows = [{"i": i, "c": value} for i, value in enumerate(values)]
        table = pa.Table.from_pylist(rows, schema=self.schema)
        block = make_block(
            table,
            token=f"{self.name}{self.written}",
            first_offset=self.written,
            coordinates=("_topic", "_partition", "_offset"),
        )
        self.sink.write(block)
        self.written += len(values)

    def values(self, column: str = "c") -> list[Any]:
        return [row[0] for row in self.engine.rows(f"SELECT toString({column}) FROM {self.name} ORDER BY _offset")]


@pytest.fixture
def altered(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> Iterator[Callable[[str], Altered]]:
    made: list[Altered] = []

    def make(kind: str) -> Altered:
        made.append(Altered(chdb_engine, new_table(), kind))
        return made[-1]

    yield make
    for one in made:
        one.sink.close()


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("UInt16", 300, "UInt8"),
        ("Float64", 1.5, "Int32"),
        ("DateTime64(3)", 1_700_000_000_123, "DateTime"),
        ("Decimal(10, 4)", Decimal("1.2345"), "Decimal(10, 2)"),
        ("String", "12", "Int32"),
        ("Int32", 5, "Nullable(Int32)"),
        ("UInt8", 5, "UInt64"),
    ],
)
def test_another_type_is_noticed_before_anything_is_written(
    altered: Callable[[str], Altered], before: str, value: Any, after: str
) -> None:
    table = altered(before)
    table.alter(f"MODIFY COLUMN c {after}")
    with pytest.raises(SchemaChanged, match="its columns were altered: c is another type") as raised:
        table.write(value)
    assert table.values() == []
    fresh = plugin({"dsn": table.engine.dsn, "table": table.name})
    info = fresh.open()
    fresh.close()
    assert info.schema is not None
    assert raised.value.schema.equals(info.schema, check_metadata=True)


@pytest.mark.parametrize(
    ("before", "after", "taken", "refused"),
    [
        ("String", "FixedString(2)", "ab", "word"),
        ("Enum8('a' = 1, 'b' = 2)", "Enum8('a' = 7, 'c' = 3)", "a", "b"),
        ("DateTime64(6)", "DateTime64(5)", 1_700_000_000_000_010, 1_700_000_000_000_001),
    ],
)
def test_what_is_decoded_alike_is_checked_against_the_new_type(
    altered: Callable[[str], Altered], before: str, after: str, taken: Any, refused: Any
) -> None:
    table = altered(before)
    table.alter(f"MODIFY COLUMN c {after}")
    with pytest.raises(SchemaChanged) as raised:
        table.write(taken)
    table.schema = raised.value.schema
    with pytest.raises(RowsRejected):
        table.write(refused)
    table.write(taken)
    assert len(table.values()) == 1


def test_what_the_new_type_takes_is_written_with_it(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt16")
    table.write(300)
    table.alter("MODIFY COLUMN c UInt64")
    with pytest.raises(SchemaChanged) as raised:
        table.write(2)
    table.schema = raised.value.schema
    table.write(2**40)
    assert table.values() == ["300", str(2**40)]


def test_a_new_column_is_filled_from_the_next_block_on(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt16")
    table.write(1)
    table.alter("ADD COLUMN d Nullable(String)")
    with pytest.raises(SchemaChanged, match="d is new") as raised:
        table.write(2)
    assert raised.value.schema.names == ["i", "c", "d"]
    table.schema = raised.value.schema
    table.write(2)
    assert table.values() == ["1", "2"]


def test_a_column_that_is_gone_is_named(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt16")
    table.alter("DROP COLUMN c")
    with pytest.raises(SchemaChanged, match="c is gone"):
        table.write(1)


def test_what_changes_nothing_for_a_block_interrupts_nothing(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt16")
    table.alter("MODIFY SETTING non_replicated_deduplication_window = 100")
    table.alter("ADD COLUMN m UInt16 MATERIALIZED c + 1")
    with pytest.raises(SinkMisconfigured, match="cannot keep any more"):
        # It asks no longer at every repeat, because it remembers tokens now: that is another promise.
        table.write(1)
    table.alter("MODIFY SETTING non_replicated_deduplication_window = 0")
    table.write(1)
    assert table.values("m") == ["2"]


@pytest.mark.parametrize("what", ["DROP COLUMN _offset", "RENAME COLUMN _offset TO place"])
def test_a_table_that_cannot_keep_the_promise_any_more_stops_the_writing(
    altered: Callable[[str], Altered], what: str
) -> None:
    table = altered("UInt16")
    table.alter(what)
    with pytest.raises(SinkMisconfigured, match="cannot keep any more what this run began with"):
        table.write(1)
    # And again, until somebody has looked.
    with pytest.raises(SinkMisconfigured, match="cannot keep any more"):
        table.write(1)


def test_an_alteration_that_an_insert_may_have_met_is_said(
    altered: Callable[[str], Altered], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = altered("UInt16")
    table.write(1)
    monkeypatch.setattr(TableWatch, "overtaken", lambda self, version: self._ranges)
    table.alter("MODIFY COLUMN c UInt32")
    with capture_logs() as logs, pytest.raises(SchemaChanged):
        table.write(2)
    (said,) = [line for line in logs if line["event"] == "table_altered_during_insert"]
    assert said["ranges"] == ["events[0] 0-0"]


class _Catalog:
    def __init__(self, *versions: Version | None) -> None:
        self.versions = list(versions)

    def version(self, database: str, name: str) -> Version | None:
        return self.versions.pop(0)


@pytest.mark.parametrize(("changed_s", "overtaken"), [(999, False), (1000, True), (1003, True), (1009, False)])
def test_an_alteration_belongs_to_an_insert_by_the_clock_of_the_server(changed_s: int, *, overtaken: bool) -> None:
    now = [50.0]
    later = Version("b", changed_s, 1010)
    watch = TableWatch(_Catalog(Version("a", 0, 1000), later), "d", "t", clock=lambda: now[0])  # type: ignore[arg-type]
    watch.began(make_block(pa.table({"i": [1]})).ranges)
    now[0] = 53.0
    watch.ended()
    now[0] = 60.0
    assert watch.changed() == later
    assert bool(watch.overtaken(later)) == overtaken


def test_a_table_that_is_gone_is_left_to_the_insert_to_say(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt16")
    table.engine.execute(f"DROP TABLE {table.name}")
    with pytest.raises(SinkMisconfigured, match="create the table"):
        table.write(1)


def evolved(table: Altered, *fields: pa.Field) -> pa.Schema:
    assert isinstance(table.sink, ClickHouseSink)
    return table.sink.evolve(None, fields)


FIELDS = [
    (pa.field("f", pa.int64()), "Nullable(Int64)"),
    (pa.field("f", pa.float64()), "Nullable(Float64)"),
    (pa.field("f", pa.bool_()), "Nullable(Bool)"),
    (pa.field("f", pa.string()), "Nullable(String)"),
    (pa.field("f", pa.timestamp("us", "UTC")), "Nullable(DateTime64(6, 'UTC'))"),
    (pa.field("f", pa.decimal128(9, 2)), "Nullable(Decimal(9, 2))"),
    (pa.field("f", pa.list_(pa.int64())), "Array(Nullable(Int64))"),
    (pa.field("f", pa.map_(pa.string(), pa.int64())), "Map(String, Nullable(Int64))"),
    (pa.field("f", pa.struct([("x", pa.int64())])), "JSON"),
    (pa.field("f", pa.int64(), nullable=False), "Nullable(Int64)"),
]


@pytest.mark.parametrize(("field", "kind"), FIELDS, ids=str)
def test_a_field_becomes_a_column_that_older_rows_need_not_have(
    altered: Callable[[str], Altered], field: pa.Field, kind: str
) -> None:
    table = altered("UInt8")
    table.write(1)
    schema = evolved(table, field)
    assert schema.field("f").nullable
    named = f"SELECT type FROM system.columns WHERE table = '{table.name}' AND name = 'f'"
    assert [row[0] for row in table.engine.rows(named)] == [kind]
    assert len(table.values("f")) == 1
    table.write(2)  # a block that was made before
    assert len(table.values("f")) == 2


def test_columns_that_are_added_by_itself_are_no_change_to_be_told_of(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt8")
    with capture_logs() as logged:
        table.write(1)
        schema = evolved(table, pa.field("f", pa.string()), pa.field("g", pa.int64()))
        table.write(2)
        table.schema = schema
        table.write(3)
    assert table.values() == ["1", "2", "3"]
    assert logged == []


def test_another_change_beside_the_columns_of_its_own_is_told(altered: Callable[[str], Altered]) -> None:
    table = altered("UInt16")
    table.alter("MODIFY COLUMN c UInt8")
    evolved(table, pa.field("f", pa.string()))
    with pytest.raises(SchemaChanged, match="c is another type"):
        table.write(300)


@pytest.mark.parametrize(
    "field",
    [
        pa.field("c", pa.string()),
        pa.field("mixed", pa.string(), metadata={RAW_JSON: b"1"}),
        pa.field("empty", pa.list_(pa.null())),
        pa.field("later", pa.duration("s")),
        pa.field("alias", pa.int64()),
    ],
    ids=lambda field: field.name,
)
def test_what_is_there_or_cannot_be_held_is_left_as_it_is(altered: Callable[[str], Altered], field: pa.Field) -> None:
    table = altered("UInt8")
    table.alter("ADD COLUMN alias UInt8 ALIAS c")
    assert evolved(table, field).equals(table.schema)
    table.write(1)


def test_a_missing_right_names_the_grant(altered: Callable[[str], Altered], monkeypatch: pytest.MonkeyPatch) -> None:
    table = altered("UInt8")
    monkeypatch.setattr(Catalog, "granted", lambda _, right: not right.startswith("ALTER"))
    with pytest.raises(SinkMisconfigured, match=r"GRANT ALTER ADD COLUMN ON `default`\.`.*` to it"):
        evolved(table, pa.field("f", pa.string()))
    # Nothing is asked where nothing is missing.
    assert evolved(table, pa.field("c", pa.int64())).equals(table.schema)


class Client:
    """Stand in for a server whose tables are replicated: chDB has no Keeper."""

    def __init__(self, *settings: str, late: bool = False) -> None:
        self.server_settings = dict.fromkeys(settings)
        self.late = late
        self.commands: list[tuple[str, dict[str, str]]] = []

    def command(self, statement: str, settings: dict[str, str]) -> None:
        self.commands.append((statement, settings))


@pytest.mark.parametrize(
    ("engine", "settings", "sent"),
    [
        ("MergeTree", ("alter_sync",), {}),
        ("ReplicatedReplacingMergeTree", ("alter_sync",), {"alter_sync": "2"}),
        ("ReplicatedMergeTree", (), {"replication_alter_partitions_sync": "2"}),
        ("SharedMergeTree", ("alter_sync",), {"alter_sync": "2"}),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_replicas_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, engine: str, settings: tuple[str, ...], sent: dict[str, str], late: bool
) -> None:
    client: Any = Client(*settings)

    class Servers:
        def __init__(self, client: Any) -> None:
            self.client = client

        def granted(self, right: str) -> bool:
            return True

        def columns(self, table: Storage) -> list[Described]:
            added = client.commands and not late
            return [Described("c", "UInt8"), *([Described("f", "Nullable(String)")] if added else [])]

    monkeypatch.setattr("sinks.clickhouse.addition.Catalog", Servers)
    table = Storage("db", "t", engine, engine, "c", {})
    fields = [pa.field("f", pa.string()), pa.field("we`ird", pa.duration("s"))]
    if late:
        with pytest.raises(SinkUnavailable, match="do not show yet"):
            with_columns(client, table, fields, "t")
    else:
        assert with_columns(client, table, fields, "t").decoded.names == ["c", "f"]
    assert client.commands == [("ALTER TABLE `db`.`t` ADD COLUMN IF NOT EXISTS `f` Nullable(String)", sent)]


@pytest.mark.parametrize(
    ("engine", "widens"), [("Distributed('c', 'd', 't')", False), ("Log", False), ("MergeTree ORDER BY i", True)]
)
def test_only_tables_that_keep_their_rows_are_given_columns(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str], engine: str, widens: bool
) -> None:
    if engine.startswith("Distributed"):
        assert not can_be_widened(Storage("d", "t", "Distributed", engine, "", {}))
        return
    name = new_table()
    chdb_engine.execute(f"CREATE TABLE {name} (i UInt32) ENGINE = {engine}")
    sink = plugin({"dsn": chdb_engine.dsn, "table": name})
    assert ("evolve" in sink.open().capabilities) is widens
    sink.close()
