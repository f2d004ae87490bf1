"""MessagePack maps, read by the rules of JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ByteSize

from batcher.formats.json.format import JsonFormat, JsonOptions
from batcher.formats.json.limits import Refused
from batcher.formats.msgpack import plugin
from batcher.formats.msgpack.format import MsgpackFormat
from batcher.formats.msgpack.transcode import _Reader, to_json
from batcher.records import Decoded
from batcher.settings.model import Decode
from batcher.testing.contract.format import FormatCase, FormatLaws
from batcher.testing.values import make_batch, make_records

pack = msgspec.msgpack.encode
SCHEMA = pa.schema([("i", pa.int8()), ("t", pa.string()), ("at", pa.timestamp("ns", "UTC"))])


class TestMsgpack(FormatLaws):
    @pytest.fixture(params=[JsonOptions(), JsonOptions(text=frozenset("*")), JsonOptions("reject")], ids=str)
    def case(self, request: pytest.FixtureRequest) -> FormatCase:
        return FormatCase(MsgpackFormat(request.param), pack)


def decode(*values: bytes | None, schema: pa.Schema = SCHEMA, **options: Any) -> Decoded:
    return MsgpackFormat(JsonOptions(**options)).decoder(schema).decode(make_batch(make_records(values)))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "empty"),
        (pack([1]), "not_object"),
        (pack(1), "not_object"),
        (pack({"i": 1})[:-1], "syntax"),
        (pack({"i": 1}) + b"\x80", "trailing_data"),
        (b"\xc1", "syntax"),
        (b"\xdf\xff\xff\xff\xff", "syntax"),
        (b"\x82\xa1i\x01\xa1i\x02", "duplicate"),
        (b"\x81\xa1t\xa1\xff", "encoding"),
        (pack({"t": b"\xff"}), "encoding"),
        (pack({"i": float("nan")}), "syntax"),
        (pack({"x": [{"y": float("-inf")}]}), "syntax"),
        (b"\x81\xa1i\xca\x7f\xc0\x00\x00", "syntax"),
        (b"\x81\xc0\x01", "type"),
        (b"\x81\x91\x01\x01", "type"),
        (b"\x81\xcb" + struct.pack(">d", 1.5) + b"\x01", "type"),
        (b"\x81\xa1t\xd4\x05\x01", "type"),
        (b"\x81\xa2at\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**60), "timestamp"),
        (b"\x81\xa2at\xd7\xff\xff\xff\xff\xff\x00\x00\x00\x00", "timestamp"),
        (pack({"i": 300}), "overflow"),
        (pack({"t": 1}), "type"),
        (b"\x91" * 5000 + b"\xc0", "too_deep"),
    ],
)
def test_exactly_the_bad_record_is_refused_by_name(bad: bytes, reason: str) -> None:
    good = pack({"i": 1, "t": "a"})
    decoded = decode(good, bad, None, bad, good)
    assert [(one.position, one.reason) for one in decoded.rejections] == [(1, reason), (3, reason)]
    assert decoded.positions.to_pylist() == [0, 4]
    assert decoded.skipped.to_pylist() == [2]
    assert decoded.table["i"].to_pylist() == [1, 1]


@pytest.mark.parametrize(
    ("raw", "column", "value"),
    [
        (pack({"i": 1.0}), "i", 1),
        (b"\x81\xa1i\xca\x3f\x80\x00\x00", "i", 1),
        (b"\x81\xa1i\xcf\x00\x00\x00\x00\x00\x00\x00\x05", "i", 5),
        (b"\x81\xa1i\xff", "i", -1),
        (pack({"t": "ä".encode()}), "t", "ä"),
        (b"\x81\xc4\x01tC".replace(b"C", b"\xa1x"), "t", "x"),
        (b"\x81\xd9\x01t\xdb\x00\x00\x00\x01x", "t", "x"),
    ],
)
def test_what_json_lacks_is_read_as_what_it_means(raw: bytes, column: str, value: object) -> None:
    decoded = decode(raw)
    assert decoded.rejections == ()
    assert decoded.table[column].to_pylist() == [value]


def test_timestamps_of_all_three_sizes_keep_their_nanoseconds() -> None:
    values = [
        b"\x81\xa2at\xd6\xff" + struct.pack(">I", 7),
        b"\x81\xa2at\xd7\xff" + struct.pack(">Q", 123_456_789 << 34 | 7),
        b"\x81\xa2at\xc7\x0c\xff" + struct.pack(">Iq", 123_456_789, -7),
    ]
    points = decode(*values).table["at"].combine_chunks().view(pa.int64()).to_pylist()
    assert points == [7 * 10**9, 7_123_456_789, -7 * 10**9 + 123_456_789]


def test_integer_keys_are_their_digits() -> None:
    schema = pa.schema([("m", pa.map_(pa.string(), pa.int8()))])
    assert decode(b"\x81\xa1m\x82\x01\x02\xff\x03", schema=schema).table["m"].to_pylist() == [[("1", 2), ("-1", 3)]]


def test_unknown_fields_are_counted_and_sizes_are_those_of_the_messages() -> None:
    decoded = decode(pack({"i": 1, "new": 2}), pack({"t": "\0" * 20}), max_message_bytes=25)
    assert [(one.path, one.records) for one in decoded.unknown] == [("new", 1)]
    assert decoded.table["t"].to_pylist() == [None, "\0" * 20]
    assert [one.reason for one in decode(pack({"t": "a" * 30}), max_message_bytes=25).rejections] == ["too_large"]


def test_tombstones_are_refused_by_option() -> None:
    decoded = decode(None, tombstones="reject")
    assert ([one.reason for one in decoded.rejections], decoded.skipped.to_pylist()) == (["tombstone"], [])


def test_how_a_batch_is_cut_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [
        pack({"i": 1}),
        None,
        pack([1]),
        pack({"i": 300}),
        pack({"i": 5, "new": 1}),
        b"\xc1",
        None,
        pack({"i": 7}),
    ]
    values.append(pack({"t": "a" * 30}))
    whole = decode(*values, max_message_bytes=25)
    assert [one.position for one in whole.rejections] == [2, 3, 5, 8]
    assert (whole.positions.to_pylist(), whole.skipped.to_pylist()) == ([0, 4, 7], [1, 6])
    monkeypatch.setattr("batcher.formats.policy.PIECE_BYTES", 20)
    cut = decode(*values, max_message_bytes=25)
    assert (cut.positions, cut.skipped) == (whole.positions, whole.skipped)
    assert (cut.rejections, cut.unknown) == (whole.rejections, whole.unknown)
    assert cut.table.equals(whole.table)


def test_a_column_without_a_type_gets_one_with_its_first_value() -> None:
    form, schema = MsgpackFormat(), pa.schema([("a", pa.null())])
    batch = make_batch(make_records([pack({"a": 1})]))
    assert form.decoder(schema).decode(batch).outgrown
    assert form.grow(schema, batch) == pa.schema([("a", pa.int64())])


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=4),
        st.binary(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ita", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
DAMAGE = st.tuples(st.integers(0, 60), st.binary(max_size=2), st.integers(0, 2))


def damaged(raw: bytes, damage: tuple[int, bytes, int]) -> bytes:
    at, junk, cut = damage
    return raw[: at % (len(raw) + 1)] + junk + raw[at % (len(raw) + 1) + cut :]


DOCUMENTS = st.one_of(
    VALUES.map(pack),
    st.builds(damaged, st.dictionaries(st.sampled_from(SCHEMA.names), VALUES).map(pack), DAMAGE),
)


@given(DOCUMENTS)
@settings(max_examples=400, deadline=None)
def test_both_ways_of_reading_agree(raw: bytes) -> None:
    def outcome(read: Callable[[], str | bytes]) -> Any:
        try:
            return json.loads(read(), object_pairs_hook=list)
        except Refused as why:
            return why.reason, why.message

    assert outcome(lambda: to_json(raw, 64)) == outcome(lambda: _Reader(raw, 64).document())


@given(st.lists(DOCUMENTS, min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_record_fares_the_same_alone_and_among_others(values: list[bytes]) -> None:
    together = decode(*values)
    rows = dict(zip(together.positions.to_pylist(), together.table.to_pylist(), strict=True))
    reasons = {one.position: (one.reason, one.message) for one in together.rejections}
    for position, raw in enumerate(values):
        alone = decode(raw)
        assert alone.table.to_pylist() == ([rows[position]] if position in rows else [])
        assert [(r.reason, r.message) for r in alone.rejections] == ([reasons[position]] if position in reasons else [])


@given(
    st.dictionaries(
        st.sampled_from(SCHEMA.names),
        st.one_of(st.none(), st.integers(-200, 200), st.text(max_size=3), st.booleans(), st.floats(allow_nan=False)),
    )
)
@settings(max_examples=100, deadline=None)
def test_a_record_fares_as_its_json_does(record: dict[str, Any]) -> None:
    if float("inf") in record.values() or float("-inf") in record.values():
        return
    by_json = JsonFormat().decoder(SCHEMA).decode(make_batch(make_records([json.dumps(record)])))
    by_msgpack = decode(pack(record))
    assert by_msgpack.table.equals(by_json.table)
    assert [(r.reason, r.path) for r in by_msgpack.rejections] == [(r.reason, r.path) for r in by_json.rejections]


def test_the_plug_in_takes_the_options_of_decoding() -> None:
    form = plugin(Decode(text=("any",), max_message_bytes=ByteSize(30), tombstones="reject", match="insensitive"))
    assert isinstance(form, MsgpackFormat)
    assert form._options == JsonOptions(
        text=frozenset("*"), epoch={"*": "auto"}, max_message_bytes=30, tombstones="reject", match="insensitive"
    )
