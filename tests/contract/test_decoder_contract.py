"""Laws for every format there is: found through `batcher.formats`, not listed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from batcher.errors import ConfigurationError
from batcher.formats import registry
from batcher.protocols import Decoder, Format
from batcher.records import Batch, Decoded, Partition
from batcher.settings.model import Decode
from batcher.testing.values import make_batch, make_records

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        ("name", pa.string()),
        ("at", pa.timestamp("ms", "UTC")),
        ("tags", pa.list_(pa.string())),
    ]
)

ENCODE: dict[str, Callable[[dict[str, Any]], bytes]] = {"json": lambda row: json.dumps(row).encode()}
"""How a test writes a record in each format. A new format fails here until it says how."""


OPTIONS: dict[str, list[Any]] = {"json": [Decode(), Decode(text=("any",), epoch=("ms",)), Decode(on_unknown="reject")]}
"""What each format is tried with."""


@pytest.fixture(params=registry.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=range(3), ids=["default", "lenient", "strict"])
def form(name: str, request: pytest.FixtureRequest) -> Format:
    return registry.load(name)(OPTIONS[name][request.param])


def row(number: int) -> dict[str, Any]:
    return {"id": number, "name": f"n{number}", "at": "2024-05-06T12:00:00Z", "tags": ["a", "b"]}


def mixed(name: str, count: int = 200) -> tuple[Batch, list[str]]:
    """Return a batch of two partitions and what should become of each position."""
    encode = ENCODE[name]
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
    places = decoded.positions.to_pylist() + [r.position for r in decoded.rejections] + decoded.skipped.to_pylist()
    assert sorted(places) == list(range(batch.rows)), "each position is in exactly one place"
    for ascending in (decoded.positions, decoded.skipped):
        assert ascending.type == pa.int64()
        assert ascending.to_pylist() == sorted(ascending.to_pylist())
    assert decoded.table.num_rows == len(decoded.positions)
    assert decoded.table.schema.equals(decoder.schema, check_metadata=True)
    decoded.table.validate(full=True)


def test_every_position_is_a_row_a_rejection_or_a_skip(form: Format, name: str) -> None:
    batch, kinds = mixed(name)
    decoder = form.decoder(SCHEMA)
    decoded = decoder.decode(batch)
    check_places(decoded, decoder, batch)
    assert decoded.positions.to_pylist() == [i for i, kind in enumerate(kinds) if kind == "row"]
    assert decoded.table["id"].to_pylist() == decoded.positions.to_pylist()
    assert decoded.skipped.to_pylist() == [i for i, kind in enumerate(kinds) if kind == "tombstone"]


def test_a_rejection_has_a_word_and_a_line_without_the_value(form: Format, name: str) -> None:
    batch, _ = mixed(name)
    for rejection in form.decoder(SCHEMA).decode(batch).rejections:
        assert rejection.reason.replace("_", "").isalpha()
        assert rejection.message
        assert rejection.message.isprintable()
        assert "junk" not in rejection.message


def test_a_null_in_a_required_column_is_refused_with_its_path(form: Format, name: str) -> None:
    decoded = form.decoder(SCHEMA).decode(make_batch(make_records([ENCODE[name](row(1) | {"id": None})])))
    assert [(r.reason, r.path) for r in decoded.rejections] == [("null", "id")]


def test_a_record_fares_the_same_alone_and_among_others(form: Format, name: str) -> None:
    batch, _ = mixed(name, 60)
    whole = form.decoder(SCHEMA).decode(batch)
    rows = dict(zip(whole.positions.to_pylist(), whole.table.to_pylist(), strict=True))
    reasons = {rejection.position: rejection.reason for rejection in whole.rejections}
    decoder = form.decoder(SCHEMA)
    for position in range(batch.rows):
        alone = decoder.decode(make_batch(make_records([batch.record(position).value])))
        assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
        assert [r.reason for r in alone.rejections] == ([reasons[position]] if position in reasons else [])


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"\xff" * 100, b"{" * 10_000, b"[" * 100_000])
def test_a_batch_without_any_row_is_an_empty_table_of_the_schema(form: Format, value: bytes | None) -> None:
    decoder = form.decoder(SCHEMA)
    batch = make_batch(make_records([value, value]))
    decoded = decoder.decode(batch)
    check_places(decoded, decoder, batch)
    assert decoded.table.num_rows == 0


def test_decoding_again_gives_the_same(form: Format, name: str) -> None:
    batch, _ = mixed(name)
    decoder = form.decoder(SCHEMA)
    first, again = decoder.decode(batch), decoder.decode(batch)
    assert first.table.equals(again.table)
    assert first.rejections == again.rejections


def test_the_inferred_schema_takes_every_readable_record(form: Format, name: str) -> None:
    rows = [ENCODE[name](row(i)) for i in range(50)]
    batch = make_batch(make_records([b"\xff", *rows, None]))
    schema = form.infer(batch)
    assert schema is not None
    assert schema.names == SCHEMA.names
    assert schema == form.infer(batch)
    assert form.decoder(schema).decode(batch).positions.to_pylist() == list(range(1, 51))


def test_nothing_readable_infers_nothing(form: Format) -> None:
    assert form.infer(make_batch(make_records([b"\xff", None, b""]))) is None


def test_a_type_that_cannot_be_filled_is_refused_when_the_decoder_is_made(form: Format) -> None:
    with pytest.raises(ConfigurationError, match="column x"):
        form.decoder(pa.schema([("x", pa.run_end_encoded(pa.int32(), pa.int8()))]))
