"""The laws every sink keeps: those in `sinks.names()`, and those that are shipped for tests.

A sink takes part with a `SinkCase`: a fresh target, a look into it, a way to break it. `CASES` has at least one for
every registered name; a second one for the same sink is named `NAME:variant`.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.dataset
import pytest
from pyarrow import fs

import sinks
from batcher.errors import BatcherError, RowsRejected, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import (
    COPIES,
    Auditable,
    Interruptible,
    Reconcilable,
    Removable,
    SchemaPinning,
    Sink,
    SinkInfo,
    TopicPinning,
)
from batcher.records import Block, write_id
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.sinks import MemorySink, ScriptedSink
from batcher.testing.values import EVENTS_0, make_block
from sinks.parquet.objects import ObjectStore
from sinks.parquet.options import ParquetOptions
from sinks.parquet.sink import ParquetSink
from tests.harness.object_store import Objects

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("country", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("at", pa.timestamp("ms", "UTC")),
    ]
)
"""What the targets of all cases hold, coordinates beside it."""

Rows = list[dict[str, Any]]

Result = TypeVar("Result")


class SinkCase(ABC):
    """Own one fresh target, for as long as a test runs; `keeps` is False where nothing can be read back."""

    keeps = True

    @abstractmethod
    def sink(self) -> Sink:
        """Return another sink on the target, not open: what a second process would have."""

    @abstractmethod
    def rows(self) -> Rows:
        """Return all that the target holds."""

    def failing(self, sink: Sink) -> AbstractContextManager[object] | None:
        """Return a context in which `sink` cannot write, or None where that cannot happen."""
        return None

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]] | None:
        """Return a sink whose target is not there, and what `open` may raise; None where that cannot happen."""
        return None


class MemoryCase(SinkCase):
    def __init__(self, sink: MemorySink) -> None:
        self.target = sink

    def sink(self) -> Sink:
        return self.target

    def rows(self) -> Rows:
        return list(self.target.rows())


class ScriptedCase(MemoryCase):
    def failing(self, sink: Sink) -> AbstractContextManager[object]:
        return self.broken()

    @contextmanager
    def broken(self) -> Iterator[None]:
        assert isinstance(self.target, ScriptedSink)

        def fail(_: object) -> None:
            raise SinkUnavailable("told to fail")

        self.target.before = fail
        yield
        self.target.before = lambda _: None


class NullCase(SinkCase):
    keeps = False

    def sink(self) -> Sink:
        return sinks.load("null")({})

    def rows(self) -> Rows:
        return []


class ParquetCase(SinkCase):
    def __init__(self, root: Path, partition_by: tuple[str, ...] = ()) -> None:
        self.root = root
        self.options = {"path": str(root), "partition_by": partition_by}

    def sink(self) -> Sink:
        return sinks.load("parquet")(self.options)

    def rows(self) -> Rows:
        partitioning = pa.dataset.partitioning(pa.schema([SCHEMA.field("country")]), flavor="hive")
        rows: Rows = pa.dataset.dataset(self.root, partitioning=partitioning).to_table().to_pylist()
        return rows

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:

            def fsync(descriptor: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patch.setattr(os, "fsync", fsync)
            yield

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        file = self.root.with_name("file")
        file.write_bytes(b"")
        return sinks.load("parquet")({"path": str(file)}), (SinkMisconfigured,)


class TopicsCase(ParquetCase):
    """Own a directory with a root for each topic."""

    def sink(self) -> Sink:
        return sinks.load("parquet")({**self.options, "layout": "topic"})

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        file = self.root.with_name("file")
        file.write_bytes(b"")
        return sinks.load("parquet")({"path": str(file), "layout": "topic"}), (SinkMisconfigured,)


def object_sink(objects: Objects, root: str) -> Sink:
    store = ObjectStore(lambda: (fs.PyFileSystem(objects), root), f"s3://{root}")
    return ParquetSink(ParquetOptions(f"s3://{root}"), store)


class ObjectCase(SinkCase):
    def __init__(self) -> None:
        self.objects = Objects("bucket")

    def sink(self) -> Sink:
        return object_sink(self.objects, "bucket/events")

    def rows(self) -> Rows:
        if not self.objects.content:
            return []
        found = pa.dataset.dataset("bucket/events", filesystem=fs.PyFileSystem(self.objects), format="parquet")
        rows: Rows = found.to_table().to_pylist()
        return rows

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        self.objects.broken = True
        yield
        self.objects.broken = False

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        return object_sink(Objects(), "nowhere/events"), (SinkMisconfigured,)


class ClickHouseCase(SinkCase):
    """Own one table in the engine that all tests of this process share: chDB opens one path per process."""

    def __init__(self, engine: EmbeddedEngine, table: str) -> None:
        self.engine = engine
        self.table = table
        engine.execute(
            f"CREATE TABLE {self.table} (id Int64, country Nullable(String), price Nullable(Float64), "
            "at Nullable(DateTime64(3, 'UTC')), "
            "_topic String, _partition Int32, _offset Int64, _timestamp Nullable(DateTime64(3, 'UTC'))) "
            "ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000"
        )

    def options(self, table: str) -> dict[str, object]:
        return {"dsn": self.engine.dsn, "table": table, "settings": {}}

    def sink(self) -> Sink:
        return sinks.load("clickhouse")(self.options(self.table))

    def rows(self) -> Rows:
        found = self.engine.execute(f"SELECT * FROM {self.table}")
        return [{name: text_of(value) for name, value in row.items()} for row in found.to_pylist()]

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        self.engine.execute(f"RENAME TABLE {self.table} TO {self.table}_away")
        yield
        self.engine.execute(f"RENAME TABLE {self.table}_away TO {self.table}")

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        return sinks.load("clickhouse")(self.options("no_such_table")), (SinkMisconfigured, Unreachable)


def text_of(value: object) -> object:
    """Return text for the bytes that a ClickHouse String is."""
    return value.decode() if isinstance(value, bytes) else value


def parquet_root(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue("tmp_path")
    return path / "root"


CASES: Final[Mapping[str, Callable[[pytest.FixtureRequest], SinkCase]]] = {
    "memory": lambda _: MemoryCase(MemorySink(SCHEMA)),
    "memory:scripted": lambda _: ScriptedCase(ScriptedSink()),
    "null": lambda _: NullCase(),
    "parquet": lambda request: ParquetCase(parquet_root(request)),
    "parquet:hive": lambda request: ParquetCase(parquet_root(request), ("country",)),
    "parquet:topics": lambda request: TopicsCase(parquet_root(request)),
    "parquet:objects": lambda _: ObjectCase(),
    "clickhouse": lambda request: ClickHouseCase(
        request.getfixturevalue("chdb_engine"), request.getfixturevalue("new_table")()
    ),
}

ROWS = pa.table(
    {
        "id": [1, 2, 3, 4],
        "country": ["DE", None, "a/../b", "DE"],
        "price": [1.5, None, -0.0, 1e300],
        "at": [0, 1_700_000_000_123, None, -1],
    },
    SCHEMA,
)


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> SinkCase:
    return CASES[request.param](request)


@pytest.fixture
def sink(case: SinkCase) -> Iterator[Sink]:
    made = case.sink()
    yield made
    made.close()


def opened(sink: Sink) -> tuple[SinkInfo, pa.Schema]:
    info = sink.open()
    if info.schema is not None:
        return info, info.schema
    return info, pinned(sink, info, SCHEMA)


def pinned(sink: Sink, info: SinkInfo, proposed: pa.Schema) -> pa.Schema:
    """Pin as the pipeline does: for the topic where each has a schema of its own."""
    if info.by_topic:
        assert isinstance(sink, TopicPinning), "a sink with a schema for each topic has to take them"
        return sink.pin_topic(EVENTS_0.topic, proposed)
    assert isinstance(sink, SchemaPinning), "a sink that has no schema has to take one"
    return sink.pin(proposed)


def block_for(info: SinkInfo, schema: pa.Schema, table: pa.Table = ROWS, first_offset: int = 0) -> Block:
    return make_block(table.select(schema.names).cast(schema), first_offset=first_offset, coordinates=info.coordinates)


def elsewhere(call: Callable[[], Result]) -> Result:
    """Call as the pipeline does: not from the thread that opened the sink."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def by_id(rows: Rows, columns: list[str]) -> Rows:
    return sorted(({name: row[name] for name in columns} for row in rows), key=itemgetter("id"))


def test_every_registered_sink_has_a_case() -> None:
    assert set(sinks.names()) <= {name.partition(":")[0] for name in CASES}


def test_what_was_written_is_there_with_values_and_coordinates(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    block = block_for(info, schema)
    elsewhere(lambda: sink.write(block))
    if not case.keeps:
        return
    assert by_id(case.rows(), block.table.column_names) == by_id(block.table.to_pylist(), block.table.column_names)


def test_blocks_add_up(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    sink.write(block_for(info, schema, ROWS.slice(0, 3)))
    sink.write(block_for(info, schema, ROWS.slice(3), first_offset=3))
    if not case.keeps:
        return
    assert [row["id"] for row in by_id(case.rows(), ["id"])] == [1, 2, 3, 4]


def test_a_block_of_one_row_is_written(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    sink.write(block_for(info, schema, ROWS.slice(1, 1)))
    if not case.keeps:
        return
    assert by_id(case.rows(), ["id", "country"]) == [{"id": 2, "country": None}]


def test_the_same_token_again_leaves_one_copy(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if info.guarantee != "exactly-once":
        return
    block = block_for(info, schema)
    sink.write(block)
    elsewhere(lambda: sink.write(block))
    assert len(case.rows()) == 4


def test_the_same_token_from_another_process_leaves_one_copy(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if info.guarantee != "exactly-once":
        return
    sink.write(block_for(info, schema))
    sink.close()
    successor = case.sink()
    try:
        successor_info, successor_schema = opened(successor)
        assert successor_schema.names == schema.names
        successor.write(block_for(successor_info, successor_schema))
    finally:
        successor.close()
    assert len(case.rows()) == 4


def test_a_failed_write_raises_what_the_contract_knows_and_the_next_one_works(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    block = block_for(info, schema)
    failing = case.failing(sink)
    if failing is None:
        return
    with failing, pytest.raises((SinkUnavailable, SinkMisconfigured)):
        elsewhere(lambda: sink.write(block))
    elsewhere(lambda: sink.write(block))
    if case.keeps and info.guarantee == "exactly-once":
        assert len(case.rows()) == 4


def test_rejected_rows_leave_nothing_behind_and_the_rest_can_be_written(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    poison = "x" * 10_000
    table = ROWS.set_column(1, SCHEMA.field("country"), pa.array(["DE", poison, "FR", poison]))
    block = block_for(info, schema, table)
    try:
        sink.write(block)
    except RowsRejected as error:
        rejected = error
    else:
        return  # the target takes any text
    assert [rejection.position for rejection in rejected.rejections] == [1, 3]
    assert poison not in str(rejected)
    assert not case.rows()
    good = pa.array([0, 2])
    sink.write(Block(block.table.take(good).combine_chunks(), block.positions.take(good), "rest", block.ranges))
    assert [row["id"] for row in by_id(case.rows(), ["id"])] == [1, 3]


def test_the_first_schema_pinned_holds_for_everybody(case: SinkCase, sink: Sink) -> None:
    info = sink.open()
    if info.schema is not None or not case.keeps:
        return
    first = pinned(sink, info, SCHEMA)
    sink.write(block_for(info, first))
    second = case.sink()
    try:
        second_info = second.open()
        other = pa.schema([("country", pa.string()), ("other", pa.int8())])
        holds = second_info.schema if second_info.schema is not None else pinned(second, second_info, other)
    finally:
        second.close()
    assert holds.equals(first)


def test_a_pinned_schema_takes_the_types_it_lacks_and_keeps_those_it_has(case: SinkCase, sink: Sink) -> None:
    info = sink.open()
    if info.schema is not None:
        return
    unknown = SCHEMA.set(2, pa.field("price", pa.null()))
    first = pinned(sink, info, unknown)
    assert first.field("price").type == pa.null()
    early = ROWS.select(["id", "country"]).append_column("price", pa.nulls(4)).append_column("at", ROWS["at"])
    sink.write(block_for(info, first, early))
    assert elsewhere(lambda: pinned(sink, info, SCHEMA)).equals(SCHEMA)
    sink.write(block_for(info, SCHEMA, ROWS, first_offset=4))
    other = SCHEMA.set(2, pa.field("price", pa.string()))
    assert pinned(sink, info, other).equals(SCHEMA)


def test_a_reconcilable_sink_knows_which_offsets_it_has(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if not isinstance(sink, Reconcilable):
        return
    sink.write(block_for(info, schema, first_offset=10))
    assert sink.present(EVENTS_0, 0, 9).to_pylist() == []
    assert sink.present(EVENTS_0, 11, 100).to_pylist() == [11, 12, 13]
    assert sink.present(EVENTS_0._replace(number=1), 0, 100).to_pylist() == []
    assert sink.present(EVENTS_0, 0, 100).type == pa.int64()


def test_an_auditable_sink_counts_the_rows_of_each_offset(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if not isinstance(sink, Auditable):
        return
    other = EVENTS_0._replace(number=1)
    assert sink.copies(EVENTS_0, 0, 100).equals(COPIES.empty_table())
    for first_offset, rows in ((12, ROWS), (10, ROWS), (40, ROWS.slice(0, 1))):
        sink.write(block_for(info, schema, rows, first_offset))
    found = elsewhere(lambda: sink.copies(EVENTS_0, 0, 100))
    assert found.schema.equals(COPIES)
    assert found["offset"].to_pylist() == [10, 11, 12, 13, 14, 15, 40]
    assert found["copies"].to_pylist() == [1, 1, 2, 2, 1, 1, 1]
    assert sink.copies(EVENTS_0, 11, 13).to_pydict() == {"offset": [11, 12, 13], "copies": [1, 2, 2]}
    assert sink.copies(EVENTS_0, 16, 39).num_rows == sink.copies(other, 0, 100).num_rows == 0


def test_what_a_sink_removes_is_gone_in_every_copy_and_nothing_else_is(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if not isinstance(sink, Removable):
        return
    assert isinstance(sink, Auditable)
    block = block_for(info, schema, first_offset=10)
    for one in (block, replace(block, token="again"), block_for(info, schema, ROWS.slice(0, 1), first_offset=40)):
        sink.write(one)
    for_another = make_block(
        ROWS.cast(schema), partition=EVENTS_0._replace(number=1), first_offset=10, coordinates=info.coordinates
    )
    sink.write(for_another)

    sink.remove(EVENTS_0, [(11, 11), (13, 13), (20, 30)])

    assert sink.copies(EVENTS_0, 0, 100).to_pydict() == {"offset": [10, 12, 40], "copies": [2, 2, 1]}
    assert sink.copies(EVENTS_0._replace(number=1), 0, 100)["offset"].to_pylist() == [10, 11, 12, 13]


def test_a_reconcilable_sink_knows_what_it_has_beyond_a_position(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if not isinstance(sink, Reconcilable):
        return
    other, never = EVENTS_0._replace(number=1), EVENTS_0._replace(topic="never")
    assert sink.max_offset_above({EVENTS_0: 0}) == {}
    sink.write(block_for(info, schema, first_offset=10))
    assert sink.max_offset_above({EVENTS_0: 14, other: 0, never: 0}) == {}
    assert sink.max_offset_above({EVENTS_0: 13, other: 0}) == {EVENTS_0: 13}
    assert sink.max_offset_above({EVENTS_0: 0}) == {EVENTS_0: 13}
    assert sink.max_offset_above({}) == {}


def test_a_sink_that_is_asked_at_replays_can_be_asked(case: SinkCase, sink: Sink) -> None:
    info, _ = opened(sink)
    if info.repeats == "query":
        assert isinstance(sink, Reconcilable)
        assert info.guarantee == "exactly-once"


def test_an_interruptible_sink_is_not_at_a_write_that_has_returned(case: SinkCase, sink: Sink) -> None:
    info, schema = opened(sink)
    if not isinstance(sink, Interruptible):
        return
    block = block_for(info, schema)
    sink.write(block)
    assert not sink.running(write_id(block.token))
    assert not sink.running(write_id("never written"))


def test_close_is_harmless_twice_and_without_open(case: SinkCase) -> None:
    sink = case.sink()
    sink.close()
    sink.open()
    sink.close()
    sink.close()


def test_a_missing_target_is_said_at_open(case: SinkCase) -> None:
    missing = case.missing()
    if missing is None:
        return
    sink, classes = missing
    with pytest.raises(classes):
        sink.open()
    sink.close()
