"""What other programs see of a table: DuckDB, Polars, pandas, Arrow and ClickHouse's engine, with every type."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Final

import deltalake
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sinks
from batcher.testing.clickhouse import embedded_engine_missing
from batcher.testing.values import make_block
from tests.harness.every_type import EXPECTED, TABLE

LAYOUTS: Final[dict[str, dict[str, object]]] = {
    "flat": {},
    "partitioned": {"partition_by": ("country", "day(at)")},
    "v2": {"encodings": "v2"},
}


@pytest.fixture(params=list(LAYOUTS.values()), ids=list(LAYOUTS))
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "table"
    sink = sinks.load("delta")({"path": str(path), **request.param})
    info = sink.open()
    sink.pin(TABLE.schema)  # type: ignore[attr-defined]
    sink.write(make_block(TABLE, coordinates=info.coordinates))
    sink.write(make_block(TABLE, first_offset=3, coordinates=info.coordinates))
    sink.close()
    return path


@pytest.mark.parametrize(("encodings", "of_ids"), [("v1", "PLAIN"), ("v2", "DELTA_BINARY_PACKED")])
def test_only_columns_whose_values_come_again_have_a_dictionary(encodings: str, of_ids: str, tmp_path: Path) -> None:
    rows = pa.table({"id": [7 * n for n in range(1_000)], "place": [{"town": "Bonn", "zip": n} for n in range(1_000)]})
    sink = sinks.load("delta")({"path": str(tmp_path / "table"), "encodings": encodings})
    info = sink.open()
    sink.write(make_block(rows, coordinates=info.coordinates))
    sink.close()

    [file] = (tmp_path / "table").glob("*.parquet")
    group = pq.ParquetFile(file).metadata.row_group(0)
    found = {one.path_in_schema: one for one in map(group.column, range(group.num_columns))}
    with_dictionary = [path for path, one in found.items() if one.has_dictionary_page]
    assert sorted(with_dictionary) == ["_partition", "_topic", "place.town", "place.zip"]
    assert all(of_ids in found[path].encodings for path in ("id", "_offset", "_timestamp"))
    assert deltalake.DeltaTable(tmp_path / "table").to_pyarrow_table().select(rows.column_names).equals(rows)


def test_arrow_and_pandas_read_every_type(table: Path) -> None:
    read = deltalake.DeltaTable(table).to_pyarrow_table().sort_by("_offset")
    assert read.select(TABLE.column_names).slice(0, 3).to_pylist() == EXPECTED
    frame = deltalake.DeltaTable(table).to_pandas()
    assert sorted(frame["_offset"]) == list(range(6))
    assert int(frame["u8"].sum()) == 2 * 257


def test_polars_reads_every_type(table: Path) -> None:
    frame = pl.read_delta(str(table)).sort("_offset")
    assert frame["_offset"].to_list() == list(range(6))
    for name in ("id", "u8", "u32", "country", "day", "at", "local", "price", "tags", "raw"):
        assert frame[name].to_list()[:3] == [row[name] for row in EXPECTED], name
    assert frame["map"].to_list()[0] == {"k": 1}


def test_duckdb_reads_every_type(table: Path) -> None:
    with duckdb.connect() as connection:
        try:
            connection.execute("LOAD delta")
        except duckdb.Error:
            pytest.skip("DuckDB has its extension delta to download, and is not let")
        rows = connection.execute(f"SELECT id, u8, _offset FROM delta_scan('{table}') ORDER BY _offset").fetchall()
    assert [row[2] for row in rows] == list(range(6))
    assert [row[1] for row in rows[:3]] == [255, 2, None]


def test_duckdb_reads_it_through_arrow_without_its_extension(table: Path) -> None:
    rows = deltalake.DeltaTable(table).to_pyarrow_dataset()
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        found = connection.execute("SELECT sum(u8), count(DISTINCT _offset), max(price) FROM rows").fetchall()
    assert found == [(514, 6, Decimal("1.50"))]


# The engine of chDB 4.4 does not find a partition column beside nested ones.
@pytest.mark.parametrize("table", [LAYOUTS["flat"], LAYOUTS["v2"]], indirect=True, ids=["flat", "v2"])
def test_clickhouses_engine_reads_the_numbers_texts_and_nested_values(table: Path) -> None:
    if (reason := embedded_engine_missing()) is not None:
        pytest.skip(reason)
    query = (
        "SELECT sum(u8), sum(u32), count(), countIf(country = 'a/b c'), max(price), max(at), max(map['k']), "
        f"max(place.x), max(tags[1]) FROM deltaLakeLocal('{table}')"
    )
    # It reads files below its working directory only, so it gets a process of its own.
    code = f"import chdb; print(chdb.query({query!r}, 'TSV'), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=table.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.rstrip("\n").split("\t")
    assert found[:5] == ["514", str(2 * (2**32 + 1)), "6", "2", "1.5"]
    assert found[5].startswith("2026-01-31 ")
    assert found[6:] == ["1", "1.5", "a"]
