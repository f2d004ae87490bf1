"""The laws that every transform keeps, as tests to inherit: `class TestMine(TransformLaws)` with a fixture `case`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from batcher.protocols.transform import ROW, Transform
from batcher.records import COORDINATES
from batcher.transforms.search import FoundRows, search

_FIRST = 1000
"""The `_row` of the first row: no transform may take it for a place in its batch."""


@dataclass(frozen=True, slots=True)
class TransformCase:
    """Hold a transform and rows that it is given: some should stay, and some be filtered, refused or skipped."""

    transform: Transform
    given: pa.Schema
    rows: list[dict[str, Any]]


def rows_of(case: TransformCase, numbers: list[int]) -> pa.RecordBatch:
    """Return some of the rows of a case, with coordinates and `_row`, which counts up from `_FIRST`."""
    schema = pa.schema(
        [*case.given, *(COORDINATES.field(name) for name in case.transform.coordinates), pa.field(ROW, pa.int64())]
    )
    places = {"_topic": "events", "_partition": 0, "_timestamp": 0, "_key": b"k", "_value": b"v"}
    rows = [{**places, "_offset": 7 * number, **case.rows[number]} for number in numbers]
    values = [{**row, ROW: _FIRST + place} for place, row in enumerate(rows)]
    return pa.RecordBatch.from_pylist(values, schema=schema)


def outcome(case: TransformCase, numbers: list[int]) -> tuple[FoundRows, dict[int, Any]]:
    """Return what becomes of some rows, checked, and the result of each by its number in the case."""
    plan = case.transform.plan(case.given)
    found = search(plan, rows_of(case, numbers), name=case.transform.name, where="here", most=10_000)
    assert found.table.schema.equals(plan.output)
    found.table.validate(full=True)
    results: dict[int, Any] = {}
    for row, values in zip(found.rows.to_pylist(), found.table.to_pylist(), strict=True):
        results[numbers[row - _FIRST]] = values
    for one in found.rejections:
        results[numbers[one.position - _FIRST]] = (one.reason, one.message, one.path)
    for row in found.skipped.to_pylist():
        results[numbers[row - _FIRST]] = "skipped"
    return found, results


class TransformLaws:
    """Hold a transform to the laws. A suite inherits from it and has a fixture `case`, a `TransformCase`."""

    def test_each_row_has_at_most_one_result(self, case: TransformCase) -> None:
        found, results = outcome(case, list(range(len(case.rows))))
        assert len(results) == len(found.rows) + len(found.rejections) + len(found.skipped)
        assert found.table.num_rows == len(found.rows)
        assert results, "give the case a row that stays, is refused or is skipped"

    def test_a_row_fares_the_same_alone_and_among_others(self, case: TransformCase) -> None:
        _, whole = outcome(case, list(range(len(case.rows))))
        for number in range(len(case.rows)):
            _, alone = outcome(case, [number])
            assert alone.get(number) == whole.get(number)

    def test_the_order_of_rows_changes_nothing(self, case: TransformCase) -> None:
        numbers = list(range(len(case.rows)))
        assert outcome(case, numbers)[1] == outcome(case, numbers[::-1])[1]

    def test_the_same_rows_give_the_same_again(self, case: TransformCase) -> None:
        numbers = list(range(len(case.rows)))
        plan = case.transform.plan(case.given)
        first, again = (
            search(plan, rows_of(case, numbers), name=case.transform.name, where="here", most=10_000) for _ in range(2)
        )
        assert first.table.equals(again.table)
        assert (first.rows, first.rejections, first.skipped) == (again.rows, again.rejections, again.skipped)

    def test_a_slice_of_rows_fares_as_the_rows(self, case: TransformCase) -> None:
        numbers = list(range(len(case.rows)))
        plan = case.transform.plan(case.given)
        rows = rows_of(case, numbers)
        whole = search(plan, rows, name=case.transform.name, where="here", most=10_000)
        part = search(plan, rows.slice(1), name=case.transform.name, where="here", most=10_000)
        assert part.rows.to_pylist() == [row for row in whole.rows.to_pylist() if row > _FIRST]

    def test_a_rejection_has_a_word_and_a_line_without_the_value(self, case: TransformCase) -> None:
        found, _ = outcome(case, list(range(len(case.rows))))
        texts = {value for row in case.rows for value in row.values() if isinstance(value, str) and len(value) > 3}
        for one in found.rejections:
            assert one.reason.replace("_", "").isalpha()
            assert one.message.isprintable()
            assert not [text for text in texts if text in one.message]

    def test_the_columns_do_not_hang_on_the_rows(self, case: TransformCase) -> None:
        first, again = (case.transform.plan(case.given) for _ in range(2))
        assert first.output.equals(again.output)
        assert first.proposed.names == first.output.names
        assert ROW not in first.output.names

    def test_a_stated_schema_is_what_it_is_given(self, case: TransformCase) -> None:
        if case.transform.input(None, case.given) is None:
            pytest.fail("where a schema is stated the input is known")
