"""Where the demo's pipeline writes, and what is read from it afterwards."""

from __future__ import annotations

import importlib.util
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from batcher.demo import engine
from batcher.errors import ConfigurationError

TABLE: Final = "events"

DDL: Final = f"""
CREATE TABLE {TABLE}
(
    id         UInt64,
    ts         DateTime64(3, 'UTC'),
    user_id    UInt32,
    country    LowCardinality(String),
    product    LowCardinality(String),
    quantity   UInt8,
    price      Decimal(10, 2),
    paid       Bool,
    session    String,
    _topic     LowCardinality(String),
    _partition UInt32,
    _offset    UInt64,
    _timestamp DateTime64(3, 'UTC'),
    INDEX offsets (_topic, _partition, _offset) TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (product, ts)
SETTINGS non_replicated_deduplication_window = 1000
"""
"""The same table as in deploy/clickhouse/events.sql; a test compares them."""

SCHEMA: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("ts", pa.timestamp("ms", "UTC")),
        ("user_id", pa.int32()),
        ("country", pa.string()),
        ("product", pa.string()),
        ("quantity", pa.int16()),
        ("price", pa.decimal128(10, 2)),
        ("paid", pa.bool_()),
        ("session", pa.string()),
    ]
)
"""It is given to the pipeline: inferred from a first batch with broken orders in it, it could be wider."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold the result of the query that is shown: the SQL, and rows of product, orders, revenue."""

    sql: str
    rows: Sequence[tuple[str, int, float]]


class DemoTarget(Protocol):
    """Prepare a target, give the flags that write to it, and read it when no other process has it open.

    `own_flags` are for another topic, so that its rows and those of the demo do not get mixed up.
    """

    name: str
    place: str
    flags: Sequence[str]
    own_flags: Sequence[str]

    def prepare(self) -> None: ...

    def read(self) -> tuple[pa.Table, Answer]:
        """Return the coordinates of all rows, and the answer to the query."""
        ...

    def look(self, python: str) -> str:
        """Return the command that asks again."""
        ...


class ClickHouseTarget:
    """Load into a table of embedded ClickHouse. Raise ConfigurationError where the extra is not installed."""

    def __init__(self, directory: Path) -> None:
        if importlib.util.find_spec("chdb") is None:
            raise ConfigurationError(
                "the embedded ClickHouse is not installed: pip install 'kafka-batcher[embedded]', "
                "or see the same with files: batcher demo --sink parquet"
            )
        self._path = directory / "clickhouse"
        self._sql = _ranking()
        self.name = "embedded ClickHouse"
        self.place = f"an empty table {TABLE} in {self._path}"
        self.flags: Sequence[str] = (
            *("--sink", "clickhouse", "--clickhouse.dsn", f"chdb://{quote(str(self._path))}"),
            *("--clickhouse.table", TABLE),
        )
        self.own_flags: Sequence[str] = self.flags

    def prepare(self) -> None:
        engine.run(self._path, [DDL])

    def read(self) -> tuple[pa.Table, Answer]:
        rows, best = engine.run(self._path, [f"SELECT _partition, _offset FROM {TABLE}", self._sql])  # noqa: S608
        columns = (best[name].to_pylist() for name in ("product", "orders", "revenue"))
        return rows, Answer(self._sql, list(zip(*columns, strict=True)))

    def look(self, python: str) -> str:
        query = f"chdb.connect({_text(self._path)}).query({_text(self._sql)}, {_text('PrettyCompact')})"
        return f"{python} -c {shlex.quote(f'import chdb; print({query})')}"


class ParquetTarget:
    """Load into Parquet files of a directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "parquet"
        self._schema = directory / "schema.arrow"
        self._sql = _ranking()
        self.name = "Parquet files"
        self.place = str(self._path)
        self.flags: Sequence[str] = self._flags(self._path)
        self.own_flags: Sequence[str] = self._flags(directory / "own")

    def prepare(self) -> None:
        with pa.OSFile(str(self._schema), "wb") as file, pa.ipc.new_file(file, SCHEMA):
            pass

    def read(self) -> tuple[pa.Table, Answer]:
        self._path.mkdir(exist_ok=True)  # nothing may have been written
        coordinates = pa.schema([("_partition", pa.int32()), ("_offset", pa.int64())])
        files = ds.dataset(self._path, format="parquet", schema=pa.unify_schemas([SCHEMA, coordinates]))
        table = files.to_table(columns=["_partition", "_offset", "product", "price", "quantity"])
        revenue = pc.multiply(table["price"].cast(pa.float64()), table["quantity"].cast(pa.float64()))
        orders = table.append_column("revenue", revenue).group_by("product")
        best = orders.aggregate([("revenue", "count"), ("revenue", "sum")])
        best = best.sort_by([("revenue_sum", "descending")]).slice(0, 5)
        columns = (best[name].to_pylist() for name in ("product", "revenue_count", "revenue_sum"))
        return table.select(["_partition", "_offset"]), Answer(self._sql, list(zip(*columns, strict=True)))

    def _flags(self, path: Path) -> tuple[str, ...]:
        return ("--sink", "parquet", "--parquet.path", str(path), "--decode.schema", str(self._schema))

    def look(self, python: str) -> str:
        files = f"{self._path}/*.parquet"
        if importlib.util.find_spec("duckdb") is not None:
            query = f"duckdb.read_parquet({_text(files)}).query({_text(TABLE)}, {_text(self._sql)})"
            return f"{python} -c {shlex.quote(f'import duckdb; {query}.show()')}"
        rows = f"ds.dataset({_text(self._path)}, format={_text('parquet')}).count_rows()"
        return f"{python} -c {shlex.quote(f'import pyarrow.dataset as ds; print({rows})')}"


def _ranking() -> str:
    revenue = "product, count() AS orders, sum(price * quantity) AS revenue"
    return f"SELECT {revenue} FROM {TABLE} GROUP BY product ORDER BY revenue DESC LIMIT 5"  # noqa: S608  # our own


def _text(value: object) -> str:
    """Return a Python string in double quotes: the shell takes the single ones."""
    return json.dumps(str(value), ensure_ascii=False)
