"""JSON records that break their JSON-Schema are refused, each for itself, with the field and the rule."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

pytest.importorskip("jsonschema_rs", reason="needs the extra [jsonschema]")

from batcher.errors import ConfigurationError, SchemasUnavailable
from batcher.formats.framing import Framing, FramingKind
from batcher.formats.json.format import JsonFormat
from batcher.formats.json_schema import SchemaCheck, validator_of
from batcher.formats.packed import PackedFormat
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.formats.wiring import unpacked
from batcher.formats.writer_schema import SchemaKey, SchemaUnknown, WriterSchema
from batcher.formats.written import SchemaBroken
from batcher.records import Decoded
from batcher.settings.model import Decode
from batcher.testing.values import make_batch, make_records

ORDER: Any = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "city": {"type": "string", "pattern": "^[A-Z]"},
        "items": {"type": "array", "items": {"type": "object", "required": ["sku"]}},
        "big": {"maximum": 10},
    },
    "required": ["id"],
    "additionalProperties": False,
}
TARGET = pa.schema([("id", pa.int64()), ("city", pa.string())])


class Known:
    """Schemas by their id; an exception in the place of one is raised."""

    def __init__(self, schemas: Mapping[int, WriterSchema | Exception]) -> None:
        self._schemas = schemas

    def get(self, key: SchemaKey) -> WriterSchema:
        found = self._schemas.get(key.id, SchemaUnknown(f"{key} is not registered"))
        if isinstance(found, Exception):
            raise found
        return found


ONLY = Known({0: WriterSchema("json", json.dumps(ORDER))})


def format_of(schemas: Known = ONLY, framing: FramingKind = "none") -> PackedFormat:
    return PackedFormat(JsonFormat(), Framing(framing), check=SchemaCheck(schemas))


def decode(*values: bytes | None, format_: PackedFormat | None = None) -> Decoded:
    return (format_ or format_of()).decoder(TARGET).decode(make_batch(make_records(list(values))))


def told(decoded: Decoded) -> list[tuple[int, str, str | None]]:
    return [(one.position, one.reason, one.path) for one in decoded.rejections]


GOOD = b'{"id": 1, "city": "Rome"}'


@pytest.mark.parametrize(
    ("record", "path", "message"),
    [
        (b'{"id": "secret"}', "id", "field id: breaks the rule type of its JSON-Schema"),
        (b'{"city": "Rome"}', "id", "field id: is not there, and its JSON-Schema requires it"),
        (b'{"id": 1, "city": "secret"}', "city", "field city: breaks the rule pattern of its JSON-Schema"),
        (b'{"id": 1, "items": [{"sku": 1}, {}]}', "items[].sku", "field items[].sku: is not there"),
        (b'{"id": 1, "other": "secret"}', "other", "field other: breaks the rule additionalProperties"),
        (b"[1]", None, "the record breaks the rule type of its JSON-Schema"),
    ],
)
def test_a_record_that_breaks_the_schema_is_refused_with_its_field_and_never_its_value(
    record: bytes, path: str | None, message: str
) -> None:
    decoded = decode(GOOD, record, GOOD)

    assert decoded.positions.to_pylist() == [0, 2]
    assert told(decoded) == [(1, "schema", path)]
    assert decoded.rejections[0].message.startswith(message)
    assert "secret" not in decoded.rejections[0].message


def test_what_is_no_json_and_what_is_a_tombstone_fare_as_without_a_schema() -> None:
    values = (b"{", None, b'{"id": 1} x', GOOD, b"[" * 3000, b"\xff", b"")
    plain = JsonFormat().decoder(TARGET).decode(make_batch(make_records(list(values))))
    decoded = decode(*values)

    assert told(decoded) == told(plain)
    assert decoded.skipped.to_pylist() == plain.skipped.to_pylist() == [1]
    assert decoded.positions.to_pylist() == [3]


@pytest.mark.parametrize(
    "record", [rb'{"id": 1, "city": "\ud800"}', b'{"id": ' + b"9" * 5000 + b"}", b'{"id": 1, "big": 1e400}']
)
def test_nothing_gets_past_because_it_cannot_be_checked(record: bytes) -> None:
    assert told(decode(record, GOOD)) == [(0, "schema", None)]


def test_frames_say_which_schema_counts() -> None:
    schemas = Known(
        {
            1: WriterSchema("json", json.dumps(ORDER)),
            2: WriterSchema("json", '{"required": ["city"]}'),
            3: WriterSchema("avro", '"string"'),
            4: WriterSchema("json", '{"type": "nonsense"}'),
        }
    )
    values = [b"\0" + number.to_bytes(4, "big") + b'{"id": 5}' for number in range(1, 6)]
    decoded = decode(*values, GOOD, format_=format_of(schemas, "confluent"))

    assert told(decoded) == [
        (1, "schema", "city"),
        (2, "schema_kind", None),
        (3, "schema", None),
        (4, "unknown_schema", None),
        (5, "unframed", None),
    ]
    assert decoded.rejections[2].message == "schema 4 cannot be used: at type it is no JSON-Schema"


def test_a_registry_that_is_down_stops_the_batch_and_nothing_is_refused() -> None:
    with pytest.raises(SchemasUnavailable):
        decode(GOOD, format_=format_of(Known({0: SchemasUnavailable("down")})))


def test_columns_are_proposed_from_records_that_keep_their_schema() -> None:
    batch = make_batch(make_records([b'{"id": 1, "strange": 1}', b'{"id": 2, "city": "Rome"}']))

    assert format_of().infer(batch) == pa.schema([("id", pa.int64()), ("city", pa.string())])


@pytest.mark.parametrize("own", [{}, {"$id": "http://shop.test/schemas/order.json"}])
def test_references_lead_to_schemas_of_the_registry(own: dict[str, str]) -> None:
    text = json.dumps(own | {"properties": {"customer": {"$ref": "customer.json"}}})
    validator = validator_of(WriterSchema("json", text, {"customer.json": '{"type": "string"}'}))

    assert validator.is_valid({"customer": "x"})
    assert not validator.is_valid({"customer": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "it is not JSON"),
        ("5", "it is no JSON-Schema"),
        ('{"$ref": "http://127.0.0.1:1/x.json"}', r"nothing is known of http://127\.0\.0\.1:1/x\.json"),
        ('{"$ref": "file:///etc/passwd"}', "nothing is known of file:///etc/passwd"),
        ('{"$ref": "other.json"}', "nothing is known of .*other.json"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why_and_nothing_is_fetched(text: str, message: str) -> None:
    with pytest.raises(SchemaBroken, match=message):
        validator_of(WriterSchema("json", text))


class TestSettings:
    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        (tmp_path / "order.json").write_text(json.dumps(ORDER))
        return str(tmp_path / "order.json")

    def made(self, **given: Any) -> Any:
        return unpacked(JsonFormat(), Decode.model_validate({"validate": "on", **given}), SchemaRegistryOptions())

    def test_a_file_is_for_records_without_frames(self, file: str) -> None:
        assert told(decode(b'{"id": "x"}', GOOD, format_=self.made(writer_schema=file))) == [(0, "schema", "id")]

    def test_records_may_be_compressed_too(self, file: str) -> None:
        import gzip

        format_ = self.made(writer_schema=file, compression="gzip")
        assert told(decode(gzip.compress(b'{"id": "x"}'), gzip.compress(GOOD), format_=format_)) == [
            (0, "schema", "id")
        ]

    def test_what_contradicts_itself_is_refused(self, file: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"--decode\.validate on: where are the schemas\?"):
            self.made()
        with pytest.raises(ConfigurationError, match=r"checks JSON records; --decode\.format is csv"):
            self.made(format="csv", writer_schema=file)
        with pytest.raises(ConfigurationError, match=r"reads no schema of a writer; --decode\.validate on checks"):
            unpacked(JsonFormat(), Decode(writer_schema=file))
        (tmp_path / "bad.json").write_text('{"type": "nonsense"}')
        with pytest.raises(ConfigurationError, match=r"bad\.json: at type it is no JSON-Schema"):
            self.made(writer_schema=str(tmp_path / "bad.json"))
