"""Documents that look real and are broken at random, and what a decoder makes of them.

`python -m tests.harness.mutated ROWS [SEED [short]]` holds one path against the other for this many messages.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final

import pyarrow as pa

from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.native import Choice
from batcher.records import RAW_JSON, Decoded
from batcher.testing.values import make_batch, make_records

SCHEMA: Final = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("user", pa.string()),
        ("amount", pa.float64()),
        ("price", pa.decimal128(12, 2)),
        ("wide", pa.decimal256(50, 9)),
        ("ratio", pa.float32()),
        ("small", pa.int8()),
        ("big", pa.uint64()),
        ("ok", pa.bool_()),
        ("day", pa.date32()),
        ("at", pa.timestamp("ms", "UTC")),
        ("at_ns", pa.timestamp("ns")),
        ("note", pa.large_string()),
        ("blob", pa.binary()),
        ("tags", pa.list_(pa.string())),
        ("geo", pa.struct([pa.field("lat", pa.float64(), nullable=False), ("at", pa.timestamp("us"))])),
        ("items", pa.list_(pa.struct([("sku", pa.string()), ("n", pa.int16())]))),
        ("labels", pa.map_(pa.string(), pa.int32())),
        pa.field("doc", pa.string(), metadata={RAW_JSON: b"1"}),
        ("any", pa.string()),
    ]
)
"""A column of nearly every type."""

OPTIONS: Final = JsonOptions(on_unknown="evolve", text=frozenset({"any"}), epoch={"at_ns": "us"})

PATHS: Final[tuple[Choice, ...]] = ("off", "require")

_ODD: Final = [
    *("null", "true", "0", "-0", "1", "-1", "1.5", "5.0", "1e2", "1E-2", "1e400", "01", "+1", "1.", ".5", "-", "NaN"),
    *("127", "128", "-129", "32768", "9223372036854775807", "9223372036854775808", "18446744073709551616", "12.345"),
    *("9007199254740993", "16777217", "0.1", "1e-400", "123456789012345678901234567890.123", "9" * 60, "1e99999"),
    *("1700000000", "1700000000123", "1700000000.5", "99999999", "1e20", "-1.5"),
    *('""', '"x"', '"12.50"', '"1e3"', '" 1"', '"2026"', '"20260131"', '"1700000000"', '"2024-02-30"', '"2024-02-29"'),
    *('"2024-05-06T07:08:09.123456789Z"', '"2024-05-06 07:08+02"', '"2024-05-06T24:00:00"', '"9999-12-31T23:59:59,9"'),
    *(r'"\u00e9\n\ud83d\ude00"', r'"\ud800"', r'"\x"', '"é"', '"\t"', '"' + "long " * 9 + '"', r'"a\"b\\c\/"', '"'),
    *(
        "[]",
        "{}",
        "[1,2]",
        '{"a":1}',
        '{"a":1,"a":2}',
        '{"k":{"k":[null,{"k":1}]}}',
        "[" * 70 + "]" * 70,
        "[1,]",
        "{1}",
    ),
    *('{"lat":1}', '{"lat":null}', '{"at":5}', '[{"sku":"s","n":3}]', '[{"n":40000}]', '[null,{"x":1}]', "nul", "tru"),
]
_JUNK: Final = [b"", b"\0", b"\n", b"\xff", b"\xc3", b"}", b"{", b'"', b",", b":", b"\\", b" ", b"0", b"\xef\xbb\xbf"]
_NAMES: Final = [*SCHEMA.names, "new", "other", r"\u0069d", "ID"]


def document(number: int, dice: Random) -> dict[str, Any]:
    """Return a record without a fault."""
    return {
        "id": number,
        "user": f"user-{dice.randrange(10**6)}",
        "amount": round(dice.random() * 1000, dice.randrange(4)),
        "price": dice.randrange(10**6) / 100,
        "wide": str(dice.randrange(10**12)),
        "ratio": dice.randrange(1000) / 8,
        "small": dice.randrange(-128, 128),
        "big": dice.getrandbits(64),
        "ok": dice.random() < 0.5,
        "day": f"20{dice.randrange(100):02d}-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}",
        "at": f"2024-05-06T07:08:{dice.randrange(60):02d}.{dice.randrange(1000):03d}Z",
        "at_ns": 1_714_979_280_000_000 + number,
        "note": "n" * dice.randrange(40) + dice.choice(["", "é", '"', "\n", "\U0001f600"]),
        "blob": "b" * dice.randrange(20),
        "tags": ["a", "b"][: dice.randrange(3)],
        "geo": {"lat": dice.random(), "at": "2024-05-06"},
        "items": [{"sku": "s", "n": one} for one in range(dice.randrange(3))],
        "labels": {chr(97 + one): one for one in range(dice.randrange(4))},
        "doc": dice.choice([None, 1.50, "text", {"a": [1, {"b": None}]}]),
        "any": dice.choice([None, 1, "text", [1, "x"]]),
    }


def messages(count: int, dice: Random) -> Iterator[bytes | None]:
    """Yield messages: two in three are as they should be, the others have a fault or two."""
    for number in range(count):
        record = document(number, dice)
        fields = [(name, json.dumps(value, ensure_ascii=dice.random() < 0.5)) for name, value in record.items()]
        fields = [pair for pair in fields if pair[0] == "id" or dice.random() < 0.6]
        if dice.random() < 0.3:
            dice.shuffle(fields)
        if dice.random() < 0.2:
            at = dice.randrange(len(fields))
            fields[at] = (fields[at][0], dice.choice(_ODD))
        if dice.random() < 0.1:
            fields.insert(dice.randrange(len(fields) + 1), (dice.choice(_NAMES), dice.choice(_ODD)))
        space = dice.choice(["", "", " ", "\n", "\t\r\n "])
        text = space + "{" + f",{space}".join(f'"{name}":{space}{value}' for name, value in fields) + space + "}"
        raw = text.encode("utf-8", "surrogatepass")
        if dice.random() < 0.1:
            at = dice.randrange(len(raw))
            raw = raw[:at] + dice.choice(_JUNK) + raw[at + dice.randrange(4) :]
        yield None if dice.random() < 0.01 else raw


def short_messages(count: int, dice: Random) -> list[bytes | None]:
    """Return messages with a field or two, each with a number, a time or a text that is odd in some way."""
    pool = [(_token(dice), dice.choice(SCHEMA.names)) for _ in range(count // 4)]
    chosen = [
        (one[1] if dice.random() < 0.1 else _column(one[0], dice), one[0], dice.choice(pool)[0])
        for one in dice.choices(pool, k=count)
    ]
    more = [f',"any":{other}' if number % 8 == 0 else "" for number, (_, _, other) in enumerate(chosen)]
    return [f'{{"id":1,"{name}":{one}{end}}}'.encode() for (name, one, _), end in zip(chosen, more, strict=True)]


def _column(token: str, dice: Random) -> str:
    """Return a column that such a value may be meant for."""
    if token[0] != '"':
        return dice.choice(["amount", "amount", "price", "wide", "ratio", "small", "big", "at", "at_ns", "any"])
    return dice.choice(["at", "at_ns", "day"] if token[5:6] == "-" else ["user", "note", "blob", "any", "wide"])


def _token(dice: Random) -> str:
    """Return a value: digits with a point, an exponent and a sign here and there, a time, or one of the odd."""
    turn = dice.randrange(8)
    if turn < 4:
        digits = str(dice.getrandbits(dice.choice([3, 8, 16, 31, 53, 63, 64, 90, 130])))
        at = dice.randrange(1, len(digits) + 1)
        number = digits[:at] + (f".{digits[at:]}" if at < len(digits) and turn != 1 else digits[at:])
        number += dice.choice(["", "", "", f"e{dice.randrange(-30, 30)}", f"E+{dice.randrange(400)}", "e-41", "E-400"])
        number = dice.choice(["", "", "-"]) + number
        return number if turn else f'"{number}"'
    if turn < 7:
        day = f"{dice.randrange(10_000):04d}-{dice.randrange(14):02d}-{dice.randrange(33):02d}"
        clock = f"{dice.randrange(26):02d}:{dice.randrange(62):02d}:{dice.randrange(62):02d}"
        fraction = dice.choice(["", f".{dice.getrandbits(40)}", ",5", "."])
        zone = dice.choice(["", "Z", "z", "+0200", "-05:30", "+14", "+25:00", "+1"])
        mark = dice.choice(["", "T", " ", "t", "_"])
        return f'"{day}{mark}{dice.choice(["", clock[:2], clock[:5], clock + fraction])}{zone}"'
    return dice.choice(_ODD)


def damaged(batch: list[bytes | None], dice: Random) -> list[bytes | None]:
    """Return the messages with one more fault in one of five, in a random place."""
    return [raw if raw is None or dice.random() < 0.8 else _damaged(raw, dice) for raw in batch]


def _damaged(raw: bytes, dice: Random) -> bytes:
    at = dice.randrange(len(raw) + 1)
    junk = dice.choice(_JUNK) if dice.random() < 0.5 else dice.choice(_ODD).encode()
    return raw[:at] + junk + raw[at + dice.randrange(4) :]


def outcome(decoded: Decoded) -> dict[str, Any]:
    """Return all of it but the notes, in a form that can be compared; times as integers, which have no bounds."""
    return {
        "rows": [repr(row) for row in zip(*(_plain(column) for column in decoded.table.columns), strict=True)],
        "positions": decoded.positions.to_pylist(),
        "rejections": decoded.rejections,
        "skipped": decoded.skipped.to_pylist(),
        "schema": decoded.table.schema,
        "outgrown": decoded.outgrown,
    }


def _plain(column: pa.ChunkedArray) -> list[Any]:
    return column.cast(_bare(column.type)).to_pylist()  # type: ignore[no-any-return]


def _bare(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.int64()
    if pa.types.is_date32(kind):
        return pa.int32()
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(one.name, _bare(one.type)) for one in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, pa.field("value", _bare(kind.item_type)))
    return pa.list_(_bare(kind.value_type)) if pa.types.is_list(kind) else kind


def differences(
    batch: list[bytes | None], schema: pa.Schema, options: JsonOptions, verdicts: Counter[str] | None = None
) -> str:
    """Return what the two paths make differently of a batch; nothing where all is the same. Count the verdicts."""
    records = make_batch(make_records(batch))
    python, native = (JsonFormat(replace(options, native=path)).decoder(schema).decode(records) for path in PATHS)
    if verdicts is not None:
        verdicts.update(one.reason for one in native.rejections)
        verdicts["row"] += native.table.num_rows
    # Arrow's equality takes 0.0 for -0.0, so the whole is compared once more where there are few.
    same = python.table.equals(native.table) and python.positions.equals(native.positions)
    if same and python.rejections == native.rejections and python.skipped.equals(native.skipped) and len(batch) > 100:
        return ""
    left, right = outcome(python), outcome(native)
    for name in left:
        if left[name] != right[name]:
            found = [pair for pair in zip(left[name], right[name], strict=False) if pair[0] != pair[1]]
            return f"{name}: {found[:1] or (left[name], right[name])}"
    return ""


def main() -> None:
    """Compare until a difference is found, or all rows are done."""
    rows, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    dice, began, done, verdicts = Random(seed), time.monotonic(), 0, Counter[str]()
    schemas = [SCHEMA, pa.schema([one for one in SCHEMA if one.name not in ("labels", "doc")])]
    short = sys.argv[3:] == ["short"]
    while done < rows:
        made = list(messages(2000, dice))
        for number in range(16):
            if short:
                made = short_messages(20_000, dice)
            batch = damaged(made, dice) if number > 1 and not short else made
            if difference := differences(batch, schemas[number % len(schemas)], OPTIONS, verdicts):
                sys.exit(f"{difference} (seed {seed}, after {done:,} messages)")
            done += len(batch)
        said = f"{done:,} messages, {time.monotonic() - began:.0f} s: {dict(verdicts.most_common())}"
        print(said, flush=True)  # noqa: T201 - run by hand


if __name__ == "__main__":
    main()
