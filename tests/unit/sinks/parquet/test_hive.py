from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batcher.errors import ConfigurationError, RowsRejected
from batcher.records import Partition, Range
from batcher.testing.values import make_block
from sinks.parquet import hive, plugin
from sinks.parquet.directory import rules_of
from sinks.parquet.files import encoded, file_name, parsed_name
from sinks.parquet.hive import DEFAULT, MAX_DIRECTORIES, component, split

TEXT = st.text(max_size=60)


@given(st.lists(TEXT, unique=True, max_size=8), st.booleans())
@example(["a\0b", "a", "..", ".", "/", "a/b", "%2F", "/etc", DEFAULT, "a=b", "\u00e9", "e\u0301", " ", "\n"], False)
def test_distinct_values_are_distinct_plain_names_that_decode_to_them(texts: list[str], fold: bool) -> None:
    names = [component("c", text, fold=fold) for text in texts if text]
    assert len({name.lower() if fold else name for name in names}) == len(names)
    for name, text in zip(names, filter(None, texts), strict=True):
        value = name.removeprefix("c=")
        assert value not in ("", ".", "..", DEFAULT)
        assert all(char.isascii() and (char.isalnum() or char in "_.-%") for char in value)
        assert unquote(value) == text


@given(TEXT.filter(bool), st.booleans())
@example("..", False)
@example("_hidden", False)
@example("a+00000+b", False)
def test_a_file_name_says_its_range_and_is_not_hidden(topic: str, fold: bool) -> None:
    written = Range(Partition(topic, 7), 12, 2**63 - 1)
    name = file_name(written, fold=fold)
    assert parsed_name(name) == written
    assert name[0] not in "_."
    assert "/" not in name


def test_the_file_name_is_the_documented_one() -> None:
    written = Range(Partition("my.topic-1_x", 3), 5, 17)
    assert file_name(written) == "my.topic-1_x+00003+00000000000000000005-00000000000000000017.parquet"
    assert parsed_name("part-0.parquet") is None


def parts_of(values: Any, kind: pa.DataType | None = None) -> dict[str, list[int]]:
    table = pa.table({"p": pa.array(values, kind), "row": range(len(values))})
    return {part.directory: part.table.column("row").to_pylist() for part in split(table, rules_of(["p"]))}


def test_rows_are_grouped_by_value_in_their_order() -> None:
    assert parts_of(["b", "a", "b", "a", "b"]) == {"p=b": [0, 2, 4], "p=a": [1, 3]}


def test_null_and_the_empty_text_share_one_file_and_the_marker_as_a_text_does_not() -> None:
    assert parts_of([None, "", DEFAULT, None]) == {
        f"p={DEFAULT}": [0, 1, 3],
        "p=%5F_HIVE_DEFAULT_PARTITION__": [2],
    }


@pytest.mark.parametrize(
    ("value", "kind", "name"),
    [
        (12, pa.int16(), "12"),
        (-1, pa.int64(), "-1"),
        (True, pa.bool_(), "true"),
        (1.5, pa.float64(), "1.5"),
        (Decimal("1.50"), pa.decimal128(9, 2), "1.50"),
        (dt.date(2026, 1, 31), pa.date32(), "2026-01-31"),
        (dt.date(2026, 1, 31), pa.date64(), "2026-01-31"),
        (dt.datetime(2026, 1, 31, 23, 59), pa.timestamp("us"), "2026-01-31%2023%3A59%3A00"),  # noqa: DTZ001  # no zone
        (dt.datetime(2026, 1, 31, tzinfo=dt.UTC), pa.timestamp("ms", "UTC"), "2026-01-31%2000%3A00%3A00Z"),
        (dt.datetime(2026, 1, 31, tzinfo=dt.UTC), pa.timestamp("s", "Asia/Tokyo"), "2026-01-31%2000%3A00%3A00Z"),
        (1, pa.timestamp("ms", "UTC"), "1970-01-01%2000%3A00%3A00.001Z"),
        ("x", pa.large_string(), "x"),
        ("x", pa.string_view(), "x"),
        ("x", pa.dictionary(pa.int8(), pa.string()), "x"),
        (None, pa.null(), DEFAULT),
    ],
)
def test_each_scalar_type_has_a_text(value: object, kind: pa.DataType, name: str) -> None:
    assert hive.unfit(pa.schema([("p", kind)]), rules_of(["p"])) is None
    assert list(parts_of([value], kind)) == [f"p={name}"]


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.binary(), pa.time64("us")])
def test_other_types_are_refused(kind: pa.DataType) -> None:
    assert "a directory can be" in str(hive.unfit(pa.schema([("p", kind)]), rules_of(["p"])))


def test_several_columns_nest_in_their_order_and_leave_the_table() -> None:
    table = pa.table({"a": ["x", "y", "x"], "b": [1, 1, 2], "v": [1, 2, 3]})
    parts = split(table, rules_of(["b", "a"]))
    assert {part.directory: part.table.to_pydict() for part in parts} == {
        "b=1/a=x": {"v": [1]},
        "b=1/a=y": {"v": [2]},
        "b=2/a=x": {"v": [3]},
    }
    assert [part.row(0) for part in parts] == [0, 1, 2]


def test_a_value_too_long_for_a_name_is_one_rejected_row_each_and_not_quoted() -> None:
    table = pa.table({"p": ["a", "ä" * 50, "b", "x" * 254], "q": ["x" * 300, "a", "a", "a"]})
    with pytest.raises(RowsRejected) as caught:
        split(table, rules_of(["p", "q"]))
    assert [(one.position, one.path, one.reason) for one in caught.value.rejections] == [
        (0, "q", "path"),
        (1, "p", "path"),
        (3, "p", "path"),
    ]
    assert "xxx" not in str([one.message for one in caught.value.rejections])


@pytest.mark.parametrize(
    ("kind", "far"),
    [
        (pa.timestamp("us", "UTC"), [2**63 - 1, -(2**63), 253_402_300_800_000_000]),
        (pa.timestamp("s"), [2**63 - 1, -(2**63), -99_999_999_999]),
        (pa.date32(), [2**31 - 1, -(2**31), 2_932_897]),
    ],
    ids=str,
)
def test_a_time_that_readers_would_not_find_in_its_directory_is_one_rejected_row(
    kind: pa.DataType, far: list[int]
) -> None:
    with pytest.raises(RowsRejected) as caught:
        parts_of([0, *far, None], kind)
    assert [(one.position, one.reason, one.path) for one in caught.value.rejections] == [
        (row, "path", "p") for row in (1, 2, 3)
    ]
    assert len(parts_of([0, None], kind)) == 2


def test_the_longest_name_that_fits_is_taken() -> None:
    assert list(parts_of(["x" * 253])) == ["p=" + "x" * 253]


def test_a_block_does_not_become_thousands_of_files() -> None:
    assert len(parts_of(list(range(MAX_DIRECTORIES)))) == MAX_DIRECTORIES
    with pytest.raises(ConfigurationError, match="coarser"):
        parts_of(list(range(MAX_DIRECTORIES + 1)))


def test_names_are_told_apart_where_the_file_system_does_not(tmp_path: Path) -> None:
    assert encoded("DE", fold=True) == "%44%45"
    assert encoded("de", fold=True) == "de"
    assert encoded("DE") == "DE"


HOSTILE = (
    "\0|a\0b|a|.|..|../../etc|/|/etc/passwd|a/b|a\\b|C:\\|~|*|$HOME|-rf| |a |a\n|\n|\r\n|\x1b[2J|\u202e|\ufeff|\uffff"
    "|%|%2E%2E|%2F|a=b|p=..|_tmp|_schema.arrow|CON|nul.parquet|true|null|NULL|\u00e9|e\u0301|\u212b|\u00c5|\u017f|s|S|\u00df"
    f"|ss|\u0130|i|\U0001f600|{DEFAULT}|{'x' * 253}".split("|")
)


def test_hostile_values_stay_below_the_root_in_directories_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "outer" / "root"
    sink = plugin({"path": str(root), "partition_by": ("p",)})
    sink.open()
    values = [*HOSTILE, None, ""]
    table = pa.table({"p": pa.array(values, pa.string()), "row": range(len(values))})
    sink.write(make_block(table, coordinates=("_partition", "_offset", "_timestamp")))
    sink.close()

    assert [path.name for path in tmp_path.iterdir()] == ["outer"]
    assert [path.name for path in root.parent.iterdir()] == ["root"]
    files = sorted(path for path in root.rglob("*.parquet") if path.is_file())
    assert {file.parent.parent for file in files} == {root}
    found = {file.parent.name: pq.ParquetFile(file).read()["row"].to_pylist() for file in files}
    # Null and the empty text are one directory; a text that looks like that directory has its own.
    assert found.pop(f"p={DEFAULT}") == [len(HOSTILE), len(HOSTILE) + 1]
    assert {unquote(name.removeprefix("p=")): rows for name, rows in found.items()} == {
        value: [row] for row, value in enumerate(HOSTILE)
    }


@pytest.mark.parametrize("value", ["x" * 254, "\0" * 300, "ä" * 300, "/" * 300, "../" * 100])
def test_a_hostile_value_of_300_bytes_is_one_rejected_row_and_makes_no_directory(tmp_path: Path, value: str) -> None:
    sink = plugin({"path": str(tmp_path / "root"), "partition_by": ("p",)})
    sink.open()
    table = pa.table({"p": ["good", value], "row": [0, 1]})
    with pytest.raises(RowsRejected) as caught:
        sink.write(make_block(table, coordinates=("_partition", "_offset", "_timestamp")))
    assert [(one.position, one.reason, one.path) for one in caught.value.rejections] == [(1, "path", "p")]
    assert value not in caught.value.rejections[0].message
    assert not list(tmp_path.rglob("p=*"))
    sink.close()
