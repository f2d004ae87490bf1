"""What Confluent's serializers write, taken apart, and its schemas found in a real registry."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from batcher.embedded.apicurio import Apicurio
from batcher.errors import SchemasUnavailable
from batcher.formats.framing import Framing
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.formats.schema_registry import RegistrySchemas, SchemaAwaited
from batcher.formats.writer_schema import SchemaKey, SchemaUnknown
from batcher.options import SecretStr
from batcher.records import Batch
from batcher.testing.clock import ManualClock
from batcher.testing.kafka import Broker
from batcher.testing.listener import read
from batcher.testing.values import make_batch, make_records
from tests.harness.readers import Readers

avro = pytest.importorskip("confluent_kafka.schema_registry.avro", reason="needs the extra [registry]")
fastavro = pytest.importorskip("fastavro")

GRACE_S = 10.0

OLD = '{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"}]}'
NEW = (
    '{"type": "record", "name": "Event", "fields": [{"name": "id", "type": "long"},'
    ' {"name": "name", "type": ["null", "string"], "default": null}]}'
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def schemas(registry: Apicurio, clock: ManualClock) -> Iterator[RegistrySchemas]:
    opened = open_schemas(registry, clock)
    yield opened
    opened.close()


def open_schemas(registry: Apicurio, clock: ManualClock) -> RegistrySchemas:
    return RegistrySchemas(SchemaRegistryOptions(url=SecretStr(registry.url)), clock=clock)


def serialized(client: Any, topic: str, schema: str, rows: list[dict[str, Any]]) -> list[bytes]:
    from confluent_kafka.serialization import MessageField, SerializationContext

    serializer = avro.AvroSerializer(client, schema)
    return [serializer(row, SerializationContext(topic, MessageField.VALUE)) for row in rows]


def decoded(schemas: RegistrySchemas, framing: Framing, batch: Batch) -> dict[int, Any]:
    """Return the rows of a batch by position, read by fastavro with the schemas that were found."""
    rows: dict[int, Any] = {}
    for group in framing.split(batch).groups:
        assert group.key is not None
        schema = fastavro.parse_schema(json.loads(schemas.get(group.key).text))
        for position, payload in zip(group.positions.to_pylist(), group.payloads.to_pylist(), strict=True):
            rows[position] = fastavro.schemaless_reader(io.BytesIO(payload), schema)
    return rows


@pytest.mark.broker
def test_records_of_two_schemas_in_one_topic_are_read_each_with_its_own(
    broker: Broker,
    new_topic: Callable[..., str],
    reader: Readers,
    registry: Apicurio,
    schemas: RegistrySchemas,
) -> None:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    topic = new_topic()
    old = [{"id": number} for number in range(50)]
    new = [{"id": number, "name": f"name {number}"} for number in range(50)]
    with SchemaRegistryClient({"url": registry.url}) as client:
        values = [
            value
            for pair in zip(serialized(client, topic, OLD, old), serialized(client, topic, NEW, new), strict=True)
            for value in pair
        ]
    broker.produce(topic, [*values, b'{"id": 1}', None], partition=0)
    source, _ = reader(topic)
    batch = Batch(tuple(read(source, len(values) + 2)), "rows").joined()

    split = Framing("confluent").split(batch)

    assert decoded(schemas, Framing("confluent"), batch) == dict(
        enumerate(row for pair in zip(old, new, strict=True) for row in pair)
    )
    assert len(split.groups) == 2
    assert [(one.position, one.reason) for one in split.rejections] == [(100, "unframed")]
    assert split.skipped.to_pylist() == [101]


@pytest.mark.broker
def test_what_a_schema_refers_to_is_found_with_it(registry: Apicurio, schemas: RegistrySchemas) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

    inner = '{"type": "record", "name": "Inner", "namespace": "n", "fields": []}'
    outer = '{"type": "record", "name": "Outer", "namespace": "n", "fields": [{"name": "i", "type": "n.Inner"}]}'
    with SchemaRegistryClient({"url": registry.url}) as client:
        client.register_schema("inner", Schema(inner, "AVRO"))
        reference = SchemaReference("n.Inner", "inner", 1)
        number = client.register_schema("outer", Schema(outer, "AVRO", [reference]))

    found = schemas.get(SchemaKey(number))

    assert "Outer" in found.text
    assert list(found.references) == ["n.Inner"]
    assert '"Inner"' in found.references["n.Inner"]


@pytest.mark.broker
@pytest.mark.parametrize("key", [SchemaKey(999_999), SchemaKey(2**32 - 1), SchemaKey(0), SchemaKey(guid="0" * 32)])
def test_a_schema_that_does_not_exist_is_awaited_and_then_given_up(
    schemas: RegistrySchemas, clock: ManualClock, key: SchemaKey
) -> None:
    with pytest.raises(SchemaAwaited):
        schemas.get(key)
    clock.advance(GRACE_S)

    with pytest.raises(SchemaUnknown):
        schemas.get(key)


@pytest.mark.broker
def test_a_path_that_is_not_the_registrys_makes_no_dead_letters(registry: Apicurio, clock: ManualClock) -> None:
    wrong = registry.url.replace("/apis/ccompat/v7", "")
    schemas = RegistrySchemas(SchemaRegistryOptions(url=SecretStr(wrong)), clock=clock)
    for _ in range(2):
        with pytest.raises(SchemasUnavailable, match="check the path") as raised:
            schemas.get(SchemaKey(1))
        assert not isinstance(raised.value, SchemaAwaited)
        clock.advance(2 * GRACE_S)
    schemas.close()


@pytest.mark.broker
def test_a_registry_that_stops_pauses_and_is_found_again_with_its_schemas(
    registry: Apicurio, clock: ManualClock
) -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    with SchemaRegistryClient({"url": registry.url}) as client:
        number = client.register_schema("stops", Schema(OLD, "AVRO"))
    schemas = open_schemas(registry, clock)
    registry.shut_down()
    try:
        with pytest.raises(SchemasUnavailable, match="does not answer"):
            schemas.get(SchemaKey(number))
    finally:
        registry.start()

    assert '"Event"' in schemas.get(SchemaKey(number)).text
    schemas.close()


def test_records_with_a_guid_in_their_header_are_read_with_its_schema(clock: ManualClock) -> None:
    from confluent_kafka.schema_registry import SchemaRegistryClient, header_schema_id_serializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    with SchemaRegistryClient.new_client({"url": "mock://registry"}) as client:
        rows: list[dict[str, Any]] = [{"id": 1}, {"id": 2, "name": "two"}, {"id": 3}]
        values: list[bytes | None] = []
        headers: list[Any] = []
        for row in rows:
            context: Any = SerializationContext("events", MessageField.VALUE, headers=[])
            conf = {"schema.id.serializer": header_schema_id_serializer}
            serializer = avro.AvroSerializer(client, NEW if "name" in row else OLD, conf=conf)
            values.append(serializer(row, context))
            headers.append(tuple(context.headers))
        batch = make_batch(make_records(values, headers=headers))
        schemas = RegistrySchemas(SchemaRegistryOptions(url=SecretStr("http://unused")), clock=clock, client=client)

        assert decoded(schemas, Framing("confluent"), batch) == dict(enumerate(rows))
        assert all(group.key is not None and group.key.guid for group in Framing("confluent").split(batch).groups)
        with pytest.raises(SchemaAwaited):
            schemas.get(SchemaKey(guid="00000000-0000-0000-0000-000000000000"))
