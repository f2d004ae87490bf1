"""Odd records are found and settled by themselves; the others are read as if they were not there."""

from __future__ import annotations

import gc
import json
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.json import strict
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
