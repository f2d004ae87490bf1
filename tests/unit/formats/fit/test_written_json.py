"""What a writer has as JSON text, such as a union of several types, is not taken for a text."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batcher.formats.fit import fit
from batcher.formats.writer_schema import SchemaKey
from batcher.records import RAW_JSON

JSON = {RAW_JSON: b"1"}
TEXTS = ['"a\\u00e9"', "7", '{"x": "y"}', None, '""']


def either(name: str = "e") -> pa.Field:
    return pa.field(name, pa.string(), metadata=JSON)


def fitted(written: pa.Field, values: list[object], column: pa.Field) -> list[object]:
    table = pa.Table.from_arrays([pa.array(values, written.type)], schema=pa.schema([written]))
    found = fit(table, pa.schema([column]), key=SchemaKey(7))
    assert found.rejections == ()
    texts: list[object] = found.table[0].to_pylist()
    return texts


def test_a_column_of_json_gets_it_as_it_is() -> None:
    assert fitted(either(), list(TEXTS), either()) == TEXTS


def test_a_column_of_text_gets_strings_without_their_quotes_and_everything_else_as_json() -> None:
    assert fitted(either(), list(TEXTS), pa.field("e", pa.string())) == ["aé", "7", '{"x": "y"}', None, ""]


def test_a_column_of_another_type_takes_none_of_it() -> None:
    table = pa.Table.from_arrays([pa.array(["7"])], schema=pa.schema([either()]))
    found = fit(table, pa.schema([("e", pa.int64())]), key=SchemaKey(7))

    assert [one.reason for one in found.rejections] == ["type"]


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (pa.struct([either("x")]), {"x": '"a"'}, '{"x":"a"}'),
        (pa.list_(either("item")), ['"a"', "7", None], '["a",7,null]'),
    ],
)
def test_inside_of_an_object_that_becomes_text_it_is_not_quoted_again(
    kind: pa.DataType, value: object, text: str
) -> None:
    assert fitted(pa.field("e", kind), [value], pa.field("e", pa.string())) == [text]


def test_inside_of_lists_and_objects_it_is_fitted_as_outside() -> None:
    written = pa.field("e", pa.list_(pa.struct([either("x")])))
    column = pa.field("e", pa.list_(pa.struct([("x", pa.string())])))

    assert fitted(written, [[{"x": '"a"'}, {"x": "7"}]], column) == [[{"x": "a"}, {"x": "7"}]]


def test_values_of_a_map_are_not_quoted_again() -> None:
    kind = pa.map_(pa.string(), either("value"))
    # `pa.array` would drop the metadata of the values.
    column = pa.MapArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["k"]), pa.array(["true"]), type=kind)
    table = pa.Table.from_arrays([column], schema=pa.schema([pa.field("e", kind)]))
    found = fit(table, pa.schema([("e", pa.string())]), key=SchemaKey(7))

    assert found.table[0].to_pylist() == ['{"k":true}']
