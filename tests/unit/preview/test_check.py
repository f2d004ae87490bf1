"""What would become of records in a target."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from batcher.core.buffer import FlushPolicy
from batcher.formats.json.format import JsonFormat
from batcher.formats.json.limits import JsonOptions
from batcher.preview.check import Fit, Refuse, facts, fit_of, lines, size_of
from batcher.preview.sample import Sample
from batcher.protocols import SinkInfo
from batcher.records import Partition, Rejection
from batcher.testing.values import make_records

A, B = Partition("orders", 0), Partition("orders", 1)
SCHEMA = pa.schema([pa.field("id", pa.int8(), nullable=False), ("city", pa.string())])
FLUSH = FlushPolicy(1000, 1 << 20, 2.0)


def sample(*documents: Any) -> Sample:
    texts = [one if isinstance(one, str | None) else json.dumps(one) for one in documents]
    return Sample((make_records(texts, partition=A, first_offset=40),), {A: 900})


def fit(*documents: Any, refuse: Refuse | None = None, on_unknown: str = "warn") -> Fit:
    info = SinkInfo("memory", SCHEMA, ("_partition", "_offset"), "token", "it knows tokens")
    format_ = JsonFormat(JsonOptions(on_unknown=on_unknown))  # type: ignore[arg-type]
    return fit_of(sample(*documents), format_, info, SCHEMA, flush=FLUSH, refuse=refuse)


def test_records_that_fit_whole_are_said_to() -> None:
    found = fit({"id": 1, "city": "Rome"}, {"id": 2}, None)

    assert found.whole
    assert (found.rows, found.skipped, found.looked_at, found.log_offsets) == (2, 1, 3, 900)
    assert next(iter(lines(found))) == (
        "memory: of 3 records (900 in the log) 2 fit, 1 have no value and would be skipped"
    )


def test_refusals_are_counted_by_reason_and_field_with_the_place_of_the_first() -> None:
    found = fit({"id": 1}, {"id": 300}, {"id": 4000}, {"city": "Rome"}, "nonsense")

    assert not found.whole
    assert [(one.reason, one.records, one.first) for one in found.refusals] == [
        ("overflow", 2, "orders[0] 41"),
        ("missing", 1, "orders[0] 43"),
        ("syntax", 1, "orders[0] 44"),
    ]
    text = "\n".join(lines(found))
    assert "300" not in text
    assert "nonsense" not in text


def test_what_the_sink_would_refuse_is_refused_too_and_sees_the_columns_of_a_block() -> None:
    seen: list[pa.RecordBatch] = []

    def refuse(rows: pa.RecordBatch) -> Sequence[Rejection]:
        seen.append(rows)
        return [Rejection(1, "range", "field id: is outside the range", "id")]

    found = fit("nonsense", {"id": 1}, {"id": 2}, refuse=refuse)

    assert seen[0].schema.names == ["id", "city", "_partition", "_offset"]
    assert found.rows == 1
    assert [(one.reason, one.first) for one in found.refusals] == [
        ("syntax", "orders[0] 40"),
        ("range", "orders[0] 42"),
    ]


def test_fields_without_a_column_and_columns_without_a_field_are_named() -> None:
    found = fit({"id": 1, "extra": 5}, {"id": 2, "extra": 6, "more": {"x": 1}})

    assert not found.whole
    assert found.unknown == (("extra", 2), ("more", 1))
    assert found.empty_columns == ("city",)
    told = json.loads(json.dumps(facts(found)))
    assert (told["unknown_fields"], told["empty_columns"]) == ({"extra": 2, "more": 1}, ["city"])


def test_fields_that_nobody_wants_to_know_of_do_not_count() -> None:
    assert fit({"id": 1, "extra": 5}, on_unknown="ignore").whole


@pytest.mark.parametrize(
    ("per_second", "mixes", "trigger", "rows"),
    [(10, True, "time", 40), (10, False, "time", 20), (5000, True, "rows", 1000)],
)
def test_the_size_of_batches_follows_from_the_times_of_the_newest_records(
    per_second: int, mixes: bool, trigger: str, rows: int
) -> None:
    count = per_second * 2 + 1
    times = pa.array([row * 1000 // per_second for row in range(count)], pa.int64())
    runs = [replace(make_records(["1"] * count, partition=one), timestamps_ms=times) for one in (A, B)]
    size = size_of(Sample(tuple(runs), {A: 1, B: 1}), FLUSH, mixes=mixes)

    assert size is not None
    assert (size.trigger, size.rows) == (trigger, rows)
    assert size.records_per_second == pytest.approx(2 * per_second)


def test_records_that_came_all_at_once_say_nothing_about_batches() -> None:
    assert size_of(sample({"id": 1}, {"id": 2}), FLUSH, mixes=True) is None
