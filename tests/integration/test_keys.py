"""Keys with a schema and headers, loaded under a kill: each row has its own, a bad key costs its record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
import pytest

from batcher.embedded.apicurio import Apicurio
from batcher.records import Headers
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.kills import letters_in, run_through_kills

pytest.importorskip("numpy", reason="needs the extra [avro]")
avro = pytest.importorskip("confluent_kafka.schema_registry.avro", reason="needs the extra [registry]")

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

RECORDS: Final = 4_000
KEY: Final = {
    "type": "record",
    "name": "OrderKey",
    "fields": [{"name": "id", "type": "long"}, {"name": "country", "type": "string"}],
}


def headers_of(number: int) -> Headers | None:
    if number % 3 == 0:
        return None
    return (("trace", b"first"), ("trace", b"%d" % number), ("empty", None))


def values() -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(RECORDS)]


def load(broker: Broker, topic: str, dead: Path, *flags: str) -> None:
    """Run until everything is loaded, with a kill after the first batch."""
    given = ("-b", broker.bootstrap, "-t", topic, "-g", topic, "--dlq.path", str(dead))
    run_through_kills(*given, "--batch.max-rows", str(RECORDS // 10), "--batch.max-wait", "10s", *flags, kills=1)


def test_keys_of_avro_and_headers_are_in_the_columns_of_a_table(
    broker: Broker,
    registry: Apicurio,
    clickhouse_server: ClickHouseServer,
    new_topic: Callable[..., str],
    tmp_path: Path,
) -> None:
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.serialization import MessageField, SerializationContext

    topic = new_topic()
    with SchemaRegistryClient({"url": registry.url}) as client:
        write, context = avro.AvroSerializer(client, json.dumps(KEY)), SerializationContext(topic, MessageField.KEY)
        keys = [write({"id": number, "country": f"c{number % 7}"}, context) for number in range(RECORDS)]
    bad = {number: (keys[number][:-1], "truncated", "_key.country") for number in range(500, RECORDS, 1000)}
    bad[7] = (b"7", "unframed", "_key")
    keys = [bad[number][0] if number in bad else key for number, key in enumerate(keys)]
    broker.produce(topic, values(), keys=keys, headers=[headers_of(number) for number in range(RECORDS)])
    table = f"keyed_{topic.rpartition('-')[2]}"
    clickhouse_server.query(
        f"CREATE TABLE {table} (n Int64, `_key.id` Int64, `_key.country` LowCardinality(String), "
        "_headers Map(LowCardinality(String), String), _topic String, _partition Int32, _offset Int64) "
        "ENGINE = MergeTree ORDER BY `_key.id`"
    )
    target = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", table)
    load(broker, topic, tmp_path, *target, "--decode.key-format", "avro", "--registry.url", registry.url)

    count, unique, right = clickhouse_server.query(
        f"SELECT count(), uniqExact(n), countIf(n = `_key.id` AND `_key.country` = concat('c', toString(n % 7)) AND "
        "_headers = if(n % 3 = 0, map(), map('trace', toString(n), 'empty', ''))) "
        f"FROM {table}"
    )[0]
    expected = RECORDS - len(bad)
    assert [int(count), int(unique), int(right)] == [expected] * 3
    found = letters_in(tmp_path, "offset", "reason", "path")
    assert found == sorted((number, reason, path) for number, (_, reason, path) in bad.items())


def test_keys_as_text_and_all_headers_are_in_the_columns_of_files(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic()
    keys = [None if number % 10 == 0 else b"\xff" if number == 17 else b"k%d" % number for number in range(RECORDS)]
    broker.produce(topic, values(), keys=keys, headers=[headers_of(number) for number in range(RECORDS)])
    root = tmp_path / "root"
    target = ("--sink", "parquet", "--parquet.path", str(root), "--parquet.coordinates", "headers")
    load(broker, topic, tmp_path / "dead", *target, "--decode.key-format", "text")

    rows = [row for file in sorted(root.rglob("*.parquet")) for row in pq.ParquetFile(file).read().to_pylist()]
    assert sorted(row["n"] for row in rows) == [number for number in range(RECORDS) if number != 17]
    for row in rows:
        key = keys[row["n"]]
        assert row["_key"] == (None if key is None else key.decode())
        headers = [(one["key"], one["value"]) for one in row["_headers"] or ()]
        assert headers == list(headers_of(row["n"]) or ())
    assert letters_in(tmp_path / "dead", "offset", "reason", "path") == [(17, "encoding", "_key")]
