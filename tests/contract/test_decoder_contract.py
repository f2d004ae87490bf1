"""Laws for every format there is: found through `batcher.formats`, not listed here."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batcher.formats import registry
from batcher.formats.delimited import CsvSection
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.options import Section
from batcher.plugins import PluginContext
from batcher.settings.model import Decode
from batcher.testing.contract.format import FormatCase, FormatLaws

AVRO: Any = {
    "type": "record",
    "name": "Row",
    "fields": [
        {"name": "id", "type": ["null", "long"]},
        {"name": "name", "type": "string"},
        {"name": "at", "type": "string"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}


def _avro(row: dict[str, Any]) -> bytes:
    fastavro = pytest.importorskip("fastavro")
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(AVRO), row)
    return out.getvalue()


def _csv(row: dict[str, Any]) -> bytes:
    texts = ["" if row["id"] is None else str(row["id"]), row["name"], row["at"], json.dumps(row["tags"])]
    return ",".join('"' + text.replace('"', '""') + '"' if "," in text else text for text in texts).encode()


def _msgpack(row: dict[str, Any]) -> bytes:
    import msgspec

    return msgspec.msgpack.encode(row)


PROTOBUF = """
syntax = "proto3";
message Row {
  optional int64 id = 1;
  string name = 2;
  string at = 3;
  repeated string tags = 4;
}
"""


def _protobuf(row: dict[str, Any]) -> bytes:
    pytest.importorskip("ptars")
    from google.protobuf.message_factory import GetMessageClass

    from batcher.formats.protobuf.schema import load
    from batcher.formats.writer_schema import WriterSchema

    message = GetMessageClass(load(WriterSchema("protobuf", PROTOBUF)).message((), ""))
    return bytes(message(**{name: value for name, value in row.items() if value is not None}).SerializeToString())


ENCODE: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "avro": _avro,
    "csv": _csv,
    "json": lambda row: json.dumps(row).encode(),
    "msgpack": _msgpack,
    "protobuf": _protobuf,
}
"""How a test writes a record in each format. A new format fails here until it says how."""

SCHEMAS: dict[str, tuple[str, str]] = {
    "avro": ("row.avsc", json.dumps(AVRO)),
    "protobuf": ("row.proto", PROTOBUF),
}
"""The files of the schemas, for formats that need one."""

WITHOUT_COLUMNS = frozenset({"raw"})
"""Formats that read nothing of a record: the laws are about what is read."""

OPTIONS: list[Decode] = [Decode(), Decode(text=("any",), epoch=("ms",)), Decode(on_unknown="reject")]
"""What each format is tried with."""

SECTIONS: dict[str, Section] = {
    "avro": SchemaRegistryOptions(),
    "protobuf": SchemaRegistryOptions(),
    "csv": CsvSection(columns=("id", "name", "at", "tags")),
}
"""The sections of formats that have one of their own."""


class TestEveryFormat(FormatLaws):
    @pytest.fixture(
        params=[(name, number) for name in registry.names() if name not in WITHOUT_COLUMNS for number in range(3)]
    )
    def case(self, request: pytest.FixtureRequest, tmp_path: Path) -> FormatCase:
        name, number = request.param
        decode = OPTIONS[number]
        if name in SCHEMAS:
            file, text = SCHEMAS[name]
            (tmp_path / file).write_text(text)
            decode = decode.model_copy(update={"writer_schema": str(tmp_path / file)})
        found = registry.find(name)
        section = SECTIONS.get(name, decode)
        form = registry.make(found, section, PluginContext(sections=(decode, section)))
        return FormatCase(form, ENCODE[name], nothing_is_a_record=name == "protobuf")
