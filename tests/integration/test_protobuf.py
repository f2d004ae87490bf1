"""Protobuf as Confluent's serializer writes it, with a real registry, loaded under kills: exact, bad records apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq
import pytest

from batcher.embedded.apicurio import Apicurio
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.kills import letters_in, run_through_kills
from tests.harness.patience import LONG
from tests.harness.processes import run
from tests.harness.targets import EmbeddedTables

pytest.importorskip("ptars", reason="needs the extra [protobuf]")
pytest.importorskip("confluent_kafka.schema_registry.protobuf", reason="needs the extra [registry]")

from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from batcher.formats.protobuf.schema import load, pooled
from batcher.formats.writer_schema import WriterSchema

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900 if LONG else 300)]

RECORDS: Final = 1_000_000 if LONG else 10_000
KILLS: Final = 5 if LONG else 1
BATCH: Final = RECORDS // 20
FIRST_MS: Final = 1_700_000_000_000

IMPORTS: Final = 'syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto";'
PLACE: Final = "message Place { string city = 1; }"
OLD: Final = (
    f"{IMPORTS} {PLACE} message Order {{ int64 id = 1; Place place = 2; repeated string tags = 6; "
    "google.protobuf.Timestamp unused = 9; }"
)
NEW: Final = (
    f"{IMPORTS} message Another {{ int32 x = 1; }} {PLACE} enum Kind {{ PLAIN = 0; GIFT = 1; }} "
    "message Order { int64 id = 1; Place place = 2; optional double amount = 3; google.protobuf.Timestamp at = 4; "
    "Kind kind = 5; repeated string tags = 6; google.protobuf.Timestamp unused = 9; }"
)


class Filled(NamedTuple):
    """Hold a topic, and the ids of its records that can be read, by version."""

    topic: str
    old: frozenset[int]
    new: frozenset[int]


def message_of(text: str, name: str) -> type[Message]:
    """Return the class of shop.Order, from a file of that name: two schemas of one file are of two pools."""
    *imported, file = load(WriterSchema("protobuf", text)).files
    file.name = name
    found: type[Message] = GetMessageClass(pooled([*imported, file]).message((), "shop.Order"))
    return found


@pytest.fixture
def filled(broker: Broker, registry: Apicurio, new_topic: Callable[..., str]) -> Filled:
    """Fill a topic with records of both versions, every thousandth of them cut short or with a byte too many."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.serialization import MessageField, SerializationContext

    topic = new_topic(2)
    context = SerializationContext(topic, MessageField.VALUE)
    old, new = (message_of(text, f"{name}.proto") for text, name in ((OLD, "old"), (NEW, "new")))
    values: list[bytes] = []
    with SchemaRegistryClient({"url": registry.url}) as client:
        # The newer message is the third of its file: its frame has indexes.
        options = {"use.deprecated.format": False}
        serialize = {kind: ProtobufSerializer(kind, client, options) for kind in (old, new)}
        for number in range(RECORDS):
            kind = new if number % 2 else old
            order: Any = kind(id=number)
            if number % 3:
                order.place.city = "Rome"
            if number % 2:
                order.amount = number / 8
                order.at.seconds, milliseconds = divmod(FIRST_MS + number, 1000)
                order.at.nanos = milliseconds * 1_000_000
                order.kind = number % 4 // 2
                order.tags.extend(["a"] * (number % 3))
            value = serialize[kind](order, context)
            if number % 1000 == 500:
                value = value[:-1] if number % 2000 == 500 else value + b"\x0a"
            values.append(value)
    middle = RECORDS // 2
    broker.produce(topic, values[:middle], partition=0)
    broker.produce(topic, values[middle:], partition=1)
    good = [number for number in range(RECORDS) if number % 1000 != 500]
    return Filled(topic, frozenset(n for n in good if n % 2 == 0), frozenset(n for n in good if n % 2))


def load_topic(broker: Broker, registry: Apicurio, topic: str, letters: Path, *target: str) -> dict[str, Any]:
    """Load the topic with a process that is killed again and again, and return the summary of the last one."""
    flags = (
        *target,
        *("-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-{target[1]}"),
        *("--decode.format", "protobuf", "--registry.url", registry.url),
        *("--batch.max-rows", str(BATCH), "--dlq.path", str(letters)),
    )
    return dict(run_through_kills(*flags, kills=KILLS).summary)


def expected_letters() -> list[tuple[int, int, str]]:
    half = RECORDS // 2
    return sorted((number // half, number % half, "truncated") for number in range(500, RECORDS, 1000))


def test_two_versions_and_damaged_records_are_in_a_table_exactly_once_after_kills(
    broker: Broker, registry: Apicurio, filled: Filled, tables: ClickHouseServer | EmbeddedTables, tmp_path: Path
) -> None:
    table = f"orders_{filled.topic.rpartition('-')[2]}"
    tables.query(
        f"CREATE TABLE {table} (id Int64, place Nullable(String), amount Nullable(Float64), "
        "at Nullable(DateTime64(3, 'UTC')), kind LowCardinality(Nullable(String)), tags Array(String), "
        "_topic LowCardinality(String), _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY id"
    )
    target = ("--sink", "clickhouse", "--clickhouse.dsn", tables.dsn, "--clickhouse.table", table)
    load_topic(broker, registry, filled.topic, tmp_path / "dead", *target)

    count, unique, newer, right = tables.query(
        f"SELECT count(), uniqExact(id), countIf(amount IS NOT NULL), countIf(if(id % 2 = 1, amount = id / 8 "
        f"AND toUnixTimestamp64Milli(assumeNotNull(at)) = {FIRST_MS} + id AND kind = if(id % 4 < 2, 'PLAIN', 'GIFT') "
        f"AND length(tags) = id % 3, amount IS NULL AND at IS NULL AND empty(tags)) "
        f'AND place IS NOT DISTINCT FROM if(id % 3 = 0, NULL, \'{{"city":"Rome"}}\')) FROM {table}'
    )[0]
    everything = len(filled.old) + len(filled.new)
    assert [int(count), int(unique), int(newer), int(right)] == [everything, everything, len(filled.new), everything]
    assert letters_in(tmp_path / "dead", "partition", "offset", "reason") == expected_letters()


def test_two_versions_and_damaged_records_are_in_files_exactly_once_after_kills(
    broker: Broker, registry: Apicurio, filled: Filled, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    load_topic(broker, registry, filled.topic, tmp_path / "dead", "--sink", "parquet", "--parquet.path", str(root))

    tables = [pq.ParquetFile(file).read() for file in sorted(root.rglob("*.parquet"))]
    rows = [row for table in tables for row in table.select(["id", "amount", "place", "kind"]).to_pylist()]
    assert sorted(row["id"] for row in rows) == sorted(filled.old | filled.new)
    assert {row["id"] for row in rows if row["amount"] is not None} == filled.new
    for row in rows:
        assert row["place"] == ({"city": "Rome"} if row["id"] % 3 else None)
        assert row["kind"] == (None if row["id"] % 2 == 0 else "GIFT" if row["id"] % 4 == 3 else "PLAIN")
    assert letters_in(tmp_path / "dead", "partition", "offset", "reason") == expected_letters()


def test_a_topic_without_a_registry_is_looked_at_and_loaded_with_a_proto_file(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic()
    order = message_of(NEW, "order.proto")
    payloads = []
    for number in range(100):
        one: Any = order(id=number)
        one.tags.append("a")
        payloads.append(one.SerializeToString() + (b"\xf8\x07\x01" if number == 7 else b""))
    broker.produce(topic, [*payloads, b"\x0a\x05bad"])
    (tmp_path / "order.proto").write_text(NEW)
    common = ("-b", broker.bootstrap, "-t", topic, "--decode.format", "protobuf")
    schema = ("--decode.writer-schema", str(tmp_path / "order.proto"), "--decode.message", "shop.Order")

    peeked = run("peek", *common, *schema, "-n", "2", "--json")
    assert peeked.code == 0, peeked.stderr
    assert "truncated" in peeked.stdout
    found = run("schema", *common, *schema)
    assert found.code == 0, found.stderr
    assert "tags" in found.stdout
    target = ("--sink", "parquet", "--parquet.path", str(tmp_path / "root"))
    loading = run("run", *common, *schema, *target, "-g", topic, "--until-eof", "--dlq.path", str(tmp_path / "dead"))
    assert loading.code == 0, loading.stderr
    assert "#127" in loading.stderr, "the field that the schema does not know is named"
    rows = [row for file in (tmp_path / "root").rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]
    assert sorted(row["id"] for row in rows) == list(range(100))
    checked = run("check", *common, *schema, *target)
    assert checked.code == 1, checked.stdout + checked.stderr
    assert "truncated" in checked.stdout
