"""Repeats, replays, crashes and late writes against the real engine, over HTTP: what was written is there once.

`replay` does what a delivery does with a range that somebody may have written already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from batcher.errors import BatcherError, SinkMisconfigured, SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import Block, Partition, write_id
from batcher.testing.clickhouse import ClickHouseServer, FaultKind, Insert
from batcher.testing.values import EVENTS_0, make_block
from sinks.clickhouse import plugin
from sinks.clickhouse.catalog import Catalog
from sinks.clickhouse.options import PINNED_SETTINGS
from sinks.clickhouse.sink import ClickHouseSink

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

LOCATED = ", _topic LowCardinality(String), _partition UInt32, _offset UInt64"
PLAIN = ""
BOTH = pytest.mark.parametrize("columns", [PLAIN, LOCATED], ids=["tokens only", "coordinates"])


class Table:
    """Own one table on the server; every `sink` is what another process would have."""

    def __init__(self, server: ClickHouseServer, name: str, *, columns: str, window: int, tail: str = "") -> None:
        self.server = server
        self.name = name
        self._sinks: list[ClickHouseSink] = []
        settings = ", ".join(filter(None, [f"non_replicated_deduplication_window = {window}", tail]))
        order = "PARTITION BY part ORDER BY id"
        server.query(
            f"CREATE TABLE {name} (id UInt64, part UInt8{columns}) ENGINE = MergeTree {order} SETTINGS {settings}"
        )

    def sink(self, **options: object) -> tuple[ClickHouseSink, SinkInfo]:
        made = plugin({"dsn": self.server.dsn, "table": self.name, **options})
        assert isinstance(made, ClickHouseSink)
        self._sinks.append(made)
        return made, made.open()

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def block(self, *, first: int = 0, rows: int = 100, parts: int = 1, token: str = "") -> Block:
        columns = self.server.query(f"SELECT name FROM system.columns WHERE table = '{self.name}'")
        located = [name for (name,) in columns if name.startswith("_")]
        data = pa.table(
            {
                "id": pa.array(range(first, first + rows), pa.uint64()),
                "part": pa.array([i % parts for i in range(rows)], pa.uint8()),
            }
        )
        token = token or f"{self.name}|{first}-{first + rows - 1}"
        return make_block(data, first_offset=first, token=token, coordinates=located)

    @property
    def counts(self) -> tuple[int, int]:
        """Return rows, and how many of them are different."""
        rows, unique = self.server.query(f"SELECT count(), uniqExact(id) FROM {self.name}")[0]
        return int(rows), int(unique)

    @property
    def inserts(self) -> list[Insert]:
        """Return the inserts that have come to an end; those of an earlier test may still be under way."""
        return [insert for insert in self.server.inserts() if f"`{self.name}`" in insert.statement]

    def others_write(self, blocks: int) -> None:
        for number in range(blocks):
            self.server.query(f"INSERT INTO {self.name} (id, part) VALUES ({10**6 + number}, 0)")


@pytest.fixture
def table(clickhouse_server: ClickHouseServer, new_table: Callable[[], str]) -> Iterator[Callable[..., Table]]:
    made: list[Table] = []

    def make(columns: str = LOCATED, window: int = 100, tail: str = "") -> Table:
        made.append(Table(clickhouse_server, new_table(), columns=columns, window=window, tail=tail))
        return made[-1]

    yield make
    for one in made:
        one.close()


def replay(sink: ClickHouseSink, info: SinkInfo, block: Block) -> None:
    if info.repeats != "query":
        sink.write(block)
        return
    if sink.running(write_id(block.token)):
        raise SinkUnavailable("still running")
    (partition, first, last), *_ = block.ranges
    missing = pc.invert(pc.is_in(block.table["_offset"], value_set=sink.present(partition, first, last)))
    rows = block.table.filter(missing).combine_chunks()
    if rows.num_rows == block.rows:
        sink.write(block)
    elif rows.num_rows:
        positions = block.positions.filter(missing.combine_chunks())
        sink.write(Block(rows, positions, f"{block.token}|repair", block.ranges))


def again(attempt: Callable[[], object]) -> int:
    """Attempt until it works, as retrying does, and return how often that took; pytest-timeout bounds it."""
    pause = threading.Event()
    count = 1
    while True:
        try:
            attempt()
        except SinkUnavailable:
            count += 1
            pause.wait(0.05)
        else:
            return count


def refused(
    sink: ClickHouseSink, block: Block, expected: type[BatcherError] = SinkUnavailable, match: str | None = None
) -> None:
    with pytest.raises(expected, match=match):
        sink.write(block)


# --- the same block again


@BOTH
def test_a_token_written_by_a_process_that_died_is_recognised(table: Callable[..., Table], columns: str) -> None:
    target = table(columns)
    target.sink()[0].write(target.block())
    successor, _ = target.sink()
    successor.write(target.block())
    assert target.counts == (100, 100)


@BOTH
def test_a_block_that_reached_some_partitions_is_completed(table: Callable[..., Table], columns: str) -> None:
    target = table(columns)
    sink, _ = target.sink()
    block = target.block(rows=90, parts=3)
    for part in (0, 2):  # what is there when the server dies between the parts of one insert
        rows = block.table.filter(pc.equal(block.table["part"], part)).combine_chunks()
        sink.write(Block(rows, block.positions.slice(0, rows.num_rows), block.token, block.ranges))
    assert target.counts == (60, 60)
    successor, info = target.sink()
    replay(successor, info, block)
    assert target.counts == (90, 90)
    successor.write(block)
    assert target.counts[1] == 90


def test_a_block_is_one_record_batch_on_the_wire_however_large(table: Callable[..., Table]) -> None:
    target = table()
    sink, _ = target.sink()
    sink.write(target.block(rows=300_000))
    assert [insert.record_batches for insert in target.inserts] == [1]
    parts = target.server.query(f"SELECT count() FROM system.parts WHERE active AND table = '{target.name}'")
    assert parts == [(1,)]


def test_a_block_cut_otherwise_on_the_repeat_is_not_sent(table: Callable[..., Table]) -> None:
    target = table()
    sink, _ = target.sink()
    block = target.block()
    sink.write(block)
    cut = pa.concat_tables([block.table.slice(0, 30), block.table.slice(30)])
    refused(sink, Block(cut, block.positions, block.token, block.ranges), BatcherError, "please report")
    assert target.counts == (100, 100)
    sink.write(Block(cut.combine_chunks(), block.positions, block.token, block.ranges))
    assert target.counts == (100, 100)


def test_what_the_engine_sees_is_what_was_pinned_whatever_the_profile_says(table: Callable[..., Table]) -> None:
    names = [name for name in PINNED_SETTINGS if name != "distributed_foreground_insert"]
    shown = ", ".join(f"toString(getSetting('{name}'))" for name in names)
    target = table(f", seen Array(String) MATERIALIZED [{shown}]")
    # The engine's own default stands where a profile's would, and is not what is sent.
    assert target.server.query("SELECT getSetting('async_insert')") == [(True,)]
    sink, _ = target.sink()
    sink.write(target.block(rows=1))
    ((values,),) = target.server.query(f"SELECT seen FROM {target.name}")
    numbers = {"true": "1", "false": "0"}
    seen = {name: numbers.get(value, value) for name, value in zip(names, values, strict=True)}
    assert seen == {name: PINNED_SETTINGS[name] for name in names}
    assert (seen["async_insert"], seen["max_insert_threads"], seen["timeout_overflow_mode"]) == ("0", "1", "throw")


def test_a_table_whose_own_setting_collects_inserts_is_refused_with_the_cure(table: Callable[..., Table]) -> None:
    target = table(tail="async_insert = 1")
    with pytest.raises(SinkMisconfigured, match="ALTER TABLE") as caught:
        target.sink()
    cure = str(caught.value)
    target.server.query(cure[cure.index("ALTER TABLE") :])
    target.sink()


# --- tokens that are forgotten


def test_rows_are_there_once_after_the_server_forgot_the_token(table: Callable[..., Table]) -> None:
    target = table(window=2)
    target.sink()[0].write(target.block())
    target.others_write(8)
    successor, info = target.sink()
    assert info.repeats == "query"
    replay(successor, info, target.block())
    assert target.counts == (108, 108)


def test_without_coordinates_a_forgotten_token_duplicates_which_is_why_the_window_matters(
    table: Callable[..., Table],
) -> None:
    target = table(PLAIN, window=2)
    target.sink()[0].write(target.block())
    target.others_write(8)
    successor, info = target.sink()
    assert info.repeats != "query"
    replay(successor, info, target.block())
    assert target.counts == (208, 108)


def test_a_half_written_block_is_completed_after_the_server_forgot_the_token(table: Callable[..., Table]) -> None:
    target = table(window=2)
    sink, info = target.sink()
    block = target.block(rows=90, parts=3)
    rows = block.table.filter(pc.equal(block.table["part"], 1)).combine_chunks()
    sink.write(Block(rows, block.positions.slice(0, 30), block.token, block.ranges))
    target.others_write(8)
    replay(sink, info, block)
    assert target.counts == (98, 98)


def test_a_table_that_remembers_nothing_says_so_with_the_statement_that_helps(table: Callable[..., Table]) -> None:
    target = table(PLAIN, window=0)
    _, info = target.sink()
    assert info.guarantee == "at-least-once"
    target.server.query(info.reason[info.reason.index("ALTER TABLE") :])
    assert target.sink()[1].guarantee == "exactly-once"


def test_a_table_with_coordinates_needs_no_window_for_a_replay(table: Callable[..., Table]) -> None:
    target = table(window=0)
    target.sink()[0].write(target.block())
    successor, info = target.sink()
    assert info.repeats == "query"
    replay(successor, info, target.block())
    assert target.counts == (100, 100)
    # A late write of a process that was frozen is what it cannot stop; the reason says what can.
    target.server.query(info.reason[info.reason.index("ALTER TABLE") :])
    assert "remembers the tokens" in target.sink()[1].reason


def test_deleted_rows_come_back_under_another_name_only(table: Callable[..., Table]) -> None:
    target = table(PLAIN)
    sink, _ = target.sink()
    sink.write(target.block(token="pipeline|0-99"))
    target.server.query(f"ALTER TABLE {target.name} DELETE WHERE 1 SETTINGS mutations_sync = 2")
    sink.write(target.block(token="pipeline|0-99"))
    assert target.counts == (0, 0)
    sink.write(target.block(token="redrive|0-99"))
    assert target.counts == (100, 100)


# --- views


def feed(target: Table, *, window: int, select: str = "id", name: str = "") -> str:
    """Let a view write to a table of its own, and return that table's name."""
    name = name or f"{target.name}_sums"
    target.server.query(
        f"CREATE TABLE `{name}` (id UInt64) ENGINE = MergeTree ORDER BY id "
        f"SETTINGS non_replicated_deduplication_window = {window}"
    )
    target.server.query(
        f"CREATE MATERIALIZED VIEW `{name}_view` TO `{name}` AS SELECT {select} AS id FROM {target.name}"
    )
    return name


def rows_of(target: Table, name: str) -> int:
    return int(target.server.query(f"SELECT count() FROM {name}")[0][0])


def test_a_view_that_failed_once_is_completed_by_the_same_token(table: Callable[..., Table]) -> None:
    target = table()
    target.server.query(f"CREATE TABLE {target.name}_switch (broken UInt8) ENGINE = MergeTree ORDER BY ()")
    target.server.query(f"INSERT INTO {target.name}_switch VALUES (1)")
    broken = f"(SELECT max(broken) FROM {target.name}_switch)"
    sums = feed(target, window=100, select=f"id + throwIf({broken} = 1)")
    sink, info = target.sink()
    assert info.repeats == "token"
    refused(sink, target.block(), SinkMisconfigured, "395")
    assert (target.counts, rows_of(target, sums)) == ((100, 100), 0)
    target.server.query(f"TRUNCATE TABLE {target.name}_switch")
    successor, info = target.sink()
    replay(successor, info, target.block())
    replay(successor, info, target.block())
    assert (target.counts, rows_of(target, sums)) == ((100, 100), 100)


def test_a_view_whose_target_forgets_makes_the_table_incapable_until_it_is_cured(table: Callable[..., Table]) -> None:
    target = table()
    sums = feed(target, window=0)
    sink, info = target.sink()
    assert info.repeats == "none"
    assert f"{sums}_view" in info.reason
    for _ in range(2):
        sink.write(target.block())
    assert (target.counts, rows_of(target, sums)) == ((100, 100), 200)  # what the reason warns of
    target.server.query(info.reason[info.reason.index("ALTER TABLE") :])
    sink, info = target.sink()
    assert info.guarantee == "exactly-once"
    for _ in range(2):
        sink.write(target.block(first=100))
    assert (target.counts, rows_of(target, sums)) == ((200, 200), 300)


def test_views_are_found_behind_views_and_behind_tables_that_store_nothing(table: Callable[..., Table]) -> None:
    target = table()
    name = target.name
    target.server.query(f"CREATE TABLE {name}_null (id UInt64) ENGINE = Null")
    target.server.query(f"CREATE MATERIALIZED VIEW {name}_a TO {name}_null AS SELECT id FROM {name}")
    assert target.sink()[1].guarantee == "exactly-once"
    inner = "ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 5"
    target.server.query(f"CREATE MATERIALIZED VIEW {name}_b {inner} AS SELECT id FROM {name}_null")
    assert target.sink()[1].guarantee == "exactly-once"
    target.server.query(f"CREATE TABLE {name}_last (id UInt64) ENGINE = MergeTree ORDER BY id")
    target.server.query(f"CREATE MATERIALIZED VIEW {name}_c TO {name}_last AS SELECT id FROM {name}_null")
    info = target.sink()[1]
    assert info.guarantee == "at-least-once"
    assert f"{name}_c" in info.reason
    assert f"{name}_b" not in info.reason


def test_where_a_view_writes_is_read_from_its_statement_on_servers_that_do_not_say(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = table()
    sums = feed(target, window=0, name=f"a TO `b {target.name}".replace("`", "\\`"))
    target.server.query("CREATE DATABASE IF NOT EXISTS kept ENGINE = Atomic")
    target.server.query(
        f"CREATE MATERIALIZED VIEW kept.{target.name} ENGINE = MergeTree ORDER BY id AS SELECT id FROM default.`{sums}`"
    )
    _, known = target.sink()
    original = Catalog._row

    def row_of_an_older_server(self: Catalog, database: str, name: str) -> Mapping[str, Any] | None:
        row = original(self, database, name)
        return None if row is None else {key: value for key, value in row.items() if not key.startswith("target_")}

    monkeypatch.setattr(Catalog, "_row", row_of_an_older_server)
    assert target.sink()[1] == known
    assert known.reason.count("ALTER TABLE") == 2


# --- unknown outcomes


@pytest.mark.parametrize("fault", ["reset_before_apply", "reset_after_apply"])
@pytest.mark.parametrize(("columns", "window"), [(PLAIN, 100), (LOCATED, 100), (LOCATED, 0)])
def test_a_connection_reset_around_an_insert_leaves_one_copy(
    table: Callable[..., Table], fault: FaultKind, columns: str, window: int
) -> None:
    target = table(columns, window)
    sink, _ = target.sink()
    target.server.inject(fault)
    refused(sink, target.block(), match="unknown")
    sink.write(target.block())
    assert target.counts == (100, 100)


@pytest.mark.parametrize(("columns", "window"), [(PLAIN, 100), (LOCATED, 100), (LOCATED, 0)])
def test_an_insert_that_outlives_its_client_is_waited_for_and_leaves_one_copy(
    table: Callable[..., Table], columns: str, window: int
) -> None:
    target = table(columns, window)
    hasty, _ = target.sink(insert_timeout_s=0.5)
    target.server.inject("delay", delay_s=2)
    refused(hasty, target.block(), match="no answer")
    assert again(lambda: hasty.write(target.block())) > 1
    assert target.counts == (100, 100)


def test_an_insert_that_ends_while_the_table_is_asked_leaves_one_copy(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = table(window=0)
    hasty, _ = target.sink(insert_timeout_s=0.5)
    target.server.inject("delay", delay_s=1.5)
    refused(hasty, target.block(), match="no answer")
    original = ClickHouseSink.present

    def slowly(self: ClickHouseSink, partition: Partition, first: int, last: int) -> pa.Int64Array:
        answer = original(self, partition, first, last)
        again(lambda: None if target.inserts else unavailable())
        return answer

    monkeypatch.setattr(ClickHouseSink, "present", slowly)
    again(lambda: hasty.write(target.block()))
    assert target.counts == (100, 100)


@pytest.mark.parametrize(("columns", "window"), [(PLAIN, 100), (LOCATED, 100), (LOCATED, 0)])
def test_an_insert_that_outlives_its_process_is_waited_for_and_leaves_one_copy(
    table: Callable[..., Table], columns: str, window: int
) -> None:
    target = table(columns, window)
    zombie, _ = target.sink()
    successor, info = target.sink()
    target.server.inject("delay", delay_s=1.5)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(zombie.write, target.block())
        again(lambda: None if successor.running(write_id(target.block().token)) else unavailable())
        assert again(lambda: replay(successor, info, target.block())) > 1
        late.result()
    assert not successor.running(write_id(target.block().token))
    assert target.counts == (100, 100)


def unavailable() -> None:
    raise SinkUnavailable("not yet")


@BOTH
def test_what_a_frozen_process_sends_after_its_successor_is_dropped_by_the_window(
    table: Callable[..., Table], columns: str
) -> None:
    target = table(columns)
    zombie, _ = target.sink()
    successor, info = target.sink()
    replay(successor, info, target.block())
    zombie.write(target.block())
    assert target.counts == (100, 100)


def test_an_insert_is_named_by_its_token(table: Callable[..., Table]) -> None:
    target = table()
    sink, _ = target.sink()
    for first in (0, 100):
        sink.write(target.block(first=first))
    named = [f"batcher-{write_id(target.block(first=first).token)}" for first in (0, 100)]
    assert [insert.settings["query_id"] for insert in target.inserts] == named


def test_the_server_ends_an_insert_when_its_client_has_given_up(table: Callable[..., Table]) -> None:
    target = table(", slow UInt8 DEFAULT sleepEachRow(0.02)")
    sink, _ = target.sink(insert_timeout_s=1)
    block = target.block(rows=150)
    refused(sink, block)
    again(lambda: None if target.inserts else unavailable())
    assert (target.inserts[0].outcome, target.inserts[0].settings["max_execution_time"]) == ("failed", "1")
    assert target.counts == (0, 0)


def test_a_limit_given_by_the_user_stays(table: Callable[..., Table]) -> None:
    target = table()
    sink, _ = target.sink(settings={"max_execution_time": "7"}, insert_timeout_s=1)
    sink.write(target.block())
    assert target.inserts[0].settings["max_execution_time"] == "7"


# --- what is asked


def test_offsets_beyond_a_position_are_found_for_each_partition(table: Callable[..., Table]) -> None:
    target = table()
    sink, _ = target.sink()
    other, hostile = Partition("other", 0), Partition("x' OR 1=1 --", 2)
    for partition, first in ((EVENTS_0, 0), (Partition("events", 1), 50), (other, 500)):
        block = target.block(first=first, rows=10)
        sink.write(make_block(block.table.select(["id", "part"]), partition=partition, first_offset=first,
                              coordinates=["_topic", "_partition", "_offset"]))  # fmt: skip
    asked = {EVENTS_0: 9, Partition("events", 1): 60, Partition("events", 7): 0, other: 0, hostile: 0}
    assert sink.max_offset_above(asked) == {EVENTS_0: 9, other: 509}
    assert sink.max_offset_above({EVENTS_0: 10}) == {}
    assert sink.max_offset_above({}) == {}


def test_a_table_without_coordinates_knows_of_no_offsets_beyond(table: Callable[..., Table]) -> None:
    target = table(PLAIN)
    sink, _ = target.sink()
    sink.write(target.block())
    assert sink.max_offset_above({EVENTS_0: 0}) == {}


def denied(right: str) -> Callable[[Catalog, str], bool]:
    return lambda _, asked: asked != right


def test_a_user_who_may_not_see_running_inserts_is_told_at_open(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine behind the test server has no users: its answer is made up, the rest is real.
    monkeypatch.setattr(Catalog, "granted", denied("SELECT ON system.processes"))
    for window, expected in ((0, "none"), (100, "token")):
        _, info = table(window=window).sink()
        assert info.repeats == expected
        assert "GRANT SELECT ON system.processes" in info.reason


def test_a_question_the_user_may_not_ask_stops_the_replay_and_names_the_grant(
    table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, _ = table().sink()

    def refuse(*_: object, **__: object) -> None:
        raise DatabaseError("Code: 497. DB::Exception: canary-77", code=497)

    monkeypatch.setattr(Client, "query", refuse)
    with pytest.raises(SinkMisconfigured, match=r"GRANT SELECT ON system\.processes") as caught:
        sink.running("0" * 32)
    assert "canary-77" not in f"{caught.value!r} {caught.value.__cause__!r}"


# --- a server in trouble


@pytest.mark.parametrize("code", [241, 242, 252, 999, 202, 216, 373])
@BOTH
def test_an_overloaded_server_is_waited_for_and_then_has_it_once(
    table: Callable[..., Table], code: int, columns: str
) -> None:
    target = table(columns, window=0 if columns else 100)
    sink, _ = target.sink()
    target.server.inject("exception", code=code, times=3)
    assert again(lambda: sink.write(target.block())) == 4
    assert target.counts == (100, 100)


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_proxy_is_waited_for_and_then_has_it_once(table: Callable[..., Table], status: int) -> None:
    target = table(window=0)
    sink, _ = target.sink()
    target.server.inject("status", code=status, times=2)
    assert again(lambda: sink.write(target.block())) == 3
    assert target.counts == (100, 100)


@pytest.mark.parametrize("code", [60, 16, 516, 497, 164])
def test_what_no_record_is_to_blame_for_halts_and_stores_nothing(table: Callable[..., Table], code: int) -> None:
    target = table()
    sink, _ = target.sink()
    target.server.inject("exception", code=code)
    refused(sink, target.block(), SinkMisconfigured, str(code))
    assert target.counts == (0, 0)


def test_too_many_partitions_in_one_block_halt(table: Callable[..., Table]) -> None:
    target = table()
    sink, _ = target.sink()
    refused(sink, target.block(rows=150, parts=150), SinkMisconfigured, "max_partitions_per_insert_block")
    assert target.counts == (0, 0)
