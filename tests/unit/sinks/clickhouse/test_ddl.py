"""Tables made from what records are like: the engine takes them, and everything in the records fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pyarrow as pa
import pytest

from batcher.engine.blocks import block_of
from batcher.errors import SinkMisconfigured
from batcher.formats.json.format import JsonFormat
from batcher.formats.json.limits import JsonOptions
from batcher.preview.sample import Sample
from batcher.preview.shape import shape_of
from batcher.protocols.proposal import Creatable, Foresighted, Proposal
from batcher.records import Partition
from batcher.testing.clickhouse import EmbeddedEngine
from batcher.testing.values import make_records
from sinks.clickhouse import plugin
from sinks.clickhouse.ddl import create_table
from tests.harness.documents import SHAPES, documents

pytest_plugins = ["batcher.testing.clickhouse_plugin"]

PART = Partition("orders", 0)


def statement(*fields: pa.Field, distinct: Mapping[str, int] = {}, order_by: tuple[str, ...] = ()) -> str:
    return create_table("t", Proposal(pa.schema(fields), 1000, distinct, order_by=order_by))


def column(name: str, text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"    `{name}` ")]
    return line.removeprefix(f"    `{name}` ").removesuffix(",")


def field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


@pytest.mark.parametrize(
    ("kind", "always", "sometimes"),
    [
        (pa.int64(), "Int64", "Nullable(Int64)"),
        (pa.string(), "String", "Nullable(String)"),
        (pa.binary(), "String", "Nullable(String)"),
        (pa.bool_(), "Bool", "Nullable(Bool)"),
        (pa.date32(), "Date32", "Nullable(Date32)"),
        (pa.decimal128(12, 2), "Decimal(12, 2)", "Nullable(Decimal(12, 2))"),
        (pa.timestamp("ms", "UTC"), "DateTime64(3, 'UTC')", "Nullable(DateTime64(3, 'UTC'))"),
        (pa.list_(pa.int64()), "Array(Nullable(Int64))", "Array(Nullable(Int64)) DEFAULT []"),
        (pa.list_(pa.null()), "Array(Nullable(String))", "Array(Nullable(String)) DEFAULT []"),
        (pa.map_(pa.string(), pa.int8()), "Map(String, Nullable(Int8))", "Map(String, Nullable(Int8)) DEFAULT map()"),
        (pa.struct([("x", pa.int8())]), "Tuple(`x` Nullable(Int8))", "JSON DEFAULT '{}'"),
        (pa.struct([("x", pa.list_(pa.int8()))]), "JSON DEFAULT '{}'", "JSON DEFAULT '{}'"),
        (pa.struct([]), "JSON DEFAULT '{}'", "JSON DEFAULT '{}'"),
    ],
)
def test_each_type_has_a_column_that_holds_it_and_its_absence(kind: pa.DataType, always: str, sometimes: str) -> None:
    text = statement(field("a", kind), field("b", kind, nullable=True))

    assert (column("a", text), column("b", text)) == (always, sometimes)


def test_text_of_few_values_is_low_cardinality_and_text_of_many_is_not() -> None:
    text = statement(field("few", pa.string()), field("many", pa.string()), distinct={"few": 100, "many": 101})

    assert (column("few", text), column("many", text)) == ("LowCardinality(String)", "String")
    rare = statement(field("few", pa.string(), nullable=True), distinct={"few": 5})
    assert column("few", rare) == "LowCardinality(Nullable(String))"


def test_rows_are_sorted_by_coarse_texts_and_then_by_a_time() -> None:
    at = field("at", pa.timestamp("us", "UTC"))
    texts = [field(name, pa.string()) for name in ("fine", "coarse", "coarser", "coarsest")]
    counts = {"fine": 900, "coarse": 90, "coarser": 9, "coarsest": 4, "one": 1}

    assert "\nORDER BY (`coarsest`, `coarser`, `at`)\n" in statement(at, *texts, distinct=counts)
    assert "\nORDER BY (`_timestamp`)\n" in statement(field("id", pa.int64()), distinct={"id": 4})
    assert "\nORDER BY (`fine`, `_offset`)\n" in statement(*texts, order_by=("fine", "_offset"), distinct=counts)


@pytest.mark.parametrize("name", ["maybe", "tags", "nowhere"])
def test_an_order_by_a_column_that_cannot_sort_is_refused(name: str) -> None:
    fields = (field("id", pa.int64()), field("maybe", pa.int64(), nullable=True), field("tags", pa.list_(pa.int64())))

    with pytest.raises(SinkMisconfigured, match=rf"--order-by {name}: .*_offset, _partition, _timestamp, _topic, id"):
        statement(*fields, order_by=(name,))


def test_a_field_without_a_type_gets_no_column_and_one_without_a_column_type_is_named() -> None:
    assert "never" not in statement(field("id", pa.int64()), field("never", pa.null(), nullable=True))
    with pytest.raises(SinkMisconfigured, match="no field has a value"):
        statement(field("never", pa.null(), nullable=True))
    with pytest.raises(SinkMisconfigured, match=r"field o\.d: ClickHouse has no type for duration"):
        statement(field("o", pa.struct([("d", pa.duration("s"))])))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_made_for_documents_takes_all_of_each_exactly_once(
    shape: str, chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    sample = Sample((make_records(list(documents(shape, 400)), partition=PART),), {PART: 400})
    found = shape_of(sample, JsonFormat())
    assert found is not None
    table = new_table()
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    assert isinstance(sink, Creatable)
    assert isinstance(sink, Foresighted)

    sink.create(found.proposal())
    info = sink.open()
    assert info.schema is not None
    # As the report says.
    format_ = JsonFormat(JsonOptions(text=frozenset(found.mixed)))
    decoded = format_.decoder(info.schema).decode(sample.batch)
    assert (decoded.table.num_rows, len(decoded.rejections), decoded.unknown) == (
        found.rows,
        sum(found.rejected.values()),
        (),
    )
    sink.write(block_of(info, sample.batch, decoded))
    sink.close()

    assert chdb_engine.rows(f"SELECT count() FROM {table}") == [(found.rows,)]
    assert (info.repeats, sink.refused(block_of(info, sample.batch, decoded).table.to_batches()[0])) == ("query", ())


def test_a_table_that_is_there_already_is_left_alone(chdb_engine: EmbeddedEngine, new_table: Callable[[], str]) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (other String) ENGINE = MergeTree ORDER BY other")
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    assert isinstance(sink, Creatable)

    with pytest.raises(SinkMisconfigured, match="is there already; `batcher check` says how records fit it"):
        sink.create(Proposal(pa.schema([field("id", pa.int64())]), 1))
    assert chdb_engine.rows(f"SELECT count() FROM system.columns WHERE table = '{table}'") == [(1,)]


def test_names_are_quoted_and_a_named_database_is_used(chdb_engine: EmbeddedEngine) -> None:
    chdb_engine.execute("CREATE DATABASE IF NOT EXISTS `made-here`")
    sink = plugin({"dsn": chdb_engine.dsn, "table": "`made-here`.`my.orders`"})
    assert isinstance(sink, Creatable)
    sink.create(Proposal(pa.schema([field("a `strange` name", pa.int64())]), 1))

    assert chdb_engine.rows("SELECT name FROM system.columns WHERE table = 'my.orders' LIMIT 1") == [
        ("a `strange` name",)
    ]


def test_what_the_sink_would_refuse_is_known_before_anything_is_written(
    chdb_engine: EmbeddedEngine, new_table: Callable[[], str]
) -> None:
    table = new_table()
    chdb_engine.execute(f"CREATE TABLE {table} (d Date, f FixedString(2)) ENGINE = MergeTree ORDER BY d")
    sink = plugin({"dsn": chdb_engine.dsn, "table": table})
    assert isinstance(sink, Foresighted)
    good = {"d": "2026-01-01", "f": "ok"}
    texts = [json.dumps(one) for one in (good, good | {"d": "1950-01-01"}, good | {"f": "long"})]
    batch = Sample((make_records(texts, partition=PART),), {}).batch
    info = sink.open()
    sink.close()
    assert info.schema is not None
    block = block_of(info, batch, JsonFormat().decoder(info.schema).decode(batch))

    refused = sink.refused(block.table.to_batches()[0])

    assert [(one.position, one.reason) for one in refused] == [(1, "range"), (2, "length")]
    assert chdb_engine.rows(f"SELECT count() FROM {table}") == [(0,)]


def test_rows_that_replace_each_other_need_an_engine_that_does_it_and_no_window(chdb_engine: EmbeddedEngine) -> None:
    fields = [field("id", pa.int64()), field("_version", pa.uint64()), field("_deleted", pa.uint8())]
    proposal = Proposal(pa.schema(fields), 1, order_by=("id",), version="_version", deleted="_deleted")
    text = create_table("made_of_versions", proposal)
    assert text.endswith("ENGINE = ReplacingMergeTree(`_version`, `_deleted`)\nORDER BY (`id`)")
    chdb_engine.execute(text)
    assert plugin({"dsn": chdb_engine.dsn, "table": "made_of_versions"}).open().repeats == "merge"
