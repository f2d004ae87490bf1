"""What a record costs that is read from Avro into columns, beside fastavro, which makes a dict of each.

Run it alone: `python -m benchmarks.bench_avro`. Processor time of one process, a record; each case is read several
times by turns. fastavro reads fewer records, and its dicts are not columns yet.
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

from batcher.formats.avro.reader import AvroReader
from batcher.formats.writer_schema import WriterSchema


def _field(name: str, kind: Any) -> dict[str, Any]:
    return {"name": name, "type": kind}


FLAT: Final = {
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

NESTED: Final = {
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


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="records of a batch (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each case (default %(default)s)")
    options = parser.parse_args()
    few = max(1, options.rows // 10)
    flat, nested = payloads(FLAT, options.rows), payloads(NESTED, options.rows)
    cases = [
        ("10 fields", options.rows, flat, _columns(FLAT, flat)),
        ("10 fields, damaged", options.rows, flat, _columns(FLAT, payloads(FLAT, options.rows, POISON))),
        ("10 fields, fastavro", few, flat, _dicts(FLAT, flat[:few])),
        ("nested", options.rows, nested, _columns(NESTED, nested)),
        ("nested, fastavro", few, nested, _dicts(NESTED, nested[:few])),
    ]
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
