"""What is said about fields: enough to make a table, and nothing of a value."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batcher.preview.fields import EXAMPLE_LENGTH, masked, profiles


def test_values_and_different_values_are_counted() -> None:
    table = pa.table({"n": [1, None, 1, 2], "never": pa.nulls(4), "tags": [["a"], None, [], ["b"]]})

    assert [(one.path, one.rows, one.values, one.distinct) for one in profiles(table)] == [
        ("n", 4, 3, 2),
        ("never", 4, 0, None),
        ("tags", 4, 3, None),
    ]


def test_fields_of_an_object_are_counted_among_the_records_that_have_the_object() -> None:
    table = pa.table({"o": [{"x": 1, "y": None}, None, {"x": 1, "y": {"z": "b"}}]})

    assert [(one.path, one.rows, one.values, one.distinct) for one in profiles(table)] == [
        ("o", 3, 2, None),
        ("o.x", 2, 2, 1),
        ("o.y", 2, 1, None),
        ("o.y.z", 1, 1, 1),
    ]


def test_chunks_and_an_empty_table_are_taken() -> None:
    chunked = pa.chunked_array([[1], [1, 2]])

    assert profiles(pa.table({"n": chunked}))[0].distinct == 2
    assert profiles(pa.table({"n": pa.chunked_array([], pa.int64())}))[0].values == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("Anna.Meier@example.org", "xxxx.xxxxx@xxxxxxx.xxx"),
        ("ключ-7", "xxxx-9"),
        (-12.5, "-99.9"),
        (b"\xff\x00abc", "�?xxx"),
        ("a\x1b[31m\n", "x?[99x?"),
        ("y" * 100, "x" * (EXAMPLE_LENGTH - 1) + "…"),
    ],
)
def test_an_example_shows_nothing_of_the_value(value: object, shown: str) -> None:
    assert masked(value) == shown
