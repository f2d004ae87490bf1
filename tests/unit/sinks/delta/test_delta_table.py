"""A Delta table as a target: made, joined, raced for, widened, and refused with a reason."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from deltalake.schema import PrimitiveType

import sinks
from batcher.errors import ConfigurationError, RowsRejected, SchemaChanged, SinkMisconfigured, SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import RAW_JSON, Block, Partition, Range
from batcher.testing.contract.sink import SCHEMA, block_for, opened
from batcher.testing.values import EVENTS_0, make_block
from sinks.delta.table import DeltaLakeTable
from sinks.lake.sink import LakeSink
from tests.harness.lakes import without_check
from tests.harness.patience import PATIENCE_S


def sink_at(path: Path, **options: object) -> LakeSink:
    sink = sinks.load("delta")({"path": str(path), **options})
    assert isinstance(sink, LakeSink)
    return sink


def rows_at(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = deltalake.DeltaTable(path).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: (row["_topic"] or "", row["_partition"] or 0, row["_offset"] or 0))


def offsets_at(path: Path) -> list[int]:
    return [row["_offset"] for row in rows_at(path)]


def numbers(
    info: SinkInfo, values: Sequence[int], first: int, *, partition: Partition = EVENTS_0, token: str = ""
) -> Block:
    block = make_block(
        pa.table({"n": pa.array(values, pa.int64())}),
        partition=partition,
        first_offset=first,
        coordinates=info.coordinates,
    )
    return replace(block, token=token or block.token)


NUMBERS = pa.schema([("n", pa.int64())])


def open_numbers(path: Path, **options: object) -> tuple[LakeSink, SinkInfo]:
    sink = sink_at(path, **options)
    info = sink.open()
    if info.schema is None:
        sink.pin(NUMBERS)
    return sink, info


# Once, under any token and from any process


def test_rows_that_are_there_are_not_written_again_under_another_token_or_in_other_pieces(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    sink.write(numbers(info, range(4), 0))
    sink.write(numbers(info, range(2, 8), 2, token="another"))
    sink.write(numbers(info, range(3), 0, token="a third"))
    assert offsets_at(tmp_path / "t") == list(range(8))


def test_without_the_check_the_same_blocks_are_there_twice_so_the_table_alone_does_not_keep_them_out(
    tmp_path: Path,
) -> None:
    sink, info = open_numbers(tmp_path / "t")
    with without_check():
        sink.write(numbers(info, range(4), 0))
        sink.write(numbers(info, range(4), 0, token="another"))
    assert len(offsets_at(tmp_path / "t")) == 8


def test_a_record_that_was_refused_before_can_still_be_loaded_below_the_position(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    whole = numbers(info, range(4), 0)
    kept = pa.array([0, 1, 3])
    sink.write(replace(whole, table=whole.table.take(kept).combine_chunks(), positions=whole.positions.take(kept)))
    assert sink.max_offset_above({EVENTS_0: 3}) == {EVENTS_0: 3}
    assert sink.present(EVENTS_0, 0, 9).to_pylist() == [0, 1, 3]
    sink.write(numbers(info, [2], 2, token="dead letter"))
    sink.write(numbers(info, [2], 2, token="dead letter, again"))
    assert offsets_at(tmp_path / "t") == [0, 1, 2, 3]
    assert sink.max_offset_above({EVENTS_0: 0}) == {EVENTS_0: 3}


def test_a_process_that_was_frozen_between_check_and_commit_is_refused_and_then_finds_the_rows(tmp_path: Path) -> None:
    zombie, info = open_numbers(tmp_path / "t")
    zombie.write(numbers(info, [0], 0))
    successor, _ = open_numbers(tmp_path / "t")
    append = zombie._table.append

    def late(rows: pa.Table, positions: Mapping[Partition, int]) -> None:
        successor.write(numbers(info, [1, 2], 1))
        append(rows, positions)

    zombie._table.append = late  # type: ignore[method-assign]
    with pytest.raises(SinkUnavailable, match="another writer was first"):
        zombie.write(numbers(info, [1, 2], 1, token="zombie"))
    zombie._table.append = append  # type: ignore[method-assign]
    zombie.write(numbers(info, [1, 2], 1, token="zombie"))
    assert offsets_at(tmp_path / "t") == [0, 1, 2]


def test_writers_of_different_partitions_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    open_numbers(tmp_path / "t")[0].close()

    def load(number: int) -> None:
        sink, info = open_numbers(tmp_path / "t")
        for first in range(0, 20, 5):
            sink.write(numbers(info, range(5), first, partition=Partition("events", number)))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(load, range(3)))
    found = [(row["_partition"], row["_offset"]) for row in rows_at(tmp_path / "t")]
    assert found == [(number, offset) for number in range(3) for offset in range(20)]


def test_a_block_of_several_partitions_is_one_commit_with_the_position_of_each(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    others = [Partition("events", 1), Partition("it's|odd", 0)]
    parts = [numbers(info, range(3), 10, partition=one) for one in (EVENTS_0, *others)]
    table = pa.concat_tables([part.table for part in parts]).combine_chunks()
    ranges = tuple(part.ranges[0] for part in parts)
    before = deltalake.DeltaTable(tmp_path / "t").version()
    sink.write(Block(table, pa.array(range(9), pa.int64()), "all", ranges))
    assert deltalake.DeltaTable(tmp_path / "t").version() == before + 1
    assert sink.max_offset_above(dict.fromkeys([EVENTS_0, *others], 0)) == dict.fromkeys([EVENTS_0, *others], 12)
    sink.write(Block(table, pa.array(range(9), pa.int64()), "again", ranges))
    assert len(rows_at(tmp_path / "t")) == 9


def test_rows_that_another_tool_put_there_without_a_position_are_found_too(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    given = numbers(info, range(3), 5)
    columns = given.table.set_column(
        given.table.schema.get_field_index("_timestamp"),
        "_timestamp",
        given.table["_timestamp"].cast(pa.timestamp("us", "UTC")),
    )
    deltalake.write_deltalake(tmp_path / "t", columns, mode="append")
    assert sink.max_offset_above({EVENTS_0: 6}) == {EVENTS_0: 7}
    sink.write(numbers(info, range(5), 5))
    assert offsets_at(tmp_path / "t") == [5, 6, 7, 8, 9]


def test_a_topic_made_anew_is_loaded_beside_the_old_one_under_an_id(tmp_path: Path) -> None:
    old, info = open_numbers(tmp_path / "t")
    old.write(numbers(info, [1, 2], 0))
    new, info = open_numbers(tmp_path / "t", lake_id="2026")
    assert new.max_offset_above({EVENTS_0: 0}) == {}
    new.write(numbers(info, [7, 8, 9], 0))
    new.write(numbers(info, [7, 8, 9], 0, token="again"))
    assert new.copies(EVENTS_0, 0, 9)["offset"].to_pylist() == [0, 1, 2]
    assert [(row["_topic"], row["n"]) for row in rows_at(tmp_path / "t")] == [
        *(("2026|events", n) for n in (7, 8, 9)),
        *(("events", n) for n in (1, 2)),
    ]


def test_compaction_beside_a_writer_gets_in_nobodys_way_and_changes_no_row(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    sink.write(numbers(info, [0], 0))
    over, some = threading.Event(), threading.Event()

    def compact() -> int:
        done = 0
        while not over.is_set():
            done += deltalake.DeltaTable(tmp_path / "t").optimize.compact()["numFilesRemoved"]
            if done:
                some.set()
        return done

    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(compact)
        for offset in range(1, 15):
            sink.write(numbers(info, [offset], offset))
        # On a busy machine the writer may be through before the other has looked once.
        some.wait(PATIENCE_S)
        over.set()
    assert joined.result() > 0
    assert offsets_at(tmp_path / "t") == list(range(15))
    assert sink.max_offset_above({EVENTS_0: 0}) == {EVENTS_0: 14}


# Made, joined, changed


def test_of_two_that_make_the_table_at_once_one_gets_the_schema_of_the_other(tmp_path: Path) -> None:
    for turn in range(20):
        path = tmp_path / f"t{turn}"
        both = threading.Barrier(2)

        def pin(name: str, path: Path = path, both: threading.Barrier = both) -> pa.Schema:
            sink = sink_at(path)
            sink.open()
            both.wait(30)
            return sink.pin(pa.schema([(name, pa.int64())]))

        with ThreadPoolExecutor(2) as pool:
            one, other = pool.map(pin, ("a", "b"))
        assert one.equals(other)
        assert len(one) == 1


def test_a_table_keeps_what_the_decoder_needs_beyond_its_own_types(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            pa.field("id", pa.uint8(), nullable=False),
            pa.field("at", pa.timestamp("ms", "UTC")),
            pa.field("text", pa.string(), metadata={RAW_JSON: b"1"}),
            pa.field("later", pa.struct([("x", pa.int64()), ("y", pa.null())])),
        ]
    )
    first = sink_at(tmp_path / "t")
    first.open()
    assert first.pin(schema).equals(schema, check_metadata=True)
    found = sink_at(tmp_path / "t").open().schema
    assert found is not None
    assert found.equals(schema, check_metadata=True)
    columns = pa.schema(deltalake.DeltaTable(tmp_path / "t").schema().to_arrow())
    assert all(field.nullable for field in columns)
    assert [str(columns.field(name).type) for name in ("id", "at")] == ["int16", "timestamp[us, tz=UTC]"]


def test_a_field_inside_of_a_struct_gets_its_column_with_its_first_value(tmp_path: Path) -> None:
    sink = sink_at(tmp_path / "t")
    info = sink.open()
    before = pa.schema([("s", pa.struct([("x", pa.int64()), ("y", pa.null())]))])
    after = pa.schema([("s", pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]))])
    sink.pin(before)
    sink.write(make_block(pa.table({"s": [{"x": 1, "y": None}]}, before), coordinates=info.coordinates))
    assert sink.pin(after).equals(after)
    table = pa.table({"s": [{"x": 2, "y": ["a"]}]}, after)
    sink.write(make_block(table, first_offset=1, coordinates=info.coordinates))
    assert [row["s"] for row in rows_at(tmp_path / "t")] == [{"x": 1, "y": None}, {"x": 2, "y": ["a"]}]


def test_columns_that_others_add_or_drop_are_told_to_the_decoder(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    table = deltalake.DeltaTable(tmp_path / "t")
    table.alter.add_columns([deltalake.Field("more", PrimitiveType("string"))])
    with pytest.raises(SchemaChanged) as caught:
        sink.write(numbers(info, [1], 0))
    assert caught.value.schema.names == ["n", "more"]
    sink.write(numbers(info, [1], 0))
    assert rows_at(tmp_path / "t")[0]["more"] is None


def test_a_column_that_must_not_be_null_is_asked_of_every_record(tmp_path: Path) -> None:
    columns = pa.schema(
        [
            pa.field("n", pa.int64(), nullable=False),
            ("_topic", pa.string()),
            ("_partition", pa.int32()),
            ("_offset", pa.int64()),
        ]
    )
    deltalake.DeltaTable.create(tmp_path / "t", columns)
    sink = sink_at(tmp_path / "t")
    info = sink.open()
    assert info.coordinates == ("_topic", "_partition", "_offset")
    assert info.schema is not None
    assert not info.schema.field("n").nullable
    sink.write(numbers(info, [1], 0))
    assert offsets_at(tmp_path / "t") == [0]


def test_a_file_schema_is_compared_with_the_columns_that_are_there(tmp_path: Path) -> None:
    sink, _ = open_numbers(tmp_path / "t")
    sink.close()
    for schema, said in ((pa.schema([("n", pa.string())]), "'n' is int64 there"), (SCHEMA, "'id' is no column")):
        other = sink_at(tmp_path / "t")
        other._options = replace(other._options, schema=schema)
        with pytest.raises(SinkMisconfigured, match=said):
            other.open()


def test_partitions_are_the_functions_of_the_parquet_sink_as_columns(tmp_path: Path) -> None:
    by = ("country", "day(at)", "bucket(id, 4)", "hour(at) as h")
    sink = sink_at(tmp_path / "t", partition_by=by)
    info, schema = opened(sink)
    sink.write(block_for(info, schema))
    found = {row["id"]: (row["at_day"], row["id_bucket"], row["h"]) for row in rows_at(tmp_path / "t")}
    assert str(found[1][0]) == "1970-01-01"
    assert found[3] == (None, found[3][1], None)
    assert all(0 <= bucket < 4 for _, bucket, _ in found.values())
    assert deltalake.DeltaTable(tmp_path / "t").metadata().partition_columns == ["country", "at_day", "id_bucket", "h"]
    again = sink_at(tmp_path / "t").open()
    assert again.schema is not None
    assert again.schema.equals(schema)
    with pytest.raises(SinkMisconfigured, match="partitioned by"):
        sink_at(tmp_path / "t", partition_by=("country",)).open()


def test_the_coordinates_of_a_wide_table_have_statistics(tmp_path: Path) -> None:
    schema = pa.schema([(f"c{n}", pa.int64()) for n in range(60)])
    sink = sink_at(tmp_path / "t")
    info = sink.open()
    sink.pin(schema)
    sink.write(make_block(pa.table({name: [1] for name in schema.names}), coordinates=info.coordinates))
    names = pa.table(deltalake.DeltaTable(tmp_path / "t").get_add_actions(flatten=True)).column_names
    assert {"max._offset", "max._partition", "max._topic", "max.c0"} <= set(names)


def test_a_table_that_is_removed_while_it_is_open_is_not_continued_in_pieces(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    sink.write(numbers(info, [1], 0))
    (tmp_path / "t").rename(tmp_path / "away")
    with pytest.raises(SinkMisconfigured, match="no table any more"):
        sink.write(numbers(info, [2], 1))
    other, _ = open_numbers(tmp_path / "t")
    other.close()
    sink.write(numbers(info, [2], 1))
    assert offsets_at(tmp_path / "t") == [1]


def test_the_handle_is_opened_anew_now_and_then_and_the_log_is_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.delta.table.REOPEN_EVERY", 3)
    sink, info = open_numbers(tmp_path / "t", property={"delta.checkpointInterval": "5"})
    loads = 0
    load = DeltaLakeTable._loaded

    def counted(table: DeltaLakeTable) -> bool:
        nonlocal loads
        loads += 1
        return load(table)

    monkeypatch.setattr(DeltaLakeTable, "_loaded", counted)
    for offset in range(9):
        sink.write(numbers(info, [offset], offset))
    assert loads == 3
    assert list((tmp_path / "t" / "_delta_log").glob("*.checkpoint.parquet"))
    commits, versions = sink.measures()
    assert commits.values[""].count == 9  # type: ignore[union-attr]
    assert versions.values == {"": 10.0}


# Refused with a reason


def table_of(
    path: Path,
    *,
    writer: int = 2,
    features: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    about_n: Mapping[str, Any] | None = None,
) -> None:
    """Write the first commit of a table as another writer might have."""
    log = path / "_delta_log"
    log.mkdir(parents=True)
    fields = [
        {"name": name, "type": kind, "nullable": True, "metadata": dict(about_n or {}) if name == "n" else {}}
        for name, kind in (("n", "long"), ("_topic", "string"), ("_partition", "integer"), ("_offset", "long"))
    ]
    protocol: dict[str, Any] = {"minReaderVersion": 1, "minWriterVersion": writer}
    if writer == 7:
        protocol["writerFeatures"] = list(features)
    metadata = {
        "id": "0",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": [],
        "configuration": dict(properties or {}),
        "createdTime": 0,
    }
    lines = [json.dumps({"protocol": protocol}), json.dumps({"metaData": metadata})]
    (log / f"{0:020d}.json").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"writer": 6}, "writer version 6"),
        ({"writer": 7, "features": ["rowTracking", "appendOnly"]}, r"\(rowTracking\)"),
        ({"writer": 7, "features": ["icebergCompatV2"]}, r"\(icebergCompatV2\)"),
        ({"writer": 3, "properties": {"delta.constraints.c": "n > 5"}}, "CHECK constraints"),
        ({"writer": 4, "about_n": {"delta.generationExpression": "1"}}, "generated columns"),
        ({"about_n": {"delta.invariants": json.dumps({"expression": {"expression": "n > 5"}})}}, "column invariants"),
    ],
)
def test_a_table_that_asks_more_of_a_writer_than_can_be_kept_is_refused_at_the_start(
    given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    table_of(tmp_path / "t", **given)
    with pytest.raises(SinkMisconfigured, match=said):
        sink_at(tmp_path / "t").open()


@pytest.mark.parametrize(
    "given",
    [
        {"writer": 5},
        {"writer": 7, "features": ["appendOnly", "changeDataFeed", "checkConstraints", "generatedColumns"]},
        {"properties": {"delta.appendOnly": "true"}},
        {"writer": 4, "properties": {"delta.enableChangeDataFeed": "true"}},
    ],
)
def test_a_table_with_what_can_be_kept_is_joined(given: dict[str, Any], tmp_path: Path) -> None:
    table_of(tmp_path / "t", **given)
    sink, info = open_numbers(tmp_path / "t")
    sink.write(numbers(info, [1], 0))
    assert offsets_at(tmp_path / "t") == [0]


def test_nothing_is_removed_from_a_table_that_only_takes_appends(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t", property={"delta.appendOnly": "true"})
    sink.write(numbers(info, [1], 0))
    with pytest.raises(SinkMisconfigured, match="only takes appends"):
        sink.remove(EVENTS_0, [(0, 0)])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("n", pa.int64())], "no column _topic"),
        ([("_topic", pa.string()), ("_partition", pa.int32()), ("_offset", pa.string())], "column _offset is string"),
    ],
)
def test_a_table_that_cannot_say_which_records_it_has_is_refused(
    fields: list[tuple[str, pa.DataType]], said: str, tmp_path: Path
) -> None:
    deltalake.DeltaTable.create(tmp_path / "t", pa.schema(fields))
    with pytest.raises(SinkMisconfigured, match=said):
        sink_at(tmp_path / "t").open()


def test_a_directory_with_files_that_are_no_table_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "_schema.arrow").write_bytes(b"")
    with pytest.raises(SinkMisconfigured, match="no Delta table"):
        sink_at(tmp_path / "t").open()


def test_values_that_do_not_fit_refuse_their_rows_before_anything_is_committed(tmp_path: Path) -> None:
    sink = sink_at(tmp_path / "t", partition_by=("name",))
    info = sink.open()
    schema = pa.schema([("at", pa.timestamp("ns")), ("name", pa.string())])
    sink.pin(schema)
    before = deltalake.DeltaTable(tmp_path / "t").version()
    for column, values, row in (("at", [1_000, 1_001], 1), ("name", ["x" * 300, "y"], 0)):
        table = pa.table({"at": pa.array([1_000, 2_000], pa.timestamp("ns")), "name": ["a", "b"]})
        table = table.set_column(schema.get_field_index(column), column, pa.array(values, schema.field(column).type))
        with pytest.raises(RowsRejected) as caught:
            sink.write(make_block(table, coordinates=info.coordinates))
        assert [one.position for one in caught.value.rejections] == [row]
    assert deltalake.DeltaTable(tmp_path / "t").version() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"option": {"regoin": "x"}}, "regoin is not known: did you mean region"),
        ({"option": {"aws_s3_allow_unsafe_rename": "true"}}, "rows would be lost"),
        ({"option": {"allow_invalid_certificates": "true"}}, "--delta.allow-insecure"),
        ({"partition_by": ["week(at)"]}, "^--delta.partition-by 'week"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        sinks.load("delta")({"path": "s3://bucket/t", **options})


def test_a_property_that_there_is_not_is_refused_before_the_table_is_made(tmp_path: Path) -> None:
    sink = sink_at(tmp_path / "t", property={"delta.logRetentionDuratio": "interval 7 days"})
    sink.open()
    with pytest.raises(SinkMisconfigured, match="logRetentionDuratio"):
        sink.pin(NUMBERS)
    assert not (tmp_path / "t").exists()


def test_a_measurement_leaves_nothing_behind(tmp_path: Path) -> None:
    sink = sink_at(tmp_path / "t")
    with sink.rehearsal("rehearsal") as scratch:
        info, schema = opened(scratch)
        scratch.write(block_for(info, schema))
    assert list(tmp_path.iterdir()) == []


def test_ranges_that_were_only_refused_are_no_commit(tmp_path: Path) -> None:
    sink, info = open_numbers(tmp_path / "t")
    sink.write(numbers(info, [1], 0))
    before = deltalake.DeltaTable(tmp_path / "t").version()
    again = numbers(info, [1], 0)
    sink.write(replace(again, ranges=(Range(EVENTS_0, 0, 5),)))
    assert deltalake.DeltaTable(tmp_path / "t").version() == before
