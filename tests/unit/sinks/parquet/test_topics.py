"""What a root for each topic promises: every topic keeps its values, and no root is taken for another kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from pyarrow import fs

from batcher.errors import ConfigurationError, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import Auditable, Reconcilable, Rehearsable, TopicPinning
from batcher.records import Block, Partition
from batcher.testing.values import make_block
from sinks.parquet import one_root, plugin
from sinks.parquet.arrow_store import ArrowStore
from sinks.parquet.options import ParquetOptions
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink
from sinks.parquet.topics import TopicRootsSink
from tests.harness.object_store import Objects

A, B = Partition("m-a", 0), Partition("m-b", 0)
CITIES = pa.table({"id": [1, 2], "city": ["Rome", "Oslo"]})
AMOUNTS = pa.table({"user": ["bob"], "amount": [5]})


def block(table: pa.Table, partition: Partition, **arguments: Any) -> Block:
    return make_block(table, partition=partition, coordinates=("_partition", "_offset", "_timestamp"), **arguments)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def sink(path: Path) -> Iterator[TopicRootsSink]:
    made = by_topic(path)
    made.open()
    yield made
    made.close()


def by_topic(path: Path, **options: Any) -> TopicRootsSink:
    made = plugin({"path": str(path), "topics": ("m-a", "m-b"), **options})
    assert isinstance(made, TopicRootsSink)
    return made


def load(sink: TopicRootsSink, table: pa.Table, partition: Partition, **arguments: Any) -> None:
    sink.pin_topic(partition.topic, table.schema)
    sink.write(block(table, partition, **arguments))


def rows(path: Path, *columns: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ds.dataset(path).to_table(columns=list(columns)).to_pylist()
    return found


def test_two_topics_in_one_root_keep_all_their_values(path: Path, sink: TopicRootsSink) -> None:
    load(sink, CITIES, A)
    load(sink, AMOUNTS, B)
    assert rows(path / "m-a", "id", "city") == CITIES.to_pylist()
    assert rows(path / "m-b", "user", "amount") == AMOUNTS.to_pylist()


def test_each_topic_has_a_schema_and_the_pipeline_is_told_so(path: Path) -> None:
    made = by_topic(path)
    info = made.open()
    assert (info.by_topic, info.schema, info.mixes_partitions) == (True, None, False)
    assert made.pin_topic("m-a", CITIES.schema).equals(CITIES.schema)
    assert made.pin_topic("m-b", AMOUNTS.schema).equals(AMOUNTS.schema)
    made.close()
    again = by_topic(path)
    again.open()
    assert again.pin_topic("m-a", AMOUNTS.schema).equals(CITIES.schema)
    again.close()


def test_a_schema_that_is_given_is_that_of_every_topic(path: Path) -> None:
    made = by_topic(path, schema=CITIES.schema)
    info = made.open()
    assert (info.by_topic, info.schema) == (False, CITIES.schema)
    for partition in (A, B):
        made.write(block(CITIES, partition))
    made.close()
    assert rows(path / "m-a", "id", "city") == rows(path / "m-b", "id", "city") == CITIES.to_pylist()


@pytest.mark.parametrize(
    ("topics", "layout", "apart"),
    [
        (("events",), "auto", False),
        (("events", "orders"), "auto", True),
        (("^events.*",), "auto", True),
        ((), "auto", False),
        (("events", "orders"), "root", False),
        (("events",), "topic", True),
    ],
)
def test_a_root_for_each_topic_comes_with_more_than_one(
    path: Path, topics: tuple[str, ...], layout: str, apart: bool
) -> None:
    made = plugin({"path": str(path), "topics": topics, "layout": layout})
    assert isinstance(made, TopicRootsSink) is apart


@pytest.mark.parametrize("partition_by", [(), ("city",)])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_root_of_all_topics_is_not_taken_for_roots_of_each(
    path: Path, partition_by: tuple[str, ...], pinned: bool
) -> None:
    flat = one_root({"path": str(path), "partition_by": partition_by})
    flat.open()
    flat.write(block(CITIES, A))
    flat.close()
    if not pinned:
        (path / PIN).unlink()
    made = by_topic(path, partition_by=partition_by)
    for opened in (made.open, made.described):
        with pytest.raises(SinkMisconfigured, match=r"--parquet\.layout root"):
            opened()


def test_roots_of_each_topic_are_not_taken_for_one_of_all(path: Path, sink: TopicRootsSink) -> None:
    load(sink, CITIES, A)
    sink.close()
    flat = one_root({"path": str(path)})
    for opened in (flat.open, flat.described):
        with pytest.raises(SinkMisconfigured, match=r"--parquet\.layout topic"):
            opened()
    alone = one_root({"path": str(path / "m-a")})
    assert alone.open().schema == CITIES.schema
    alone.close()


def test_topics_with_names_that_mean_something_have_directories_of_their_own(path: Path, sink: TopicRootsSink) -> None:
    topics = ("_tmp", "..", ".", "_schema.arrow", "a.b", "A.b", ".hidden")
    for topic in topics:
        load(sink, CITIES, Partition(topic, 0))
    sink.close()
    found = sorted(entry.name for entry in path.iterdir())
    assert len(found) == len(topics)
    assert not [name for name in found if name[0] in "_."]
    assert ds.dataset(path).count_rows() == len(topics) * CITIES.num_rows


def test_a_run_without_a_record_leaves_no_directories(path: Path, sink: TopicRootsSink) -> None:
    assert sink.max_offset_above({A: 0}) == {}
    assert sink.copies(A, 0, 9).num_rows == 0
    sink.close()
    assert not path.exists()


def test_offsets_are_looked_for_in_the_root_of_their_topic(sink: TopicRootsSink) -> None:
    assert isinstance(sink, Reconcilable)
    assert isinstance(sink, Auditable)
    assert isinstance(sink, Rehearsable)
    assert isinstance(sink, TopicPinning)
    load(sink, CITIES, A, first_offset=5)
    load(sink, AMOUNTS, B)
    assert sink.present(A, 0, 99).to_pylist() == [5, 6]
    assert sink.present(B, 0, 99).to_pylist() == [0]
    assert sink.max_offset_above({A: 6, B: 1}) == {A: 6}
    assert sink.max_offset_above({A: 0, B: 0, Partition("other", 0): 0}) == {A: 6, B: 0}


def test_a_replay_replaces_the_file_of_its_topic(path: Path, sink: TopicRootsSink) -> None:
    load(sink, CITIES, A)
    sink.close()
    successor = by_topic(path)
    successor.open()
    load(successor, CITIES, A)
    successor.close()
    assert ds.dataset(path / "m-a").count_rows() == 2


def test_a_rehearsal_leaves_the_root_alone(path: Path, sink: TopicRootsSink) -> None:
    with sink.rehearsal("try") as other:
        assert isinstance(other, TopicRootsSink)
        other.open()
        load(other, CITIES, A)
        other.close()
    assert not (path / "m-a").exists()
    assert [entry.name for entry in path.parent.iterdir()] == ["root"]


class Bucket:
    """Make sinks on one store of objects."""

    def __init__(self) -> None:
        self.objects = Objects("bucket")

    def store(self) -> ArrowStore:
        return ArrowStore(lambda: (fs.PyFileSystem(self.objects), "bucket/events"), "s3://bucket/events")

    def by_topic(self) -> TopicRootsSink:
        return TopicRootsSink(ParquetOptions("s3://bucket/events"), self.store())

    def flat(self) -> ParquetSink:
        return ParquetSink(ParquetOptions("s3://bucket/events"), self.store())


def test_an_object_store_has_roots_of_topics_too_and_refuses_the_other_layout() -> None:
    bucket = Bucket()
    made = bucket.by_topic()
    made.open()
    load(made, CITIES, A)
    load(made, AMOUNTS, B)
    assert made.max_offset_above({A: 0, B: 0}) == {A: 1, B: 0}
    made.close()
    filesystem = fs.PyFileSystem(bucket.objects)
    assert ds.dataset("bucket/events/m-b", filesystem=filesystem, format="parquet").count_rows() == 1
    with pytest.raises(SinkMisconfigured, match=r"--parquet\.layout topic"):
        bucket.flat().open()
    other = Bucket()
    flat = other.flat()
    flat.open()
    flat.write(block(CITIES, A))
    with pytest.raises(SinkMisconfigured, match=r"--parquet\.layout root"):
        other.by_topic().open()


def test_a_topic_whose_root_does_not_answer_is_tried_again() -> None:
    bucket = Bucket()
    made = bucket.by_topic()
    made.open()
    bucket.objects.refusal = "SLOW_DOWN"
    with pytest.raises(SinkUnavailable):
        made.pin_topic("m-a", CITIES.schema)
    bucket.objects.refusal = None
    load(made, CITIES, A)
    made.close()


def test_a_store_that_did_not_answer_can_be_opened_again() -> None:
    bucket = Bucket()
    made = bucket.flat()
    bucket.objects.refusal = "SLOW_DOWN"
    with pytest.raises(Unreachable):
        made.open()
    bucket.objects.refusal = None
    made.open()
    made.write(block(CITIES, A))
    assert made.present(A, 0, 9).to_pylist() == [0, 1]


@pytest.mark.parametrize("layout", ["root", "topic"])
def test_a_directory_that_could_not_be_opened_can_be_opened_again(path: Path, layout: str) -> None:
    made = plugin({"path": str(path), "layout": layout, "schema": CITIES.schema})
    path.write_bytes(b"")
    with pytest.raises(SinkMisconfigured):
        made.open()
    path.unlink()
    made.open()
    made.write(block(CITIES, A))
    made.close()
    assert ds.dataset(path).count_rows() == 2


def test_a_layout_that_is_none_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--parquet\.layout"):
        plugin({"path": str(path), "layout": "both"})
