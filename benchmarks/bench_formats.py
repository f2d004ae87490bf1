"""What a record costs that is read from Avro or Protobuf into columns, beside JSON and beside what others do.

Run it alone: `python -m benchmarks.bench_formats`. Processor time of one process, a record; each case is read several
times by turns. fastavro and upb read fewer records, and what they make of each are not columns yet. `to the target` is
all that is done until a record fits the columns of its target.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import fastavro
import pyarrow as pa

from batcher.formats.avro.codec import CODEC as AVRO
from batcher.formats.avro.reader import AvroReader
from batcher.formats.framing import Framing
from batcher.formats.json.format import JsonFormat
from batcher.formats.json.limits import JsonOptions
from batcher.formats.protobuf.codec import CODEC as PROTOBUF
from batcher.formats.writer_schema import SchemaKey, WriterSchema
from batcher.formats.written import WrittenFormat
from batcher.protocols import Format
from batcher.testing.values import make_batch, make_records
from benchmarks.encodings import message_class


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


FLAT: Final[Any] = {
    "type": "record",
    "name": "Event",
    "fields": [
        _field("id", "long"),
        _field("user", "string"),
        _field("action", {"type": "enum", "name": "Action", "symbols": ["view", "click", "buy"]}),
        _field("amount", "double"),
        _field("ok", "boolean"),
        _field("country", "string"),
        _field("at", {"type": "long", "logicalType": "timestamp-millis"}),
        _field("price", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}),
        _field("quantity", "int"),
        _field("note", ["null", "string"]),
    ],
}
"""10 fields, about 58 bytes a record."""

NESTED: Final[Any] = {
    "type": "record",
    "name": "Nested",
    "fields": [
        *FLAT["fields"],
        _field("tags", {"type": "array", "items": "string"}),
        _field("labels", {"type": "map", "values": "long"}),
        _field("geo", {"type": "record", "name": "Geo", "fields": [_field("lat", "double"), _field("lon", "double")]}),
    ],
}
POISON: Final = 1000
"""One of so many records is damaged, in the case with damage."""


def _event(number: int, dice: random.Random) -> dict[str, Any]:
    return {
        "id": number,
        "user": f"user-{dice.randrange(10**6):06d}",
        "action": dice.choice(["view", "click", "buy"]),
        "amount": round(dice.random() * 100, 2),
        "ok": dice.random() < 0.5,
        "country": "DE",
        "at": datetime.fromtimestamp(1_700_000_000 + number, UTC),
        "price": Decimal(dice.randrange(10**6)).scaleb(-2),
        "quantity": dice.randrange(200),
        "note": None if number % 2 else "a few words of text, no more",
        "tags": ["a", "b"][: number % 3],
        "labels": {"size": number, "weight": 2},
        "geo": {"lat": number / 7, "lon": 2.5},
    }


def payloads(schema: dict[str, Any], rows: int, damaged_every: int = 0) -> list[bytes]:
    """Return records as fastavro writes them; with `damaged_every`, one of so many lacks its last byte."""
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    written = []
    for number in range(rows):
        to = io.BytesIO()
        fastavro.schemaless_writer(to, parsed, _event(number, dice))
        damaged = damaged_every and number % damaged_every == damaged_every // 2
        written.append(to.getvalue()[:-1] if damaged else to.getvalue())
    return written


def _columns(schema: dict[str, Any], written: Sequence[bytes]) -> Callable[[], object]:
    reader = AvroReader(WriterSchema("avro", json.dumps(schema)))
    column = pa.array(written, pa.binary())
    return lambda: reader.read(column)


def _dicts(schema: dict[str, Any], written: Sequence[bytes]) -> Callable[[], object]:
    parsed = fastavro.parse_schema(json.loads(json.dumps(schema)))
    return lambda: [fastavro.schemaless_reader(io.BytesIO(one), parsed, None) for one in written]


MESSAGES: Final = """
syntax = "proto3";
import "google/protobuf/timestamp.proto";
enum Action { view = 0; click = 1; buy = 2; }
message Geo { double lat = 1; double lon = 2; }
message Event {
  int64 id = 1; string user = 2; Action action = 3; double amount = 4; bool ok = 5; string country = 6;
  google.protobuf.Timestamp at = 7; string price = 8; int32 quantity = 9; optional string note = 10;
}
message Nested {
  int64 id = 1; string user = 2; Action action = 3; double amount = 4; bool ok = 5; string country = 6;
  google.protobuf.Timestamp at = 7; string price = 8; int32 quantity = 9; optional string note = 10;
  repeated string tags = 11; map<string, int64> labels = 12; Geo geo = 13;
}
"""
"""The same fields, but that a decimal is a text: Protobuf has none."""

_STRANGE: Final = b"\xf8\x07\x01"
"""Field 127, which is in no schema."""


def messages(name: str, rows: int, damaged_every: int = 0) -> list[bytes]:
    """Return records as upb writes them; with `damaged_every`, one of so many lacks its last byte."""
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    kind: Any = message_class(MESSAGES, name)
    fields = kind.DESCRIPTOR.fields_by_name
    written = []
    for number in range(rows):
        event = _event(number, dice)
        moment = event.pop("at")
        values = {key: str(value) if key == "price" else value for key, value in event.items() if key in fields}
        message = kind(**{key: value for key, value in values.items() if value is not None})
        message.at.FromDatetime(moment)
        payload = bytes(message.SerializeToString())
        written.append(payload[:-1] if damaged_every and number % damaged_every == damaged_every // 2 else payload)
    return written


def _proto_columns(name: str, written: Sequence[bytes]) -> Callable[[], object]:
    reader = PROTOBUF.reader(WriterSchema("protobuf", MESSAGES, {}, name), SchemaKey(), None)
    column = pa.array(written, pa.binary())
    return lambda: reader.read(column)


def _proto_messages(name: str, written: Sequence[bytes]) -> Callable[[], object]:
    kind: Any = message_class(MESSAGES, name)
    return lambda: [kind.FromString(one) for one in written]


class _One:
    """Answer with one schema."""

    def __init__(self, schema: WriterSchema) -> None:
        self._schema = schema

    def get(self, key: SchemaKey) -> WriterSchema:
        """Return it, whichever is asked for."""
        del key
        return self._schema


def _to_target(form: Format, written: Sequence[bytes]) -> Callable[[], object]:
    batch = make_batch(make_records(list(written)))
    schema = form.infer(batch)
    assert schema is not None
    decoder = form.decoder(schema)
    return lambda: decoder.decode(batch)


def _json(rows: int) -> list[bytes]:
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    names = [field["name"] for field in FLAT["fields"]]
    written = []
    for number in range(rows):
        event = _event(number, dice)
        event |= {"at": event["at"].isoformat(), "price": str(event["price"])}
        written.append(json.dumps({name: event[name] for name in names}, separators=(",", ":")).encode())
    return written


def _cases(rows: int, few: int) -> list[tuple[str, int, list[bytes], Callable[[], object]]]:
    """Return the cases: a name, how many records are read, records for their size, and what reads them."""
    flat, nested = payloads(FLAT, rows), payloads(NESTED, rows)
    event, deep = messages("Event", rows), messages("Nested", rows)
    ahead = [one + _STRANGE for one in event[:few]]
    plain = _json(rows)
    none, options = Framing("none"), JsonOptions()
    avro = WrittenFormat(AVRO, none, _One(WriterSchema("avro", json.dumps(FLAT))), options)
    proto = WrittenFormat(PROTOBUF, none, _One(WriterSchema("protobuf", MESSAGES, {}, "Event")), options)
    return [
        ("Avro, 10 fields", rows, flat, _columns(FLAT, flat)),
        ("Avro, 10 fields, damaged", rows, flat, _columns(FLAT, payloads(FLAT, rows, POISON))),
        ("Avro, 10 fields, fastavro", few, flat, _dicts(FLAT, flat[:few])),
        ("Avro, nested", rows, nested, _columns(NESTED, nested)),
        ("Avro, nested, fastavro", few, nested, _dicts(NESTED, nested[:few])),
        ("Protobuf, 10 fields", rows, event, _proto_columns("Event", event)),
        ("Protobuf, 10 fields, damaged", rows, event, _proto_columns("Event", messages("Event", rows, POISON))),
        ("Protobuf, 10 fields, an unknown one in each", few, ahead, _proto_columns("Event", ahead)),
        ("Protobuf, 10 fields, upb", few, event, _proto_messages("Event", event[:few])),
        ("Protobuf, nested", rows, deep, _proto_columns("Nested", deep)),
        ("Protobuf, nested, upb", few, deep, _proto_messages("Nested", deep[:few])),
        ("JSON, 10 fields, to the target", rows, plain, _to_target(JsonFormat(), plain)),
        ("Avro, 10 fields, to the target", rows, flat, _to_target(avro, flat)),
        ("Protobuf, 10 fields, to the target", rows, event, _to_target(proto, event)),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="records of a batch (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each case (default %(default)s)")
    options = parser.parse_args()
    cases = _cases(options.rows, max(1, options.rows // 10))
    spent: dict[str, list[float]] = {name: [] for name, *_ in cases}
    for _ in range(options.repeats):
        for name, rows, _written, read in cases:
            began = time.process_time()
            read()
            spent[name].append((time.process_time() - began) / rows * 1e6)
    print("| case | bytes a record | CPU µs a record | lowest |\n|---|---:|---:|---:|")
    for name, _, written, _ in cases:
        size = sum(map(len, written)) / len(written)
        print(f"| {name} | {size:.0f} | {statistics.median(spent[name]):.2f} | {min(spent[name]):.2f} |")


if __name__ == "__main__":
    main()
