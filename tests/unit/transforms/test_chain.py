"""Transforms one behind the other."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from batcher.protocols.transform import ROW, Transformed
from batcher.records import COORDINATES, Rejection
from batcher.testing.transforms import ScriptedTransform
from batcher.transforms.chain import ChainedTransform
from batcher.transforms.python import PythonTransform
from batcher.transforms.search import search
from batcher.transforms.sql.transform import SqlTransform

GIVEN = pa.schema([("id", pa.int64()), ("name", pa.string())])


def rows_of(count: int, *more: pa.Field) -> pa.RecordBatch:
    schema = pa.schema([*GIVEN, *more, pa.field(ROW, pa.int64())])
    rows = [{"id": n, "name": f"n{n}", "_offset": 100 + n, "_topic": "t", ROW: n} for n in range(count)]
    return pa.RecordBatch.from_pylist(rows, schema)


def test_each_works_on_what_the_one_before_it_made() -> None:
    def last(rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows.filter(pc.less(rows.column("twice"), 14))

    chain = ChainedTransform([SqlTransform("id * 2 AS twice, name", "id % 2 = 1"), PythonTransform(last, "hooks:last")])
    assert chain.name == "--transform.select and --transform.where then hooks:last"
    plan = chain.plan(GIVEN)
    assert plan.output.names == ["twice", "name"]
    found = search(plan, rows_of(10), name=chain.name, where="here", most=10)
    assert found.table.to_pylist() == [{"twice": 2 * n, "name": f"n{n}"} for n in (1, 3, 5)]
    assert found.rows.to_pylist() == [1, 3, 5]


def test_rejections_and_skips_of_all_are_kept_and_a_failing_row_is_found_in_any() -> None:
    def refusing(rows: pa.RecordBatch) -> Transformed:
        numbers = rows.column(ROW).to_pylist()
        kept = rows.filter(pc.greater(rows.column("id"), 1))
        return Transformed(
            kept, [Rejection(n, "no_key", "has no key") for n in numbers if n == 0], [n for n in numbers if n == 1]
        )

    def failing(rows: pa.RecordBatch) -> pa.RecordBatch:
        if 5 in rows.column("id").to_pylist():
            raise ValueError
        return rows

    chain = ChainedTransform([ScriptedTransform(refusing), PythonTransform(failing, "hooks:f")])
    found = search(chain.plan(GIVEN), rows_of(8), name=chain.name, where="here", most=100)
    assert found.rows.to_pylist() == [2, 3, 4, 6, 7]
    assert [(one.position, one.reason) for one in found.rejections] == [(0, "no_key"), (5, "transform")]
    assert found.skipped.to_pylist() == [1]


def test_each_gets_the_coordinates_that_it_asked_for() -> None:
    def placed(rows: pa.RecordBatch, coordinates: pa.RecordBatch) -> pa.RecordBatch:
        assert rows.schema.names == ["at", ROW]
        return rows.append_column("same", pc.equal(rows.column("at"), coordinates.column("_offset")))

    chain = ChainedTransform([SqlTransform('_offset AS "at"', "id > 3"), PythonTransform(placed, "hooks:placed")])
    assert set(chain.coordinates) == {*COORDINATES.names} - {"_value"}
    plan = chain.plan(GIVEN)
    fields = [field for field in COORDINATES if field.name != "_value"]
    found = search(plan, rows_of(6, *fields), name=chain.name, where="here", most=10)
    assert found.table.to_pylist() == [{"at": 104, "same": True}, {"at": 105, "same": True}]


def test_nothing_left_is_nothing_for_the_next() -> None:
    def picky(rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows

    chain = ChainedTransform([SqlTransform(None, "id > 99"), PythonTransform(picky, "hooks:picky")])
    found = search(chain.plan(GIVEN), rows_of(3), name=chain.name, where="here", most=10)
    assert found.table.num_rows == 0
    assert found.table.schema == GIVEN


def test_a_type_that_is_not_known_behind_one_is_not_known_behind_the_next() -> None:
    given = pa.schema([("id", pa.int64()), ("n", pa.null())])
    chain = ChainedTransform(
        [SqlTransform("id, n * 2 AS twice", None), PythonTransform(lambda rows: rows, "hooks:same")]
    )
    assert chain.plan(given).proposed == pa.schema([("id", pa.int64()), ("twice", pa.null())])
