"""The laws that every format keeps, as tests to inherit: `class TestMine(FormatLaws)` with a fixture `case`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.protocols import Decoder, FieldProposer, Format
from batcher.records import Batch, Decoded, Partition
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("name", pa.string()),
        ("at", pa.timestamp("ms", "UTC")),
        ("tags", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class FormatCase:
    """Hold a format, and how a record is written in it: `encode` takes a column's value by its name, JSON's types.

    `nothing_is_a_record`: a value of no bytes is a record, as in Protobuf.
    """

    form: Format
    encode: Callable[[dict[str, Any]], bytes]
    nothing_is_a_record: bool = False


def row(number: int) -> dict[str, Any]:
    """Return what a record of `SCHEMA` holds."""
    return {"id": number, "name": f"n{number}", "at": "2024-05-06T12:00:00Z", "tags": ["a", "b"]}


def mixed(case: FormatCase, count: int = 200) -> tuple[Batch, list[str]]:
    """Return a batch of two partitions and what should become of each position."""
    encode = case.encode
    kinds = [
        "tombstone" if i % 11 == 5 else "junk" if i % 13 == 7 else "null" if i % 17 == 3 else "row"
        for i in range(count)
    ]
    values = {"tombstone": None, "junk": b"\x00\xff junk"}
    raw = [
        values[kind] if kind in values else encode(row(i) | ({"id": None} if kind == "null" else {}))
        for i, kind in enumerate(kinds)
    ]
    half = count // 2
    return make_batch(
        make_records(raw[:half], partition=Partition("a", 0)),
        make_records(raw[half:], partition=Partition("a", 1), first_offset=900),
    ), kinds


def check_places(decoded: Decoded, decoder: Decoder, batch: Batch) -> None:
    """Assert that each position of a batch is in one place of an outcome, which is of the decoder's schema."""
    places = decoded.positions.to_pylist() + [r.position for r in decoded.rejections] + decoded.skipped.to_pylist()
    assert sorted(places) == list(range(batch.rows)), "each position is in exactly one place"
    for ascending in (decoded.positions, decoded.skipped):
        assert ascending.type == pa.int64()
        assert ascending.to_pylist() == sorted(ascending.to_pylist())
    assert decoded.table.num_rows == len(decoded.positions)
    assert decoded.table.schema.equals(decoder.schema, check_metadata=True)
    decoded.table.validate(full=True)


class FormatLaws:
    """Hold a format to the laws. A suite inherits from it and has a fixture `case` that returns a `FormatCase`."""

    def test_every_position_is_a_row_a_rejection_or_a_skip(self, case: FormatCase) -> None:
        batch, kinds = mixed(case)
        decoder = case.form.decoder(SCHEMA)
        decoded = decoder.decode(batch)
        check_places(decoded, decoder, batch)
        assert decoded.positions.to_pylist() == [i for i, kind in enumerate(kinds) if kind == "row"]
        assert decoded.table["id"].to_pylist() == decoded.positions.to_pylist()
        assert decoded.skipped.to_pylist() == [i for i, kind in enumerate(kinds) if kind == "tombstone"]

    def test_a_rejection_has_a_word_and_a_line_without_the_value(self, case: FormatCase) -> None:
        batch, _ = mixed(case)
        for rejection in case.form.decoder(SCHEMA).decode(batch).rejections:
            assert rejection.reason.replace("_", "").isalpha()
            assert rejection.message
            assert rejection.message.isprintable()
            assert "junk" not in rejection.message

    def test_a_null_in_a_required_column_is_refused_with_its_path(self, case: FormatCase) -> None:
        decoded = case.form.decoder(SCHEMA).decode(make_batch(make_records([case.encode(row(1) | {"id": None})])))
        assert [(r.reason, r.path) for r in decoded.rejections] == [("null", "id")]

    def test_a_record_fares_the_same_alone_and_among_others(self, case: FormatCase) -> None:
        batch, _ = mixed(case, 60)
        whole = case.form.decoder(SCHEMA).decode(batch)
        rows = dict(zip(whole.positions.to_pylist(), whole.table.to_pylist(), strict=True))
        reasons = {rejection.position: rejection.reason for rejection in whole.rejections}
        decoder = case.form.decoder(SCHEMA)
        for position in range(batch.rows):
            alone = decoder.decode(make_batch(make_records([batch.record(position).value])))
            assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
            assert [r.reason for r in alone.rejections] == ([reasons[position]] if position in reasons else [])

    @pytest.mark.parametrize("value", [None, b"", b"\x00", b"\xff" * 100, b"{" * 10_000, b"[" * 100_000])
    def test_a_batch_without_any_row_is_an_empty_table_of_the_schema(
        self, case: FormatCase, value: bytes | None
    ) -> None:
        decoder = case.form.decoder(SCHEMA)
        batch = make_batch(make_records([value, value]))
        decoded = decoder.decode(batch)
        check_places(decoded, decoder, batch)
        assert decoded.table.num_rows == 0

    def test_decoding_again_gives_the_same(self, case: FormatCase) -> None:
        batch, _ = mixed(case)
        decoder = case.form.decoder(SCHEMA)
        first, again = decoder.decode(batch), decoder.decode(batch)
        assert first.table.equals(again.table)
        assert first.rejections == again.rejections

    def test_the_inferred_schema_takes_every_readable_record(self, case: FormatCase) -> None:
        rows = [case.encode(row(i)) for i in range(50)]
        batch = make_batch(make_records([b"\xff", *rows, None]))
        schema = case.form.infer(batch)
        assert schema is not None
        assert schema.names == SCHEMA.names
        assert schema == case.form.infer(batch)
        assert case.form.decoder(schema).decode(batch).positions.to_pylist() == list(range(1, 51))

    def test_fields_are_proposed_by_name_with_types_that_take_their_values(self, case: FormatCase) -> None:
        if not isinstance(case.form, FieldProposer):
            return
        # Records that cannot be read and such without a value propose nothing.
        batch = make_batch(make_records([b"\xff", *(case.encode(row(i)) for i in range(5)), None]))
        assert case.form.proposed(batch, {"no such field"}).names == []
        found = case.form.proposed(batch, {"name", "at"})
        assert found.names == ["name", "at"]
        inferred = case.form.infer(batch)
        assert inferred is not None
        assert found.types == [inferred.field("name").type, inferred.field("at").type]
        assert case.form.decoder(inferred).decode(batch).positions.to_pylist() == list(range(1, 6))

    def test_nothing_readable_infers_nothing(self, case: FormatCase) -> None:
        empty = None if case.nothing_is_a_record else b""
        assert case.form.infer(make_batch(make_records([b"\xff", None, empty]))) is None

    def test_a_type_that_cannot_be_filled_is_refused_when_the_decoder_is_made(self, case: FormatCase) -> None:
        with pytest.raises(ConfigurationError, match="column x"):
            case.form.decoder(pa.schema([("x", pa.run_end_encoded(pa.int32(), pa.int8()))]))
