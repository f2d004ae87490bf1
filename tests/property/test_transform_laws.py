"""A record's outcome behind a transform: the same alone, in any batch, and whatever fails beside it."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.formats.json.format import JsonFormat
from batcher.protocols import Transform
from batcher.records import Batch, Decoded, Partition, Records
from batcher.testing.contract.format import check_places
from batcher.testing.values import make_records
from batcher.transforms.format import TransformedFormat
from batcher.transforms.python import PythonTransform

pytest.importorskip("duckdb", reason="needs the extra [sql]")

from batcher.transforms.sql.transform import SqlTransform

INPUT = pa.schema([("id", pa.int64()), ("text", pa.string()), ("x", pa.float64())])
TARGET = pa.schema([pa.field("id", pa.int16(), nullable=False), ("n", pa.int64()), ("x", pa.float64())])


def hook(rows: pa.RecordBatch) -> pa.RecordBatch:
    kept = rows.filter(pc.fill_null(pc.greater(rows.column("x"), 0), True))
    return kept.set_column(1, "n", kept.column("text").cast(pa.int64()))


TRANSFORMS: dict[str, Transform] = {
    "sql": SqlTransform("id, CAST(text AS BIGINT) AS n, x", "x > 0 OR x IS NULL"),
    "python": PythonTransform(hook, "hooks:hook"),
}

ids = st.one_of(st.none(), st.integers(-70_000, 70_000), st.text(max_size=2))
texts = st.one_of(st.none(), st.integers(-9, 99).map(str), st.sampled_from(["", "x", "1e3", " 7", "9" * 30]))
rows = st.fixed_dictionaries(
    {}, optional={"id": ids, "text": texts, "x": st.one_of(st.none(), st.floats(-2, 2)), "more": st.just(1)}
).map(lambda row: json.dumps(row).encode())
values = st.one_of(rows, rows, rows, st.none(), st.just(b"{"), st.just(b"[]"))


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=1, max_size=40), st.data())
def test_a_record_fares_the_same_alone_and_in_any_batch(
    name: str, raw: list[bytes | None], data: st.DataObject
) -> None:
    decoder = TransformedFormat(JsonFormat(), TRANSFORMS[name], stated=INPUT).decoder(TARGET)

    def decoded(some: list[int]) -> dict[int, Any]:
        batch = Batch(tuple(_runs(raw, some, cut)), "rows")
        found = decoder.decode(batch)
        check_places(found, decoder, batch)
        return {some[place]: result for place, result in _results(found).items()}

    everything = list(range(len(raw)))
    cut = data.draw(st.integers(0, len(raw)))
    whole = decoded(everything)
    some = data.draw(st.lists(st.sampled_from(everything), min_size=1, max_size=8, unique=True))
    assert decoded(some) == {place: whole[place] for place in some}
    for place in some:
        assert decoded([place]) == {place: whole[place]}


def _runs(raw: list[bytes | None], some: list[int], cut: int) -> list[Records]:
    """Return records in up to two runs, of partitions of one topic."""
    parts = [part for part in (some[:cut], some[cut:]) if part]
    return [
        make_records([raw[place] for place in part], partition=Partition("t", number))
        for number, part in enumerate(parts)
    ]


def _results(found: Decoded) -> dict[int, Any]:
    results: dict[int, Any] = dict.fromkeys(found.skipped.to_pylist(), "skipped")
    results |= dict.fromkeys(found.filtered.to_pylist(), "filtered")
    results |= dict(zip(found.positions.to_pylist(), found.table.to_pylist(), strict=True))
    return results | {one.position: (one.reason, one.message, one.path) for one in found.rejections}
