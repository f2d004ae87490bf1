"""The made-up orders in Avro and Protobuf: the same values in columns of the same types."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

AVRO: Final = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "user_id", "type": "int"},
        *({"name": name, "type": "string"} for name in ("country", "product")),
        {"name": "quantity", "type": "int"},
        {"name": "price", "type": "double"},
        {"name": "paid", "type": "boolean"},
        {"name": "session", "type": "string"},
    ],
}
PROTOBUF: Final = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
message Order {
  int64 id = 1;
  google.protobuf.Timestamp ts = 2;
  int32 user_id = 3;
  string country = 4;
  string product = 5;
  int32 quantity = 6;
  double price = 7;
  bool paid = 8;
  string session = 9;
}
"""

SCHEMAS: Final[Mapping[str, tuple[str, str]]] = {
    "avro": ("order.avsc", json.dumps(AVRO)),
    "protobuf": ("order.proto", PROTOBUF),
}
"""Names and texts of the files for `--decode.writer-schema`, by the name of the format."""

Encode = Callable[[bytes], bytes]
"""Write an order, given as JSON, in another encoding."""


def flags(encoding: str, scratch: Path) -> tuple[str, ...]:
    """Return the flags that read an encoding without a registry, having written its schema."""
    name, text = SCHEMAS[encoding]
    (scratch / name).write_text(text)
    return ("--decode.format", encoding, "--decode.writer-schema", str(scratch / name))


def encoder(encoding: str) -> Encode:
    """Return what writes orders in an encoding of `SCHEMAS`."""
    return {"avro": _avro, "protobuf": _protobuf}[encoding]()


def _avro() -> Encode:
    import fastavro

    parsed = fastavro.parse_schema(json.loads(SCHEMAS["avro"][1]))

    def encode(order: bytes) -> bytes:
        to = io.BytesIO()
        row = json.loads(order)
        fastavro.schemaless_writer(to, parsed, row | {"ts": datetime.fromisoformat(row["ts"])})
        return to.getvalue()

    return encode


def _protobuf() -> Encode:
    kind: Any = message_class(PROTOBUF, "Order")

    def encode(order: bytes) -> bytes:
        row = json.loads(order)
        moment = datetime.fromisoformat(row.pop("ts"))
        message = kind(**row)
        message.ts.FromDatetime(moment)
        return bytes(message.SerializeToString())

    return encode


def message_class(text: str, name: str) -> Any:
    """Return the class of a message of a `.proto` text."""
    from google.protobuf.message_factory import GetMessageClass

    from batcher.formats.protobuf.schema import load
    from batcher.formats.writer_schema import WriterSchema

    return GetMessageClass(load(WriterSchema("protobuf", text)).message((), name))
