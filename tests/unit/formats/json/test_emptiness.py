"""An empty list that has no type to be stored with is named, once its place is known."""

from __future__ import annotations

from batcher.formats.json.format import JsonFormat
from batcher.testing.values import make_batch, make_records


def notes(*texts: str) -> tuple[str, ...]:
    format_ = JsonFormat()
    batch = make_batch(make_records(texts))
    schema = format_.infer(batch)
    assert schema is not None
    return format_.decoder(schema).decode(batch).notes


def test_a_list_that_never_had_an_item_is_named_because_it_is_stored_as_null() -> None:
    (note,) = notes('{"id":1,"tags":[]}', '{"id":2,"tags":null}')
    assert note.startswith("column tags: no list in it has had an item so far")


def test_an_empty_list_inside_objects_and_lists_is_named_by_its_path() -> None:
    found = notes('{"variants":[{"id":1,"images":[]}],"geo":{"points":[[]],"name":"a"}}')
    assert [note.split(":")[0] for note in found] == ["column variants[].images", "column geo.points"]


def test_nothing_is_said_of_fields_that_were_only_null_and_of_lists_that_have_had_an_item() -> None:
    assert notes('{"id":1,"note":null,"tags":[]}', '{"id":2,"tags":[1]}', '{"id":3,"tags":[null]}') == ()
