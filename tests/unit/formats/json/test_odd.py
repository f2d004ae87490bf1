"""Odd records are found and settled by themselves; the others are read as if they were not there."""

from __future__ import annotations

import gc
import json
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.json import reader, shape, strict
from batcher.formats.json.census import Census
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.records import RAW_JSON, Decoded
from batcher.testing.values import make_batch, make_records

KEPT = {RAW_JSON: b"1"}
COUNT = 600


def decode(values: list[Any], schema: pa.Schema, **options: Any) -> Decoded:
    raw = [value if isinstance(value, (bytes, str)) else json.dumps(value) for value in values]
    return JsonFormat(JsonOptions(**options)).decoder(schema).decode(make_batch(make_records(raw)))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the records that the strict reader sees."""
    seen: list[bytes] = []
    rewrite = strict.StrictReader.rewrite

    def noted(self: strict.StrictReader, raw: bytes) -> bytes:
        seen.append(raw)
        return rewrite(self, raw)

    monkeypatch.setattr(strict.StrictReader, "rewrite", noted)
    return seen


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return how many messages and columns, however deep, Arrow's reader was given each time."""
    seen: list[tuple[int, int]] = []
    read = reader.read

    def noted(texts: pa.Array, schema: pa.Schema, **options: Any) -> list[pa.Array]:
        seen.append((len(texts), shape.leaves(schema)))
        return read(texts, schema, **options)

    monkeypatch.setattr(reader, "read", noted)
    return seen


def test_many_keys_that_occur_twice_cost_two_readings_and_not_one_each(readings: list[tuple[int, int]]) -> None:
    values: list[Any] = [{"id": n, "text": f"t{n}"} for n in range(6000)]
    values[::100] = ['{"id":1,"id":2}'] * 60

    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    decoded = decode(values, schema, on_unknown="ignore", native="off")

    assert [one.position for one in decoded.rejections] == list(range(0, 6000, 100))
    assert {one.reason for one in decoded.rejections} == {"duplicate"}
    assert decoded.positions.to_pylist() == [n for n in range(6000) if n % 100]
    assert len(readings) <= 4


def test_a_key_that_is_first_seen_twice_after_many_messages_were_refused_for_another_stops_nothing() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    values: list[Any] = ['{"a":1,"a":2,"b":1,"b":2}'] * 60 + ['{"a":1,"a":2}'] * 70 + ['{"b":1,"b":2,"a":1,"a":2}'] * 4
    values += [{"a": 1, "b": 2}] * 3

    decoded = decode(values, schema, native="off")

    assert [one.position for one in decoded.rejections] == list(range(134))
    assert {one.reason for one in decoded.rejections} == {"duplicate"}
    assert decoded.table.to_pylist() == [{"a": 1, "b": 2}] * 3


def test_a_key_that_inner_objects_have_as_well_is_no_sign_of_anything(readings: list[tuple[int, int]]) -> None:
    schema = pa.schema([("id", pa.int64()), ("in", pa.struct([("id", pa.int64())]))])
    values: list[Any] = [{"id": n, "in": {"id": n}} for n in range(3000)]
    values[1234] = '{"id":1,"id":2}'

    decoded = decode(values, schema, on_unknown="ignore", native="off")

    assert [one.position for one in decoded.rejections] == [1234]
    assert decoded.table.num_rows == 2999


def kinds(count: int) -> list[dict[str, Any]]:
    """Return records of 60 kinds, each with an object of its own of 10 fields."""
    return [{"id": n, f"of_{n % 60}": {f"f{field}": n + field for field in range(10)}} for n in range(count)]


SPARSE = pa.schema(
    [
        ("id", pa.int64()),
        *((f"of_{kind}", pa.struct([(f"f{field}", pa.int64()) for field in range(10)])) for kind in range(60)),
    ]
)


def test_objects_that_few_records_have_are_read_by_themselves(readings: list[tuple[int, int]]) -> None:
    values = kinds(600)

    decoded = decode(values, SPARSE, native="off")

    assert decoded.table.num_rows == 600
    for number in (0, 59, 60, 599):
        row = {
            name: value for name, value in decoded.table.slice(number, 1).to_pylist()[0].items() if value is not None
        }
        assert row == values[number]
    decoded.table.validate(full=True)
    # Together they would be 600 messages of 601 columns.
    assert max(messages * columns for messages, columns in readings) < 600 * 100


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ('{"id":1,"of_3":{"f0":1,"f0":2}}', "duplicate"),
        ('{"id":1,"of_3":{"f0":1},"of_3":{"f0":2}}', "duplicate"),
        ('{"id":1,"of_3":{"f0":1},"of_\\u0033":null}', "duplicate"),
        ('{"id":1,"of_3":true}', "type"),
        ('{"id":1,"of_3":[{"f0":1}]}', "type"),
        ('{"id":1,"of_3":{"f0":"x"}}', "type"),
        ('{"id":1,"of_3":{"f0":1e30}}', "overflow"),
        ('{"id":1,"of_3":{"new":1}}', "unknown_field"),
        ('{"id":1,"of_3":{"f0":1}}{"id":2}', "trailing_data"),
    ],
)
def test_what_is_wrong_with_an_object_that_few_records_have_is_found(odd: str, reason: str) -> None:
    values: list[Any] = kinds(300)
    values[100] = odd

    decoded = decode(values, SPARSE, on_unknown="reject", native="off")

    assert [(one.position, one.reason) for one in decoded.rejections] == [(100, reason)]
    assert decoded.positions.to_pylist() == [n for n in range(300) if n != 100]


CASES: dict[str, tuple[pa.Field, Any]] = {
    "map": (pa.field("x", pa.map_(pa.string(), pa.int64())), lambda n: {"a": n, "b,": 2}),
    "map of texts": (pa.field("x", pa.map_(pa.string(), pa.string())), lambda n: {"a": f"{n}", 'b"': "c:"}),
    "json": (pa.field("x", pa.string(), metadata=KEPT), lambda n: [{"a": n, "b": "c d"}, n, "t", [1, None]][n % 4]),
    "deep json": (
        pa.field("x", pa.list_(pa.struct([pa.field("y", pa.string(), metadata=KEPT), ("n", pa.int64())]))),
        lambda n: [{"y": {"a": n}, "n": n}, {"n": 2, "y": [n]}],
    ),
    "both forms of time": (
        pa.field("x", pa.timestamp("ms", "UTC")),
        lambda n: 1_700_000_000_000 + n if n % 2 else "2024-05-06T12:00:00Z",
    ),
    "numbers as text": (pa.field("x", pa.timestamp("ms", "UTC")), lambda n: f"{1_700_000_000_000 + n}"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_column_of_maps_or_json_or_times_in_several_forms_is_not_read_record_by_record(
    name: str, settled: list[bytes]
) -> None:
    field, make = CASES[name]
    schema = pa.schema([("id", pa.int64()), field])
    values: list[Any] = [{"id": n, "x": make(n)} for n in range(COUNT)]
    values[300] = {"id": "bad", "x": make(300)}
    decoded = decode(values, schema)
    assert [one.position for one in decoded.rejections] == [300]
    assert decoded.table["id"].to_pylist() == decoded.positions.to_pylist()
    assert len(settled) < COUNT // 8
    # The strict reader by itself has the same rows.
    slow = JsonFormat().decoder(schema)
    slow._rewriting = True
    assert slow.decode(make_batch(make_records([json.dumps(value) for value in values]))).table.equals(decoded.table)


def test_texts_that_take_any_value_are_not_read_record_by_record(settled: list[bytes]) -> None:
    values = [{"x": [{"a": n}, f"{n}", n, [n, "b c"]][n % 4]} for n in range(COUNT)]
    decoded = decode(values, pa.schema([("x", pa.string())]), text=frozenset("*"))
    wanted = [
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for value in (one["x"] for one in values)
    ]
    assert decoded.table["x"].to_pylist() == wanted
    assert len(settled) < COUNT // 4


def test_a_bad_record_does_not_bring_a_look_at_all_others_for_unknown_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    look = Census.look

    def noted(self: Census, texts: pa.Array) -> Any:
        looked.append(len(texts))
        return look(self, texts)

    monkeypatch.setattr(Census, "look", noted)
    values: list[Any] = [{"id": n} for n in range(2_000)]
    values[1000] = {"id": "bad"}
    schema = pa.schema([("id", pa.int64())])
    assert decode(values, schema).unknown == ()
    assert looked == []
    values[1500] = {"id": 1, "new": 2}
    assert [one.path for one in decode(values, schema).unknown] == ["new"]


def test_a_refused_record_does_not_hold_on_to_its_batch() -> None:
    pool = pa.default_memory_pool()
    decoder = JsonFormat().decoder(pa.schema([("id", pa.int64())]))
    batch = make_batch(make_records([b'{"id":1,"id":2}', b"no json", *[b'{"id":1,"z":"%s"}' % (b"x" * 500)] * 2_000]))
    gc.collect()
    gc.disable()
    try:
        before = pool.bytes_allocated()
        decoded = decoder.decode(batch)
        assert len(decoded.rejections) == 2
        del decoded
        assert pool.bytes_allocated() - before < 100_000
    finally:
        gc.enable()
