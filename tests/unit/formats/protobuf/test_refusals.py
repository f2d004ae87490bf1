"""Which records are refused, in which words, and that only they are."""

from __future__ import annotations

import pyarrow as pa
import pytest

pytest.importorskip("ptars", reason="needs the extra [protobuf]")

from batcher.formats.protobuf import reader as reading
from tests.harness.protobuf import held, number, read, reader, tag

BODY = (
    'import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto"; '
    'import "google/protobuf/struct.proto"; import "google/type/date.proto"; '
    "message I { int32 a = 1; string b = 2; repeated double d = 3; } "
    "message M { int32 i = 1; string s = 2; I in = 3; repeated I ins = 4; map<string, I> m = 5; "
    "google.protobuf.Timestamp ts = 6; google.protobuf.Duration du = 7; google.type.Date dt = 8; "
    "google.protobuf.Struct st = 9; repeated google.protobuf.Timestamp tss = 10; }"
)
INSIDE = "the message ends inside the value"
NO_TIME = "seconds and nanos are no time from the years 1 to 9999"

REFUSED: list[tuple[bytes, str, str]] = [
    (b"\x80", "truncated", INSIDE),
    (tag(1, 0), "truncated", f"field i: {INSIDE}"),
    (held(2, b"abc")[:-1], "truncated", f"field s: {INSIDE}"),
    (held(3, held(2, b"abc")[:-1]), "truncated", f"field in.b: {INSIDE}"),
    (held(4, held(3, b"1234567")), "truncated", f"field ins.d: {INSIDE}"),
    (held(5, held(1, b"k") + held(2, tag(1, 0))), "truncated", f"field m.value.a: {INSIDE}"),
    (held(9, held(1, b"\x0a\x05")), "truncated", f"field st.fields.key: {INSIDE}"),
    (tag(99, 5) + b"abc", "truncated", f"field #99: {INSIDE}"),
    (tag(99, 3), "truncated", "field #99: the message ends inside a group"),
    (held(2, b"\xff"), "utf8", "field s: the text is not UTF-8"),
    (held(5, held(1, b"\xff")), "utf8", "field m.key: the text is not UTF-8"),
    (tag(99, 4), "syntax", "a group ends that did not begin"),
    (held(3, tag(9, 4)), "syntax", "field in: a group ends that did not begin"),
    (tag(9, 6), "syntax", "field st: there is no wire type 6"),
    (b"\0\1", "syntax", "there is a field with a number that no field can have"),
    (tag(1, 0) + b"\xff" * 10 + b"\1", "syntax", "field i: a number has more than 10 bytes"),
    (tag(2, 2) + b"\xff" * 9 + b"\1", "truncated", f"field s: {INSIDE}"),
    (tag(99, 3) * 150 + tag(99, 4) * 150, "syntax", "nested deeper than 100 levels"),
    (held(6, number(1, 253_402_300_800)), "timestamp", f"field ts: {NO_TIME}"),
    (held(6, number(2, -1)), "timestamp", f"field ts: {NO_TIME}"),
    (held(10, b"") + held(10, number(2, 10**9)), "timestamp", f"field tss[]: {NO_TIME}"),
    (held(7, number(1, 5) + number(2, -1)), "duration", "field du: seconds and nanos are no duration"),
    (held(8, number(1, 2023) + number(2, 2) + number(3, 29)), "date", "field dt: year, month and day are no date"),
    (held(8, number(1, 2023)), "date", "field dt: year, month and day are no date"),
]


@pytest.mark.parametrize(("payload", "reason", "message"), REFUSED)
def test_a_record_is_refused_with_a_word_and_its_field_and_nobody_else_is(
    payload: bytes, reason: str, message: str
) -> None:
    found = read(reader(BODY), number(1, 1), payload, number(1, 3))

    assert found.table["i"].to_pylist() == [1, 3]
    assert [(one.position, one.reason) for one in found.rejections] == [(1, reason)]
    assert message in found.rejections[0].message
    assert read(reader(BODY), payload).rejections[0].message == found.rejections[0].message


def test_a_required_field_has_to_be_there_where_its_message_is() -> None:
    body = "message I { required int32 x = 1; } message M { optional I a = 1; repeated I b = 2; required int32 c = 3; }"
    there = number(3, 0)
    found = read(
        reader(body, syntax="proto2"), there, b"", held(1, b"") + there, held(2, number(1, 0)) + held(2, b"") + there
    )

    assert [(one.position, one.reason, one.path) for one in found.rejections] == [
        (1, "missing", "c"),
        (2, "missing", "a.x"),
        (3, "missing", "b[].x"),
    ]


def test_a_text_of_proto2_has_to_be_utf8_too() -> None:
    body = "message M { optional string s = 1; optional int32 i = 2; }"
    found = read(reader(body, syntax="proto2"), *[held(1, b"ok")] * 5, held(1, b"\xff"), *[held(1, b"ok")] * 6)

    assert found.rows.to_pylist() == [*range(5), *range(6, 12)]
    assert [(one.position, one.reason, one.path) for one in found.rejections] == [(5, "utf8", "s")]


@pytest.mark.parametrize("depth", [reading.DEEP_BYTES, 1_000_000])
def test_groups_inside_groups_never_end_the_process(depth: int) -> None:
    found = read(reader("message M { int32 i = 1; }"), number(1, 1), b"\x5b" * depth, number(1, 3))

    assert found.table["i"].to_pylist() == [1, 3]
    assert found.rejections[0].reason == "syntax"


def test_long_records_are_read_as_short_ones_are() -> None:
    body = "message M { int32 i = 1; string s = 2; repeated string r = 3; }"
    long = held(2, b"x" * 2 * reading.DEEP_BYTES)
    found = read(
        reader(body), number(1, 1), long + number(1, 2), held(3, b"y") + number(1, 3), long[:-1], long + held(9, b"z")
    )

    assert found.table["i"].to_pylist() == [1, 2, 3, 0]
    assert [len(text) for text in found.table["s"].to_pylist()] == [
        0,
        2 * reading.DEEP_BYTES,
        0,
        2 * reading.DEEP_BYTES,
    ]
    assert [one.position for one in found.rejections] == [3]
    assert {path: rows.to_pylist() for path, rows in found.unread.items()} == {"#9": [4]}


def test_records_of_several_pieces_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_ROWS", 3)
    payloads = [number(1, n) + (held(99, b"") if n % 4 == 1 else b"") if n % 5 else b"\xff" for n in range(1, 21)]
    found = reader("message M { int32 i = 1; }").read(pa.array(payloads, pa.binary()).slice(2))

    assert found.table["i"].to_pylist() == [n for n in range(3, 21) if n % 5]
    assert [one.position for one in found.rejections] == [n - 3 for n in range(3, 21) if not n % 5]
    assert found.unread["#99"].to_pylist() == [n - 3 for n in range(3, 21) if n % 4 == 1 and n % 5]


def test_no_payload_and_no_record_at_all_are_no_trouble() -> None:
    given = reader("message M { int32 i = 1; repeated string r = 2; }")

    assert read(given).table.to_pylist() == []
    assert read(given, b"").table.to_pylist() == [{"i": 0, "r": []}]
