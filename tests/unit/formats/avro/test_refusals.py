"""Which records are refused, in which words, and that only they are."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pyarrow as pa
import pytest

from batcher.formats.avro import octets
from batcher.formats.avro import reader as reading
from batcher.formats.avro.cursors import FREE_ITEMS
from batcher.formats.avro.nested import MAX_DEPTH
from batcher.formats.avro.reader import AvroReader
from batcher.formats.writer_schema import ReadRows, WriterSchema
from batcher.records import Rejection


def number(value: int) -> bytes:
    """Write a number as Avro does."""
    value = (value << 1) ^ (value >> 63)
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def read(schema: Any, *messages: bytes) -> ReadRows:
    found = AvroReader(WriterSchema("avro", json.dumps(schema))).read(pa.array(messages, pa.binary()))
    found.table.validate(full=True)
    return found


def record(*kinds: Any) -> dict[str, Any]:
    fields = [{"name": name, "type": kind} for name, kind in zip("abcdefg", kinds, strict=False)]
    return {"type": "record", "name": "R", "fields": fields}


STRINGS = {"type": "array", "items": "string"}
ENUM = {"type": "enum", "name": "E", "symbols": ["A", "B"]}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 3}
INSIDE = "the message ends inside the value"
BRANCH = "there is no such branch of the union"
LENGTH = "a length is negative"
LIES = "a block does not have the size that it says"

REFUSED: list[tuple[Any, bytes, str, str]] = [
    ("int", b"", "truncated", INSIDE),
    ("int", b"\x80", "truncated", INSIDE),
    ("int", b"\xff" * 9, "truncated", INSIDE),
    ("int", number(2**31), "overflow", "the number does not fit the 32 bits of an int"),
    ("int", number(-(2**31) - 1), "overflow", "the number does not fit the 32 bits of an int"),
    ("long", b"\xff" * 9 + b"\x02", "overflow", "the number has more than 64 bits"),
    ("long", b"\x80" * 10 + b"\0", "overflow", "the number has more than 64 bits"),
    ("boolean", b"\2", "syntax", "a boolean is neither 0 nor 1"),
    ("float", b"abc", "truncated", INSIDE),
    ("double", b"abcdefg", "truncated", INSIDE),
    ("string", number(4) + b"abc", "truncated", INSIDE),
    ("string", number(2**62) + b"abc", "truncated", INSIDE),
    ("string", number(-1) + b"abc", "syntax", LENGTH),
    ("string", number(2) + b"\xc3\x28", "utf8", "the string is not UTF-8"),
    ("string", number(3) + b"\xed\xa0\x80", "utf8", "the string is not UTF-8"),
    ("bytes", number(-(2**63)), "syntax", LENGTH),
    ({"type": "fixed", "name": "F", "size": 3}, b"ab", "truncated", INSIDE),
    (ENUM, number(2), "syntax", "there is no such symbol of the enum"),
    (ENUM, number(-1), "syntax", "there is no such symbol of the enum"),
    (["null", "int"], number(2), "syntax", BRANCH),
    (["null", "int"], number(-1), "syntax", BRANCH),
    (["null"], number(1), "syntax", BRANCH),
    (["int", "string"], number(2), "syntax", BRANCH),
    (["int", "string"], number(1) + number(1) + b"\xff", "utf8", "the string is not UTF-8"),
    ({"type": "int", "logicalType": "time-millis"}, number(86_400_000), "overflow", "the number is no time of a day"),
    ({"type": "long", "logicalType": "time-micros"}, number(-1), "overflow", "the number is no time of a day"),
    (DECIMAL, number(2) + b"\x03\xe8", "overflow", "the decimal has more than 3 digits"),
    (DECIMAL, number(2) + b"\xfc\x18", "overflow", "the decimal has more than 3 digits"),
    (DECIMAL, number(17) + b"\1" + bytes(16), "overflow", "the decimal has more than 3 digits"),
    (STRINGS, number(1) + number(1) + b"a", "truncated", INSIDE),
    (STRINGS, number(2**62) + number(1) + b"a\0", "truncated", INSIDE),
    (STRINGS, number(-(2**63)) + number(0) + b"\0", "overflow", "the count of a block does not fit 64 bits"),
    (STRINGS, number(-1) + number(-2) + number(1) + b"a\0", "syntax", "the size of a block is negative"),
    (STRINGS, number(-1) + number(3) + number(1) + b"a\0", "syntax", LIES),
    (STRINGS, number(-1) + number(1) + number(1) + b"a\0", "syntax", LIES),
    (STRINGS, number(-1) + number(99) + number(1) + b"a\0", "syntax", LIES),
]
"""A type, a message, and why it is refused."""


@pytest.mark.parametrize(("kind", "message", "reason", "words"), REFUSED)
def test_the_reason_names_the_field_and_only_that_record_is_refused(
    kind: Any, message: bytes, reason: str, words: str
) -> None:
    alone = read(record("int", kind), b"\2" + message)
    assert alone.rejections == (Rejection(0, reason, f"field b: {words}", "b"),)
    assert alone.table.num_rows == 0
    # As the column of a schema that is no record.
    assert read(kind, message).rejections == (Rejection(0, reason, f"field value: {words}", "value"),)
    # As items of a list, among many: all at once, where the one alone was looked at by itself.
    listed = record("int", {"type": "array", "items": kind}, "string")
    good, bad = b"\2" + number(0) + b"\2z", b"\2" + number(1) + message + b"\0\2z"
    among = read(listed, *[good] * 40, bad, *[good] * 40, *[bad] * 40)
    assert {one.position for one in among.rejections} == {40, *range(81, 121)}
    assert len({(one.reason, one.message, one.path) for one in among.rejections}) == 1
    # What is cut short goes on with the bytes behind it.
    assert reason == "truncated" or among.rejections[0] == Rejection(40, reason, f"field b[]: {words}", "b[]")
    assert among.table.to_pylist() == [{"a": 1, "b": [], "c": "z"}] * 80


def test_bytes_behind_a_record_are_refused() -> None:
    found = read("int", b"\2", b"\2\0", b"\4")
    assert found.rejections == (Rejection(1, "trailing", "there are more bytes behind the record", None),)
    assert (found.rows.to_pylist(), found.table.to_pylist()) == ([0, 2], [{"value": 1}, {"value": 2}])


def test_a_record_that_is_cut_never_takes_bytes_of_the_next() -> None:
    schema = record("string", "long", "double")
    whole = number(3) + b"abc" + number(2**40) + b"12345678"
    for cut in range(len(whole)):
        found = read(schema, whole, whole[:cut], whole)
        assert [(one.position, one.reason) for one in found.rejections] == [(1, "truncated")]
        assert found.table.column("b").to_pylist() == [2**40] * 2


def test_paths_lead_through_lists_maps_and_records() -> None:
    schema = record({"type": "map", "values": {"type": "array", "items": {**record("int", "boolean"), "name": "S"}}})
    message = number(1) + number(1) + b"k" + number(1) + number(5) + b"\2" + b"\0\0"
    assert [one.path for one in read(schema, message).rejections] == ["a[][].b"]


def test_what_follows_a_bad_value_in_its_item_takes_nothing_from_other_items() -> None:
    item = {**record("string", "string", DECIMAL), "name": "I"}
    good, bad = (number(1) + text + number(2) + b"yz" + number(1) + b"\1" for text in (b"x", b"\xff"))
    found = read({"type": "array", "items": item}, *[number(3) + bad + good * 2 + b"\0", number(1) + good + b"\0"] * 20)
    assert {(one.reason, one.path) for one in found.rejections} == {("utf8", "value[].a")}
    alone = read({"type": "array", "items": item}, number(3) + bad + good * 2 + b"\0")
    assert alone.rejections == found.rejections[:1]
    assert found.rows.to_pylist() == list(range(1, 40, 2))
    assert {repr(row["value"]) for row in found.table.to_pylist()} == {"[{'a': 'x', 'b': 'yz', 'c': Decimal('1')}]"}


def test_no_message_quotes_a_value() -> None:
    found = read("string", number(6) + b"secret", number(7) + b"secret\xff", number(6) + b"secret" * 2)
    assert [one.reason for one in found.rejections] == ["utf8", "trailing"]
    assert "secret" not in repr(found.rejections)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_payloads_may_be_empty_or_none_at_all(count: int) -> None:
    empty = {"type": "record", "name": "E", "fields": []}
    found = read(empty, *[b""] * count)
    assert (found.rows.to_pylist(), found.table.num_columns) == (list(range(count)), 0)
    assert read("null", *[b""] * count).table.column("value").null_count == count
    found = read(record("int", STRINGS, ["null", "string"]), *[b""] * count)
    assert [(one.position, one.reason, one.path) for one in found.rejections] == [
        (row, "truncated", "a") for row in range(count)
    ]
    assert found.table.column_names == ["a", "b", "c"]


def test_payloads_that_were_cut_from_a_column_are_read_from_their_own_bytes() -> None:
    column = pa.array([b"\xff" * 10, number(1), number(2), b"\xff" * 10], pa.binary()).slice(1, 2)
    found = AvroReader(WriterSchema("avro", "long")).read(column)
    assert (found.rows.to_pylist(), found.table.column(0).to_pylist()) == ([0, 1], [1, 2])


def test_positions_count_through_all_pieces_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 10)
    monkeypatch.setattr(reading, "PIECE_ROWS", 3)
    messages = [number(7) if row % 5 else b"" for row in range(20)]
    found = read("long", *messages)
    assert [one.position for one in found.rejections] == [0, 5, 10, 15]
    assert found.rows.to_pylist() == [row for row in range(20) if row % 5]


def test_a_recursive_value_has_a_bound_on_its_depth() -> None:
    chain = {"type": "record", "name": "R", "fields": [{"name": "next", "type": ["null", "R"]}]}
    fits, deep = (number(1) * links + number(0) for links in (MAX_DEPTH // 2, 10_000))
    found = read(chain, fits, deep, b"\2" + fits)
    assert [(one.position, one.reason) for one in found.rejections] == [(1, "too_deep"), (2, "too_deep")]
    assert {one.path for one in found.rejections} == {"next.next"}
    assert found.table.column(0)[0].as_py().count("next") == MAX_DEPTH // 2


@pytest.mark.parametrize(
    "items", ["null", {"type": "record", "name": "E", "fields": []}, {"type": "fixed", "name": "F", "size": 0}]
)
def test_items_of_no_bytes_are_bounded_by_the_bytes_of_their_record(items: Any) -> None:
    empties = {"type": "array", "items": items}
    allowed = FREE_ITEMS + 3
    found = read(empties, number(allowed) + b"\0", number(allowed + 1) + b"\0", number(2**62) + b"\0")
    assert [(one.position, one.reason) for one in found.rejections] == [(1, "too_large"), (2, "too_large")]
    assert [len(row["value"]) for row in found.table.to_pylist()] == [allowed]


@pytest.mark.parametrize("around", [lambda kind: kind, lambda kind: ["int", kind, "string"]])
def test_items_of_no_bytes_are_counted_through_the_whole_record(around: Any) -> None:
    lists = {"type": "array", "items": around({"type": "array", "items": "null"})}
    branch = number(1) if isinstance(lists["items"], list) else b""
    inner = branch + number(60) + b"\0"
    message = number(50) + inner * 50 + b"\0"
    bombs = [message] * 20
    tracemalloc.start()
    found = read(lists, number(1) + inner + b"\0", *bombs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [one.reason for one in found.rejections] == ["too_large"] * len(bombs)
    assert found.rows.to_pylist() == [0]
    assert peak < 2_000_000


@pytest.mark.parametrize("blocks", [1, 5_000])
def test_one_long_list_costs_its_own_items_and_no_step_over_all_records(
    blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    skip = octets.StringStep.skip

    def counted(self: octets.StringStep, cursors: Any) -> None:
        steps.append(len(cursors))
        skip(self, cursors)

    monkeypatch.setattr(octets.StringStep, "skip", counted)
    item = number(1) + b"a"
    block = number(5_000 // blocks) + item * (5_000 // blocks)
    found = read(STRINGS, *[number(2) + item * 2 + b"\0"] * 1_000, block * blocks + b"\0")
    assert sum(len(row["value"]) for row in found.table.to_pylist()) == 7_000
    assert len(steps) <= 3


def test_a_long_list_of_numbers_alone_is_the_same_as_among_others() -> None:
    numbers = [*range(-200, 200), 2**31 - 1, -(2**31)]
    good = number(len(numbers)) + b"".join(map(number, numbers)) + b"\0"
    bad = good.replace(number(2**31 - 1), number(2**31))
    for kind in ("int", "long"):
        schema = {"type": "array", "items": kind}
        for copies in (1, 50):
            found = read(schema, *[good] * copies, *[bad] * copies, good[:-2])
            assert found.table.to_pylist()[0]["value"] == numbers
            assert found.table.num_rows == (copies if kind == "int" else 2 * copies)
            assert {(one.reason, one.path) for one in found.rejections} >= {("truncated", "value[]")}
