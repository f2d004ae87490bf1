from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import IntegerType, ListType, LongType, NestedField, StringType

from batcher.errors import ConfigurationError, RowsRejected, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.options.masking import masked_value
from batcher.records import Partition
from batcher.testing.contract.sink import ROWS, SCHEMA, block_for, opened
from batcher.testing.values import EVENTS_0
from sinks.iceberg import offsets
from sinks.iceberg.append import PreparedTransaction
from sinks.iceberg.settings import Iceberg
from sinks.lake.sink import LakeSink
from tests.harness.iceberg import Lake

COORDINATES = (
    NestedField(90, "_topic", StringType()),
    NestedField(91, "_partition", IntegerType()),
    NestedField(92, "_offset", LongType()),
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.in_directory(tmp_path)


@pytest.fixture
def sink(lake: Lake) -> Iterator[LakeSink]:
    made = lake.sink()
    yield made
    made.close()


def written(sink: LakeSink, *firsts: int) -> None:
    """Write one row at each of these offsets, a commit each."""
    info, schema = opened(sink)
    for first in firsts:
        sink.write(block_for(info, schema, ROWS.slice(first % 4, 1), first_offset=first))


def held_by(table: Table) -> dict[Partition, int]:
    return dict(offsets.read(table.metadata).next_offsets)


def counted(lake: Lake) -> Sequence[int]:
    found: list[int] = sorted(lake.rows()["_offset"].to_pylist())
    return found


def test_each_snapshot_has_the_offsets_of_all_partitions_carried_forward(lake: Lake, sink: LakeSink) -> None:
    info, schema = opened(sink)
    for number in (0, 3, 0):
        block = block_for(info, schema, first_offset=4 * (number == 0) + 4)
        sink.write(
            replace(
                block,
                table=block.table.set_column(
                    block.table.schema.get_field_index("_partition"), "_partition", pa.array([number] * 4, pa.int32())
                ),
                ranges=(block.ranges[0]._replace(partition=Partition("events", number)),),
            )
        )
    with lake.read() as table:
        assert held_by(table) == {Partition("events", 0): 12, Partition("events", 3): 8}
        assert json.loads(offsets.text_of(table.snapshots()[0]) or "") == {"events": {"0": 12}}


def test_a_snapshot_of_another_writer_leaves_the_offsets_of_those_before_it(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0, 1)
    lake.append(lake.rows().slice(0, 0).append_column("more", pa.array([], pa.string())).drop(["more"]))
    with lake.read() as table:
        head = table.current_snapshot()
        assert head is not None
        assert offsets.text_of(head) is None
        assert held_by(table) == {EVENTS_0: 2}
    written(sink, 1, 2)
    assert counted(lake) == [0, 1, 2]


def test_a_rollback_of_the_table_takes_the_offsets_back_too(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0, 1, 2)
    with lake.read() as table:
        table.manage_snapshots().set_current_snapshot(snapshot_id=table.snapshots()[0].snapshot_id).commit()
        assert held_by(table) == {EVENTS_0: 1}
    assert sink.max_offset_above({EVENTS_0: 0}) == {EVENTS_0: 0}
    written(sink, 0, 1, 2)
    assert counted(lake) == [0, 1, 2]


def test_offsets_whose_snapshots_were_expired_by_others_are_found_behind_the_rows(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0, 1, 2)
    lake.append(lake.rows().slice(0, 0))
    with lake.read() as table:
        *old, _ = (one.snapshot_id for one in table.snapshots())
        table.maintenance.expire_snapshots().by_ids(old).commit()
        assert offsets.read(table.metadata).lost
    assert sink.max_offset_above({EVENTS_0: 1}) == {EVENTS_0: 2}
    written(sink, 1, 2, 3)
    assert counted(lake) == [0, 1, 2, 3]
    with lake.read() as table:
        assert held_by(table) == {EVENTS_0: 4}


def test_a_property_that_somebody_else_wrote_is_refused_and_says_what_to_do(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0)
    with lake.read() as table:
        table.append(lake.rows().slice(0, 0).cast(table.schema().as_arrow()), {offsets.PROPERTY: "17"})
    info, schema = opened(sink)
    with pytest.raises(SinkMisconfigured, match="roll the table back"):
        sink.write(block_for(info, schema, first_offset=4))


def test_nothing_is_committed_on_top_of_a_snapshot_that_was_not_looked_at(lake: Lake, sink: LakeSink) -> None:
    """pyiceberg's own commit would try again on top of the newest one, and bring the rows in a second time."""
    written(sink, 0)
    late = lake.sink()
    opened(late)
    stale = late._table
    stale.refresh()
    written(sink, 1)
    rows = lake.rows().slice(0, 1).cast(stale.columns())
    with pytest.raises(SinkUnavailable, match="another writer was first"):
        stale.append(rows, {EVENTS_0: 2})
    late.close()
    assert counted(lake) == [0, 1]


def test_a_prepared_transaction_is_committed_once_and_never_rebased(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0)
    with lake.opened() as catalog:
        first, second = catalog.load_table(lake.table), catalog.load_table(lake.table)
        transaction = PreparedTransaction(second)
        assert second.metadata.properties["commit.retry.num-retries"] == "0"
        rows = lake.rows().cast(second.schema().as_arrow())
        transaction.append(rows)
        first.append(rows)
        with pytest.raises(CommitFailedException):
            transaction.commit_once()
    assert counted(lake) == [0, 0]


def test_an_answer_that_never_came_is_no_second_copy(
    lake: Lake, sink: LakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, schema = opened(sink)
    commit = Table._do_commit

    def lost(table: Table, **changes: Any) -> None:
        commit(table, **changes)
        raise ConnectionResetError("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(Table, "_do_commit", lost)
        with pytest.raises(SinkUnavailable, match="the answer is lost"):
            sink.write(block_for(info, schema))
    sink.write(block_for(info, schema))
    assert counted(lake) == [0, 1, 2, 3]


def test_a_commit_that_was_made_and_then_refused_on_its_way_keeps_its_files(
    lake: Lake, sink: LakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that sends a request twice has the second one refused; its files are those of the table."""
    info, schema = opened(sink)
    commit = Table._do_commit

    def twice(table: Table, **changes: Any) -> None:
        commit(table, **changes)
        raise CommitFailedException("branch main has changed")

    with monkeypatch.context() as patch:
        patch.setattr(Table, "_do_commit", twice)
        sink.write(block_for(info, schema))
    assert counted(lake) == [0, 1, 2, 3]


def test_old_snapshots_expire_and_only_their_files_go(lake: Lake, tmp_path: Path) -> None:
    sink = lake.sink(snapshots=5)
    written(sink, *range(3))
    with lake.read() as table:
        tagged, branched = (one.snapshot_id for one in table.snapshots()[:2])
        table.manage_snapshots().create_tag(tagged, "audit").create_branch(branched, "work").commit()
    written(sink, *range(3, 30))
    [gauge] = [one for one in sink.measures() if one.name == "lake_snapshots"]
    sink.close()
    with lake.read() as table:
        kept = {one.snapshot_id for one in table.snapshots()}
        assert {tagged, branched} <= kept
        assert len(kept) <= 5 + 2
        assert gauge.values == {"": float(len(kept))}
        assert held_by(table) == {EVENTS_0: 30}
        lists = {one.manifest_list.removeprefix("file://") for one in table.snapshots()}
        manifests = {
            manifest.manifest_path.removeprefix("file://")
            for one in table.snapshots()
            for manifest in one.manifests(table.io)
        }
        for snapshot in kept:
            assert table.scan(snapshot_id=snapshot).to_arrow().num_rows > 0
    there = {str(path) for path in tmp_path.rglob("*.avro")}
    assert there == lists | manifests
    assert counted(lake) == list(range(30))


def test_manifests_that_were_merged_go_when_no_snapshot_has_them(lake: Lake, tmp_path: Path) -> None:
    sink = lake.sink(snapshots=3, property={"commit.manifest.min-count-to-merge": "4"})
    written(sink, *range(20))
    sink.close()
    with lake.read() as table:
        manifests = {
            manifest.manifest_path.removeprefix("file://")
            for one in table.snapshots()
            for manifest in one.manifests(table.io)
        }
    there = {str(path) for path in tmp_path.rglob("*.avro") if not path.name.startswith("snap-")}
    assert there == manifests
    assert counted(lake) == list(range(20))


def test_what_others_committed_never_expires_here(lake: Lake) -> None:
    sink = lake.sink(snapshots=2)
    written(sink, 0)
    for _ in range(3):
        lake.append(lake.rows().slice(0, 0))
    with lake.read() as table:
        theirs = {one.snapshot_id for one in table.snapshots() if offsets.text_of(one) is None}
    written(sink, *range(1, 8))
    sink.close()
    with lake.read() as table:
        assert theirs <= {one.snapshot_id for one in table.snapshots()}


def test_an_expiry_that_fails_is_no_failed_write(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = lake.sink(snapshots=2)
    written(sink, 0, 1, 2)
    commit = Table._do_commit

    def refusing(table: Table, updates: Any, requirements: Any) -> None:
        if any(one.action == "remove-snapshots" for one in updates):
            raise NotImplementedError("no such update")
        commit(table, updates=updates, requirements=requirements)

    monkeypatch.setattr(Table, "_do_commit", refusing)
    written(sink, *range(3, 9))
    sink.close()
    assert counted(lake) == list(range(9))


def test_all_who_make_a_table_at_once_end_with_one_schema(lake: Lake) -> None:
    start = Barrier(4)

    def made(number: int) -> pa.Schema:
        sink = lake.sink()
        try:
            info = sink.open()
            start.wait(60)
            return info.schema or sink.pin(pa.schema([("id", pa.int64()), (f"field{number}", pa.string())]))
        finally:
            sink.close()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(made, range(4)))
    assert all(one.equals(found[0]) for one in found)


def joined(lake: Lake, *fields: NestedField, properties: dict[str, str] | None = None) -> None:
    with lake.opened() as catalog:
        catalog.create_namespace(lake.table.split(".")[0])
        catalog.create_table(lake.table, Schema(*fields, *COORDINATES), properties=properties or {})


def test_a_table_of_others_is_joined_as_it_is(lake: Lake, sink: LakeSink) -> None:
    joined(
        lake,
        NestedField(1, "id", LongType(), required=True),
        NestedField(2, "country", StringType()),
        NestedField(3, "size", IntegerType()),
    )
    info = sink.open()
    assert info.schema is not None
    assert info.schema.field("id") == pa.field("id", pa.int64(), nullable=False)
    assert info.schema.field("size").type == pa.int32()
    assert info.coordinates == ("_topic", "_partition", "_offset")
    sink.write(block_for(info, info.schema, ROWS.append_column("size", pa.array([7] * 4, pa.int32()))))
    assert lake.rows()["size"].to_pylist() == [7] * 4


@pytest.mark.parametrize(
    ("field", "properties", "words"),
    [
        (NestedField(1, "id", LongType()), {"format-version": "3"}, "has format version 3"),
        (NestedField(1, "id", LongType()), {"write.format.default": "orc"}, "write.format.default is orc"),
        (
            NestedField(1, "ids", ListType(2, LongType(), element_required=True)),
            {},
            r"'ids\[\]' inside of a column must not be null",
        ),
    ],
    ids=["version", "orc", "required"],
)
def test_a_table_that_cannot_be_written_is_refused_in_one_line(
    field: NestedField, properties: dict[str, str], words: str, lake: Lake, sink: LakeSink
) -> None:
    stored = {name: value for name, value in properties.items() if name != "format-version"}
    joined(lake, field, properties=stored)
    if stored != properties:
        # pyiceberg makes none of them, but reads them.
        with lake.read() as table:
            file = Path(table.metadata_location.removeprefix("file://"))
        known = json.loads(file.read_text())
        file.write_text(json.dumps(known | {"format-version": 3, "next-row-id": 0}))
    with pytest.raises(SinkMisconfigured, match=words) as error:
        sink.open()
    assert "\n" not in str(error.value)
    assert "Iceberg table shop.orders" in str(error.value)


def test_a_table_that_is_dropped_and_one_that_is_made_anew_are_said_so(lake: Lake, sink: LakeSink) -> None:
    info, schema = opened(sink)
    block = block_for(info, schema)
    with lake.opened() as catalog:
        catalog.drop_table(lake.table)
        with pytest.raises(SinkMisconfigured, match=r"shop\.orders is gone"):
            sink.write(block)
        catalog.create_table(lake.table, pa.schema([("id", pa.int64())]))
        with pytest.raises(SinkMisconfigured, match="was made anew"):
            sink.write(block)


def test_duplicates_of_another_writer_are_counted_and_removed_by_one_commit(lake: Lake) -> None:
    sink = lake.sink(partition_by="country")
    info, schema = opened(sink)
    block = block_for(info, schema)
    sink.write(block)
    lake.append(block.table)
    assert sink.copies(EVENTS_0, 0, 9)["copies"].to_pylist() == [2, 2, 2, 2]
    with lake.read() as table:
        before = len(table.snapshots())
    sink.remove(EVENTS_0, [(0, 0), (2, 3)])
    assert sink.copies(EVENTS_0, 0, 9).to_pydict() == {"offset": [1], "copies": [2]}
    with lake.read() as table:
        assert len(table.snapshots()) == before + 1
    sink.write(block)
    assert sink.copies(EVENTS_0, 0, 9)["offset"].to_pylist() == [0, 1, 2, 3]
    sink.close()


def test_values_that_would_be_cut_are_refused_before_anything_is_written(lake: Lake, sink: LakeSink) -> None:
    schema = pa.schema([("at", pa.timestamp("ns", "UTC"))])
    info = sink.open()
    held = sink.pin(schema)
    block = block_for(info, held, pa.table({"at": pa.array([1_000, 1_001], pa.timestamp("ns", "UTC"))}))
    with pytest.raises(RowsRejected) as error:
        sink.write(block)
    assert [one.position for one in error.value.rejections] == [1]
    with lake.read() as table:
        assert table.current_snapshot() is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"uriii": "x"}, "uriii is not a property of pyiceberg's catalogs: did you mean uri"),
        ({"type": "sqll"}, "sqll"),
        ({"type": "sql"}, "--iceberg.catalog"),
    ],
)
def test_a_catalog_that_cannot_be_is_said_with_its_flag(given: dict[str, str], words: str, lake: Lake) -> None:
    sink = lake.sink(catalog={**(lake.catalog if "uriii" in given else {}), **given})
    with pytest.raises(ConfigurationError, match=words):
        sink.open()


def test_a_catalog_that_is_not_there_is_unreachable_or_misconfigured(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no connection to the catalog"):
        lake.sink(catalog={"type": "rest", "uri": "http://127.0.0.1:9"}).open()
    uri = f"sqlite:///{tmp_path}/none/catalog.db"
    with pytest.raises(SinkMisconfigured, match="the catalog says: unable to open database file"):
        lake.sink(catalog={**lake.catalog, "uri": uri}).open()


def test_secrets_of_a_catalog_are_masked() -> None:
    secret = {
        "credential": "id:hidden",
        "token": "hidden",
        "s3.secret-access-key": "hidden",
        "s3.access-key-id": "hidden",
        "header.Authorization": "Basic hidden",
        "adls.connection-string": "AccountKey=hidden",
        "uri": "postgresql://me:hidden@host/db",
    }
    section = Iceberg(catalog=secret, table="shop.orders")
    assert "hidden" not in str(masked_value("iceberg", section))
    assert "hidden" not in repr(section)


@pytest.mark.parametrize("table", ["orders", ".orders", "shop.", "shop. orders"])
def test_a_table_needs_a_namespace(table: str) -> None:
    assert [one.field for one in Iceberg(catalog={"type": "sql"}, table=table).impossible()] == ["table"]


def test_a_second_log_of_the_same_name_is_told_apart_by_its_id(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0, 1)
    other = lake.sink(lake_id="2026")
    written(other, 0)
    assert counted(lake) == [0, 0, 1]
    with lake.read() as table:
        assert held_by(table) == {EVENTS_0: 2, Partition("2026|events", 0): 1}
    assert other.max_offset_above({EVENTS_0: 0}) == {EVENTS_0: 0}
    other.close()


def test_a_rehearsal_has_the_partitions_of_the_table_and_leaves_nothing(lake: Lake, tmp_path: Path) -> None:
    sink = lake.sink(partition_by="bucket(id, 3)")
    written(sink, 0)
    sink.close()
    with sink.rehearsal("bench-1") as scratch:
        info = scratch.open()
        assert info.schema is not None
        scratch.write(block_for(info, info.schema))
        with lake.opened() as catalog:
            [name] = [one for one in catalog.list_tables("shop") if one[-1] != "orders"]
            assert [str(one.transform) for one in catalog.load_table(name).spec().fields] == ["bucket[3]"]
        scratch.close()
    with lake.opened() as catalog:
        assert catalog.list_tables("shop") == [("shop", "orders")]
    assert counted(lake) == [0]


def test_a_rehearsal_without_a_table_leaves_no_namespace(lake: Lake) -> None:
    sink = lake.sink()
    with sink.rehearsal("bench-1") as scratch:
        scratch.open()
        assert isinstance(scratch, LakeSink)
        scratch.pin(SCHEMA)
        scratch.close()
    with lake.opened() as catalog:
        assert catalog.list_namespaces() == []


def test_fields_inside_of_structs_are_added_by_evolution_of_the_table(lake: Lake, sink: LakeSink) -> None:
    info = sink.open()
    first = sink.pin(pa.schema([("id", pa.int64()), ("s", pa.struct([("a", pa.int64()), ("b", pa.null())]))]))
    early = pa.table({"id": [1], "s": pa.array([{"a": 1, "b": None}], first.field("s").type)}, first)
    sink.write(block_for(info, first, early))
    wider = sink.pin(pa.schema([("id", pa.int64()), ("s", pa.struct([("a", pa.int64()), ("b", pa.string())]))]))
    late = pa.table({"id": [2], "s": [{"a": 2, "b": "x"}]}, wider)
    sink.write(block_for(info, wider, late, first_offset=1))
    assert sorted(lake.rows()["s"].to_pylist(), key=lambda one: one["a"]) == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_two_transforms_of_one_column_and_columns_that_are_not_there_are_refused(lake: Lake) -> None:
    refusals = {"day(at),hour(at)": "there twice", "nothing": "no column 'nothing'", "day(id)": "day takes"}
    for by, words in refusals.items():
        sink = lake.sink(partition_by=by)
        sink.open()
        with pytest.raises(SinkMisconfigured, match=words):
            sink.pin(SCHEMA)
        sink.close()


def test_properties_of_a_new_table_win_over_ours(lake: Lake) -> None:
    sink = lake.sink(property={"write.parquet.compression-codec": "snappy", "commit.manifest-merge.enabled": "false"})
    opened(sink)
    sink.close()
    with lake.read() as table:
        assert table.properties["write.parquet.compression-codec"] == "snappy"
        assert table.properties["commit.manifest-merge.enabled"] == "false"
        assert table.properties["write.parquet.dict-size-bytes"] == "131072"


def test_a_property_that_pyiceberg_sets_in_memory_is_not_stored(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0)
    with lake.read() as table:
        assert "commit.retry.num-retries" not in table.properties


def test_a_change_by_another_between_refresh_and_commit_of_columns_is_asked_again(lake: Lake, sink: LakeSink) -> None:
    written(sink, 0)
    with lake.read() as table:
        sink._table.refresh()
        with table.update_schema() as update:
            update.add_column("theirs", StringType())
    wider = sink.evolve(None, [pa.field("ours", pa.int64())])
    assert {"theirs", "ours"} <= set(wider.names)
