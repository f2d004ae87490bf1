"""How many records a second become columns: clean and poisoned, with each form of timestamp, wide and nested.

Run it alone: `python -m benchmarks.bench_decode`. Each case decodes one batch several times, shown as rows
a second of wall time and as microseconds of processor time a row. `--threads 1` takes the second core from Arrow,
which is closer to what the write loop has beside a busy fetch loop. A busy machine shows first
in the wall time. With the native extension both ways of decoding are measured, one after the other for each case.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from batcher import native
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.native import Choice
from batcher.records import RAW_JSON, Batch
from batcher.testing.values import make_batch, make_records
from benchmarks import hooks
from benchmarks.harness import RESULTS
from benchmarks.report import Panel, Spread, Table, publish

FIELDS = [
    ("id", pa.int64()),
    ("user", pa.string()),
    ("action", pa.string()),
    ("amount", pa.float64()),
    ("ok", pa.bool_()),
    ("country", pa.string()),
    ("at", pa.timestamp("ms", "UTC")),
    ("note", pa.string()),
]
PLAIN = pa.schema(FIELDS)
NESTED = pa.schema(
    [*FIELDS, ("geo", pa.struct([("lat", pa.float64()), ("lon", pa.float64())])), ("tags", pa.list_(pa.string()))]
)
MAPPED = pa.schema([*FIELDS, ("labels", pa.map_(pa.string(), pa.int64()))])
KEPT = pa.schema([*FIELDS, pa.field("extra", pa.string(), metadata={RAW_JSON: b"1"})])
WIDE = pa.schema([("id", pa.int64()), *((f"column_{i}", pa.float64()) for i in range(60))])

POISON = (b'{"id":"one"}', b'{"id":1', b'{"id":99999999999999999999}', b'{"id":1,"at":"soon"}', b'{"id":1,"id":2}')

SIX = (*POISON, b"not json at all")
"""Kinds of poison of which a share of the records has one, at random."""

Change = Callable[[int, dict[str, Any]], None]


def event(number: int, dice: random.Random) -> dict[str, Any]:
    """Return a record of about 183 bytes and 8 fields."""
    return {
        "id": number,
        "user": f"user-{dice.randrange(10**6):06d}",
        "action": dice.choice(["view", "click", "buy"]),
        "amount": round(dice.random() * 100, 2),
        "ok": dice.random() < 0.5,
        "country": "DE",
        "at": f"2024-05-06T07:08:{number % 60:02d}.{number % 1000:03d}Z",
        "note": "x" * 40,
    }


def epoch(number: int, row: dict[str, Any]) -> None:
    """Write the time as milliseconds."""
    row["at"] = 1_714_979_280_000 + number


def alternating(number: int, row: dict[str, Any]) -> None:
    """Write every other time as milliseconds."""
    if number % 2:
        epoch(number, row)


def nested(number: int, row: dict[str, Any]) -> None:
    """Add an object and a list."""
    row |= {"geo": {"lat": number / 7, "lon": 2.5}, "tags": ["a", "b"]}


def mapped(number: int, row: dict[str, Any]) -> None:
    """Add an object with free keys."""
    row["labels"] = {"a": number, "b": 2}


def kept(number: int, row: dict[str, Any]) -> None:
    """Add a value of any kind."""
    row["extra"] = ({"a": number, "b": [2]}, number, "a text", [number, None])[number % 4]


def unchanged(_number: int, _row: dict[str, Any]) -> None:
    """Leave the record as it is."""


def wide(number: int, row: dict[str, Any]) -> None:
    """Make it a record of 60 numbers."""
    row.clear()
    row |= {"id": number} | {f"column_{i}": (number * i) % 1000 / 8 for i in range(60)}


def build(rows: int, change: Change, every: int = 0, indent: int | None = None) -> Batch:
    """Return a batch; with `every`, one of so many records is poison, of several kinds by turns."""
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    values: list[bytes] = []
    for number in range(rows):
        row = event(number, dice)
        change(number, row)
        values.append(json.dumps(row, indent=indent).encode())
    if every:
        for turn, position in enumerate(range(every // 2, rows, every)):
            values[position] = POISON[turn % len(POISON)]
    return make_batch(make_records(values))


def poisoned(rows: int, share: float) -> Batch:
    """Return a batch in which a share of the records is poison, of six kinds at random."""
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    values = [
        dice.choice(SIX) if dice.random() < share else json.dumps(event(number, dice)).encode()
        for number in range(rows)
    ]
    return make_batch(make_records(values))


def deep(rows: int) -> tuple[pa.Schema, Batch]:
    """Return webhooks of many kinds, and the schema that is inferred from them."""
    batch = make_batch(make_records(hooks.documents(rows)))
    schema = JsonFormat().infer(batch)
    assert schema is not None
    return schema, batch


def cases(rows: int) -> list[tuple[str, pa.Schema, Callable[[], Batch]]]:
    """Return name, schema and batch of each case."""
    webhooks, documents = deep(max(1, rows // 50))
    return [
        ("clean, ISO time", PLAIN, lambda: build(rows, unchanged)),
        ("clean, epoch time", PLAIN, lambda: build(rows, epoch)),
        ("both forms of time", PLAIN, lambda: build(rows, alternating)),
        ("0.1 % poison", PLAIN, lambda: build(rows, unchanged, every=1000)),
        ("1 % poison", PLAIN, lambda: build(rows, unchanged, every=100)),
        ("poisoned, 0.1 % of six kinds", PLAIN, lambda: poisoned(rows, 0.001)),
        ("pretty-printed", PLAIN, lambda: build(rows, unchanged, indent=2)),
        ("nested", NESTED, lambda: build(rows, nested)),
        ("60 numbers", WIDE, lambda: build(rows // 4, wide)),
        ("map", MAPPED, lambda: build(rows // 4, mapped)),
        ("JSON kept as text", KEPT, lambda: build(rows // 4, kept)),
        ("deep: webhooks of 100 columns", webhooks, lambda: documents),
    ]


def measure(schema: pa.Schema, batch: Batch, repeats: int, path: Choice) -> dict[str, Any]:
    """Return the figures of one case on one path, those of each repeat in a list."""
    decoder = JsonFormat(JsonOptions(native=path)).decoder(schema)
    rejected = len(decoder.decode(batch).rejections)
    wall: list[float] = []
    cpu: list[float] = []
    for _ in range(repeats):
        began, spent = time.perf_counter(), time.process_time()
        decoder.decode(batch)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - spent)
    size = sum(run.values.nbytes for run in batch.runs)
    return {
        "rows": batch.rows,
        "bytes_per_row": round(size / batch.rows),
        "rejected": rejected,
        "rows_per_second": [round(batch.rows / seconds) for seconds in wall],
        "cpu_us_per_row": [round(seconds / batch.rows * 1e6, 3) for seconds in cpu],
    }


def main() -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="records of a batch (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each case (default %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads of Arrow; 0: one for each core")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "decode.json", help="where to write")
    options = parser.parse_args()
    if options.threads:
        pa.set_cpu_count(options.threads)
    results, rows = {}, []
    paths: dict[str, Choice] = {"Python": "off"}
    if native.version():
        paths["native"] = "require"
    speed: dict[str, dict[str, Spread]] = {path: {} for path in paths}
    for name, schema, make in cases(options.rows):
        batch = make()
        for path, choice in paths.items():
            result = results[f"{name} ({path})"] = measure(schema, batch, options.repeats, choice)
            spread = speed[path][name] = Spread.of(result["rows_per_second"])
            cpu = Spread.of(result["cpu_us_per_row"]).text(2)
            rows.append((name, path, f"{result['bytes_per_row']}", f"{result['rejected']:,}", spread.text(), cpu))
    table = Table("JSON into columns", ("case", "path", "bytes a row", "rejected", "rows/s", "CPU µs a row"), rows)
    panel = Panel("JSON into columns", "rows a second", speed)
    parameters = {"rows": options.rows, "repeats": options.repeats, "arrow_threads": pa.cpu_count()}
    facts = {"parameters": parameters, "cases": results}
    print(publish(options.json, "How fast JSON is decoded", [table], [panel], facts))


if __name__ == "__main__":
    main()
