"""Targets for orders (`events.ORDERS`): made empty, with the flags that load into them, and counted afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batcher.records import Partition
from batcher.testing.census import Coordinate
from batcher.testing.clickhouse import ClickHouseServer

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
    "product LowCardinality(String), quantity UInt8, price Float64, paid Bool, session String, "
    "_topic LowCardinality(String), _partition Int32, _offset Int64"
)


class Loaded(NamedTuple):
    """Say what a target holds: the coordinates of its rows, a repeat as often as it is there, and the sum of ids."""

    coordinates: Sequence[Coordinate]
    id_sum: int


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
    """

    def __init__(self, path: Path, schema_file: Path | None = None) -> None:
        self.path = path
        self._schema_file = schema_file
        if schema_file is not None:
            with pa.ipc.new_file(str(schema_file), ORDER_SCHEMA):
                pass

    @property
    def arguments(self) -> Sequence[str]:
        given = () if self._schema_file is None else ("--decode.schema", str(self._schema_file))
        return ("--sink", "parquet", "--parquet.path", str(self.path), *given)

    def loaded(self) -> Loaded:
        return self.loaded_at(self.path)

    @staticmethod
    def loaded_at(path: Path) -> Loaded:
        """Return what the files below a path hold, each of them read whole; raise if one cannot be."""
        coordinates: list[Coordinate] = []
        id_sum = 0
        for file in sorted(path.rglob("*.parquet")):
            table = pq.ParquetFile(file).read()
            topic = table.schema.metadata[b"batcher.topic"].decode()
            pairs = zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True)
            coordinates += [(Partition(topic, number), offset) for number, offset in pairs]
            id_sum += pc.sum(table["id"]).as_py() or 0
        return Loaded(coordinates, id_sum)


class ClickHouseTable:
    """Keep orders in a table of a test server, made here; it remembers no tokens, so that repeats show."""

    def __init__(self, server: ClickHouseServer, name: str) -> None:
        self.server = server
        self._name = name
        server.query(f"CREATE TABLE {name} ({ORDER_COLUMNS}) ENGINE = MergeTree ORDER BY id")

    @property
    def arguments(self) -> Sequence[str]:
        return ("--sink", "clickhouse", "--clickhouse.dsn", self.server.dsn, "--clickhouse.table", self._name)

    def loaded(self) -> Loaded:
        return loaded_in(self.server, self._name)


class EmbeddedTable:
    """Keep orders in chDB on a path of its own. Made and counted by a server that has the path only meanwhile."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        with ClickHouseServer(path) as server:
            ClickHouseTable(server, name)

    @property
    def arguments(self) -> Sequence[str]:
        return ("--sink", "clickhouse", "--clickhouse.dsn", f"chdb://{self.path}", "--clickhouse.table", self._name)

    def loaded(self) -> Loaded:
        with ClickHouseServer(self.path) as server:
            return loaded_in(server, self._name)


def loaded_in(server: ClickHouseServer, table: str) -> Loaded:
    """Return what a table of a server holds."""
    query = f"SELECT _topic, _partition, groupArray(_offset), sum(id) FROM {table} GROUP BY 1, 2"  # noqa: S608  ours
    coordinates: list[Coordinate] = []
    id_sum = 0
    for topic, number, offsets, ids in server.query(query):
        coordinates += [(Partition(topic, number), offset) for offset in offsets]
        id_sum += ids
    return Loaded(coordinates, id_sum)
