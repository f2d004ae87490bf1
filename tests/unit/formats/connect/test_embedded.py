"""JSON with its schema in each message: what is read of it, and what becomes of messages that are written strangely."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.connect.embedded import EmbeddedSchemas
from batcher.formats.connect.format import ConnectJsonFormat, marked
from batcher.formats.connect.schema import parsed
from batcher.formats.framing import Framing
from batcher.formats.json.limits import JsonOptions
from batcher.formats.written import SchemaBroken
from batcher.records import Decoded
from batcher.testing.contract.format import check_places
from batcher.testing.values import make_batch, make_records

SCHEMA = {
    "type": "struct",
    "fields": [
        {"type": "int64", "field": "id"},
        {"type": "int32", "name": "io.debezium.time.Date", "field": "day"},
    ],
}
TARGET = pa.schema([("id", pa.int64()), ("day", pa.date32())])
WANTED: dict[str, tuple[str, ...]] = {"id": (), "day": ()}


def message(payload: Any, schema: Any = SCHEMA, **how: Any) -> bytes:
    return json.dumps({"schema": schema, "payload": payload}, **(how or {"separators": (",", ":")})).encode()


def decode(*values: bytes | None, target: pa.Schema = TARGET) -> Decoded:
    decoder = ConnectJsonFormat(JsonOptions(), WANTED).decoder(target)
    batch = make_batch(make_records(values)).joined()
    decoded = decoder.decode(batch)
    check_places(decoded, decoder, batch)
    return decoded


def ids(decoded: Decoded) -> list[int]:
    found: list[int] = decoded.table["id"].to_pylist()
    return found


def test_messages_with_and_without_a_schema_stay_in_their_order() -> None:
    other = {**SCHEMA, "fields": [*SCHEMA["fields"], {"type": "string", "field": "more"}]}
    decoded = decode(
        message({"id": 0, "day": 1}),
        b'{"id":1}',
        None,
        message({"id": 3, "day": None, "more": "x"}, other),
        b"junk",
        message({"id": 5, "day": "x"}),
        message({"id": 6}),
    )
    assert ids(decoded) == [0, 1, 3, 6]
    assert [(one.position, one.reason) for one in decoded.rejections] == [(4, "syntax"), (5, "type")]
    assert decoded.skipped.to_pylist() == [2]


@pytest.mark.parametrize(
    "value",
    [
        message({"id": 7}, indent=1),
        message({"id": 7}) + b" \n",
        b" " + message({"id": 7}),
        json.dumps({"schema": SCHEMA, "payload": {"id": 7}}).encode(),
        message({"id": 7}, {**SCHEMA, "doc": 'a ","payload":1} text'}),
        message({"id": 7}, {**SCHEMA, "default": {"a": 1, "payload": 2}}),
    ],
)
def test_however_a_message_is_written_its_payload_is_found(value: bytes) -> None:
    assert ids(decode(message({"id": 1}), value)) == [1, 7]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (message({"id": 7})[:-1], "syntax"),
        (message({"id": 7}) + b"}", "trailing_data"),
        (b'{"schema":{"type":"struct"},"payload":{"id":7}}', "schema"),
        (b'{"schema":{"type":"int64"},"payload":7}', "schema"),
        (b'{"schema":5,"payload":{"id":7}}', "schema"),
        (message({"id": 7}, {"type": "struct", "fields": [{"type": "int64", "field": "other"}]}), "schema"),
        (message([1]), "not_an_object"),
        (b'{"schema":nonsense,"payload":{}}', "syntax"),
        (b'{"schema":' + b"[" * 10_000 + b',"payload":{}}', "syntax"),
    ],
)
def test_a_message_that_cannot_be_read_costs_itself(value: bytes, reason: str) -> None:
    decoded = decode(message({"id": 1}), value, message({"id": 3}))
    assert ids(decoded) == [1, 3]
    assert [one.position for one in decoded.rejections] == [1]
    if reason in ("schema", "trailing_data"):
        assert decoded.rejections[0].reason == reason


def test_a_message_whose_schema_is_null_is_read_as_if_it_had_none() -> None:
    assert ids(decode(b'{"schema":null,"payload":{"id":7}}')) == [7]


def test_many_places_of_the_payload_cost_a_look_each_and_not_a_look_at_all() -> None:
    values = [message({"id": n}, {**SCHEMA, "doc": "x" * n}) for n in range(200)]
    assert ids(decode(*values)) == list(range(200))


def test_equal_schemas_are_one() -> None:
    schemas = EmbeddedSchemas(Framing("none"))
    values = [message({"id": 1}), json.dumps({"schema": SCHEMA, "payload": {"id": 2}}).encode(), message({"id": 3})]
    split = schemas.split(make_batch(make_records(values)))
    assert [group.positions.to_pylist() for group in split.groups] == [[0, 2], [1]]
    assert all(json.loads(schemas.get(group.key).text) == SCHEMA for group in split.groups if group.key is not None)


def test_without_a_schema_a_mark_says_how_a_value_is_written() -> None:
    kinds = [
        marked(pa.field("day", pa.date32()), "days"),
        marked(pa.field("id", pa.decimal128(10, 2)), "base64"),
    ]
    decoded = decode(b'{"id":"BNI=","day":1}', b'{"id":12.34}', b'{"day":"2020-01-01"}', target=pa.schema(kinds))
    assert [str(value) for value in decoded.table["id"].to_pylist()] == ["12.34"]
    assert [(one.position, one.path) for one in decoded.rejections] == [(1, "id"), (2, "day")]


DECIMAL = "org.apache.kafka.connect.data.Decimal"
LONG = {"type": "int64"}


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [{"type": "bytes", "name": DECIMAL, "field": "x", "parameters": {"scale": "many"}}],
        [{**LONG, "field": "x"}, {**LONG, "field": "x"}],
        [LONG],
        [{"type": "map", "keys": LONG, "values": LONG, "field": "x"}],
        [{"type": "array", "field": "x"}],
        [{"type": "other", "field": "x"}],
    ],
)
def test_a_schema_that_cannot_be_read_is_broken(fields: Any) -> None:
    with pytest.raises(SchemaBroken):
        parsed(json.dumps({"type": "struct", "fields": fields}))


def test_the_inferred_columns_are_what_the_schema_means() -> None:
    batch = make_batch(make_records([message({"id": 1, "day": None}), b'{"id":2,"name":"x"}']))
    found = ConnectJsonFormat(JsonOptions(), WANTED).infer(batch)
    assert found is not None
    assert found.remove_metadata() == pa.schema([("id", pa.int64()), ("day", pa.date32()), ("name", pa.string())])
