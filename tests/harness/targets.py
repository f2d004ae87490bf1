"""Targets for orders (`events.ORDERS`): made empty, with the flags that load into them, and counted afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.records import Partition
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.sinks import MemorySink
from tests.harness.census import Coordinate
from tests.harness.stores import ACCESS_KEY, REGION, SECRET_KEY, S3Server

ORDER_SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("ts", pa.timestamp("ms", "UTC"), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("country", pa.string(), nullable=False),
        pa.field("product", pa.string(), nullable=False),
        pa.field("quantity", pa.int16(), nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("paid", pa.bool_(), nullable=False),
        pa.field("session", pa.string(), nullable=False),
    ]
)

ORDER_COLUMNS: Final = (
    "id UInt64, ts DateTime64(3, 'UTC'), user_id UInt32, country LowCardinality(String), "
    "product LowCardinality(String), quantity UInt8, price Float64, paid Bool, session String"
)

COORDINATE_COLUMNS: Final = "_topic LowCardinality(String), _partition Int32, _offset Int64"


class Loaded(NamedTuple):
    """Say what a target holds: the coordinates of its rows, a repeat as often as it is there, and the sum of ids.

    `ids` are those of the rows, in the order of `coordinates`, which are empty where the target keeps none.
    """

    coordinates: Sequence[Coordinate]
    id_sum: int
    ids: Sequence[int]


class Target(Protocol):
    """Take orders and say which."""

    @property
    def arguments(self) -> Sequence[str]:
        """Return the flags that load into it."""

    def loaded(self) -> Loaded:
        """Return what it holds."""


class ParquetDirectory:
    """Keep orders in Parquet files below a directory. `path` may be one that only another process sees.

    The schema is written into `schema_file` and given with `--decode.schema`; without one the first batch decides.
    `partition_by` are columns that become directories.
    """

    def __init__(self, path: Path, schema_file: Path | None = None, *, partition_by: Sequence[str] = ()) -> None:
        self.path = path
        self._schema_file = schema_file
        self._partition_by = partition_by
        if schema_file is not None:
            with pa.ipc.new_file(str(schema_file), ORDER_SCHEMA):
                pass

    @property
    def arguments(self) -> Sequence[str]:
        given = [] if self._schema_file is None else ["--decode.schema", str(self._schema_file)]
        if self._partition_by:
            given += ["--parquet.partition-by", ",".join(self._partition_by)]
        return ("--sink", "parquet", "--parquet.path", str(self.path), *given)

    def loaded(self) -> Loaded:
        return self.loaded_at(self.path)

    @staticmethod
    def loaded_at(path: Path) -> Loaded:
        """Return what the files below a path hold, each of them read whole; raise if one cannot be."""
        coordinates: list[Coordinate] = []
        ids: list[int] = []
        for file in sorted(path.rglob("*.parquet")):
            table = pq.ParquetFile(file).read()
            topic = table.schema.metadata[b"batcher.topic"].decode()
            pairs = zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True)
            coordinates += [(Partition(topic, number), offset) for number, offset in pairs]
            ids += table["id"].to_pylist()
        return Loaded(coordinates, sum(ids), ids)


class ParquetBucket:
    """Keep orders in Parquet files below a prefix of a bucket, made here. The first batch decides the schema."""

    def __init__(self, server: S3Server, bucket: str, *, partition_by: Sequence[str] = ()) -> None:
        self.server = server
        self.bucket = server.bucket(bucket)
        self._partition_by = partition_by

    @property
    def arguments(self) -> Sequence[str]:
        options = {
            "endpoint": self.server.endpoint,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }
        given = [word for name, value in options.items() for word in ("--parquet.option", f"{name}={value}")]
        if self._partition_by:
            given += ["--parquet.partition-by", ",".join(self._partition_by)]
        return ("--sink", "parquet", "--parquet.path", f"s3://{self.bucket}/orders", *given)

    def loaded(self) -> Loaded:
        coordinates: list[Coordinate] = []
        ids: list[int] = []
        for table in self.tables():
            topic = table.schema.metadata[b"batcher.topic"].decode()
            pairs = zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True)
            coordinates += [(Partition(topic, number), offset) for number, offset in pairs]
            ids += table["id"].to_pylist()
        return Loaded(coordinates, sum(ids), ids)

    def tables(self) -> Iterator[pa.Table]:
        """Yield each file, read whole; raise if one cannot be."""
        for key in self.server.objects(self.bucket):
            if key.endswith(".parquet"):
                yield pq.ParquetFile(pa.BufferReader(self.server.get(self.bucket, key))).read()


@dataclass(frozen=True, slots=True)
class TableKind:
    """Say what kind of table holds orders: the tokens it remembers, whether it has coordinates, how it is cut.

    As it is by default, no token is remembered, so that repeats show.
    """

    window: int = 0
    coordinates: bool = True
    partition_by: str = ""

    def statement(self, name: str) -> str:
        """Return the statement that makes such a table."""
        columns = f"{ORDER_COLUMNS}, {COORDINATE_COLUMNS}" if self.coordinates else ORDER_COLUMNS
        cut = f"PARTITION BY {self.partition_by} " if self.partition_by else ""
        settings = f" SETTINGS non_replicated_deduplication_window = {self.window}" if self.window else ""
        return f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree {cut}ORDER BY id{settings}"


class ClickHouseTable:
    """Keep orders in a table of a test server, made here."""

    def __init__(self, server: ClickHouseServer, name: str, kind: TableKind | None = None) -> None:
        self.server = server
        self._name = name
        self._kind = kind or TableKind()
        server.query(self._kind.statement(name))

    @property
    def arguments(self) -> Sequence[str]:
        return ("--sink", "clickhouse", "--clickhouse.dsn", self.server.dsn, "--clickhouse.table", self._name)

    def loaded(self) -> Loaded:
        return loaded_in(self.server, self._name, coordinates=self._kind.coordinates)


class EmbeddedTable:
    """Keep orders in chDB on a path of its own. Made and counted by a server that has the path only meanwhile."""

    def __init__(self, path: Path, name: str, kind: TableKind | None = None) -> None:
        self.path = path
        self._name = name
        self._kind = kind or TableKind()
        with ClickHouseServer(path) as server:
            server.query(self._kind.statement(name))

    @property
    def arguments(self) -> Sequence[str]:
        return ("--sink", "clickhouse", "--clickhouse.dsn", f"chdb://{self.path}", "--clickhouse.table", self._name)

    def loaded(self) -> Loaded:
        with ClickHouseServer(self.path) as server:
            return loaded_in(server, self._name, coordinates=self._kind.coordinates)


def loaded_in(server: ClickHouseServer, table: str, *, coordinates: bool = True) -> Loaded:
    """Return what a table of a server holds."""
    where = "_topic, _partition, _offset" if coordinates else "'', 0, 0"
    rows = server.query(f"SELECT {where}, id FROM {table}")
    ids = [int(row[3]) for row in rows]
    places = [(Partition(topic, number), int(offset)) for topic, number, offset, _ in rows] if coordinates else []
    return Loaded(places, sum(ids), ids)


def keeping(options: Mapping[str, object]) -> MemorySink:
    """Return a sink that keeps rows in memory, for a command line: `--sink tests.harness.targets:keeping`."""
    del options
    return MemorySink(repeats="none")


class EmbeddedTables:
    """Ask the embedded engine in a directory, which only one process can have open at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def dsn(self) -> str:
        """Return what `--clickhouse.dsn` takes."""
        return f"chdb://{self._path}"

    def query(self, sql: str) -> list[tuple[str, ...]]:
        """Run a statement and return its rows as text, as `ClickHouseServer.query` does."""
        with ClickHouseServer(self._path) as server:
            return server.query(sql)
