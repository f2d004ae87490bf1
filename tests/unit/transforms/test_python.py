"""A function of the user's own as a transform."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batcher.errors import ConfigurationError
from batcher.protocols.transform import ROW
from batcher.records import COORDINATES
from batcher.transforms.python import PythonTransform
from batcher.transforms.search import FoundRows, search

GIVEN = pa.schema([("id", pa.int64()), ("name", pa.string())])


def made(function: Any, rows: list[dict[str, Any]], schema: pa.Schema = GIVEN) -> FoundRows:
    transform = PythonTransform(function, "--transform.python hooks:f")
    plan = transform.plan(schema)
    given = pa.RecordBatch.from_pylist(
        [{**row, ROW: n} for n, row in enumerate(rows)],
        pa.schema([*schema, *(field for field in PLACES if field.name in transform.coordinates), (ROW, pa.int64())]),
    )
    return search(plan, given, name=transform.name, where="here", most=1000)


PLACES = pa.schema([field for field in COORDINATES if field.name != "_value"])


def test_a_function_gets_rows_and_returns_rows() -> None:
    def mask(rows: pa.RecordBatch) -> pa.RecordBatch:
        kept = rows.filter(pc.greater(rows.column("id"), 1))
        return kept.set_column(1, "name", pc.utf8_slice_codeunits(kept.column("name"), 0, 1))

    found = made(mask, [{"id": n, "name": f"n{n}"} for n in range(4)])
    assert found.table.to_pylist() == [{"id": 2, "name": "n"}, {"id": 3, "name": "n"}]
    assert found.rows.to_pylist() == [2, 3]


def test_a_table_is_as_good_and_the_order_of_columns_and_rows_is_free() -> None:
    def turned(rows: pa.RecordBatch) -> pa.Table:
        table = pa.Table.from_batches([rows.select([ROW, "name", "id"])])
        return table.take(pa.array(list(range(table.num_rows))[::-1], pa.int64()))

    found = made(turned, [{"id": n} for n in range(3)])
    assert found.table.schema.names == ["name", "id"]
    assert found.table["id"].to_pylist() == [0, 1, 2]


def test_a_function_with_a_parameter_of_that_name_gets_the_coordinates() -> None:
    def placed(rows: pa.RecordBatch, coordinates: pa.RecordBatch) -> pa.RecordBatch:
        assert coordinates.schema.names == PLACES.names
        assert rows.schema.names == ["id", "name", ROW]
        return rows.append_column("position", coordinates.column("_offset"))

    found = made(placed, [{"id": 1, "_topic": "t", "_partition": 0, "_offset": 7}])
    assert found.table.to_pylist() == [{"id": 1, "name": None, "position": 7}]


def test_what_a_function_raises_is_told_with_its_place_and_without_its_text() -> None:
    def failing(rows: pa.RecordBatch) -> pa.RecordBatch:
        if "bad" in rows.column("name").to_pylist():
            raise ValueError("a secret")
        return rows

    found = made(failing, [{"name": "good"}, {"name": "bad"}, {"name": "good"}])
    [one] = found.rejections
    assert (one.position, one.reason) == (1, "transform")
    assert one.message.startswith("--transform.python hooks:f: it raises ValueError (test_python.py line ")


def test_an_error_of_a_library_is_told_with_the_line_that_called_it() -> None:
    def casting(rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows.set_column(1, "name", rows.column("name").cast(pa.int64()))

    found = made(casting, [{"name": "1"}, {"name": "x"}])
    assert "it raises ArrowInvalid (test_python.py line " in found.rejections[0].message
    assert found.table["name"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda rows: rows.column("nosuch"), r"called with no rows of id, name it raises KeyError: .*nosuch"),
        (lambda rows: [1], "it returns list; a pyarrow.RecordBatch is due"),
        (lambda rows: rows.select(["id"]), "its result has to keep the column _row"),
        (lambda rows: rows.append_column("id", rows.column("id")), "its result has a column twice: id, name, id"),
    ],
)
def test_a_function_that_cannot_work_is_refused_before_the_first_row(function: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        PythonTransform(function, "--transform.python hooks:f").plan(GIVEN)
    assert str(caught.value).startswith("--transform.python hooks:f: ")
    assert "\n" not in str(caught.value)


def test_a_function_that_needs_more_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="it needs rows, columns"):
        PythonTransform(lambda rows, columns: rows, "--transform.python hooks:f")


def test_a_field_without_a_type_is_given_one_where_the_function_needs_it() -> None:
    given = pa.schema([("id", pa.int64()), ("n", pa.null()), ("deep", pa.list_(pa.struct([("x", pa.null())])))])

    def upper(rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows.append_column("up", pc.utf8_upper(rows.column("n")))

    plan = PythonTransform(upper, "p").plan(given)
    rows = pa.RecordBatch.from_pylist(
        [{"id": 1, "deep": [{"x": None}, None], ROW: 0}, {"id": 2, "deep": None, ROW: 1}],
        given.append(pa.field(ROW, pa.int64())),
    )
    found = search(plan, rows.slice(1), name="p", where="here", most=1)
    assert found.table.to_pylist() == [{"id": 2, "n": None, "deep": None, "up": None}]
    whole = search(plan, rows, name="p", where="here", most=1)
    assert whole.table["deep"].to_pylist() == [[{"x": None}, None], None]
    assert plan.output.field("up").type == pa.string()
    # Only text can be the type of the field, but it passes in this one as well.
    assert plan.proposed.field("id").type == pa.int64()


def test_a_type_that_hangs_on_a_field_without_one_is_not_proposed() -> None:
    given = pa.schema([("n", pa.null()), ("deep", pa.struct([("x", pa.null()), ("y", pa.int64())]))])
    plan = PythonTransform(lambda rows: rows, "p").plan(given)
    assert plan.proposed == given
