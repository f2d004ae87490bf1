"""The ClickHouse sink through the real clickhouse-connect over real HTTP, against the engine behind the test server."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import BatcherError, BlockRejected, RowsRejected, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import Reconcilable, Sink
from batcher.records import Block
from batcher.testing.clickhouse import ClickHouseServer, embedded_engine_missing
from batcher.testing.values import EVENTS_0, make_block
from sinks.clickhouse import plugin
from sinks.clickhouse.catalog import Catalog
from sinks.clickhouse.options import PINNED_SETTINGS

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

SECRET = "canary-5b1e"
COLUMNS = "id UInt64, v LowCardinality(String), u Nullable(UUID)"
COORDINATES = "_topic String, _partition Int32, _offset Int64"


class Loader:
    """Own a table on the server and a sink open on it."""

    def __init__(
        self, server: ClickHouseServer, name: str, *, window: int = 100, columns: str = COLUMNS, timeout_s: float = 60
    ) -> None:
        self.server = server
        self.name = name
        server.query(
            f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree ORDER BY id "
            f"SETTINGS non_replicated_deduplication_window = {window}"
        )
        self.sink: Sink = plugin({"dsn": server.dsn, "table": name, "insert_timeout_s": timeout_s})
        self.info = self.sink.open()

    def block(self, rows: int = 100, token: str = "") -> Block:
        table = pa.table(
            {"id": pa.array(range(rows), pa.uint64()), "v": ["x"] * rows, "u": pa.nulls(rows, pa.string())}
        )
        return make_block(table, token=token or self.name, coordinates=self.info.coordinates)

    @property
    def count(self) -> int:
        return int(self.server.query(f"SELECT count() FROM {self.name}")[0][0])


@pytest.fixture
def loader(clickhouse_server: ClickHouseServer, new_table: Callable[[], str]) -> Iterator[Callable[..., Loader]]:
    made: list[Loader] = []

    def make(**options: object) -> Loader:
        made.append(Loader(clickhouse_server, new_table(), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.sink.close()


def test_a_block_is_loaded_whole(loader: Callable[..., Loader]) -> None:
    load = loader()
    load.sink.write(load.block(50_000))
    assert load.server.query(f"SELECT count(), uniqExact(id), sum(id) FROM {load.name}") == [
        (50_000, 50_000, 50_000 * 49_999 // 2)
    ]
    parts = f"SELECT count() FROM system.parts WHERE active AND table = '{load.name}'"
    assert load.server.query(parts) == [(1,)]


def test_the_same_token_twice_is_one_copy(loader: Callable[..., Loader]) -> None:
    load = loader()
    load.sink.write(load.block())
    load.sink.write(load.block())
    assert (load.count, len(load.server.inserts())) == (100, 2)


@pytest.mark.parametrize("fault", ["reset_before_apply", "reset_after_apply"])
def test_a_reset_is_one_request_and_the_repeat_leaves_one_copy(loader: Callable[..., Loader], fault: str) -> None:
    load = loader()
    load.server.inject(fault)  # type: ignore[arg-type]
    with pytest.raises(SinkUnavailable, match="unknown"):
        load.sink.write(load.block())
    # The driver must not have sent it again by itself: only the caller's repeat is known to be safe.
    assert [insert.outcome for insert in load.server.inserts()] == [fault]
    load.sink.write(load.block())
    assert load.count == 100


def test_a_reset_leaves_one_copy_also_where_the_server_remembers_no_tokens(loader: Callable[..., Loader]) -> None:
    load = loader(window=0, columns=f"{COLUMNS}, {COORDINATES}")
    assert load.info.guarantee == "exactly-once"
    load.server.inject("reset_after_apply")
    with pytest.raises(SinkUnavailable):
        load.sink.write(load.block())
    load.sink.write(load.block())
    assert load.count == 100


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_proxy_is_waited_for(loader: Callable[..., Loader], status: int) -> None:
    load = loader()
    load.server.inject("status", code=status)
    with pytest.raises(SinkUnavailable, match=str(status)):
        load.sink.write(load.block())
    assert len(load.server.inserts()) == 1
    load.sink.write(load.block())
    assert load.count == 100


@pytest.mark.parametrize(
    ("code", "expected"),
    [(241, SinkUnavailable), (209, SinkUnavailable), (242, SinkUnavailable), (999, SinkUnavailable),
     (497, SinkMisconfigured), (4242, BlockRejected), (469, BlockRejected)],
)  # fmt: skip
def test_the_servers_code_decides_the_class(
    loader: Callable[..., Loader], code: int, expected: type[BatcherError]
) -> None:
    load = loader()
    load.server.inject("exception", code=code, times=2)
    for _ in range(2):
        with pytest.raises(expected, match=str(code)):
            load.sink.write(load.block())
    load.sink.write(load.block())
    assert load.count == 100


def test_what_the_engine_refuses_quotes_no_value(loader: Callable[..., Loader]) -> None:
    load = loader(columns=f"{COLUMNS}, CONSTRAINT c CHECK v != '{SECRET}'")
    block = load.block(2)
    poisoned = block.table.set_column(1, "v", pa.array(["x", SECRET]))
    with pytest.raises(BlockRejected) as caught:
        load.sink.write(Block(poisoned, block.positions, "t", block.ranges))
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__ or error.__context__
    assert load.count == 0


def test_every_insert_carries_the_pinned_settings_and_its_token(
    clickhouse_server: ClickHouseServer, loader: Callable[..., Loader]
) -> None:
    load = loader()
    sink = plugin(
        {"dsn": clickhouse_server.dsn, "table": load.name, "settings": {"max_partitions_per_insert_block": "7"}}
    )
    sink.open()
    for token in ("a|1", "b&2"):
        sink.write(load.block(token=token))
    sink.close()
    for insert, token in zip(clickhouse_server.inserts(), ("a|1", "b&2"), strict=True):
        assert PINNED_SETTINGS.items() <= insert.settings.items()
        assert insert.settings["insert_deduplication_token"] == token
        assert insert.settings["input_format_null_as_default"] == "0"
        # Else progress headers restart the read timeout, and insert_timeout_s bounds nothing.
        assert insert.settings["send_progress_in_http_headers"] == "0"
        assert "session_id" not in insert.settings
        assert insert.settings["max_partitions_per_insert_block"] == "7"
        assert f"`default`.`{load.name}`" in insert.statement


@pytest.mark.parametrize("compression", ["lz4", "zstd", "none"])
def test_blocks_travel_compressed_or_not(
    clickhouse_server: ClickHouseServer, loader: Callable[..., Loader], compression: str
) -> None:
    load = loader()
    sink = plugin({"dsn": f"{clickhouse_server.dsn}?compression={compression}", "table": load.name})
    sink.open()
    sink.write(load.block(20_000))
    sink.close()
    size = clickhouse_server.inserts()[0].wire_bytes
    assert (size < 200_000) == (compression != "none")
    assert load.count == 20_000


def test_offsets_in_the_table_are_found(loader: Callable[..., Loader]) -> None:
    load = loader(columns=f"{COLUMNS}, {COORDINATES}")
    assert isinstance(load.sink, Reconcilable)
    load.sink.write(load.block(10))
    assert load.sink.present(EVENTS_0, 3, 5).to_pylist() == [3, 4, 5]
    assert load.sink.present(EVENTS_0, 20, 30).to_pylist() == []


def test_offsets_of_a_table_without_them_are_refused(loader: Callable[..., Loader]) -> None:
    load = loader()
    assert isinstance(load.sink, Reconcilable)
    with pytest.raises(SinkMisconfigured, match="_topic"):
        load.sink.present(EVENTS_0, 0, 1)


def test_a_server_that_restarts_is_waited_for(tmp_path: Path, clickhouse_server: ClickHouseServer) -> None:
    with ClickHouseServer(tmp_path / "db", users={"us er": f"{SECRET}/@"}) as server:
        load = Loader(server, "t")
        load.sink.write(load.block(token="before"))
        server.kill()
        with pytest.raises(SinkUnavailable) as caught:
            load.sink.write(load.block(token="between"))
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
        server.start()
        load.sink.write(load.block(token="between"))
        load.sink.write(load.block(token="before"))
        assert load.count == 200
        load.sink.close()
        wrong = plugin({"dsn": server.dsn, "table": "t", "user": "us er", "password": "wrong"})
        with pytest.raises(SinkMisconfigured, match="516"):
            wrong.open()


@pytest.mark.parametrize("table", ["no_such_table", "no_such_database.t"])
def test_a_missing_table_is_said_with_what_to_do(clickhouse_server: ClickHouseServer, table: str) -> None:
    with pytest.raises(SinkMisconfigured, match="create"):
        plugin({"dsn": clickhouse_server.dsn, "table": table}).open()


def test_a_user_who_may_not_insert_is_told_at_open(
    loader: Callable[..., Loader], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = loader()
    # The engine behind the test server has no users: its answer is made up, the rest is real.
    monkeypatch.setattr(Catalog, "granted", lambda _, right: not right.startswith("INSERT"))
    with pytest.raises(SinkMisconfigured, match="GRANT INSERT"):
        load.sink.open()


def test_a_missing_database_in_the_dsn_is_said(clickhouse_server: ClickHouseServer) -> None:
    with pytest.raises(SinkMisconfigured, match="81"):
        plugin({"dsn": f"{clickhouse_server.dsn}/nowhere", "table": "t"}).open()


def test_nobody_listening_is_unreachable_and_says_where(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with caplog.at_level(logging.WARNING), pytest.raises(Unreachable, match=f"127.0.0.1:{port}") as caught:
            plugin({"dsn": f"http://user:{SECRET}@127.0.0.1:{port}", "table": "t", "connect_timeout_s": 1}).open()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert not caplog.records


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"host\.invalid"):
        plugin({"dsn": "http://host.invalid", "table": "t", "connect_timeout_s": 1}).open()


def test_closing_leaves_no_connection(loader: Callable[..., Loader]) -> None:
    load = loader()
    load.sink.write(load.block())
    load.sink.close()
    load.sink.close()
    with pytest.raises(RuntimeError, match="not open"):
        load.sink.write(load.block())


def test_a_rotated_password_is_read_again_before_the_next_try(tmp_path: Path) -> None:
    reason = embedded_engine_missing()
    if reason:
        pytest.skip(reason)
    secret = ["old"]
    block = make_block(pa.table({"i": pa.array([1], pa.uint32())}))
    with ClickHouseServer(tmp_path / "server", users={"etl": "old"}) as server:
        server.query("CREATE TABLE t (i UInt32) ENGINE = MergeTree ORDER BY i")
        port = server.port
        sink = plugin({"dsn": f"http://etl@127.0.0.1:{port}", "table": "t", "password": lambda: secret[0]})
        sink.open()
    with ClickHouseServer(tmp_path / "server", users={"etl": "new"}, port=port) as server:
        for _ in range(2):
            # As long as the file has the old one.
            with pytest.raises(SinkMisconfigured, match="516"):
                sink.write(block)
        secret[0] = "new"
        sink.write(block)
        sink.close()
        assert server.query("SELECT i FROM t") == [(1,)]


@pytest.mark.parametrize("status", [401, 403])
def test_a_proxy_that_does_not_let_in_has_the_password_read_again(
    clickhouse_server: ClickHouseServer, new_table: Callable[[], str], status: int
) -> None:
    table = new_table()
    clickhouse_server.query(f"CREATE TABLE {table} (i UInt32) ENGINE = MergeTree ORDER BY i")
    reads: list[str] = []

    def password() -> str:
        reads.append("")
        return ""

    sink = plugin({"dsn": clickhouse_server.dsn, "table": table, "password": password})
    sink.open()
    known = len(reads)
    clickhouse_server.inject("status", code=status)
    block = make_block(pa.table({"i": pa.array([1], pa.uint32())}))
    with pytest.raises(SinkMisconfigured, match=str(status)):
        sink.write(block)
    sink.write(block)
    sink.close()
    assert len(reads) == known + 1


def test_json_over_http_holds_what_it_was_given_or_refuses_it(
    clickhouse_server: ClickHouseServer, new_table: Callable[[], str]
) -> None:
    table = new_table()
    clickhouse_server.query(
        f"CREATE TABLE {table} (_value JSON(d Decimal(38, 10), at Array(DateTime64(3))), id UInt64) "
        "ENGINE = MergeTree ORDER BY id"
    )
    sink = plugin({"dsn": clickhouse_server.dsn, "table": table})
    sink.open()
    good = '{"d": 12345678901234567890.0123456789, "at": [1700000000000]}'
    bent = '{"d": 1, "at": [], "x": [ true, 1 ]}'
    try:
        with pytest.raises(RowsRejected) as raised:
            sink.write(make_block(pa.table({"_value": [good, bent], "id": pa.array([1, 2], pa.uint64())})))
        sink.write(make_block(pa.table({"_value": [good], "id": pa.array([1], pa.uint64())})))
    finally:
        sink.close()
    assert [(one.position, one.path, one.reason) for one in raised.value.rejections] == [(1, "_value.x", "mixed")]
    held = clickhouse_server.query(f"SELECT toString(_value.d), toString(_value.at[1]) FROM {table}")
    assert [list(row) for row in held] == [["12345678901234567890.0123456789", "2023-11-14 22:13:20.000"]]


ASKED: list[Callable[[Any], object]] = [
    lambda sink: sink.present(EVENTS_0, 0, 10).to_pylist(),
    lambda sink: sink.copies(EVENTS_0, 0, 10).num_rows,
    lambda sink: sink.max_offset_above({EVENTS_0: 0}),
    lambda sink: sink.running("x"),
    lambda sink: sink.pressure(),
    lambda sink: sink.remove(EVENTS_0, [(5, 6)]),
]


def test_a_rotated_password_is_read_again_whatever_is_asked_first(tmp_path: Path) -> None:
    """After a crash or a rebalance the table is asked before anything is written: that, too, needs the new one."""
    reason = embedded_engine_missing()
    if reason:
        pytest.skip(reason)
    secret = ["old"]
    with ClickHouseServer(tmp_path / "server", users={"etl": "old"}) as server:
        server.query(f"CREATE TABLE t (i UInt32, {COORDINATES}) ENGINE = MergeTree ORDER BY i")
        port = server.port
        options = {"dsn": f"http://etl@127.0.0.1:{port}", "table": "t", "password": lambda: secret[0]}
        sinks = [plugin(options) for _ in ASKED]
        for sink in sinks:
            sink.open()
    with ClickHouseServer(tmp_path / "server", users={"etl": "new"}, port=port):
        for sink, ask in zip(sinks, ASKED, strict=True):
            secret[0] = "old"
            with pytest.raises(SinkMisconfigured):
                ask(sink)
            secret[0] = "new"
            ask(sink)
            sink.close()
