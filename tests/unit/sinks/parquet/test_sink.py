"""What the Parquet sink promises about files, beyond the contract of all sinks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher import __version__
from batcher.errors import RowsRejected, SinkMisconfigured
from batcher.records import RAW_JSON, Block, Partition, Range
from batcher.testing.values import EVENTS_0, make_block
from sinks.parquet import one_root
from sinks.parquet.files import file_name
from sinks.parquet.local import LocalStore
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink

TABLE = pa.table({"id": [1, 2, 3], "country": ["DE", "FR", "DE"]})


class Root:
    """Make sinks on one root, and close them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: list[ParquetSink] = []

    def schema(self, **options: Any) -> pa.Schema:
        """Return the schema that a new worker is told."""
        self.sink(**options)
        return self.info.schema

    def sink(self, **options: Any) -> ParquetSink:
        sink = one_root({"path": str(self.path), **options})
        self.made.append(sink)
        self.info = sink.open()
        return sink

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    def parquet(self) -> list[str]:
        return [name for name in self.files() if name.endswith(".parquet")]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    found = Root(tmp_path / "root")
    yield found
    for sink in found.made:
        sink.close()


def block(table: pa.Table = TABLE, **arguments: Any) -> Block:
    return make_block(table, coordinates=("_partition", "_offset", "_timestamp"), **arguments)


NAME = file_name(Range(EVENTS_0, 0, 2))


def test_a_block_is_one_file_named_by_its_range_with_coordinates_last(root: Root) -> None:
    sink = root.sink()
    sink.write(block())
    sink.close()
    assert root.files() == [PIN, NAME]
    table = pq.read_table(root.path / NAME)
    assert table.column_names == ["id", "country", "_partition", "_offset", "_timestamp"]
    assert table.schema.field("_timestamp").type == pa.timestamp("ms", "UTC")
    assert table.column("_offset").to_pylist() == [0, 1, 2]


def test_the_footer_says_where_the_rows_are_from(root: Root) -> None:
    root.sink().write(block(partition=Partition("events", 7), first_offset=5, token="the-token"))
    (name,) = root.parquet()
    footer = pq.read_metadata(root.path / name)
    said = {key.decode(): value.decode() for key, value in footer.metadata.items() if key.startswith(b"batcher.")}
    assert said == {
        "batcher.topic": "events",
        "batcher.partition": "7",
        "batcher.first": "5",
        "batcher.last": "7",
        "batcher.token": "the-token",
        "batcher.version": __version__,
    }
    column = footer.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert (column.statistics.min, column.statistics.max) == (1, 3)


def test_the_same_block_gives_the_same_bytes(root: Root) -> None:
    sink = root.sink()
    sink.write(block())
    before = (root.path / NAME).read_bytes()
    sink.write(block())
    assert (root.path / NAME).read_bytes() == before


def test_what_is_left_of_a_block_keeps_the_name_of_the_whole_range(root: Root) -> None:
    whole = block()
    rows = pa.array([0, 2])
    rest = Block(whole.table.take(rows).combine_chunks(), whole.positions.take(rows), "derived", whole.ranges)
    root.sink().write(rest)
    assert root.parquet() == [NAME]
    assert pq.read_table(root.path / NAME).column("_offset").to_pylist() == [0, 2]


def test_coordinates_can_be_left_out(root: Root) -> None:
    sink = root.sink(coordinates="none")
    sink.write(make_block(TABLE))
    assert pq.read_table(root.path / NAME).column_names == TABLE.column_names


@pytest.mark.parametrize("codec", ["zstd:3", "snappy", "gzip", "lz4", "none"])
def test_every_codec_is_written_and_read(root: Root, codec: str) -> None:
    root.sink(compression=codec).write(block())
    assert pq.read_table(root.path / NAME).num_rows == 3
    expected = {"none": "UNCOMPRESSED", "zstd:3": "ZSTD"}.get(codec, codec.upper())
    assert pq.read_metadata(root.path / NAME).row_group(0).column(0).compression == expected


def test_big_blocks_have_row_groups_that_readers_can_skip(root: Root) -> None:
    table = pa.table({"id": pa.array(range(300_000))})
    root.sink(coordinates="none").write(make_block(table))
    footer = pq.read_metadata(next(root.path.glob("*.parquet")))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [131_072, 131_072, 37_856]


def test_values_that_parquet_cannot_hold_are_exactly_the_rejected_rows(root: Root) -> None:
    schema = pa.schema([("at", pa.timestamp("s")), pa.field("id", pa.int64(), nullable=False), ("p", pa.string())])
    values = {"at": [0, 2**62, 1, 2, -(2**62)], "id": [1, 2, None, 4, 5], "p": ["a", "b", "a", "b", "b"]}
    nullable = pa.schema([pa.field(field.name, field.type) for field in schema])
    sink = root.sink(schema=schema, partition_by=("p",))
    with pytest.raises(RowsRejected) as caught:
        sink.write(block(pa.table(values, nullable)))
    assert [(one.position, one.path) for one in caught.value.rejections] == [(1, "at"), (2, "id"), (4, "at")]
    assert str(2**62) not in str(caught.value)
    assert root.parquet() == []


def test_a_topic_made_again_does_not_replace_the_files_of_the_old_one(root: Root) -> None:
    sink = root.sink()
    sink.write(block(token="old"))
    made_again = block(token="new")
    timestamps = pa.array([1, 2, 3], pa.timestamp("ms", "UTC"))
    table = made_again.table.set_column(4, made_again.table.schema.field(4), timestamps)
    with pytest.raises(SinkMisconfigured, match="with other records"):
        sink.write(Block(table.combine_chunks(), made_again.positions, "new", made_again.ranges))
    assert pq.read_metadata(root.path / NAME).metadata[b"batcher.token"] == b"old"


def test_the_same_records_decoded_anew_replace_their_file(root: Root) -> None:
    sink = root.sink()
    sink.write(block(token="old"))
    sink.write(block(TABLE.set_column(1, "country", pa.array(["DE", "FR", "US"])), token="new"))
    assert pq.read_table(root.path / NAME).column("country").to_pylist() == ["DE", "FR", "US"]


def test_without_coordinates_only_the_same_token_replaces_a_file(root: Root) -> None:
    sink = root.sink(coordinates="none")
    sink.write(make_block(TABLE, token="old"))
    sink.write(make_block(TABLE, token="old"))
    with pytest.raises(SinkMisconfigured, match="with other records"):
        sink.write(make_block(TABLE, token="new"))


@pytest.mark.parametrize("foreign", [b"not a parquet file", None])
def test_a_foreign_file_of_the_same_name_is_left_alone(root: Root, foreign: bytes | None) -> None:
    sink = root.sink()
    sink.pin(TABLE.schema)
    if foreign is None:
        pq.write_table(block().table, root.path / NAME)
    else:
        (root.path / NAME).write_bytes(foreign)
    before = (root.path / NAME).read_bytes()
    with pytest.raises(SinkMisconfigured, match="move it away"):
        sink.write(block())
    assert (root.path / NAME).read_bytes() == before


def test_present_reads_files_of_every_directory_and_counts_no_offset_twice(root: Root) -> None:
    sink = root.sink(partition_by=("country",))
    sink.write(block())
    sink.write(block(first_offset=2))  # overlaps: as at-least-once leaves it
    sink.write(block(first_offset=50, partition=Partition("events", 1)))
    sink.write(block(first_offset=60, partition=Partition("other", 0)))
    (root.path / "country=DE" / "part-0.parquet").write_bytes(b"foreign")
    assert sink.present(EVENTS_0, 1, 3).to_pylist() == [1, 2, 3]
    assert sink.present(EVENTS_0, 0, 99).to_pylist() == [0, 1, 2, 3, 4]
    assert sink.present(EVENTS_0, 5, 99).to_pylist() == []


def test_present_does_not_guess_what_a_file_without_offsets_holds(root: Root) -> None:
    sink = root.sink(coordinates="none")
    sink.write(make_block(TABLE))
    with pytest.raises(SinkMisconfigured, match="coordinates none"):
        sink.present(EVENTS_0, 0, 2)
    (root.path / PIN).unlink()
    with pytest.raises(SinkMisconfigured, match="_offset"):
        root.sink().present(EVENTS_0, 0, 2)


def claimed(table: pa.Table, first: int, last: int, first_offset: int = 0, **arguments: Any) -> Block:
    """Return a block of a range that is wider than its rows."""
    made = block(table, first_offset=first_offset, **arguments)
    return dataclasses.replace(made, ranges=(Range(made.ranges[0].partition, first, last),))


@pytest.mark.parametrize("partition_by", [(), ("country",)])
def test_beyond_names_the_partitions_that_are_further_than_their_position(
    root: Root, partition_by: tuple[str, ...]
) -> None:
    sink = root.sink(partition_by=partition_by)
    one, other = Partition("events", 1), Partition("a+b_Ä", 0)
    assert sink.max_offset_above({EVENTS_0: 0}) == {}
    sink.write(block())
    sink.write(block(first_offset=3))
    sink.write(block(partition=one))
    sink.write(block(partition=other, first_offset=7))
    assert sink.max_offset_above({EVENTS_0: 6, one: 3, other: 10, Partition("events", 2): 0}) == {}
    assert sink.max_offset_above({EVENTS_0: 0, one: 0, other: 7}) == {EVENTS_0: 5, one: 2, other: 9}
    assert sink.max_offset_above({EVENTS_0: 3}) == {EVENTS_0: 5}
    assert sink.max_offset_above({EVENTS_0: 5, one: 3}) == {EVENTS_0: 5}


def test_beyond_looks_into_a_range_only_where_the_position_lies_inside(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = root.sink()
    sink.write(claimed(TABLE, 0, 9, first_offset=2))
    sink.write(claimed(TABLE, 10, 29, first_offset=10))
    opened: list[str] = []
    real = LocalStore.opened

    def recorded(store: LocalStore, name: str) -> BinaryIO | None:
        opened.append(name)
        return real(store, name)

    monkeypatch.setattr(LocalStore, "opened", recorded)
    assert sink.max_offset_above({EVENTS_0: 10}) == {EVENTS_0: 29}
    assert sink.max_offset_above({EVENTS_0: 30}) == {}
    assert sink.max_offset_above({EVENTS_0: 5}) == {EVENTS_0: 29}
    assert opened == []
    assert sink.max_offset_above({EVENTS_0: 12}) == {EVENTS_0: 12}
    assert sink.max_offset_above({EVENTS_0: 13}) == {}
    assert len(opened) == 2


def test_beyond_goes_by_names_where_files_have_no_offsets(root: Root) -> None:
    sink = root.sink(coordinates="none")
    sink.write(make_block(TABLE))
    (root.path / "part-0.parquet").write_bytes(b"foreign")
    assert sink.max_offset_above({EVENTS_0: 2}) == {EVENTS_0: 2}
    assert sink.max_offset_above({EVENTS_0: 3}) == {}


def test_what_is_asked_of_a_root_that_went_away_is_no_empty_answer(root: Root) -> None:
    sink = root.sink()
    sink.write(block())
    root.path.rename(root.path.with_name("unmounted"))
    with pytest.raises(SinkMisconfigured, match="no longer mounted"):
        sink.max_offset_above({EVENTS_0: 0})
    root.path.mkdir()
    with pytest.raises(SinkMisconfigured, match="no longer mounted"):
        sink.max_offset_above({EVENTS_0: 0})
    root.path.rmdir()
    root.path.with_name("unmounted").rename(root.path)


def test_the_pin_is_an_arrow_file_that_every_worker_takes(root: Root) -> None:
    first, second = root.sink(), root.sink()
    schema = pa.schema(
        [pa.field("id", pa.int64(), nullable=False), pa.field("doc", pa.string(), metadata={RAW_JSON: b"1"})]
    )
    assert first.pin(schema).equals(schema, check_metadata=True)
    assert second.pin(pa.schema([("id", pa.string())])).equals(schema, check_metadata=True)
    assert root.schema().equals(schema, check_metadata=True)
    assert pa.ipc.open_file(root.path / PIN).schema.equals(schema)


def test_a_given_schema_is_pinned_by_the_first_write_and_not_before(root: Root) -> None:
    sink = root.sink(schema=TABLE.schema)
    assert root.files() == [name for name in root.files() if name.startswith("_tmp")]
    sink.write(block())
    assert PIN in root.files()
    assert root.schema().equals(TABLE.schema)


def test_a_given_schema_that_differs_from_the_pin_is_refused_at_open_and_at_the_first_write(root: Root) -> None:
    late = root.sink(schema=pa.schema([("id", pa.int32()), ("country", pa.string())]))
    root.sink().write(block())
    with pytest.raises(SinkMisconfigured, match="'id' is int32 instead of int64"):
        late.write(block(TABLE.set_column(0, "id", TABLE.column("id").cast(pa.int32()))))
    for schema, difference in [
        (pa.schema([("id", pa.int64())]), "'country' is missing"),
        (pa.schema([*TABLE.schema, ("x", pa.int8())]), "'x' is one too many"),
        (pa.schema([("country", pa.string()), ("id", pa.int64())]), "column 1 is 'country' instead of 'id'"),
        (pa.schema([pa.field("id", pa.int64(), nullable=False), ("country", pa.string())]), "not nullable"),
    ]:
        with pytest.raises(SinkMisconfigured, match=difference):
            root.sink(schema=schema)


def test_a_block_of_another_schema_is_refused(root: Root) -> None:
    sink = root.sink()
    sink.write(block())
    with pytest.raises(SinkMisconfigured, match="column 1 is '_partition' instead of 'id'"):
        sink.write(block(TABLE.drop_columns(["id", "country"])))


def test_a_field_named_like_a_coordinate_gives_way_to_it(root: Root) -> None:
    proposed = pa.schema([("id", pa.int64()), ("_offset", pa.string())])
    assert root.schema(schema=proposed).names == ["id"]
    assert root.sink().pin(proposed).names == ["id"]
    assert root.schema(schema=proposed).names == ["id"]


def test_a_broken_pin_is_said_and_not_replaced(root: Root) -> None:
    root.path.mkdir()
    (root.path / PIN).write_bytes(b"half")
    with pytest.raises(SinkMisconfigured, match="not an Arrow file"):
        root.sink()
    assert (root.path / PIN).read_bytes() == b"half"


@pytest.mark.parametrize("options", [{"partition_by": ("country",)}, {"coordinates": "none"}])
def test_a_root_has_one_layout(root: Root, options: dict[str, Any]) -> None:
    root.sink().write(block())
    with pytest.raises(SinkMisconfigured, match="--parquet"):
        root.sink(**options)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"partition_by": ("day(_timestamp)",)}, "partition-by"),
        ({"partition_by": ("hour(_timestamp) as dt",)}, "partition-by"),
        ({"partition_zone": "Asia/Tokyo"}, "partition-zone"),
    ],
)
def test_directories_of_a_root_never_change_their_meaning(root: Root, options: dict[str, Any], flag: str) -> None:
    given: dict[str, Any] = {"partition_by": ("day(_timestamp) as dt",)}
    root.sink(**given).write(block())
    with pytest.raises(SinkMisconfigured, match=f"--parquet.{flag}"):
        root.sink(**{**given, **options})
    # Another spelling of the same.
    root.sink(partition_by=("DAY( _timestamp )  as dt",)).write(block())


@pytest.mark.parametrize(
    ("proposed", "problem"),
    [
        (pa.schema([("id", pa.int64())]), "no column 'country'"),
        (pa.schema([("country", pa.list_(pa.string()))]), "a directory can be"),
        (pa.schema([("country", pa.string()), ("x", pa.month_day_nano_interval())]), "cannot be stored in Parquet"),
    ],
)
def test_an_inferred_schema_that_cannot_work_is_not_pinned(root: Root, proposed: pa.Schema, problem: str) -> None:
    sink = root.sink(partition_by=("country",))
    with pytest.raises(SinkMisconfigured, match=problem):
        sink.pin(proposed)
    assert PIN not in root.files()


def test_a_file_without_any_column_is_refused(root: Root) -> None:
    sink = root.sink(partition_by=("country",), coordinates="none")
    with pytest.raises(SinkMisconfigured, match="no column is left"):
        sink.pin(pa.schema([("country", pa.string())]))
