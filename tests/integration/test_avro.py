"""Avro as Confluent's serializers write it, with a real registry, loaded under kills: exact, bad records apart."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq
import pytest

from batcher.embedded.apicurio import Apicurio
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.kills import letters_in, run_through_kills
from tests.harness.patience import LONG
from tests.harness.processes import BatcherProcess
from tests.harness.targets import EmbeddedTables

pytest.importorskip("numpy", reason="needs the extra [avro]")
avro = pytest.importorskip("confluent_kafka.schema_registry.avro", reason="needs the extra [registry]")
pytest.importorskip("fastavro")

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

RECORDS: Final = 1_000_000 if LONG else 10_000
KILLS: Final = 5 if LONG else 1
BATCH: Final = RECORDS // 20

OLD: Final = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "city", "type": ["null", "string"], "default": None}],
}
NEW: Final = {
    "type": "record",
    "name": "Order",
    "fields": [
        *OLD["fields"],
        {
            "name": "amount",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
            "default": "",
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "default": 0},
    ],
}


class Filled(NamedTuple):
    """Hold a topic, and the ids of its records that can be read, by version."""

    topic: str
    old: frozenset[int]
    new: frozenset[int]


@pytest.fixture
def filled(broker: Broker, registry: Apicurio, new_topic: Callable[..., str]) -> Filled:
    """Fill a topic with records of both versions, every thousandth of them cut short or with a byte too many."""
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.serialization import MessageField, SerializationContext

    topic = new_topic(2)
    context = SerializationContext(topic, MessageField.VALUE)
    values: list[bytes] = []
    with SchemaRegistryClient({"url": registry.url}) as client:
        old = avro.AvroSerializer(client, json.dumps(OLD))
        new = avro.AvroSerializer(client, json.dumps(NEW))
        for number in range(RECORDS):
            row: dict[str, Any] = {"id": number, "city": "Rome" if number % 3 else None}
            if number % 2:
                value = new({**row, "amount": _decimal(number), "at": 1_700_000_000_000 + number}, context)
            else:
                value = old(row, context)
            if number % 1000 == 500:
                value = value[:-1] if number % 2000 == 500 else value + b"\0"
            values.append(value)
    middle = RECORDS // 2
    broker.produce(topic, values[:middle], partition=0)
    broker.produce(topic, values[middle:], partition=1)
    good = [number for number in range(RECORDS) if number % 1000 != 500]
    return Filled(topic, frozenset(n for n in good if n % 2 == 0), frozenset(n for n in good if n % 2))


def _decimal(number: int) -> Decimal:
    return Decimal(number).scaleb(-2)


def load(broker: Broker, registry: Apicurio, topic: str, letters: Path, *target: str) -> dict[str, Any]:
    """Load the topic with a process that is killed again and again, and return the summary of the last one."""
    flags = (
        *target,
        *("-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-{target[1]}"),
        *("--decode.format", "avro", "--registry.url", registry.url),
        *("--batch.max-rows", str(BATCH), "--dlq.path", str(letters)),
    )
    return dict(run_through_kills(*flags, kills=KILLS).summary)


def expected_letters() -> list[tuple[int, int, str]]:
    middle = RECORDS // 2
    return sorted(
        (number // middle, number % middle, "truncated" if number % 2000 == 500 else "trailing")
        for number in range(500, RECORDS, 1000)
    )


def test_two_versions_and_damaged_records_are_in_a_table_exactly_once_after_kills(
    broker: Broker, registry: Apicurio, filled: Filled, tables: ClickHouseServer | EmbeddedTables, tmp_path: Path
) -> None:
    table = f"orders_{filled.topic.rpartition('-')[2]}"
    tables.query(
        f"CREATE TABLE {table} (id Int64, city Nullable(String), amount Nullable(Decimal(12, 2)), "
        "at Nullable(DateTime64(3, 'UTC')), _topic LowCardinality(String), _partition Int32, _offset Int64) "
        "ENGINE = MergeTree ORDER BY id"
    )
    target = ("--sink", "clickhouse", "--clickhouse.dsn", tables.dsn, "--clickhouse.table", table)
    load(broker, registry, filled.topic, tmp_path / "dead", *target)

    count, unique, newer, right = tables.query(
        f"SELECT count(), uniqExact(id), countIf(amount IS NOT NULL), countIf(if(id % 2 = 1, amount = id / 100 "
        f"AND toUnixTimestamp64Milli(assumeNotNull(at)) = 1700000000000 + id, amount IS NULL AND at IS NULL) "
        f"AND (city IS NULL) = (id % 3 = 0)) FROM {table}"
    )[0]
    everything = len(filled.old) + len(filled.new)
    assert [int(count), int(unique), int(newer), int(right)] == [everything, everything, len(filled.new), everything]
    assert letters_in(tmp_path / "dead", "partition", "offset", "reason") == expected_letters()


def test_two_versions_and_damaged_records_are_in_files_exactly_once_after_kills(
    broker: Broker, registry: Apicurio, filled: Filled, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    load(broker, registry, filled.topic, tmp_path / "dead", "--sink", "parquet", "--parquet.path", str(root))

    tables = [pq.ParquetFile(file).read() for file in sorted(root.rglob("*.parquet"))]
    rows = [row for table in tables for row in table.select(["id", "amount"]).to_pylist()]
    assert sorted(row["id"] for row in rows) == sorted(filled.old | filled.new)
    assert {row["id"] for row in rows if row["amount"] is not None} == filled.new
    assert all(row["amount"] == _decimal(row["id"]) for row in rows if row["id"] % 2)
    assert letters_in(tmp_path / "dead", "partition", "offset", "reason") == expected_letters()


def test_a_registry_that_goes_away_pauses_the_pipeline_and_nothing_is_refused(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    from batcher.testing.registry import FakeRegistry

    topic = new_topic()
    broker.produce(topic, [b"\0" + struct.pack(">I", 1) + bytes([2 * n, 0]) for n in range(50)])
    with FakeRegistry() as fake:
        fake.add(json.dumps(OLD))
        fake.answer(503)
        with BatcherProcess(
            *("--sink", "parquet", "--parquet.path", str(tmp_path / "root"), "--dlq.path", str(tmp_path / "dead")),
            *("-b", broker.bootstrap, "-t", topic, "-g", topic, "--until-eof", "--retry.wait", "100ms"),
            *("--decode.format", "avro", "--registry.url", fake.url),
        ) as process:
            process.wait_for("schemas_unavailable")
            fake.answer()
            assert process.wait() == 0
        assert (process.summary["written"], process.summary["dead_lettered"]) == (50, 0)
