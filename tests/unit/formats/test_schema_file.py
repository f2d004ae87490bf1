"""Schemas from files, and formats by name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.errors import ConfigurationError
from batcher.formats import registry
from batcher.formats.schema_file import read_schema
from batcher.records import COORDINATES
from batcher.settings.model import Decode

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("at", pa.timestamp("ms", "UTC"))])


def write(path: Path, schema: pa.Schema, how: str) -> Path:
    if how == "parquet":
        pq.write_table(schema.empty_table(), path)
    elif how == "schema":
        path.write_bytes(schema.serialize().to_pybytes())
    else:
        with (pa.ipc.new_file if how == "file" else pa.ipc.new_stream)(str(path), schema):
            pass
    return path


@pytest.mark.parametrize(
    ("name", "how"), [("a.parquet", "parquet"), ("a.arrow", "file"), ("a.arrow", "stream"), ("a.arrow", "schema")]
)
def test_a_schema_is_read_without_coordinates(tmp_path: Path, name: str, how: str) -> None:
    path = write(tmp_path / name, pa.schema([*COORDINATES, *SCHEMA]), how)
    assert read_schema(path).equals(SCHEMA)
    assert read_schema(str(path)).metadata is None


def test_what_is_no_schema_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.arrow").write_bytes(b"junk")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    (tmp_path / "empty.arrow").write_bytes(b"")
    (tmp_path / "dir.arrow").mkdir()
    (tmp_path / "dir.parquet").mkdir()
    write(tmp_path / "coordinates.parquet", COORDINATES, "parquet")
    names = [
        "junk.arrow",
        "junk.parquet",
        "empty.arrow",
        "dir.arrow",
        "dir.parquet",
        "none.arrow",
        "none.parquet",
        "x.json",
        "coordinates.parquet",
    ]
    for name in names:
        with pytest.raises(ConfigurationError, match=name) as caught:
            read_schema(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_formats_are_loaded_by_name_and_an_unknown_one_lists_what_there_is() -> None:
    assert registry.load("json")(Decode()) is not None
    with pytest.raises(ConfigurationError, match="known are avro, csv, json"):
        registry.load("yaml")
