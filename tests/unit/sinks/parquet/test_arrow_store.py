"""What the Parquet sink promises about file systems of `pyarrow.fs`, over one in memory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from batcher.errors import RowsRejected, SettingRefused, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.records import Block
from batcher.testing.values import EVENTS_0, make_block
from sinks.parquet import one_root
from sinks.parquet.arrow_store import ArrowStore
from sinks.parquet.local import LocalStore
from sinks.parquet.options import ParquetOptions
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink
from tests.harness.object_store import Objects

TABLE = pa.table({"id": [1, 2, 3], "country": ["DE", "FR", "DE"]})
ROOT = "bucket/events"


def object_sink(objects: Objects, root: str = ROOT, **options: Any) -> ParquetSink:
    store = ArrowStore(lambda: (fs.PyFileSystem(objects), root), f"s3://{root}")
    return ParquetSink(ParquetOptions(f"s3://{root}", **options), store)


def opened(objects: Objects, **options: Any) -> ParquetSink:
    sink = object_sink(objects, **options)
    sink.open()
    sink.pin(TABLE.schema)
    return sink


def block(**arguments: Any) -> Block:
    return make_block(TABLE, coordinates=("_partition", "_offset", "_timestamp"), **arguments)


def parquet(objects: Objects) -> list[str]:
    gc.collect()  # a stream that was dropped must not publish when it goes
    return sorted(name.removeprefix(f"{ROOT}/") for name in objects.content if name.endswith(".parquet"))


def test_a_block_is_one_object_and_the_pin_another() -> None:
    objects = Objects("bucket")
    opened(objects).write(block())
    (name,) = parquet(objects)
    assert name == "events+00000+00000000000000000000-00000000000000000002.parquet"
    assert pq.read_table(pa.BufferReader(objects.content[f"{ROOT}/{name}"])).num_rows == 3
    assert set(objects.content) == {f"{ROOT}/{name}", f"{ROOT}/{PIN}"}


@pytest.mark.parametrize("hidden", ["_aside", ".snapshot", "country=DE/_old"])
def test_what_readers_ignore_does_not_count_as_loaded(tmp_path: Path, hidden: str) -> None:
    local = LocalStore(tmp_path)
    remote = ArrowStore(lambda: (fs.LocalFileSystem(), str(tmp_path)), "x://root")
    for store in (local, remote):
        store.open()
    (tmp_path / hidden).mkdir(parents=True)
    name = "events+00000+00000000000000000000-00000000000000000002.parquet"
    for directory in (tmp_path, tmp_path / hidden):
        (directory / name).touch()
    dataset = ds.dataset(tmp_path, schema=TABLE.schema, format="parquet")
    assert {Path(file).relative_to(tmp_path).as_posix() for file in dataset.files} == {name}
    assert set(local.names()) == set(remote.names()) == {name}
    local.close()


def test_an_upload_that_fails_leaves_no_object_and_the_next_one_works() -> None:
    objects = Objects("bucket")
    sink = opened(objects)
    objects.broken = True
    with pytest.raises(SinkUnavailable, match="SLOW_DOWN"):
        sink.write(block())
    assert parquet(objects) == []
    objects.broken = False
    sink.write(block())
    assert len(parquet(objects)) == 1


def test_an_upload_that_fails_between_two_directories_is_completed_by_the_same_block() -> None:
    objects = Objects("bucket")
    sink = opened(objects, partition_by=("country",))
    objects.fail_writes = (next(objects.writes) + 2,)
    with pytest.raises(SinkUnavailable) as caught:
        sink.write(block())
    assert len(parquet(objects)) == 1
    assert "country" not in str(caught.value)
    sink.write(block())
    assert [name.partition("/")[0] for name in parquet(objects)] == ["country=DE", "country=FR"]
    assert sink.present(EVENTS_0, 0, 99).to_pylist() == [0, 1, 2]


def test_a_row_that_cannot_be_encoded_uploads_nothing_of_the_other_directories() -> None:
    objects = Objects("bucket")
    sink = object_sink(objects, partition_by=("p",))
    sink.open()
    table = pa.table({"p": ["a", "b"], "at": pa.array([0, 2**62], pa.timestamp("s"))})
    sink.pin(table.schema)
    with pytest.raises(RowsRejected):
        sink.write(make_block(table, coordinates=("_partition", "_offset", "_timestamp")))
    assert parquet(objects) == []


def test_a_key_that_is_too_long_rejects_its_rows() -> None:
    objects = Objects("bucket")
    names = [f"c{number}" for number in range(5)]
    table = pa.table({name: ["x", "y" * 240] for name in names} | {"id": [1, 2]})
    sink = object_sink(objects, partition_by=tuple(names))
    sink.open()
    with pytest.raises(RowsRejected) as caught:
        sink.write(make_block(table, coordinates=("_partition", "_offset", "_timestamp")))
    assert [one.position for one in caught.value.rejections] == [1]
    assert parquet(objects) == []


def test_a_bucket_that_is_not_there_and_an_object_in_the_place_of_the_prefix_are_misconfigured() -> None:
    with pytest.raises(SinkMisconfigured, match="no such bucket"):
        object_sink(Objects()).open()
    objects = Objects("bucket")
    objects.content[ROOT] = b""
    with pytest.raises(SinkMisconfigured, match="not a prefix"):
        object_sink(objects).open()


@pytest.mark.parametrize(
    ("code", "error"),
    [("ACCESS_DENIED", SinkMisconfigured), ("INVALID_ACCESS_KEY_ID", SinkMisconfigured), ("SLOW_DOWN", Unreachable)],
)
def test_what_the_store_answers_at_the_start_decides_the_class(code: str, error: type[Exception]) -> None:
    objects = Objects("bucket")
    objects.refusal = code
    with pytest.raises(error, match=code):
        object_sink(objects).open()


def test_credentials_in_the_uri_are_never_shown() -> None:
    store = ArrowStore.at("s3://user:hunter2@bucket/prefix?endpoint_override=localhost:1&secret=hunter2")
    assert store.label == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nosuch://user:hunter2@bucket/p", "nosuch://bucket/p: nosuch:// is no scheme .*: give one of s3://, gs://, "),
        ("S3://user:hunter2@bucket/p", "S3:// is no scheme that can be opened"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_a_wrong_setting_that_says_what_of_it(uri: str, said: str) -> None:
    with pytest.raises(SettingRefused, match=f"^--parquet.path .*{said}") as caught:
        one_root({"path": uri}).open()
    assert "hunter2" not in str(caught.value)


def test_nothing_is_connected_before_open() -> None:
    def connect() -> tuple[fs.FileSystem, str]:
        raise AssertionError("connected too early")

    ParquetSink(ParquetOptions("s3://bucket"), ArrowStore(connect, "s3://bucket")).close()
