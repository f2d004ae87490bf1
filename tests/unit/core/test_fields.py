from collections.abc import Mapping

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.core.fields import FAIR_ROWS, MAX_NAMES, MORE, ColumnWatch, UnknownFields, case_twins, mismatch, nearest
from batcher.records import Partition, UnknownField
from batcher.testing.values import make_batch, make_records

BATCH = make_batch(make_records(["{}"] * 9, partition=Partition("events", 3), first_offset=100))
POINT = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])
SCHEMA = pa.schema([("id", pa.int64()), ("at", POINT), ("lines", pa.list_(pa.struct([("sku", pa.string())])))])


def table(*rows: Mapping[str, object], schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema)


def test_an_unknown_field_is_named_once_with_the_first_record_that_had_it() -> None:
    unknown = UnknownFields("table", ())
    with capture_logs() as lines:
        for _ in range(2):
            unknown.name(BATCH, [UnknownField("city", 4, 2)], estimated=False)

    [line] = lines
    assert (line["event"], line["log_level"]) == ("unknown_field", "warning")
    where = (line["field"], line["topic"], line["partition"], line["offset"], line["records"])
    assert where == ("city", "events", 3, 102, 4)
    assert "--decode.on-unknown" in line["hint"]


def test_a_field_that_is_named_like_a_coordinate_is_said_to_be_one() -> None:
    with capture_logs() as lines:
        UnknownFields("table", ("_offset",)).name(BATCH, [UnknownField("_offset", 4, 2)], estimated=True)

    assert "where the record stood" in lines[0]["hint"]
    assert lines[0]["estimated"] is True


def test_fields_beyond_the_bound_are_counted_together_and_said_once() -> None:
    unknown = UnknownFields("table", ())
    found = [UnknownField(f"key{number}", 2, 0) for number in range(MAX_NAMES + 5)]
    with capture_logs() as lines:
        for _ in range(2):
            unknown.name(BATCH, found, estimated=False)

    assert [line["event"] for line in lines] == ["unknown_field"] * MAX_NAMES + ["unknown_fields_unnamed"]
    counted = unknown.counted(found)
    assert (len(counted), counted[MORE]) == (MAX_NAMES + 1, 10)


def test_a_column_without_a_value_is_named_once_after_enough_rows_with_the_nearest_field() -> None:
    watch = ColumnWatch("table", pa.schema([("Id", pa.int64()), ("type", pa.string())]))
    row = {"type": "a"}
    with capture_logs() as lines:
        watch.observe(table(*[row] * (FAIR_ROWS - 1), schema=watch_schema()))
        watch.tell(["id"])
        assert lines == []
        watch.observe(table(row, schema=watch_schema()))
        watch.tell(["id"])
        watch.tell(["id"], last=True)

    [line] = lines
    assert (line["event"], line["column"]) == ("column_without_value", "Id")
    assert line["hint"] == "no record has it; did you mean `id`?"
    assert list(watch.without_value) == ["Id"]


def watch_schema() -> pa.Schema:
    return pa.schema([("Id", pa.int64()), ("type", pa.string())])


def test_a_column_without_a_value_is_named_at_the_end_at_the_latest() -> None:
    watch = ColumnWatch("table", watch_schema())
    watch.observe(table({"type": "a"}, schema=watch_schema()))
    with capture_logs() as lines:
        watch.tell([], last=True)
    assert [line["hint"] for line in lines] == ["no record has it"]


def test_parts_of_structs_and_of_lists_are_columns_too() -> None:
    watch = ColumnWatch("table", SCHEMA)
    watch.observe(table({"id": 1, "at": {"lat": 1.0, "lon": None}, "lines": [{"sku": None}]}))
    assert list(watch.without_value) == ["at.lon", "lines[].sku"]
    watch.observe(table({"id": 1, "at": {"lat": 1.0, "lon": 2.0}, "lines": [{"sku": "a"}]}))
    assert list(watch.without_value) == []


def test_of_a_struct_without_a_value_only_the_whole_is_named_and_an_empty_list_is_no_fault() -> None:
    watch = ColumnWatch("table", SCHEMA)
    watch.observe(table({"id": 1, "at": None, "lines": []}))
    assert list(watch.without_value) == ["at"]


def test_a_column_whose_field_had_no_value_yet_is_not_named() -> None:
    schema = pa.schema([("before", pa.null()), ("id", pa.int64())])
    watch = ColumnWatch("table", schema)
    watch.observe(table({"id": 1}, schema=schema))
    assert list(watch.without_value) == []
    assert watch.matched


def test_no_column_matched_is_known_from_the_first_row_on() -> None:
    watch = ColumnWatch("table", SCHEMA)
    found = [watch.matched]
    for row in ({}, {"id": 1}):
        watch.observe(table(row))
        found.append(watch.matched)
    assert found == [True, False, True]


@pytest.mark.parametrize(
    ("column", "fields", "found"),
    [
        ("Id", ["kind", "id"], "id"),
        ("created_at", ["updatedAt", "createdAt"], "createdAt"),
        ("user_id", ["user.name", "user.id"], "user.id"),
        ("city", ["address.street", "address.city"], "address.city"),
        ("sku", ["lines[].sku"], "lines[].sku"),
        ("custmer", ["customer", "id"], "customer"),
        ("weight", ["id", "kind"], None),
    ],
)
def test_the_nearest_field_is_found(column: str, fields: list[str], found: str | None) -> None:
    assert nearest(column, fields) == found


def test_the_message_for_a_table_nothing_matches_names_columns_fields_and_the_way_out() -> None:
    text = mismatch("table events", ["Id", "Created_At"], ["id", "created_at", "type"])
    assert "Id, Created_At" in text
    assert "`id` for `Id`" in text
    assert "--decode.match insensitive" in text
    assert "--decode.match" not in mismatch("table events", ["Id"], ["name"])


def test_columns_that_differ_in_nothing_but_case_are_found() -> None:
    schema = pa.schema([("userId", pa.int64()), ("userid", pa.int64()), ("id", pa.int64())])
    assert case_twins(schema) == [("userId", "userid")]
