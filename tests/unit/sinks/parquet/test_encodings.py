"""How columns are encoded changes what files cost, and nothing that anybody reads."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, get_args

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.parquet import one_root
from sinks.parquet.encodings import FEW, MANY, Encodings, encodings_of
from sinks.parquet.files import ROW_GROUP_ROWS, encode

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

ROWS = 2_000
DICE = random.Random(7)

TABLE = pa.table(
    {
        "id": pa.array([DICE.getrandbits(60) for _ in range(ROWS)], pa.int64()),
        "small": pa.array([number % 100 for number in range(ROWS)], pa.int8()),
        "unsigned": pa.array([2**63 + 17 * number for number in range(ROWS)], pa.uint64()),
        "narrow": pa.array([2**31 + number for number in range(ROWS)], pa.uint32()),
        "country": pa.array([("DE", "FR", None)[number % 3] for number in range(ROWS)]),
        "session": pa.array([f"{DICE.getrandbits(128):032x}" for _ in range(ROWS)]),
        "day": pa.array(range(ROWS), pa.int32()).cast(pa.date32()),
        "clock": pa.array([1_000 * number for number in range(ROWS)], pa.time64("us")),
        "at": pa.array([1_700_000_000_000_000 + 7 * number for number in range(ROWS)], pa.timestamp("us", "UTC")),
        "gone": pa.array([None if number % 2 else number for number in range(ROWS)], pa.int64()),
        "share": pa.array([DICE.random() for _ in range(ROWS)]),
        "paid": pa.array([number % 2 == 0 for number in range(ROWS)]),
        "place": pa.array([{"zip": 10_000 + number, "town": "Bonn"} for number in range(ROWS)]),
        "tags": pa.array([["a", "b"], [], None, ["a"]] * (ROWS // 4)),
        "labels": pa.array(
            [[("k", number), ("l", -number)] for number in range(ROWS)], pa.map_(pa.string(), pa.int64())
        ),
        "never": pa.array([None] * ROWS, pa.string()),
    }
)
REPEATING = ["small", "country", "paid", "place.town", "tags.list.element", "labels.key_value.key", "never"]
WHOLE = ["id", "unsigned", "narrow", "day", "clock", "at", "gone", "place.zip", "labels.key_value.value"]


def both() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("encodings", get_args(Encodings))


def columns_of(content: pa.Buffer) -> dict[str, Any]:
    group = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0)
    return {one.path_in_schema: one for one in map(group.column, range(group.num_columns))}


def test_columns_whose_values_come_again_have_a_dictionary_those_inside_others_too() -> None:
    assert encodings_of(TABLE, "v1", ROW_GROUP_ROWS).dictionaries == REPEATING
    assert not encodings_of(TABLE, "v1", ROW_GROUP_ROWS).others

    found = columns_of(encode(TABLE, "zstd", 1))
    with_dictionary = [path for path, one in found.items() if one.has_dictionary_page]
    assert with_dictionary == [path for path in REPEATING if path != "paid"]  # Parquet has none for it


def test_v2_keeps_whole_numbers_and_times_as_differences_where_they_have_no_dictionary() -> None:
    assert list(encodings_of(TABLE, "v2", ROW_GROUP_ROWS).others) == WHOLE

    found = columns_of(encode(TABLE, "zstd", 1, encodings="v2"))
    assert sorted(path for path, one in found.items() if "DELTA_BINARY_PACKED" in one.encodings) == sorted(WHOLE)


def test_a_dictionary_counts_the_values_of_a_row_group_and_not_of_the_table() -> None:
    # In turn, so that no value comes twice among the first ones.
    table = pa.table({"n": pa.array([number % 900 for number in range(30_000)], pa.int64())})

    assert encodings_of(table, "v1", 30_000).dictionaries == ["n"]
    assert encodings_of(table, "v1", 1_000).dictionaries == []


@pytest.mark.parametrize(
    ("different", "width", "expected"),
    [
        pytest.param(10_000, 8, True, id="80 kB of numbers"),
        pytest.param(40_000, 8, False, id="320 kB of numbers"),
        pytest.param(1_000, 36, True, id="36 kB of texts"),
        pytest.param(20_000, 36, False, id="720 kB of texts"),
    ],
)
def test_a_dictionary_that_would_grow_too_large_is_not_begun(*, different: int, width: int, expected: bool) -> None:
    dice = random.Random(3)
    numbers = [dice.randrange(different) for _ in range(100_000)]
    values = numbers if width == 8 else [f"{number:036d}" for number in numbers]

    assert bool(encodings_of(pa.table({"x": values}), "v1", ROW_GROUP_ROWS).dictionaries) is expected


def test_few_rows_and_very_many_columns_are_not_looked_at() -> None:
    assert encodings_of(TABLE.slice(0, FEW - 1), "v1", ROW_GROUP_ROWS).dictionaries == []
    many = pa.table({f"c{number}": pa.nulls(FEW, pa.int64()) for number in range(MANY + 1)})
    assert encodings_of(many, "v2", ROW_GROUP_ROWS).dictionaries is True
    assert encodings_of(many, "v2", ROW_GROUP_ROWS).others == {}


@both()
@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.json_()], ids=str)
def test_a_type_that_arrow_cannot_count_is_written_all_the_same(encodings: Encodings, kind: pa.DataType) -> None:
    table = pa.table({"x": pa.array([str(number) for number in range(ROWS)]).cast(kind)})

    read = pq.read_table(pa.BufferReader(encode(table, "zstd", 1, encodings=encodings)))

    assert read.column("x").to_pylist() == table.column("x").to_pylist()


@both()
@pytest.mark.parametrize("rows", [0, 1, FEW, ROWS])
def test_what_is_written_is_what_is_read(encodings: Encodings, rows: int) -> None:
    table = TABLE.slice(ROWS - rows)

    content = encode(table, "zstd", 1, encodings=encodings)

    read = pq.read_table(pa.BufferReader(content)).replace_schema_metadata(None)
    assert read.equals(table)
    assert content.equals(encode(table, "zstd", 1, encodings=encodings))


@both()
def test_other_programs_read_the_same(encodings: Encodings, tmp_path: Path, chdb_engine: EmbeddedEngine) -> None:
    sink = one_root({"path": str(tmp_path / "root"), "encodings": encodings})
    sink.open()
    sink.pin(TABLE.schema)
    sink.write(make_block(TABLE, coordinates=("_partition", "_offset", "_timestamp")))
    sink.close()
    files = f"{tmp_path}/root/**/*.parquet"

    expected = ds.dataset(tmp_path / "root").to_table().select(TABLE.column_names)
    assert expected.equals(TABLE)
    rows = sorted(TABLE.to_pylist(), key=lambda row: row["id"])
    frame = pl.read_parquet(files).sort("id")
    for name in ("id", "small", "unsigned", "narrow", "country", "session", "day", "at", "gone", "place", "tags"):
        assert frame[name].to_list() == [row[name] for row in rows], name
    with duckdb.connect() as connection:
        names = 'id, small, unsigned, narrow, day, epoch_us("at"), gone, place.zip, list_sum(map_values(labels))'
        found = connection.execute(f"SELECT {names} FROM read_parquet('{files}') ORDER BY id").fetchall()
    assert [row[0] for row in found] == [row["id"] for row in rows]
    assert [row[1:5] for row in found] == [(*tuple(row.values())[1:4], row["day"]) for row in rows]
    assert [row[6:] for row in found] == [(row["gone"], row["place"]["zip"], 0) for row in rows]
    sums = "sum(id), sum(small), sum(unsigned), sum(narrow), sum(gone), sum(place.zip), sum(toUnixTimestamp64Micro(at))"
    told = chdb_engine.execute(f"SELECT {sums}, sum(toInt32(day)) FROM file('{files}', Parquet)").to_pylist()
    micros = sum(1_700_000_000_000_000 + 7 * number for number in range(ROWS))
    whole = [sum(row[name] or 0 for row in rows) for name in ("id", "small", "unsigned", "narrow", "gone")]
    wrapped = [number % 2**64 for number in whole]
    assert [number % 2**64 for number in told[0].values()] == [
        *wrapped,
        sum(row["place"]["zip"] for row in rows),
        micros,
        sum(range(ROWS)),
    ]


def test_only_those_two_are_known() -> None:
    with pytest.raises(Exception, match=r"--parquet.encodings 'v3' is not v1 or v2"):
        one_root({"path": "x", "encodings": "v3"})
