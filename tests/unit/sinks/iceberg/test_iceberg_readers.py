"""What other programs see of a table: DuckDB, Polars, pyiceberg and ClickHouse's engine, with every type."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from batcher.testing.clickhouse import embedded_engine_missing
from batcher.testing.values import make_block
from tests.harness.every_type import EXPECTED, TABLE
from tests.harness.iceberg import Lake


@pytest.fixture(params=[(), ("country", "day(at)")], ids=["flat", "partitioned"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    made = Lake.in_directory(tmp_path, partition_by=request.param)
    sink = made.sink()
    info = sink.open()
    held = sink.pin(TABLE.schema)
    # Numbers keep their own bounds for the decoder, although the table's are wider.
    assert held.field("i8").type == pa.int8()
    sink.write(make_block(TABLE, coordinates=info.coordinates))
    sink.write(make_block(TABLE, first_offset=3, coordinates=info.coordinates))
    sink.close()
    return made


def test_pyiceberg_reads_every_type(lake: Lake) -> None:
    rows = lake.rows().sort_by("_offset")
    assert rows.select(TABLE.column_names).slice(0, 3).to_pylist() == EXPECTED


def test_polars_reads_every_type(lake: Lake) -> None:
    with lake.read() as table:
        frame = pl.scan_iceberg(table, reader_override="pyiceberg").collect().sort("_offset")
    assert frame["_offset"].to_list() == list(range(6))
    for name in ("id", "i8", "u8", "u32", "country", "day", "at", "local", "price", "tags", "raw"):
        assert frame[name].to_list()[:3] == [row[name] for row in EXPECTED], name


def test_duckdb_reads_every_type(lake: Lake) -> None:
    with lake.read() as table:
        place = table.metadata_location
    with duckdb.connect() as connection:
        try:
            connection.execute("LOAD iceberg")
        except duckdb.Error:
            pytest.skip("DuckDB has its extension iceberg to download, and is not let")
        rows = connection.execute(f"SELECT id, u8, _offset FROM iceberg_scan('{place}') ORDER BY _offset").fetchall()
    assert [row[2] for row in rows] == list(range(6))


def test_duckdb_reads_it_through_arrow_without_its_extension(lake: Lake) -> None:
    rows = lake.rows()
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        found = connection.execute("SELECT sum(u8), count(DISTINCT _offset), max(price) FROM rows").fetchall()
    assert found == [(514, 6, Decimal("1.50"))]


def test_clickhouses_engine_reads_the_numbers_texts_and_nested_values(lake: Lake) -> None:
    if (reason := embedded_engine_missing()) is not None:
        pytest.skip(reason)
    with lake.read() as table:
        place = Path(table.location().removeprefix("file://"))
    query = (
        "SELECT sum(u8), sum(u32), count(), countIf(country = 'a/b c'), max(price), max(at), max(map['k']), "
        f"max(place.x), max(tags[1]) FROM icebergLocal('{place}')"
    )
    # It reads files below its working directory only, so it gets a process of its own.
    code = f"import chdb; print(chdb.query({query!r}, 'TSV'), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.rstrip("\n").split("\t")
    assert found[:5] == ["514", str(2 * (2**32 + 1)), "6", "2", "1.5"]
    assert found[5].startswith("2026-01-31 ")
    assert found[6:] == ["1", "1.5", "a"]
