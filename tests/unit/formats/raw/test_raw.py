"""Messages as they are, in one column or in none."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from pydantic import ByteSize

from batcher.engine.blocks import block_of
from batcher.errors import ConfigurationError
from batcher.formats.raw import RawSection, plugin
from batcher.formats.raw.format import RawFormat, RawOptions
from batcher.plugins import PluginContext
from batcher.protocols import SinkInfo
from batcher.records import RAW_JSON, Batch, Partition, UnknownField
from batcher.settings.model import Decode
from batcher.testing.contract.format import check_places
from batcher.testing.values import make_batch, make_records


def batch() -> Batch:
    return make_batch(
        make_records([b"a", None, b"\xff"]), make_records([b"x" * 20, b"{}"], partition=Partition("events", 1))
    )


BYTES = pa.schema([("value", pa.binary())])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_column_of_bytes_takes_each_message_as_it_is(kind: pa.DataType) -> None:
    decoder = RawFormat().decoder(pa.schema([("value", kind)]))
    decoded = decoder.decode(batch())
    check_places(decoded, decoder, batch())
    assert decoded.table["value"].to_pylist() == [b"a", b"\xff", b"x" * 20, b"{}"]
    assert decoded.skipped.to_pylist() == [1]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_column_of_text_refuses_exactly_what_is_not_utf_8(kind: pa.DataType) -> None:
    decoder = RawFormat(RawOptions(max_message_bytes=10)).decoder(pa.schema([("value", kind)]))
    decoded = decoder.decode(batch())
    check_places(decoded, decoder, batch())
    assert decoded.table["value"].to_pylist() == ["a", "{}"]
    assert [(r.position, r.reason, r.path) for r in decoded.rejections] == [
        (2, "encoding", "value"),
        (3, "too_large", None),
    ]


def test_tombstones_are_refused_by_option() -> None:
    decoded = RawFormat(RawOptions(tombstones="reject")).decoder(BYTES).decode(batch())
    assert [(r.position, r.reason) for r in decoded.rejections] == [(1, "tombstone")]
    assert not len(decoded.skipped)


def test_a_target_of_coordinates_only_gets_rows_without_columns() -> None:
    decoder = RawFormat().decoder(pa.schema([]))
    given = batch()
    decoded = decoder.decode(given)
    check_places(decoded, decoder, given)
    block = block_of(SinkInfo("t", pa.schema([]), coordinates=("_offset", "_value")), given, decoded)
    assert block.table["_value"].to_pylist() == [b"a", b"\xff", b"x" * 20, b"{}"]
    empty = decoder.decode(make_batch(make_records([None])))
    assert (empty.table.num_rows, empty.unknown) == (0, ())


def test_a_message_that_no_column_takes_is_told_as_an_unknown_field() -> None:
    schema = pa.schema([("other", pa.int8())])
    decoded = RawFormat().decoder(schema).decode(make_batch(make_records([None, b"a", b"b"])))
    assert decoded.table.to_pylist() == [{"other": None}, {"other": None}]
    assert decoded.unknown == (UnknownField("value", 2, 1),)
    assert RawFormat(RawOptions(on_unknown="ignore")).decoder(schema).decode(batch()).unknown == ()


def test_other_columns_stay_null_and_the_message_has_the_column_of_the_option() -> None:
    schema = pa.schema([("other", pa.int8()), ("body", pa.string())])
    decoded = RawFormat(RawOptions("body")).decoder(schema).decode(make_batch(make_records([b"a"])))
    assert decoded.table.to_pylist() == [{"other": None, "body": "a"}]
    assert decoded.unknown == ()


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (pa.field("value", pa.int64()), "column value is int64"),
        (pa.field("value", pa.string(), metadata={RAW_JSON: b"1"}), "column value is string"),
        (pa.field("id", pa.int64(), nullable=False), "column id needs a value"),
    ],
)
def test_a_column_that_raw_cannot_fill_is_refused_when_the_decoder_is_made(field: pa.Field, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RawFormat().decoder(pa.schema([field]))


@pytest.mark.parametrize(("options", "kind"), [(RawOptions(), pa.binary()), (RawOptions(type="text"), pa.string())])
def test_a_target_without_columns_gets_the_one_of_the_options(options: RawOptions, kind: pa.DataType) -> None:
    form = RawFormat(options)
    schema = form.infer(batch())
    assert schema == pa.schema([("value", kind)])
    assert form.grow(schema, batch()) is schema
    assert form.infer(make_batch(make_records([None]))) is None


def test_the_plug_in_takes_its_own_section_and_the_one_of_decoding() -> None:
    context = PluginContext(sections=(Decode(max_message_bytes=ByteSize(3), tombstones="reject", on_unknown="ignore"),))
    make: Callable[..., RawFormat] = plugin  # type: ignore[assignment]
    form = make(RawSection(column="body", type="text"), context=context)
    assert form._options == RawOptions("body", "text", 3, "reject", "ignore")
