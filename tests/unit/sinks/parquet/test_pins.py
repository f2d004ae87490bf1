"""What a root promises about fields that had no value at first: they become columns, and no type ever changes."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import structlog
from pyarrow import fs

from batcher.errors import ConfigurationError, SinkMisconfigured
from batcher.protocols import SinkInfo
from batcher.records import RAW_JSON, Block
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_block
from sinks.parquet import one_root, schemas
from sinks.parquet.arrow_store import ArrowStore
from sinks.parquet.locations import store_for
from sinks.parquet.options import ParquetOptions
from sinks.parquet.schemas import PIN
from sinks.parquet.sink import ParquetSink
from sinks.parquet.topics import TopicRootsSink
from tests.harness.object_store import Objects

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

UNKNOWN = pa.schema([("id", pa.int64()), ("before", pa.null())])
BEFORE = pa.struct([("city", pa.string())])
KNOWN = pa.schema([("id", pa.int64()), ("before", BEFORE)])
FIRST = pa.table({"id": [1], "before": [None]}, UNKNOWN)
SECOND = pa.table({"id": [2], "before": [{"city": "Rome"}]}, KNOWN)


def block(table: pa.Table, first_offset: int = 0) -> Block:
    coordinates = ("_partition", "_offset", "_timestamp")
    return make_block(table, first_offset=first_offset, coordinates=coordinates)


def by_duckdb(query: str) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(query).fetchall()


class Root:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.made: list[ParquetSink] = []
        self.info = SinkInfo("", None)

    @property
    def schema(self) -> pa.Schema:
        """Return the schema that the latest worker was told."""
        assert self.info.schema is not None
        return self.info.schema

    def sink(self, **options: Any) -> ParquetSink:
        made = one_root({"path": str(self.path), **options})
        self.made.append(made)
        self.info = made.open()
        return made

    def rows(self, schema: pa.Schema) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ds.dataset(self.path, schema=schema).to_table().sort_by("id").to_pylist()
        return found


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    found = Root(tmp_path / "root")
    yield found
    for sink in found.made:
        sink.close()


def test_a_field_that_was_only_null_becomes_a_column_with_its_first_value(root: Root) -> None:
    sink = root.sink()
    assert sink.pin(UNKNOWN).equals(UNKNOWN)
    sink.write(block(FIRST))
    assert sink.pin(KNOWN).equals(KNOWN)
    sink.write(block(SECOND, 1))
    first, second = sorted(root.path.glob("*.parquet"))
    assert "before" not in pq.read_schema(first).names
    assert pq.read_schema(second).field("before").type == BEFORE
    assert root.rows(KNOWN) == [{"id": 1, "before": None}, {"id": 2, "before": {"city": "Rome"}}]


def test_a_restart_knows_the_fields_that_still_have_no_value(root: Root) -> None:
    root.sink().pin(UNKNOWN)
    assert root.sink().pin(pa.schema([("id", pa.int64())])).equals(UNKNOWN)
    assert root.schema.equals(UNKNOWN)
    root.sink().pin(KNOWN)
    root.sink()
    assert root.schema.equals(KNOWN)


def test_items_that_take_any_json_do_so_for_each_worker_once_they_have_a_type(root: Root) -> None:
    sink = root.sink()
    sink.pin(pa.schema([("id", pa.int64()), ("items", pa.list_(pa.null()))]))
    any_json = pa.list_(pa.field("item", pa.string(), metadata={RAW_JSON: b"1"}))
    grown = sink.pin(pa.schema([("id", pa.int64()), ("items", any_json)]))
    root.sink()
    for schema in (grown, root.schema):
        assert schema.field("items").type.equals(any_json, check_metadata=True)


def test_what_was_decoded_before_a_growth_is_written_after_it(root: Root) -> None:
    sink = root.sink()
    sink.pin(UNKNOWN)
    sink.pin(KNOWN)
    sink.write(block(FIRST))
    sink.write(block(SECOND, 1))
    assert root.rows(KNOWN) == [{"id": 1, "before": None}, {"id": 2, "before": {"city": "Rome"}}]


def test_a_replay_writes_the_file_again_with_more_columns(root: Root) -> None:
    sink = root.sink()
    sink.pin(UNKNOWN)
    sink.write(block(FIRST))
    successor = root.sink()
    successor.pin(KNOWN)
    successor.write(dataclasses.replace(block(FIRST.cast(KNOWN)), replayed=True))
    (file,) = root.path.glob("*.parquet")
    assert pq.read_schema(file).names[:2] == ["id", "before"]


@pytest.mark.parametrize(
    ("unknown", "known", "stored"),
    [
        (pa.list_(pa.null()), pa.list_(pa.int64()), None),
        (pa.struct([]), BEFORE, None),
        (pa.struct([("a", pa.null())]), pa.struct([("a", pa.string())]), None),
        (
            pa.struct([("a", pa.int64()), ("b", pa.null())]),
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            pa.struct([("a", pa.int64())]),
        ),
        (
            pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.null()))])),
            pa.list_(pa.struct([("a", pa.int64()), ("b", pa.list_(pa.bool_()))])),
            pa.list_(pa.struct([("a", pa.int64())])),
        ),
        (pa.map_(pa.string(), pa.null()), pa.map_(pa.string(), pa.int64()), None),
        (pa.large_list(pa.null()), pa.large_list(pa.int64()), None),
    ],
    ids=str,
)
def test_what_is_unknown_inside_a_field_is_left_to_the_files_to_come(
    root: Root, unknown: pa.DataType, known: pa.DataType, stored: pa.DataType | None
) -> None:
    before, after = pa.schema([("id", pa.int64()), ("x", unknown)]), pa.schema([("id", pa.int64()), ("x", known)])
    sink = root.sink()
    assert sink.pin(before).equals(before)
    sink.write(block(nulls(before)))
    assert sink.pin(after).equals(after)
    sink.write(block(nulls(before), 1))
    sink.write(block(nulls(after), 2))
    kinds = [schema.field("x").type if "x" in schema.names else None for schema in map(pq.read_schema, files(root))]
    assert kinds[0] == stored
    assert [kind == known for kind in kinds[1:]] == [True, True]


def files(root: Root) -> list[Path]:
    return sorted(root.path.glob("*.parquet"))


def nulls(schema: pa.Schema) -> pa.Table:
    return pa.table([pa.array([1]), pa.nulls(1, schema.field("x").type)], schema=schema)


def test_a_pinned_type_never_changes_and_no_other_field_is_added(root: Root) -> None:
    sink = root.sink()
    sink.pin(KNOWN)
    other = pa.schema([("id", pa.string()), ("before", pa.int64()), ("new", pa.int8())])
    assert sink.pin(other).equals(KNOWN)


def test_a_field_that_turns_out_to_be_any_json_says_so_after_a_restart(root: Root) -> None:
    text = pa.field("before", pa.string(), metadata={RAW_JSON: b"1"})
    sink = root.sink()
    sink.pin(UNKNOWN)
    sink.pin(pa.schema([UNKNOWN.field("id"), text]))
    root.sink()
    assert (root.schema.field("before").metadata or {}).get(RAW_JSON) == b"1"


def test_of_two_types_for_one_field_the_first_holds_for_both(root: Root) -> None:
    one, other = root.sink(), root.sink()
    one.pin(UNKNOWN)
    other.pin(UNKNOWN)
    assert one.pin(KNOWN).equals(KNOWN)
    assert other.pin(pa.schema([("id", pa.int64()), ("before", pa.string())])).equals(KNOWN)


def test_processes_that_learn_at_the_same_time_end_with_one_schema(root: Root) -> None:
    names = [f"f{n}" for n in range(6)]
    unknown = pa.schema([("id", pa.int64()), *((name, pa.null()) for name in names)])
    sinks = [root.sink() for _ in names]
    for sink in sinks:
        sink.pin(unknown)
    together = threading.Barrier(len(sinks))

    def learn(number: int) -> pa.Schema:
        kind = pa.int64() if number % 2 else pa.string()
        together.wait()
        # Each knows a field of its own, and all of them disagree about the first.
        mine = {names[0]: kind, names[number]: kind}
        return sinks[number].pin(pa.schema([(field.name, mine.get(field.name, field.type)) for field in unknown]))

    with ThreadPoolExecutor(len(sinks)) as pool:
        list(pool.map(learn, range(len(sinks))))
    held = [sink.pin(unknown) for sink in sinks]
    assert all(schema.equals(held[0]) for schema in held)
    assert pa.null() not in held[0].types
    newest, _ = schemas.from_bytes((root.path / PIN).read_bytes())
    assert newest.equals(held[0])


def test_a_crash_between_a_pin_and_its_showing_is_mended_at_the_next_start(root: Root) -> None:
    sink = root.sink()
    sink.pin(UNKNOWN)
    before = (root.path / PIN).read_bytes()
    sink.pin(KNOWN)
    (root.path / PIN).write_bytes(before)
    root.sink()
    assert root.schema.equals(KNOWN)
    assert schemas.from_bytes((root.path / PIN).read_bytes())[0].equals(KNOWN)


def test_a_growth_that_files_cannot_have_is_not_pinned(root: Root) -> None:
    sink = root.sink(partition_by=("before",))
    sink.pin(UNKNOWN)
    with pytest.raises(SinkMisconfigured, match="a directory can be"):
        sink.pin(KNOWN)
    assert sink.pin(UNKNOWN).equals(UNKNOWN)


def test_rows_go_to_the_default_directory_until_its_column_has_a_value(root: Root) -> None:
    sink = root.sink(partition_by=("before",))
    sink.pin(UNKNOWN)
    sink.write(block(FIRST))
    named = pa.schema([("id", pa.int64()), ("before", pa.string())])
    sink.pin(named)
    sink.write(block(FIRST, 1))
    sink.write(block(pa.table({"id": [3], "before": ["x"]}), 2))
    found = sorted(file.parent.name for file in root.path.rglob("*.parquet"))
    assert found == ["before=__HIVE_DEFAULT_PARTITION__"] * 2 + ["before=x"]


def test_an_empty_object_first_does_not_disable_the_root(root: Root) -> None:
    sink = root.sink()
    with pytest.raises(SinkMisconfigured, match="no field"):
        sink.pin(pa.schema([]))
    with pytest.raises(SinkMisconfigured, match="no field"):
        sink.pin(pa.schema([("_offset", pa.int64())]))
    assert sink.pin(KNOWN).equals(KNOWN)
    assert sink.pin(pa.schema([])).equals(KNOWN)


def test_a_root_that_an_older_version_pinned_empty_says_how_to_go_on(root: Root) -> None:
    root.path.mkdir()
    (root.path / PIN).write_bytes(schemas.to_bytes(pa.schema([]), {}))
    with pytest.raises(SinkMisconfigured, match=r"remove it, and the next records decide"):
        root.sink()
    (root.path / PIN).unlink()
    root.sink().pin(KNOWN)


def test_fields_without_any_value_are_remembered_beside_the_coordinates(root: Root) -> None:
    sink = root.sink()
    only = pa.schema([("x", pa.null())])
    assert sink.pin(only).equals(only)
    sink.write(block(pa.table({"x": [None]}, only)))
    assert pq.read_schema(files(root)[0]).names == ["_partition", "_offset", "_timestamp"]
    assert sink.pin(pa.schema([("x", pa.string())])).field("x").type == pa.string()


def test_fields_without_any_value_are_not_pinned_where_files_would_have_no_column(root: Root) -> None:
    sink = root.sink(coordinates="none")
    with pytest.raises(SinkMisconfigured, match="no column is left"):
        sink.pin(pa.schema([("x", pa.null())]))
    assert sink.pin(KNOWN).equals(KNOWN)


def test_a_message_is_kept_whole_beside_its_fields(root: Root) -> None:
    sink = root.sink(coordinates="value")
    assert root.info.coordinates == ("_partition", "_offset", "_timestamp", "_value")
    sink.pin(pa.schema([("id", pa.int64()), ("_value", pa.string())]))
    sink.write(make_block(pa.table({"id": [1]}), coordinates=root.info.coordinates))
    table = pq.read_table(files(root)[0])
    assert table.schema.field("_value").type == pa.binary()
    assert table["_value"].to_pylist() == [b"{}"]
    with pytest.raises(SinkMisconfigured, match=r"--parquet\.coordinates value"):
        root.sink(coordinates="default")


def test_too_many_directories_stop_with_what_helps_the_range_that_comes_again(root: Root) -> None:
    table = pa.table({"id": [1, 2, 3], "day": ["a", "b", "c"]})
    sink = root.sink(partition_by=("day",), max_directories=2)
    with pytest.raises(ConfigurationError, match=r"events\[0\].*--parquet\.max-directories.*announced") as caught:
        sink.write(block(table))
    assert caught.value.exit_code == 78
    root.sink(partition_by=("day",), max_directories=3).write(dataclasses.replace(block(table), replayed=True))
    assert len(list(root.path.rglob("*.parquet"))) == 3


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_column_of_a_root_has_one_unit_of_time(root: Root, unit: str) -> None:
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp(unit, "UTC"))])
    sink = root.sink()
    sink.pin(schema)
    sink.write(block(pa.table({"id": [1], "at": [1]}, schema)))
    other = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us" if unit != "us" else "ns", "UTC"))])
    assert root.sink().pin(other).equals(schema)
    with pytest.raises(SinkMisconfigured, match="does not fit"):
        sink.write(block(pa.table({"id": [1], "at": [1]}, other), 1))
    with pytest.raises(SinkMisconfigured, match=r"--decode\.schema does not agree"):
        root.sink(schema=other)


def test_nanoseconds_are_read_by_every_reader(root: Root, chdb_engine: EmbeddedEngine) -> None:
    schema = pa.schema([("id", pa.int64()), ("moment", pa.timestamp("ns", "UTC"))])
    sink = root.sink()
    sink.pin(schema)
    sink.write(block(pa.table({"id": [1], "moment": [1_700_000_000_123_456_789]}, schema)))
    found = str(root.path / "*.parquet")
    assert pq.read_table(files(root)[0])["moment"].cast(pa.int64()).to_pylist() == [1_700_000_000_123_456_789]
    assert pl.read_parquet(found)["moment"].dt.epoch("ns").to_list() == [1_700_000_000_123_456_789]
    assert by_duckdb(f"SELECT epoch_ns(moment) FROM '{found}'") == [(1_700_000_000_123_456_789,)]
    asked = f"SELECT toUnixTimestamp64Nano(moment) AS n FROM file('{found}')"
    assert chdb_engine.execute(asked).to_pylist() == [{"n": 1_700_000_000_123_456_789}]


def test_readers_see_the_columns_that_only_later_files_have(root: Root, chdb_engine: EmbeddedEngine) -> None:
    schema = pa.schema([("id", pa.int64()), ("note", pa.null())])
    named = pa.schema([("id", pa.int64()), ("note", pa.string())])
    sink = root.sink()
    sink.pin(schema)
    sink.write(block(pa.table({"id": [1], "note": [None]}, schema)))
    sink.pin(named)
    sink.write(block(pa.table({"id": [2], "note": ["x"]}, named), 1))
    sink.close()
    pattern = str(root.path / "**" / "*.parquet")
    want = [(1, None), (2, "x")]
    full = pa.unify_schemas([pa.ipc.open_file(root.path / PIN).schema, pa.schema([("_offset", pa.int64())])])
    by_arrow = ds.dataset(root.path, schema=full).to_table(columns=["id", "note"]).sort_by("id")
    assert [tuple(row.values()) for row in by_arrow.to_pylist()] == want
    union = f"SELECT id, note FROM read_parquet('{pattern}', union_by_name = true) ORDER BY id"
    assert by_duckdb(union) == want
    columns = {"id": pl.Int64, "note": pl.String}
    scan = pl.scan_parquet(pattern, schema=columns, missing_columns="insert", extra_columns="ignore")
    assert scan.sort("id").collect().rows() == want
    by_clickhouse = chdb_engine.execute(
        f"SELECT id, note FROM file('{pattern}', Parquet) ORDER BY id SETTINGS schema_inference_mode = 'union'"
    )
    assert [tuple(row.values()) for row in by_clickhouse.to_pylist()] == want


def test_readers_see_what_only_later_files_have_inside_of_objects(root: Root, chdb_engine: EmbeddedEngine) -> None:
    early, late = pa.struct([("a", pa.int64()), ("b", pa.null())]), pa.struct([("a", pa.int64()), ("b", pa.string())])
    sink = root.sink()
    for number, kind in enumerate([early, late]):
        schema = pa.schema([("id", pa.int64()), ("s", kind), ("l", pa.list_(kind))])
        value = {"a": number, "b": "x" if number else None}
        sink.pin(schema)
        sink.write(block(pa.table({"id": [number], "s": [value], "l": [[value]]}, schema), number))
    sink.close()
    pattern = str(root.path / "**" / "*.parquet")
    first, second = {"a": 0, "b": None}, {"a": 1, "b": "x"}
    want = [(0, first, [first]), (1, second, [second])]
    pinned = pa.ipc.open_file(root.path / PIN).schema
    by_arrow = ds.dataset(root.path, schema=pinned).to_table().sort_by("id")
    assert [tuple(row.values()) for row in by_arrow.to_pylist()] == want
    union = f"SELECT id, s, l FROM read_parquet('{pattern}', union_by_name = true) ORDER BY id"
    assert by_duckdb(union) == want
    kind = pl.Struct({"a": pl.Int64, "b": pl.String})
    scan = pl.scan_parquet(
        pattern,
        schema={"id": pl.Int64, "s": kind, "l": pl.List(kind)},
        missing_columns="insert",
        extra_columns="ignore",
        cast_options=pl.ScanCastOptions(missing_struct_fields="insert"),
    )
    assert scan.sort("id").collect().rows() == want
    pair = "Tuple(a Nullable(Int64), b Nullable(String))"
    named = f"id Int64, s {pair}, l Array({pair})"
    asked = f"SELECT s.b AS s, l[1].b AS l FROM file('{pattern}', Parquet, '{named}') ORDER BY id"
    assert chdb_engine.execute(asked).to_pylist() == [{"s": None, "l": None}, {"s": "x", "l": "x"}]


def test_an_object_store_grows_as_a_directory_does() -> None:
    objects = Objects("bucket")

    def opened() -> ParquetSink:
        store = ArrowStore(lambda: (fs.PyFileSystem(objects), "bucket/events"), "s3://bucket/events")
        made = ParquetSink(ParquetOptions("s3://bucket/events"), store)
        made.open()
        return made

    sink = opened()
    sink.pin(UNKNOWN)
    sink.write(block(FIRST))
    assert sink.pin(KNOWN).equals(KNOWN)
    sink.write(block(SECOND, 1))
    assert opened().pin(UNKNOWN).equals(KNOWN)


COLOUR = pa.field("colour", pa.string())
SIZE = pa.field("size", pa.int64())
NARROW = pa.schema([("id", pa.int64())])


def narrow(*ids: int) -> pa.Table:
    return pa.table({"id": list(ids)}, NARROW)


def test_columns_for_new_fields_are_numbered_pins_each_wider_than_the_one_before(root: Root) -> None:
    sink = root.sink()
    sink.write(block(narrow(1)))
    first = sink.evolve(None, [COLOUR])
    assert first.names == ["id", "colour"]
    assert sink.evolve(None, [SIZE, COLOUR]).names == ["id", "colour", "size"]
    assert sink.evolve(None, [COLOUR.with_type(pa.int8())]).names == ["id", "colour", "size"]
    assert sorted(path.name for path in root.path.glob("_schema*")) == [
        "_schema.00002.arrow",
        "_schema.00003.arrow",
        "_schema.arrow",
    ]
    # A block of a shape before, then one of the newest.
    sink.write(block(pa.table({"id": [2], "colour": ["red"]}, first), 1))
    sink.write(block(pa.table({"id": [3], "colour": [None], "size": [7]}, pa.schema([*first, SIZE])), 2))
    assert root.rows(pa.schema([*NARROW, COLOUR, SIZE])) == [
        {"id": 1, "colour": None, "size": None},
        {"id": 2, "colour": "red", "size": None},
        {"id": 3, "colour": None, "size": 7},
    ]
    assert root.sink().schema == pa.schema([*NARROW, COLOUR, SIZE])


def test_a_replay_of_a_shape_before_replaces_its_file(root: Root) -> None:
    root.sink().write(block(narrow(1, 2)))
    second = root.sink()
    second.evolve(None, [COLOUR])
    wider = pa.table({"id": [1, 2], "colour": ["red", None]}, pa.schema([*NARROW, COLOUR]))
    second.write(dataclasses.replace(block(wider), replayed=True))
    third = root.sink()
    third.write(dataclasses.replace(block(wider), replayed=True))
    assert root.rows(wider.schema) == [{"id": 1, "colour": "red"}, {"id": 2, "colour": None}]


def test_processes_that_add_columns_at_the_same_time_end_with_all_of_them(root: Root) -> None:
    root.sink().write(block(narrow(1)))
    sinks = [root.sink() for _ in range(6)]
    start = threading.Barrier(len(sinks))

    def add(number: int) -> pa.Schema:
        start.wait()
        return sinks[number].evolve(None, [pa.field(f"f{number % 3}", pa.int64()), COLOUR])

    with ThreadPoolExecutor(len(sinks)) as pool:
        list(pool.map(add, range(len(sinks))))
    held = [sink.evolve(None, []) for sink in sinks]
    assert all(schema.equals(held[0]) for schema in held)
    assert sorted(held[0].names) == ["colour", "f0", "f1", "f2", "id"]


def test_a_crash_between_a_new_pin_and_the_one_that_is_shown_is_mended_at_the_next_start(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = root.sink()
    sink.write(block(narrow(1)))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sinks.parquet.local.LocalStore.replace", crash)
        with pytest.raises(KeyboardInterrupt):
            sink.evolve(None, [COLOUR])
    assert root.sink().schema == pa.schema([*NARROW, COLOUR])
    assert pa.ipc.open_file(str(root.path / PIN)).schema.names == ["id", "colour"]


def test_columns_that_came_later_need_not_be_in_the_file_of_the_schema(root: Root) -> None:
    given = pa.schema([("id", pa.int64()), ("country", pa.string())])
    sink = root.sink(schema=given)
    sink.write(block(pa.table({"id": [1], "country": ["DE"]}, given)))
    sink.evolve(None, [COLOUR, SIZE])
    assert root.sink(schema=given).schema == pa.schema([*given, COLOUR, SIZE])
    assert root.sink(schema=pa.schema([*given, COLOUR])).schema == pa.schema([*given, COLOUR, SIZE])
    for other in (given.remove(1), pa.schema([*given, SIZE]), given.set(1, pa.field("country", pa.int8()))):
        with pytest.raises(SinkMisconfigured, match="does not agree"):
            root.sink(schema=other)


def test_columns_come_before_the_first_block_where_the_schema_is_given(root: Root) -> None:
    sink = root.sink(schema=NARROW)
    assert sink.evolve(None, [COLOUR]).names == ["id", "colour"]
    assert root.sink(schema=NARROW).schema == pa.schema([*NARROW, COLOUR])


def test_what_files_cannot_hold_or_readers_would_not_find_is_left_out(root: Root) -> None:
    sink = root.sink(partition_by=("bucket(id, 2) as part",))
    sink.write(block(narrow(1)))
    fields = [
        pa.field("part", pa.string()),
        pa.field("_offset", pa.int64()),
        pa.field("odd", pa.month_day_nano_interval()),
    ]
    assert sink.evolve(None, [*fields, COLOUR]).names == ["id", "colour"]


def test_json_that_is_kept_as_text_stays_so(root: Root) -> None:
    sink = root.sink()
    sink.write(block(narrow(1)))
    sink.evolve(None, [pa.field("any", pa.string(), metadata={RAW_JSON: b"1"})])
    schema = root.sink().schema
    assert schema is not None
    assert RAW_JSON in (schema.field("any").metadata or {})


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (pa.timestamp("ns", "UTC"), "a: timestamp[ns, tz=UTC]"),
        (pa.decimal256(50, 2), "a: decimal256(50, 2)"),
        (pa.list_(pa.struct([("b", pa.timestamp("ns"))])), "a: timestamp[ns]"),
        (pa.timestamp("us"), ""),
        (pa.decimal128(38, 2), ""),
    ],
)
def test_a_type_that_makes_a_root_unreadable_for_spark_is_named_once_when_it_is_pinned(
    kind: pa.DataType, named: str, tmp_path: Path
) -> None:
    sink = one_root({"path": str(tmp_path / "root")})
    sink.open()
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            sink.pin(pa.schema([("a", kind), ("id", pa.int64())]))
    assert [one["columns"] for one in logs] == ([[named]] if named else [])
    sink.close()


def test_each_root_of_a_topic_has_columns_of_its_own(tmp_path: Path) -> None:
    sink = TopicRootsSink(
        ParquetOptions(str(tmp_path / "root"), layout="topic"), store_for(ParquetOptions(str(tmp_path / "root")))
    )
    assert "evolve" in sink.open().capabilities
    for topic in ("a", "b"):
        sink.pin_topic(topic, NARROW)
    assert sink.evolve("a", [COLOUR]).names == ["id", "colour"]
    assert [sink.schema_of(topic) for topic in ("a", "b")] == [pa.schema([*NARROW, COLOUR]), NARROW]
    sink.close()
    given = ParquetOptions(str(tmp_path / "root"), layout="topic", schema=NARROW)
    other = TopicRootsSink(given, store_for(given))
    assert "evolve" not in other.open().capabilities
    other.close()
