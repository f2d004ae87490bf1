"""Change events loaded under kills: what the target shows with FINAL is the table that they came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import pyarrow.parquet as pq
import pytest

from batcher.embedded.apicurio import Apicurio
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.kills import letters_in, run_through_kills
from tests.harness.patience import LONG
from tests.harness.processes import BatcherProcess
from tests.harness.source_table import Event, SourceTable, avro_value, bare_json, embedded_json, for_avro

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

CHANGES: Final = 200_000 if LONG else 4_000
KILLS: Final = 6 if LONG else 1
PARTITIONS: Final = 3

COLUMNS: Final = (
    "id Int64, customer String, amount Decimal(10, 2), day Date32, made DateTime64(6, 'UTC'), "
    "seen DateTime64(3, 'UTC'), zoned DateTime64(6, 'UTC'), paid Bool, note Nullable(String), "
    "_op LowCardinality(String), _version UInt64, _deleted UInt8"
)


def changed() -> SourceTable:
    """Return a table that was changed in every way there is."""
    table = SourceTable(7)
    table.snapshot(CHANGES // 10)
    for _ in range(4):
        table.change(CHANGES // 4)
        table.toasted()
        table.message()
    table.truncate()
    table.change(50)
    return table


def produce(
    broker: Broker,
    topic: str,
    table: SourceTable,
    key: Callable[[Event], bytes | None],
    value: Callable[[Event], bytes | None],
) -> None:
    """Produce events, all of one row into one partition, those without a key anywhere."""
    parts: dict[int, list[Event]] = {}
    for event in table.events:
        number = 0 if event.key is None else crc32(json.dumps(event.key).encode()) % PARTITIONS
        parts.setdefault(number, []).append(event)
    for number, events in parts.items():
        broker.produce(topic, list(map(value, events)), keys=list(map(key, events)), partition=number)


def load(broker: Broker, topic: str, dead: Path, *flags: str) -> Mapping[str, Any]:
    """Run until everything is loaded, with kills in between; return the summary of the last run."""
    given = ("-b", broker.bootstrap, "-t", topic, "-g", topic, "--dlq.path", str(dead))
    batches = ("--batch.max-rows", str(CHANGES // 20), "--batch.max-wait", "10s")
    process = run_through_kills(*given, *batches, "--transform.kind", "debezium", *flags, kills=KILLS)
    assert "exactly-once under FINAL" in process.stderr
    return process.summary


def shown(server: ClickHouseServer, table: str) -> dict[int, tuple[Any, ...]]:
    """Return the rows of a table as a reader with FINAL sees them, times in microseconds."""
    rows = server.query(
        "SELECT id, customer, toString(amount), toString(day), toUnixTimestamp64Micro(made), "
        f"toUnixTimestamp64Milli(seen), toUnixTimestamp64Micro(zoned), toUInt8(paid), ifNull(note, '-') "
        f"FROM {table} FINAL"
    )
    return {int(row[0]): tuple(str(value) for value in row[1:]) for row in rows}


def expected(table: SourceTable) -> dict[int, tuple[Any, ...]]:
    def row(one: Mapping[str, Any]) -> tuple[Any, ...]:
        made, seen, zoned = (int(one[name].timestamp() * 1e6 + 0.5) for name in ("made", "seen", "zoned"))
        note = "-" if one["note"] is None else one["note"]
        text = f"{one['amount'].normalize():f}"
        return (
            one["customer"],
            text,
            str(one["day"]),
            str(made),
            str(seen // 1000),
            str(zoned),
            str(int(one["paid"])),
            note,
        )

    return {number: row(one) for number, one in table.rows.items()}


def check(server: ClickHouseServer, name: str, table: SourceTable, dead: Path) -> None:
    """Assert that a target shows the source table, and that exactly the events that say nothing are dead letters."""
    found, wanted = shown(server, name), expected(table)
    assert found.keys() == wanted.keys()
    assert [found[number] for number in sorted(found)] == [wanted[number] for number in sorted(wanted)]
    refused = [event for event in table.events if event.refused]
    assert sorted(reason for _, _, reason in letters_in(dead, "partition", "offset", "reason")) == sorted(
        "operation" if event.op == "t" else "unavailable" for event in refused
    )


@pytest.fixture
def made_table(clickhouse_server: ClickHouseServer) -> Callable[[str], str]:
    def make(topic: str) -> str:
        name = f"orders_{topic.rpartition('-')[2]}"
        clickhouse_server.query(
            f"CREATE TABLE {name} ({COLUMNS}) ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY id"
        )
        return name

    return make


@pytest.mark.parametrize(
    ("form", "flags"),
    [(bare_json(), ("--decode.epoch", "us,seen=ms")), (embedded_json(), ())],
    ids=["without-schema", "with-schema"],
)
def test_events_in_json_show_the_source_table_after_kills(  # noqa: PLR0917 - fixtures
    broker: Broker,
    clickhouse_server: ClickHouseServer,
    new_topic: Callable[..., str],
    made_table: Callable[[str], str],
    tmp_path: Path,
    form: Any,
    flags: tuple[str, ...],
) -> None:
    topic, table = new_topic(PARTITIONS), changed()
    produce(broker, topic, table, form.key, form.value)
    name = made_table(topic)
    target = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", name)
    load(broker, topic, tmp_path, *target, *flags)
    check(clickhouse_server, name, table, tmp_path)


def test_events_in_avro_show_the_source_table_after_kills_in_a_table_that_schema_made(
    broker: Broker,
    registry: Apicurio,
    clickhouse_server: ClickHouseServer,
    new_topic: Callable[..., str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("numpy", reason="needs the extra [avro]")
    avro = pytest.importorskip("confluent_kafka.schema_registry.avro", reason="needs the extra [registry]")
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.serialization import MessageField, SerializationContext

    topic, table = new_topic(PARTITIONS), changed()
    with SchemaRegistryClient({"url": registry.url}) as client:
        write = avro.AvroSerializer(client, json.dumps(avro_value()))
        context = SerializationContext(topic, MessageField.VALUE)

        def value(event: Event) -> bytes | None:
            found = for_avro(event)
            return None if found is None else write(found, context)

        produce(broker, topic, table, bare_json().key, value)
    name = f"made_{topic.rpartition('-')[2]}"
    target = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", name)
    flags = ("--decode.format", "avro", "--registry.url", registry.url, *target)
    given = ("schema", "-b", broker.bootstrap, "-t", topic, "--transform.kind", "debezium", *flags, "--create")
    with BatcherProcess(*given) as process:
        assert process.wait() == 0, process.stderr[-2000:]
    statement = clickhouse_server.query(f"SELECT engine_full FROM system.tables WHERE name = '{name}'")[0][0]
    assert statement.startswith("ReplacingMergeTree(_version, _deleted) ORDER BY (id)")
    load(broker, topic, tmp_path, *flags)
    check(clickhouse_server, name, table, tmp_path)


def test_files_keep_every_change_and_the_newest_of_each_key_is_the_source_table(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic, table = new_topic(PARTITIONS), changed()
    form = embedded_json()
    produce(broker, topic, table, form.key, form.value)
    root = tmp_path / "root"
    flags = ("--sink", "parquet", "--parquet.path", str(root), "--transform.kind", "debezium")
    given = ("-b", broker.bootstrap, "-t", topic, "-g", topic, "--until-eof", "--dlq.path", str(tmp_path / "dead"))
    with BatcherProcess(*given, *flags) as process:
        assert process.wait(300.0) == 0, process.stderr[-2000:]
    rows = [row for file in sorted(root.rglob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()]
    assert len(rows) == sum(1 for event in table.events if event.op in ("c", "r", "u", "d") and not event.refused)
    newest: dict[int, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda one: one["_version"]):
        newest[row["id"]] = row
    found = {number: row for number, row in newest.items() if row["_op"] != "d"}
    assert {number: {name: row[name] for name in table.rows[number]} for number, row in found.items()} == table.rows
