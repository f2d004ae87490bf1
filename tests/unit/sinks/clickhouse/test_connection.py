"""A connection that breaks between two questions: what it leaves behind, and what it is not taken for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, Error, OperationalError

from batcher.errors import SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.clickhouse import connection, plugin
from sinks.clickhouse import sink as sink_module

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

RESET = OperationalError("reset")
LOCKED_OUT = DatabaseError("no", code=516)


class Wire:
    """Stand before a client: some questions, by number or by text, and perhaps inserts, end in an error."""

    def __init__(self, client: Any, *, breaks_at: int = 0, breaks_for: str = "", refuses: Error | None = None) -> None:
        self.client = client
        self.breaks_at, self.breaks_for, self.refuses = breaks_at, breaks_for, refuses
        self.asked = 0
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def query(self, query: str, **options: Any) -> Any:
        self.asked += 1
        if self.asked == self.breaks_at or (self.breaks_for and self.breaks_for in query):
            raise RESET
        return self.client.query(query, **options)

    def insert_arrow(self, *arguments: Any, **options: Any) -> Any:
        if self.refuses is not None:
            raise self.refuses
        return self.client.insert_arrow(*arguments, **options)

    def close(self) -> None:
        self.closed = True
        self.client.close()


@pytest.fixture
def table(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> str:
    name = new_table()
    chdb_engine.execute(f"CREATE TABLE {name} (i UInt32, t Array(String) DEFAULT []) ENGINE = MergeTree ORDER BY i")
    return name


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Wire]]:
    """Return what sets how the next connections are, and gives the list of them."""
    connect = connection.connected

    def make(**breaks: Any) -> list[Wire]:
        made: list[Wire] = []

        def connected(options: Any) -> Any:
            made.append(Wire(connect(options), **breaks))
            return made[-1]

        monkeypatch.setattr(sink_module, "connected", connected)
        return made

    return make


def test_a_default_that_cannot_be_asked_for_now_is_not_taken_for_a_value_that_every_record_needs(
    chdb_engine: EmbeddedEngine, table: str, wires: Callable[..., list[Wire]]
) -> None:
    made = wires(breaks_for="SELECT empty(")
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    with pytest.raises(Unreachable, match="does not answer"):
        sink.open()
    assert [wire.closed for wire in made] == [True]


def test_a_new_password_is_tried_again_wherever_the_connection_breaks_and_nothing_stays_open(
    chdb_engine: EmbeddedEngine, table: str, wires: Callable[..., list[Wire]]
) -> None:
    ever = wires(refuses=LOCKED_OUT)
    sink = plugin({"dsn": chdb_engine.dsn, "table": table, "password": lambda: ""})
    sink.open()
    columns = pa.schema({"i": pa.uint32(), "t": pa.list_(pa.string())})
    block = make_block(pa.table({"i": [1], "t": [["a"]]}, columns))
    with pytest.raises(SinkMisconfigured, match="516"):
        sink.write(block)
    written = False
    while not written:
        made = wires(breaks_at=len(ever))
        try:
            sink.write(block)
            written = True
        except SinkUnavailable:
            pass
        ever += made
        assert sum(not wire.closed for wire in ever) == 1
    sink.close()
    assert all(wire.closed for wire in ever)
    assert chdb_engine.rows(f"SELECT i, t FROM {table}") == [(1, ["a"])]
