"""Spark reads what was written, with every type: Parquet and Delta by their paths, Iceberg through a REST catalog.

Spark has an environment of its own, and its parts for lake tables come from Maven Central: the long form sets both up.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest

import sinks
from batcher.embedded.jars import Unavailable, cache_dir, fetched, with_dependencies
from batcher.testing.values import make_block
from benchmarks.compare.environments import default_directory, python_of
from sinks.parquet import one_root
from tests.harness.every_type import TABLE
from tests.harness.iceberg import Lake

pytest_plugins = ["tests.harness.iceberg_plugin"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PARTS: Final = (
    ("io.delta", "delta-spark_2.13", "4.0.0"),
    ("org.apache.iceberg", "iceberg-spark-runtime-4.0_2.13", "1.10.1"),
)
"""For Spark 4.0, which is what the comparison has."""

PLACE: Final = "spark-lake-4.0"

READ: Final = """\
import json, sys
from pyspark.sql import SparkSession

jars, settings, form, table, columns = sys.argv[1], json.loads(sys.argv[2]), *sys.argv[3:5], json.loads(sys.argv[5])
builder = SparkSession.builder.master("local[1]").config("spark.jars", jars)
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
frame = spark.read.table(table) if form == "iceberg" else spark.read.format(form).load(table)

def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

rows = [one.asDict(recursive=True) for one in frame.orderBy("_offset").select("_offset", *columns).collect()]
print("ROWS" + json.dumps([plain(row) for row in rows]))
"""

USUAL: Final = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "1",
}

REPEATED: Final = 100

EXPECTED: Final[list[dict[str, Any]]] = [
    {"_offset": 0, "id": "1", "i8": -1, "u8": 255, "u32": 4294967295, "f32": 0.5, "paid": True, "country": "DE"}
    | {"day": "2026-01-31", "at": "2026-01-31 12:00:00.001000", "local": "2026-01-31 12:00:00.001000"}
    | {"price": "1.50", "tags": ["a"], "place": {"x": 1.5}, "map": {"k": 1}, "raw": "00"},
    {"_offset": 1, "id": "2", "i8": 2, "u8": 2, "u32": 2, "f32": None, "paid": None, "country": None}
    | {"day": "2026-01-31", "at": None, "local": None}
    | {"price": None, "tags": [], "place": None, "map": None, "raw": None},
    {"_offset": 2, "id": "3", "i8": None, "u8": None, "u32": None, "f32": -1.0, "paid": False, "country": "a/b c"}
    | {"day": None, "at": "2026-01-31 12:00:00.001000", "local": None}
    | {"price": "-2.25", "tags": None, "place": {"x": None}, "map": {}, "raw": ""},
]


@pytest.fixture(scope="module")
def spark() -> tuple[Path, str]:
    """Return the Python of Spark and the paths of its parts for lake tables."""
    what = "Spark's parts for lake tables"
    try:
        python = python_of("spark", default_directory())
        jars = fetched(cache_dir() / PLACE, what, partial(with_dependencies, what, PARTS))
    except Unavailable as error:
        pytest.skip(str(error))
    return python, ",".join(str(jar) for jar in sorted(jars.glob("*.jar")))


def rows(spark: tuple[Path, str], form: str, table: str, **settings: str) -> list[dict[str, Any]]:
    python, jars = spark
    given = {**USUAL, **{name.replace("__", "."): value for name, value in settings.items()}}
    done = subprocess.run(
        [str(python), "-c", READ, jars, json.dumps(given), form, table, json.dumps(TABLE.column_names)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={"PATH": os.environ["PATH"], "TZ": "UTC"},
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("ROWS")]
    assert found, done.stderr[-3000:]
    read: list[dict[str, Any]] = json.loads(found[0].removeprefix("ROWS"))
    return read


@pytest.mark.parametrize("encodings", ["v1", "v2"])
def test_spark_reads_every_type_of_a_parquet_root(spark: tuple[Path, str], encodings: str, tmp_path: Path) -> None:
    # It refuses nanoseconds, as docs/parquet.md says.
    place = TABLE.schema.get_field_index("at")
    table = TABLE.set_column(place, "at", TABLE.column("at").cast(pa.timestamp("us", "Europe/Berlin")))
    sink = one_root({"path": str(tmp_path / "root"), "encodings": encodings})
    info = sink.open()
    sink.pin(table.schema)
    for start in range(0, REPEATED * table.num_rows, table.num_rows):
        sink.write(make_block(table, first_offset=start, coordinates=info.coordinates))
    # With so many rows in a file there are dictionaries and, in v2, differences.
    many = pa.concat_tables([table] * REPEATED)
    sink.write(make_block(many, first_offset=REPEATED * table.num_rows, coordinates=info.coordinates))
    sink.close()

    read = rows(spark, "parquet", str(tmp_path / "root"))

    assert [row.pop("_offset") for row in read] == list(range(2 * REPEATED * table.num_rows))
    assert read == [{name: value for name, value in row.items() if name != "_offset"} for row in EXPECTED] * (
        2 * REPEATED
    )


@pytest.mark.parametrize("encodings", ["v1", "v2"])
@pytest.mark.parametrize("partition_by", [(), ("country", "day(at)")], ids=["flat", "partitioned"])
def test_spark_reads_every_type_of_a_delta_table(
    spark: tuple[Path, str], partition_by: tuple[str, ...], encodings: str, tmp_path: Path
) -> None:
    given = {"path": str(tmp_path / "table"), "partition_by": partition_by, "encodings": encodings}
    sink = sinks.load("delta")(given)
    info = sink.open()
    sink.pin(TABLE.schema)  # type: ignore[attr-defined]
    sink.write(make_block(TABLE, coordinates=info.coordinates))
    sink.close()
    read = rows(
        spark,
        "delta",
        str(tmp_path / "table"),
        spark__sql__extensions="io.delta.sql.DeltaSparkSessionExtension",
        spark__sql__catalog__spark_catalog="org.apache.spark.sql.delta.catalog.DeltaCatalog",
    )
    assert read == EXPECTED


@pytest.fixture
def written(rest_lake: Lake) -> Lake:
    sink = rest_lake.sink()
    info = sink.open()
    sink.pin(TABLE.schema)
    sink.write(make_block(TABLE, coordinates=info.coordinates))
    sink.close()
    return rest_lake


def test_spark_reads_every_type_of_an_iceberg_table(spark: tuple[Path, str], written: Lake) -> None:
    read = rows(
        spark,
        "iceberg",
        f"lake.{written.table}",
        spark__sql__catalog__lake="org.apache.iceberg.spark.SparkCatalog",
        spark__sql__catalog__lake__type="rest",
        spark__sql__catalog__lake__uri=written.catalog["uri"],
    )
    assert read == EXPECTED
