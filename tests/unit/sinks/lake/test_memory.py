"""What a table remembers of the schema that its rows are decoded for."""

from __future__ import annotations

import pyarrow as pa

from batcher.records import RAW_JSON
from sinks.lake import memory, types

REMEMBERED = pa.schema(
    [
        pa.field("id", pa.uint8(), nullable=False),
        pa.field("at", pa.timestamp("ms", "UTC")),
        pa.field("text", pa.string(), metadata={RAW_JSON: b"1"}),
        pa.field("later", pa.null()),
    ]
)
COLUMNS = types.lake_schema(REMEMBERED.remove(3))


def test_a_schema_survives_as_text_and_other_texts_are_none() -> None:
    found = memory.from_text(memory.to_text(REMEMBERED))
    assert found is not None
    assert found.equals(REMEMBERED, check_metadata=True)
    assert memory.from_text(None) is memory.from_text("") is memory.from_text("?") is memory.from_text("QUJD") is None


def test_what_is_remembered_holds_as_far_as_the_columns_say_the_same() -> None:
    assert memory.recalled(REMEMBERED, COLUMNS).equals(REMEMBERED, check_metadata=True)


def test_columns_that_others_added_changed_or_dropped_win_over_what_is_remembered() -> None:
    columns = pa.schema([("id", pa.string()), ("text", pa.string()), ("later", pa.int64()), ("more", pa.float64())])
    found = memory.recalled(REMEMBERED, columns)
    assert found.names == ["id", "text", "later", "more"]
    assert [str(kind) for kind in found.types] == ["string", "string", "int64", "double"]
    assert found.field("text").metadata == {RAW_JSON: b"1"}


def test_a_column_that_must_not_be_null_has_to_be_in_every_record() -> None:
    columns = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    assert not memory.recalled(pa.schema([("a", pa.int64())]), columns).field("a").nullable
