"""A format with a transform: every record in one place, whatever the transform does."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from structlog.testing import capture_logs

from batcher.errors import ConfigurationError
from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.protocols import Transformed
from batcher.records import PLACEHOLDER, Batch, Decoded, Partition, Rejection
from batcher.testing.contract.format import check_places
from batcher.testing.transforms import ScriptedTransform
from batcher.testing.values import make_batch, make_records
from batcher.transforms.format import TransformedFormat

TARGET = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])


def same(rows: pa.RecordBatch) -> Transformed:
    return Transformed(rows)


def even(rows: pa.RecordBatch) -> Transformed:
    return Transformed(rows.filter(pc.equal(pc.bit_wise_and(rows.column("id"), 1), 0)))


def strict(rows: pa.RecordBatch) -> Transformed:
    """Fail for ids that end in 7, without saying which."""
    if any(one is not None and one % 10 == 7 for one in rows.column("id").to_pylist()):
        raise ValueError("secret value")
    return Transformed(rows)


def sorting(rows: pa.RecordBatch) -> Transformed:
    """Refuse ids from 90 on, skip those below 3, and return the others upside down."""
    ids = rows.column("id").to_pylist()
    numbers = rows.column("_row").to_pylist()
    refused = [Rejection(row, "no_key", "has no key", "id") for row, one in zip(numbers, ids, strict=True) if one >= 90]
    skipped = [row for row, one in zip(numbers, ids, strict=True) if one < 3]
    rest = [n for n, one in enumerate(ids) if 3 <= one < 90]
    return Transformed(rows.take(pa.array(rest[::-1], pa.int64())), refused, skipped)


def made(apply: Any, **given: Any) -> TransformedFormat:
    options = given.pop("options", JsonOptions())
    most = given.pop("most", 1000)
    stated = given.pop("stated", None)
    transform = ScriptedTransform(apply, **given)
    return TransformedFormat(JsonFormat(options), transform, stated=stated, options=options, most=most)


def batch_of(rows: list[dict[str, Any] | bytes | None], topic: str = "events") -> Batch:
    values = [json.dumps(row).encode() if isinstance(row, dict) else row for row in rows]
    return make_batch(make_records(values, partition=Partition(topic, 0)))


def numbered(count: int) -> list[dict[str, Any] | bytes | None]:
    return [{"id": number, "name": f"n{number}"} for number in range(count)]


def decoded(form: TransformedFormat, batch: Batch, target: pa.Schema = TARGET) -> Decoded:
    decoder = form.decoder(target)
    found = decoder.decode(batch)
    check_places(found, decoder, batch)
    assert set(found.filtered.to_pylist()) <= set(found.skipped.to_pylist())
    return found


def test_rows_that_a_transform_leaves_out_are_filtered_and_part_of_the_skipped() -> None:
    found = decoded(made(even), batch_of([*numbered(5), None, b"junk", {"id": 8}]))
    assert found.table["id"].to_pylist() == [0, 2, 4, 8]
    assert found.positions.to_pylist() == [0, 2, 4, 7]
    assert found.filtered.to_pylist() == [1, 3]
    assert found.skipped.to_pylist() == [1, 3, 5]
    assert [(one.position, one.reason) for one in found.rejections] == [(6, "syntax")]


def test_rejections_and_skips_of_a_transform_are_those_of_their_records_and_order_is_kept() -> None:
    found = decoded(made(sorting), batch_of([b"junk", *numbered(95)]))
    assert found.table["id"].to_pylist() == list(range(3, 90))
    assert found.positions.to_pylist() == list(range(4, 91))
    assert found.skipped.to_pylist() == [1, 2, 3]
    assert not len(found.filtered)
    assert [(one.position, one.path) for one in found.rejections[1:]] == [(row, "id") for row in range(91, 96)]


def test_a_row_that_makes_a_transform_fail_is_found_by_halving_and_told_without_its_value() -> None:
    found = decoded(made(strict), batch_of(numbered(100)))
    assert [(one.position, one.reason) for one in found.rejections] == [(n, "transform") for n in range(7, 100, 10)]
    assert found.rejections[0].message == "scripted: it raises ValueError"
    assert len(found.positions) == 90


def test_a_record_fares_the_same_alone_and_among_others() -> None:
    batch = batch_of([*numbered(40), None, b"junk", {"id": "x"}, {"name": "n"}])
    form = made(strict)
    whole = decoded(form, batch)
    rows = dict(zip(whole.positions.to_pylist(), whole.table.to_pylist(), strict=True))
    refused = {one.position: one for one in whole.rejections}
    for position in range(batch.rows):
        alone = decoded(form, batch_of([batch.record(position).value]))
        assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
        expected = [(refused[position].reason, refused[position].message)] if position in refused else []
        assert [(one.reason, one.message) for one in alone.rejections] == expected


def test_attempts_at_finding_rows_that_fail_end_and_stop_the_pipeline() -> None:
    with pytest.raises(ConfigurationError, match=r"scripted fails for records of events\[0\] 0-99 .* 10 attempts"):
        made(strict, most=10).decoder(TARGET).decode(batch_of(numbered(100)))


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda rows: Transformed(rows.drop_columns(["_row"])), "keep the column _row"),
        (
            lambda rows: Transformed(pa.concat_batches([rows, rows]) if rows.num_rows else rows),
            "has a row twice",
        ),
        (
            lambda rows: Transformed(rows.set_column(2, "_row", pc.add(rows.column("_row"), 1))),
            "a row that it was not given",
        ),
        (
            lambda rows: Transformed(rows, skipped=rows.column("_row").to_pylist()[:1]),
            "has a row twice",
        ),
        (
            lambda rows: Transformed(rows.append_column("more", rows.column("id")) if rows.num_rows else rows),
            "has the columns id, name, more; for no rows it had id, name",
        ),
        (
            lambda rows: Transformed(rows.set_column(0, "id", rows.column("name")) if rows.num_rows else rows),
            "column id is string; for no rows it was int64",
        ),
    ],
)
def test_a_transform_that_breaks_its_word_stops_the_pipeline(apply: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        made(apply).decoder(TARGET).decode(batch_of(numbered(4)))
    assert str(caught.value).startswith("scripted: ")


def test_a_column_without_any_value_may_have_no_type() -> None:
    def nulls(rows: pa.RecordBatch) -> Transformed:
        return Transformed(rows.set_column(1, "name", pa.nulls(rows.num_rows)) if rows.num_rows else rows)

    assert decoded(made(nulls), batch_of(numbered(2))).table["name"].to_pylist() == [None, None]


def test_a_field_that_the_input_does_not_know_is_told_and_one_that_the_transform_drops_is_not() -> None:
    def names(rows: pa.RecordBatch) -> Transformed:
        return Transformed(rows.select(["id", "_row"]))

    form = made(names)
    assert not decoded(form, batch_of(numbered(2))).unknown
    later = decoded(form, batch_of([{"id": 1, "name": "x", "new": 5}]))
    assert [(one.path, one.records, one.position) for one in later.unknown] == [("new", 1, 0)]


def test_a_field_that_no_column_takes_is_told_by_its_position() -> None:
    found = decoded(made(even), batch_of([{"id": 1, "extra": 1}, None, {"id": 2}, {"id": 4, "extra": 1}]))
    assert [(one.path, one.records, one.position) for one in found.unknown] == [("extra", 1, 3)]


def test_a_value_that_does_not_fit_the_target_after_the_transform_refuses_its_record() -> None:
    def text(rows: pa.RecordBatch) -> Transformed:
        return Transformed(rows.set_column(0, "id", rows.column("id").cast(pa.string())))

    target = pa.schema([("id", pa.string()), pa.field("name", pa.string(), nullable=False)])
    found = decoded(made(text), batch_of([*numbered(2), {"id": 3}]), target)
    assert [(one.position, one.reason, one.path) for one in found.rejections] == [(2, "null", "name")]


def test_the_input_of_the_first_batch_holds_and_is_said_once() -> None:
    form = made(same)
    with capture_logs() as logs:
        decoded(form, batch_of(numbered(2)))
        found = decoded(form, batch_of([{"id": "not a number"}]))
    assert [one.reason for one in found.rejections] == ["type"]
    [line] = [one for one in logs if one["event"] == "transform_input_inferred"]
    assert line["columns"] == ["id: int64", "name: string"]
    assert "--decode.schema" in line["hint"]


def test_a_stated_schema_is_the_input() -> None:
    stated = pa.schema([("id", pa.int64()), ("name", pa.string()), ("at", pa.timestamp("ms", "UTC"))])
    form = made(same, stated=stated)
    with capture_logs() as logs:
        assert form.infer(batch_of([b"junk"])) == stated
        found = decoded(form, batch_of([{"id": 1, "at": "2024-05-06T12:00:00Z"}]), stated)
    assert found.table["at"][0].as_py() is not None
    assert not logs


def test_what_a_transform_says_of_its_input_comes_before_what_the_records_hold() -> None:
    inputs = pa.schema([("id", pa.string()), ("name", pa.string())])
    found = decoded(made(same, inputs=inputs), batch_of([{"id": "5"}]), pa.schema([("id", pa.string())]))
    assert found.table["id"].to_pylist() == ["5"]


def test_a_topic_has_an_input_of_its_own() -> None:
    first = make_records([b'{"id": 1, "name": "x"}'], partition=Partition("a", 0))
    second = make_records([None, b'{"id": "5"}'], partition=Partition("b", 0))
    third = make_records([b'{"id": "6", "name": "y"}', b"junk"], partition=Partition("b", 1))
    form = made(same)
    decoder = form.decoder(pa.schema([("id", pa.string()), ("name", pa.string())]))
    batch = make_batch(first, second, third)
    found = decoder.decode(batch)
    check_places(found, decoder, batch)
    assert found.table["id"].to_pylist() == ["5", "6"]
    assert found.positions.to_pylist() == [2, 3]
    assert [(one.position, one.reason) for one in found.rejections] == [(0, "type"), (4, "syntax")]
    assert found.skipped.to_pylist() == [1]


def test_coordinates_are_there_for_those_who_ask() -> None:
    def stamped(rows: pa.RecordBatch) -> Transformed:
        kept = rows.filter(pc.greater(rows.column("_offset"), 10))
        return Transformed(kept.select(["id", "_row"]).append_column("name", kept.column("_topic")))

    records = make_records([b"junk", b'{"id": 1, "_offset": 99}', b'{"id": 2}', b'{"id": 3}'], offsets=[9, 10, 11, 12])
    form = TransformedFormat(
        JsonFormat(), _Stamped(stamped), stated=pa.schema([("id", pa.int64()), ("_offset", pa.int64())])
    )
    found = decoded(form, make_batch(records))
    assert found.table.to_pylist() == [{"id": 2, "name": "events"}, {"id": 3, "name": "events"}]
    assert found.filtered.to_pylist() == [1]
    # A field of the same name cannot be told from the coordinate, so it is not stored.
    assert [one.path for one in found.unknown] == ["_offset"]


class _Stamped(ScriptedTransform):
    def __init__(self, apply: Any) -> None:
        super().__init__(apply, coordinates=("_topic", "_offset"))

    def plan(self, given: pa.Schema) -> Any:
        assert given.names == ["id"]
        return super().plan(pa.schema([*given, ("_topic", pa.string()), ("_offset", pa.int64())]))


def test_a_batch_in_which_nothing_can_be_read_leaves_the_input_open() -> None:
    form = made(even)
    for target in (TARGET, PLACEHOLDER):
        found = decoded(form, batch_of([b"junk", None]), target)
        assert [one.reason for one in found.rejections] == ["syntax"]
    assert [one.reason for one in decoded(form, batch_of([{}])).rejections] == ["no_column"]
    assert len(decoded(form, batch_of([{"id": 2}])).positions) == 1


def test_a_field_gets_its_type_with_its_first_value() -> None:
    form = made(same)
    first = batch_of([{"id": 1, "name": None}])
    schema = form.infer(first)
    assert schema == pa.schema([("id", pa.int64()), ("name", pa.null())])
    assert not decoded(form, first, schema).outgrown
    later = batch_of([{"id": 2, "name": "x"}])
    decoder = form.decoder(schema)
    assert decoder.decode(later).outgrown
    schema = form.grow(schema, later)
    assert schema == TARGET.set(0, pa.field("id", pa.int64()))
    assert decoded(form, later, schema).table["name"].to_pylist() == ["x"]
    assert decoded(form, first, schema).table["name"].to_pylist() == [None]


def test_a_field_of_a_stated_target_gets_its_type_without_the_target_growing() -> None:
    form = made(same)
    decoder = form.decoder(TARGET)
    assert decoder.decode(batch_of([{"id": 1, "name": None}])).positions.to_pylist() == [0]
    found = decoder.decode(batch_of([{"id": 2, "name": "x"}]))
    assert not found.outgrown
    assert found.table["name"].to_pylist() == ["x"]


def test_a_type_that_only_the_target_lacks_is_left_to_the_caller() -> None:
    target = pa.schema([("id", pa.int64()), ("name", pa.null())])
    form = made(same, inputs=target)
    batch = batch_of([{"id": 2, "name": "x"}])
    assert form.decoder(target).decode(batch).outgrown
    assert form.grow(target, batch) == pa.schema([("id", pa.int64()), ("name", pa.string())])


def test_a_target_of_coordinates_alone_keeps_its_rows() -> None:
    found = decoded(made(even), batch_of(numbered(4)), pa.schema([]))
    assert found.table.num_rows == 2


def test_options_that_name_columns_hold_where_these_are() -> None:
    options = JsonOptions(text=frozenset(["name"]), epoch={"at": "s"})
    form = made(
        lambda rows: Transformed(rows.rename_columns(["id", "renamed", "at", "_row"])),
        options=options,
        stated=pa.schema([("id", pa.int64()), ("name", pa.string()), ("at", pa.timestamp("s", "UTC"))]),
    )
    found = decoded(form, batch_of([{"id": 1, "name": 5, "at": 60}]), pa.schema([("renamed", pa.string())]))
    assert found.table["renamed"].to_pylist() == ["5"]


def test_a_field_that_comes_later_reaches_the_column_that_the_target_has_for_it() -> None:
    form = made(same)
    decoder = form.decoder(TARGET)
    assert decoder.decode(batch_of([{"id": 1}])).table.to_pylist() == [{"id": 1, "name": None}]
    found = decoder.decode(batch_of([{"id": 2}, {"id": 3, "name": "x"}]))
    assert found.table["name"].to_pylist() == [None, "x"]
    assert not found.unknown


def test_a_part_of_a_struct_that_comes_later_reaches_its_place() -> None:
    target = pa.schema([("user", pa.struct([("id", pa.int64()), ("name", pa.string())]))])
    decoder = made(same).decoder(target)
    decoder.decode(batch_of([{"user": {"id": 1}}]))
    found = decoder.decode(batch_of([{"user": {"id": 1, "name": "x"}}]))
    assert found.table.to_pylist() == [{"user": {"id": 1, "name": "x"}}]


def test_a_column_that_a_transform_makes_is_not_in_its_way_before_a_record_has_a_field_of_its_name() -> None:
    def named(rows: pa.RecordBatch) -> Transformed:
        assert rows.schema.names == ["id", "_row"]
        return Transformed(rows.append_column("name", rows.column("id").cast(pa.string())))

    found = decoded(made(named), batch_of([{"id": 1}]))
    assert found.table.to_pylist() == [{"id": 1, "name": "1"}]


def test_names_that_differ_by_case_are_one_where_the_settings_say_so() -> None:
    form = made(same, options=JsonOptions(match="insensitive"))
    target = pa.schema([("ID", pa.int64()), ("Name", pa.string())])
    decoder = form.decoder(target)
    assert decoder.decode(batch_of([{"id": 1}])).table.to_pylist() == [{"ID": 1, "Name": None}]
    assert decoder.decode(batch_of([{"iD": 2, "name": "x"}])).table.to_pylist() == [{"ID": 2, "Name": "x"}]


def test_a_column_that_a_transform_makes_stays_its_own_when_records_get_a_field_of_its_name() -> None:
    def named(rows: pa.RecordBatch) -> Transformed:
        return Transformed(rows.append_column("name", rows.column("id").cast(pa.string())))

    form = made(named)
    decoded(form, batch_of([{"id": 1}]))
    later = decoded(form, batch_of([{"id": 2, "name": "theirs"}]))
    assert later.table.to_pylist() == [{"id": 2, "name": "2"}]
    assert [one.path for one in later.unknown] == ["name"]
