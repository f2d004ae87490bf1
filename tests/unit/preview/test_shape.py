"""What records are like, and the columns for them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from batcher.formats.json.format import JsonFormat
from batcher.preview.report import facts, lines
from batcher.preview.sample import Sample
from batcher.preview.shape import Shape, shape_of
from batcher.records import Partition
from batcher.testing.values import make_records

A, B = Partition("orders", 0), Partition("orders", 1)


def sample(*documents: Any) -> Sample:
    """Return documents in two partitions, the second half in the first one."""
    texts = [one if isinstance(one, str | None) else json.dumps(one) for one in documents]
    middle = len(texts) // 2
    runs = [make_records(texts[:middle], partition=B), make_records(texts[middle:], partition=A)]
    return Sample(tuple(run for run in runs if len(run)), {A: 70, B: 30})


def shape(*documents: Any) -> Shape:
    found = shape_of(sample(*documents), JsonFormat())
    assert found is not None
    return found


def test_a_column_is_nullable_where_a_record_lacks_it_and_only_there() -> None:
    found = shape({"id": 1, "city": "Rome"}, {"id": 2}, {"id": 3, "city": None, "never": None})

    assert found.schema.field("id") == pa.field("id", pa.int64(), nullable=False)
    assert found.schema.field("city") == pa.field("city", pa.string())
    assert found.columns.names == ["id", "city"]
    assert found.proposal(("id",)).distinct == {"id": 3, "city": 1}


def test_records_that_cannot_be_read_are_counted_by_reason() -> None:
    found = shape({"id": 1}, "nonsense", None, "[1]", {"id": 2})

    assert (found.looked_at, found.log_offsets, found.rows, found.skipped) == (5, 100, 2, 1)
    assert found.rejected == {"syntax": 1, "not_object": 1}


def test_where_no_record_can_be_read_there_is_no_shape() -> None:
    assert shape_of(sample("nonsense", None), JsonFormat()) is None
    assert shape_of(Sample((), {}), JsonFormat()) is None


def test_a_report_shows_fields_and_nothing_of_their_values() -> None:
    found = shape({"name": "Anna", "at": "2026-01-31T12:00:00Z"}, {"name": "Ben"}, "secret {", None)

    text = "\n".join(lines(found))
    assert text.splitlines() == [
        "orders: 4 of 100 records looked at; 1 cannot be read (1 syntax); 1 have no value",
        "",
        "field  type                   with a value  different  like",
        "name   string                 100%          2          xxxx",
        "at     timestamp[us, tz=UTC]  50%           1          9999-99-99 99:99:99+99:99",
    ]
    told = json.dumps(facts(found))
    assert all(value not in text + told for value in ("Anna", "Ben", "2026", "secret"))
    assert json.loads(told)["fields"][0]["distinct"] == 2


def test_fields_of_several_types_are_named_as_the_flag_wants_them() -> None:
    found = shape({"a": 1, "o": {"l": [{"v": 1}]}}, {"a": {"x": 1}, "o": {"l": [{"v": "one"}, {"v": True}]}})

    assert found.mixed == ("a", "o.l.v")
    assert "values of several types: give --decode.text a,o.l.v to load them as JSON text" in lines(found)
