"""What other programs see of a root: DuckDB, Polars and Arrow's datasets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.parquet import one_root
from sinks.parquet.workspace import TEMPORARY_SUFFIX

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

DAY = dt.date(2026, 1, 31)
NOON = dt.datetime(2026, 1, 31, 12, 0, 0, 1000, dt.UTC)

TABLE = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.uint64()),
        "country": ["DE", None, "a/b c"],
        "day": pa.array([DAY, DAY, None], pa.date32()),
        "at": pa.array([NOON, None, NOON], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(18, 2)),
        "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
        "place": pa.array([{"x": 1.5}, None, {"x": None}], pa.struct([("x", pa.float64())])),
        "raw": pa.array([b"\x00", None, b""], pa.binary()),
    }
)
COLUMNS = [*TABLE.column_names, "_partition", "_offset", "_timestamp"]


@pytest.fixture
def flat(tmp_path: Path) -> Iterator[Path]:
    yield from written(tmp_path / "flat", ())


@pytest.fixture
def hive(tmp_path: Path) -> Iterator[Path]:
    yield from written(tmp_path / "hive", ("country", "day"))


def written(root: Path, partition_by: tuple[str, ...]) -> Iterator[Path]:
    """Yield a root with two blocks, while the worker is still there and a dead one's leavings are, too."""
    sink = one_root({"path": str(root), "partition_by": partition_by})
    info = sink.open()
    sink.pin(TABLE.schema)
    sink.write(make_block(TABLE, coordinates=info.coordinates))
    sink.write(make_block(TABLE, first_offset=3, coordinates=info.coordinates))
    (next((root / "_tmp").glob("*/")) / f"7{TEMPORARY_SUFFIX}").write_bytes(b"PAR1 half")
    yield root
    sink.close()


def duck(query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    return rows


def test_duckdb_reads_types_and_values(flat: Path) -> None:
    described = duck(f"DESCRIBE SELECT * FROM read_parquet('{flat}/**/*.parquet')")
    assert [(row[0], row[1]) for row in described] == [
        ("id", "UBIGINT"),
        ("country", "VARCHAR"),
        ("day", "DATE"),
        ("at", "TIMESTAMP WITH TIME ZONE"),
        ("price", "DECIMAL(18,2)"),
        ("tags", "VARCHAR[]"),
        ("place", "STRUCT(x DOUBLE)"),
        ("raw", "BLOB"),
        ("_partition", "INTEGER"),
        ("_offset", "BIGINT"),
        ("_timestamp", "TIMESTAMP WITH TIME ZONE"),
    ]
    microseconds = int(NOON.timestamp()) * 1_000_000 + 1000
    assert duck(
        f"SELECT id, country, day, epoch_us(\"at\"), price, tags, place, raw FROM read_parquet('{flat}/*.parquet')"
        " ORDER BY _offset LIMIT 3"
    ) == [
        (1, "DE", DAY, microseconds, Decimal("1.50"), ["a"], {"x": 1.5}, b"\x00"),
        (2, None, DAY, None, None, [], None, None),
        (3, "a/b c", None, microseconds, Decimal("-2.25"), None, {"x": None}, b""),
    ]


def test_duckdb_reads_hive_directories(hive: Path) -> None:
    files = f"read_parquet('{hive}/**/*.parquet', hive_partitioning = true)"
    assert duck(f"SELECT id, country, CAST(day AS VARCHAR) FROM {files} ORDER BY _offset LIMIT 3") == [
        (1, "DE", "2026-01-31"),
        (2, None, "2026-01-31"),
        (3, "a/b c", None),
    ]
    assert duck(f"SELECT count(*), count(DISTINCT _offset) FROM {files}") == [(6, 6)]


def test_polars_reads_types_and_values(flat: Path) -> None:
    frame = pl.read_parquet(f"{flat}/**/*.parquet").sort("_offset")
    assert frame.columns == COLUMNS
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame.schema["price"] == pl.Decimal(18, 2)
    assert frame.schema["_timestamp"] == pl.Datetime("ms", "UTC")
    assert frame.head(3).select(TABLE.column_names).to_dicts() == TABLE.to_pylist()
    assert len(frame) == 6


def test_polars_reads_hive_directories(hive: Path) -> None:
    frame = pl.read_parquet(f"{hive}/**/*.parquet", hive_partitioning=True).sort("_offset").head(3)
    assert frame.select("id", "country", "day").rows() == [(1, "DE", DAY), (2, None, DAY), (3, "a/b c", None)]


def test_arrow_reads_the_directory_as_it_was_written(flat: Path, hive: Path) -> None:
    table = ds.dataset(flat).to_table().sort_by("_offset")
    assert table.slice(0, 3).select(TABLE.column_names).equals(TABLE)
    partitioning = ds.partitioning(pa.schema([TABLE.schema.field("country"), TABLE.schema.field("day")]), flavor="hive")
    table = ds.dataset(hive, partitioning=partitioning).to_table().sort_by("_offset")
    assert table.slice(0, 3).select(TABLE.column_names).equals(TABLE)


@pytest.fixture
def hours(tmp_path: Path) -> Iterator[Path]:
    """Yield a root by day and hour, one without a day, and a column `at` in every file."""
    yield from written(tmp_path / "hours", ("day(at) as dt", "hour(at) as hour"))


ROWS_AT_NOON = [(1, DAY, 12), (3, DAY, 12)]


def test_duckdb_reads_days_and_hours_and_skips_the_files_of_others(hours: Path) -> None:
    files = f"read_parquet('{hours}/**/*.parquet', hive_partitioning = true)"
    asked = f"SELECT id, dt, hour FROM {files} WHERE dt = '2026-01-31' AND hour = 12"
    assert duck(f"{asked} ORDER BY _offset LIMIT 2") == ROWS_AT_NOON
    assert duck(f"SELECT count(*) FROM {files} WHERE dt IS NULL AND hour IS NULL") == [(2,)]


def test_polars_reads_days_and_hours(hours: Path) -> None:
    frame = pl.scan_parquet(f"{hours}/**/*.parquet", hive_partitioning=True).filter(pl.col("dt") == DAY)
    assert frame.sort("_offset").select("id", "dt", "hour").head(2).collect().rows() == ROWS_AT_NOON


def test_arrow_reads_days_and_hours(hours: Path) -> None:
    levels = ds.partitioning(pa.schema([("dt", pa.date32()), ("hour", pa.int8())]), flavor="hive")
    table = ds.dataset(hours, partitioning=levels).to_table(filter=ds.field("hour") == 12).sort_by("_offset")
    assert [tuple(row.values()) for row in table.select(["id", "dt", "hour"]).slice(0, 2).to_pylist()] == ROWS_AT_NOON


def test_clickhouse_reads_days_and_hours(hours: Path, chdb_engine: EmbeddedEngine) -> None:
    # With types by name: it guesses them from the first directory, and takes nothing else for a date then.
    columns = "id UInt64, _offset Int64, dt String, hour String"
    asked = f"SELECT id, dt, hour FROM file('{hours}/**/*.parquet', Parquet, '{columns}') WHERE dt = '2026-01-31'"
    found = chdb_engine.execute(f"{asked} ORDER BY _offset LIMIT 2").to_pylist()
    assert [tuple(row.values()) for row in found] == [(1, "2026-01-31", "12"), (3, "2026-01-31", "12")]


def test_the_pin_is_readable_as_a_schema(flat: Path) -> None:
    assert pl.read_ipc(flat / "_schema.arrow").columns == TABLE.column_names
