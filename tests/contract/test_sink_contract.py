"""The laws every sink keeps: those in `sinks.names()`, and those that are shipped for tests.

A sink takes part with a `SinkCase`: a fresh target, a look into it, a way to break it. `CASES` has at least one for
every registered name; a second one for the same sink is named `NAME:variant`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

import deltalake
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.table import Table

import sinks
from batcher import Message
from batcher.errors import BatcherError, ConfigurationError, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import (
    Sink,
)
from batcher.records import Block
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.contract.sink import (
    SCHEMA,
    Rows,
    SinkCase,
    SinkLaws,
)
from batcher.testing.sinks import MemorySink, ScriptedSink
from sinks.handler.sink import HandlerSink
from sinks.lake.types import converted, plain
from sinks.parquet.arrow_store import ArrowStore
from sinks.parquet.options import ParquetOptions
from sinks.parquet.sink import ParquetSink
from tests.harness.iceberg import Lake
from tests.harness.object_store import Objects
from tests.harness.pages import README, named_in
from tests.harness.store_proxy import StoreFault, StoreProxy
from tests.harness.stores import ACCESS_KEY, REGION, SECRET_KEY, S3Server, moto
from tests.plugins_outside.lines import Lines, LinesOptions
from tests.typing.sink_author import LinesSink

pytest_plugins = ["batcher.testing.clickhouse_plugin"]


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


@contextmanager
def without_fsync() -> Iterator[None]:
    """Let no file become durable."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def rows_of(found: pa.dataset.Dataset) -> Rows:
    """Return the rows of all files, with the columns that only some of them have."""
    schema = pa.unify_schemas([found.schema, *(one.physical_schema for one in found.get_fragments())])
    rows: Rows = found.replace_schema(schema).to_table().to_pylist()
    return rows


class ParquetCase(SinkCase):
    def __init__(self, root: Path, partition_by: tuple[str, ...] = ()) -> None:
        self.root = root
        self.options = {"path": str(root), "partition_by": partition_by}

    def sink(self) -> Sink:
        return sinks.load("parquet")(self.options)

    def rows(self) -> Rows:
        partitioning = pa.dataset.partitioning(pa.schema([SCHEMA.field("country")]), flavor="hive")
        return rows_of(pa.dataset.dataset(self.root, partitioning=partitioning))

    def failing(self, sink: Sink) -> AbstractContextManager[None]:
        return without_fsync()

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
    store = ArrowStore(lambda: (fs.PyFileSystem(objects), root), f"s3://{root}")
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
        return rows_of(found)

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        self.objects.broken = True
        yield
        self.objects.broken = False

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        return object_sink(Objects(), "nowhere/events"), (SinkMisconfigured,)


class BucketCase(SinkCase):
    """Own a bucket of an S3 server."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.server: S3Server = request.getfixturevalue("s3_server")
        self.proxy: StoreProxy = request.getfixturevalue("s3_proxy")
        self.bucket = self.server.bucket(f"bucket-{uuid4().hex[:8]}")

    def sink(self) -> Sink:
        return self.sink_of(self.bucket)

    def sink_of(self, bucket: str) -> Sink:
        account = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY, "region": REGION}
        options = {**account, "endpoint": self.proxy.endpoint}
        return sinks.load("parquet")({"path": f"s3://{bucket}/events", "option": options})

    def rows(self) -> Rows:
        names = [name for name in self.server.objects(self.bucket) if name.endswith(".parquet")]
        tables = [pq.read_table(pa.BufferReader(self.server.get(self.bucket, name))) for name in names]
        rows: Rows = pa.concat_tables(tables, promote_options="default").to_pylist() if tables else []
        return rows

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        self.proxy.set(StoreFault("PUT", status=503, code="SlowDown"))
        yield
        self.proxy.set()

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        return self.sink_of("no-such-bucket"), (SinkMisconfigured,)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with moto() as running:
        yield running


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[StoreProxy]:
    with StoreProxy(s3_server.endpoint) as running:
        yield running


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


class DeltaCase(SinkCase):
    """Own a Delta table on disk."""

    def __init__(self, path: Path, partition_by: tuple[str, ...] = ()) -> None:
        self.path = path
        self.options = {"path": str(path), "partition_by": partition_by}

    def sink(self) -> Sink:
        return sinks.load("delta")(self.options)

    def rows(self) -> Rows:
        if not self.path.exists():
            return []
        rows: Rows = deltalake.DeltaTable(self.path).to_pyarrow_table().to_pylist()
        return rows

    def copy(self, sink: Sink, block: Block) -> None:
        """Append as another writer does, which knows nothing of positions."""
        table = deltalake.DeltaTable(self.path)
        columns = pa.schema([plain(field) for field in pa.schema(table.schema().to_arrow())])
        deltalake.write_deltalake(table, converted(block.table, columns), mode="append")

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        away = self.path.with_name("away")
        self.path.rename(away)
        yield
        away.rename(self.path)

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        file = self.path.with_name("file")
        file.write_bytes(b"")
        return sinks.load("delta")({"path": str(file)}), (SinkMisconfigured,)


def parquet_root(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue("tmp_path")
    return path / "root"


class LinesCase(SinkCase):
    """Own the file of a sink that a page shows."""

    keeps_schema = False

    def __init__(self, request: pytest.FixtureRequest, make: Callable[[Mapping[str, object]], Sink]) -> None:
        self.path: Path = request.getfixturevalue("tmp_path") / "rows.ndjson"
        self.make = make

    def sink(self) -> Sink:
        return self.make({"path": str(self.path)})

    def rows(self) -> Rows:
        lines = map(json.loads, self.path.read_text().splitlines()) if self.path.exists() else ()
        return [line | {"at": line["at"] and datetime.fromisoformat(line["at"])} for line in lines]

    def failing(self, sink: Sink) -> AbstractContextManager[None]:
        return without_fsync()


class HandlerCase(SinkCase):
    """Own what a handler was called with."""

    keeps_schema = False

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.kept: Rows = []

    def sink(self) -> Sink:
        async def handle(message: Message) -> None:
            self.keep(message)

        return HandlerSink(handle if self.asynchronous else self.keep)

    def keep(self, message: Message) -> None:
        row = message.json()
        at = row["at"] and datetime.fromisoformat(row["at"])
        place = {"_topic": message.topic, "_partition": message.partition, "_offset": message.offset}
        self.kept.append(row | {"at": at} | place)

    def rows(self) -> Rows:
        return self.kept

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        return HandlerSink("no_such_module:handle"), (ConfigurationError,)


class IcebergCase(SinkCase):
    """Own a table in a catalog of its own."""

    def __init__(self, directory: Path, **flags: object) -> None:
        self.lake = Lake.in_directory(directory, **flags)
        self.directory = directory

    def sink(self) -> Sink:
        return self.lake.sink()

    def rows(self) -> Rows:
        found: Rows = self.lake.rows().to_pylist()
        return found

    def copy(self, sink: Sink, block: Block) -> None:
        self.lake.append(block.table)

    @contextmanager
    def failing(self, sink: Sink) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Table, "_do_commit", _lost)
            yield

    def missing(self) -> tuple[Sink, tuple[type[BatcherError], ...]]:
        nowhere = {
            "type": "sql",
            "uri": f"sqlite:///{self.directory}/nowhere/catalog.db",
            "warehouse": "file:///nowhere",
        }
        return self.lake.sink(catalog=nowhere), (SinkMisconfigured,)


def _lost(table: Table, **_: object) -> None:
    raise CommitStateUnknownException("told to fail")


CASES: Final[Mapping[str, Callable[[pytest.FixtureRequest], SinkCase]]] = {
    "delta": lambda request: DeltaCase(parquet_root(request)),
    "delta:partitioned": lambda request: DeltaCase(parquet_root(request), ("country", "bucket(id, 4)", "month(at)")),
    "handler": lambda _: HandlerCase(asynchronous=False),
    "handler:async": lambda _: HandlerCase(asynchronous=True),
    "iceberg": lambda request: IcebergCase(request.getfixturevalue("tmp_path")),
    "iceberg:partitions": lambda request: IcebergCase(
        request.getfixturevalue("tmp_path"), partition_by="country,bucket(id, 2)"
    ),
    "memory": lambda _: MemoryCase(MemorySink(SCHEMA)),
    "memory:scripted": lambda _: ScriptedCase(ScriptedSink()),
    "null": lambda _: NullCase(),
    "lines:readme": lambda request: LinesCase(request, named_in(README, "LinesSink")),
    "lines:python": lambda request: LinesCase(request, LinesSink),
    "lines:plugins": lambda request: LinesCase(request, lambda options: Lines(LinesOptions.model_validate(options))),
    "parquet": lambda request: ParquetCase(parquet_root(request)),
    "parquet:hive": lambda request: ParquetCase(parquet_root(request), ("country",)),
    "parquet:topics": lambda request: TopicsCase(parquet_root(request)),
    "parquet:arrow": lambda _: ObjectCase(),
    "parquet:s3": BucketCase,
    "clickhouse": lambda request: ClickHouseCase(
        request.getfixturevalue("chdb_engine"), request.getfixturevalue("new_table")()
    ),
}


def test_every_registered_sink_has_a_case() -> None:
    assert set(sinks.names()) <= {name.partition(":")[0] for name in CASES}


class TestEverySink(SinkLaws):
    """Every sink that ships, and those that the pages show: the one of the README is taken from there."""

    @pytest.fixture(params=sorted(CASES))
    def case(self, request: pytest.FixtureRequest) -> SinkCase:
        return CASES[request.param](request)
