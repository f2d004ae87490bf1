from __future__ import annotations

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext
from batcher.protocols import Reconcilable
from sinks.parquet import one_root, plugin
from sinks.parquet.options import ParquetOptions, local_path
from sinks.parquet.settings import Parquet

SCHEMA = pa.schema([("id", pa.int64()), ("country", pa.string()), ("tags", pa.list_(pa.string()))])


def test_the_defaults_need_no_more_than_a_path() -> None:
    options = ParquetOptions.of({"path": "out"})
    assert options.codec == ("zstd", 1)
    assert (options.partition_by, options.coordinates, options.schema) == ((), "default", None)


@pytest.mark.parametrize(
    ("given", "codec"),
    [("zstd:19", ("zstd", 19)), ("gzip", ("gzip", 6)), ("lz4:3", ("lz4", 3)), ("snappy", ("snappy", None))],
)
def test_a_codec_may_have_a_level(given: str, codec: tuple[str, int | None]) -> None:
    assert ParquetOptions("out", given).codec == codec


def test_partition_columns_come_as_a_sequence_or_with_commas() -> None:
    assert ParquetOptions.of({"path": "out", "partition_by": "a, b"}).partition_by == ("a", "b")
    assert ParquetOptions.of({"path": "out", "partition_by": ["a", "b"]}).partition_by == ("a", "b")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({}, "--parquet.path"),
        ({"path": " "}, "--parquet.path"),
        ({"path": "a\0b"}, "--parquet.path"),
        ({"path": "s3:///prefix"}, "--parquet.path"),
        ({"path": "file://elsewhere/x"}, "--parquet.path"),
        ({"path": "x", "compression": "brotli"}, "--parquet.compression"),
        ({"path": "x", "compression": "zstd:23"}, "--parquet.compression"),
        ({"path": "x", "compression": "zstd:-5"}, "--parquet.compression"),
        ({"path": "x", "compression": "zstd:"}, "--parquet.compression"),
        ({"path": "x", "compression": "snappy:1"}, "--parquet.compression"),
        ({"path": "x", "compression": 3}, "--parquet.compression"),
        ({"path": "x", "coordinates": "all"}, "--parquet.coordinates"),
        ({"path": "x", "coordinates": "none,value"}, "--parquet.coordinates"),
        ({"path": "x", "partition_by": ("a", "a")}, "--parquet.partition-by"),
        ({"path": "x", "partition_by": ("_a",)}, "--parquet.partition-by"),
        ({"path": "x", "partition_by": ("a/b",)}, "--parquet.partition-by"),
        ({"path": "x", "partition_by": 3}, "--parquet.partition-by"),
        ({"path": "x", "partition_by": ("nope",), "schema": SCHEMA}, "--parquet.partition-by"),
        ({"path": "x", "partition_by": ("tags",), "schema": SCHEMA}, "--parquet.partition-by"),
        ({"path": "x", "schema": "id int"}, "--decode.schema"),
        ({"path": "x", "schema": pa.schema([("a", pa.int8()), ("a", pa.int8())])}, "--decode.schema"),
        ({"path": "x", "schema": pa.schema([("a", pa.month_day_nano_interval())])}, "--decode.schema"),
        ({"path": "x", "target_size": 1}, "--parquet.target-size"),
    ],
)
def test_what_cannot_work_is_refused_at_once_and_names_the_flag(options: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        one_root(options)


def test_every_root_can_be_asked_what_it_holds() -> None:
    assert isinstance(one_root({"path": "x"}), Reconcilable)
    assert isinstance(one_root({"path": "x", "coordinates": "none"}), Reconcilable)


def test_a_file_uri_is_a_local_directory() -> None:
    assert local_path("file:///data/a%20b") == "/data/a b"
    assert local_path("out/a%20b") == "out/a%20b"
    assert local_path("s3://bucket/prefix") is None


def test_the_words_for_more_coordinates_mean_the_same_in_any_order() -> None:
    one = ParquetOptions.of({"path": "x", "coordinates": "value,headers"})
    other = ParquetOptions.of({"path": "x", "coordinates": ["headers", "value"]})
    assert one == other
    assert one.coordinate_columns == ("_partition", "_offset", "_timestamp", "_headers", "_value")


def test_a_key_that_the_format_reads_is_no_coordinate_too() -> None:
    context = PluginContext(decoded_coordinates=frozenset({"_key"}))
    with pytest.raises(ConfigurationError, match="_key is a column already"):
        plugin(Parquet(path="x", coordinates=("key",)), context)
