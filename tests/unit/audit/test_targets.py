"""Targets that cannot say which records they hold say so, and none gives up rows of different records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from batcher.errors import SinkMisconfigured
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import EVENTS_0, make_block
from sinks.clickhouse import plugin as clickhouse
from sinks.clickhouse import questions
from sinks.clickhouse.sink import ClickHouseSink
from sinks.parquet import one_root as parquet
from sinks.parquet.local import LocalStore

COORDINATES = "_topic String, _partition Int32, _offset Int64"
TIMED = f"{COORDINATES}, _timestamp DateTime64(3, 'UTC')"
ONE = pa.table({"i": pa.array([1, 2, 3], pa.uint32())})


@pytest.fixture
def table(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> Iterator[Callable[..., ClickHouseSink]]:
    """Return a function that makes a table and a sink open on it."""
    made: list[ClickHouseSink] = []

    def make(columns: str = COORDINATES, engine: str = "MergeTree ORDER BY i", name: str = "") -> ClickHouseSink:
        name = name or new_table()
        chdb_engine.execute(f"CREATE TABLE {name} (i UInt32, {columns}) ENGINE = {engine}")
        sink = clickhouse({"dsn": chdb_engine.dsn, "table": name})
        assert isinstance(sink, ClickHouseSink)
        sink.open()
        made.append(sink)
        return sink

    yield make
    for one in made:
        one.close()


def put(sink: ClickHouseSink, names: Sequence[str], first_offset: int, *, later_ms: int = 0) -> None:
    block = make_block(ONE, first_offset=first_offset, coordinates=names)
    if later_ms:
        column = block.table.schema.get_field_index("_timestamp")
        times = pa.array([1_700_000_000_000 + later_ms] * ONE.num_rows, pa.timestamp("ms", "UTC"))
        table = block.table.set_column(column, block.table.schema.field(column), times)
        block = make_block(table, first_offset=first_offset, token="another log")
    sink.write(block)


def test_a_table_without_the_columns_cannot_be_asked(table: Callable[..., ClickHouseSink]) -> None:
    sink = table("c String")
    for ask in (lambda: sink.copies(EVENTS_0, 0, 9), lambda: sink.remove(EVENTS_0, [(0, 9)])):
        with pytest.raises(SinkMisconfigured, match="has not all of _topic, _partition, _offset"):
            ask()


@pytest.mark.parametrize(
    ("engine", "asked"),
    [
        ("ReplacingMergeTree ORDER BY i", False),
        ("SummingMergeTree ORDER BY (i, _topic)", False),
        ("ReplacingMergeTree ORDER BY (_topic, _partition, _offset)", True),
    ],
)
def test_a_table_that_merges_rows_of_different_records_cannot_be_asked(
    table: Callable[..., ClickHouseSink], engine: str, *, asked: bool
) -> None:
    sink = table(engine=engine)
    if asked:
        assert sink.copies(EVENTS_0, 0, 9).num_rows == 0
        return
    with pytest.raises(SinkMisconfigured, match="nobody can tell a lost record from a merged one"):
        sink.copies(EVENTS_0, 0, 9)


def test_a_table_that_feeds_views_gives_nothing_up(
    table: Callable[..., ClickHouseSink], chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    name = new_table()
    sink = table(name=name)
    put(sink, ("_topic", "_partition", "_offset"), 0)
    chdb_engine.execute(f"CREATE MATERIALIZED VIEW {name}_v ENGINE = MergeTree ORDER BY i AS SELECT i FROM {name}")

    with pytest.raises(SinkMisconfigured, match="feeds materialized views"):
        sink.remove(EVENTS_0, [(0, 9)])
    assert sink.copies(EVENTS_0, 0, 9).num_rows == 3


def test_rows_of_one_offset_with_different_times_are_of_different_records_and_stay(
    table: Callable[..., ClickHouseSink],
) -> None:
    sink = table(TIMED)
    names = ("_topic", "_partition", "_offset", "_timestamp")
    put(sink, names, 0)
    put(sink, names, 2, later_ms=5_000)

    with pytest.raises(SinkMisconfigured, match=r"rows of events\[0\] offset 2 have different times.*: they stay"):
        sink.remove(EVENTS_0, [(0, 9)])
    assert sink.copies(EVENTS_0, 0, 9)["copies"].to_pylist() == [1, 1, 2, 1, 1]
    sink.remove(EVENTS_0, [(3, 9)])
    assert sink.copies(EVENTS_0, 0, 9)["offset"].to_pylist() == [0, 1, 2]


def test_more_spans_than_a_statement_takes_are_removed_by_several(
    table: Callable[..., ClickHouseSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "SPANS_A_STATEMENT", 2)
    sink = table()
    for first in (0, 3, 6):
        put(sink, ("_topic", "_partition", "_offset"), first)
    sink.remove(EVENTS_0, [(0, 0), (2, 2), (4, 4), (6, 6), (8, 8)])
    assert sink.copies(EVENTS_0, 0, 9)["offset"].to_pylist() == [1, 3, 5, 7]


def test_each_file_of_a_window_is_opened_once_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = parquet({"path": str(tmp_path / "root"), "partition_by": ("country",)})
    sink.open()
    rows = pa.table({"id": [1, 2, 3], "country": ["DE", "FR", "DE"]})
    for first in (0, 3, 2, 100):
        sink.write(make_block(rows, first_offset=first, coordinates=("_partition", "_offset", "_timestamp")))
    opened: list[str] = []
    before = LocalStore.opened

    def counting(self: LocalStore, name: str) -> BinaryIO | None:
        opened.append(name)
        return before(self, name)

    monkeypatch.setattr(LocalStore, "opened", counting)
    assert sink.copies(EVENTS_0, 1, 50).to_pydict() == {"offset": [1, 2, 3, 4, 5], "copies": [1, 2, 2, 2, 1]}
    assert len(opened) == len(set(opened)) == 6
    sink.close()


def test_files_without_offsets_cannot_be_asked(tmp_path: Path) -> None:
    sink = parquet({"path": str(tmp_path / "root"), "coordinates": "none"})
    sink.open()
    with pytest.raises(SinkMisconfigured, match=r"--parquet\.coordinates none"):
        sink.copies(EVENTS_0, 0, 9)
    sink.close()
