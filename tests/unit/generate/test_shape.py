from typing import Any

import pytest

from batcher.generate.events import Poison
from batcher.generate.lines import Chunk
from batcher.generate.shape import NOW, SendableBatch, SendableEvent, Shaper, made_up, shaped
from batcher.generate.skipped import Skipped, SkipReason

AT_NOON_MS = 1_767_268_800_000


def one(line: bytes, **options: Any) -> SendableEvent | SkipReason:
    return Shaper(**options)(line)


def event(value: bytes | None, key: bytes | None = None, timestamp_ms: int = NOW) -> SendableEvent:
    return SendableEvent(value, key, timestamp_ms)


def test_a_count_cuts_the_last_chunk() -> None:
    taken = shaped(made_up([[b"a", b"b"], [b"c", b"d"], [b"e"]]), Shaper(), count=3)

    assert [value for batch in taken for value in batch.values] == [b"a", b"b", b"c"]


def test_a_count_is_one_of_records_and_what_stands_behind_it_is_not_counted() -> None:
    skipped = Skipped()
    chunk = Chunk([b"1:a", SkipReason.EMPTY, b"none", b"2:b", SkipReason.EMPTY], range(1, 6), "x.txt")

    taken = shaped([chunk], Shaper(separator=b":", strict=True), count=2, skipped=skipped)

    assert [batch for batch in taken if batch.values] == [
        SendableBatch((b"a",), (b"1",), (), "x.txt", [1]),
        SendableBatch((b"b",), (b"2",), (), "x.txt", [4]),
    ]
    assert skipped.counts == {SkipReason.EMPTY: 1, SkipReason.NO_SEPARATOR: 1}
    assert skipped.first == {SkipReason.EMPTY: "x.txt:2", SkipReason.NO_SEPARATOR: "x.txt:3"}
    assert skipped.faulty == 1


def test_poison_spoils_the_lines_that_are_sent_and_reaches_the_topic_without_key_and_time() -> None:
    poison = Poison(1.0)
    chunk = Chunk([SkipReason.EMPTY, b'{"k":1,"t":"2026-01-01"}'], range(1, 3), "x")

    (sent,) = shaped([chunk], Shaper(key_field="k", timestamp_field="t"), poison=poison)

    assert sent == SendableBatch((b'{"k":1,"t":"',), (None,), (), "x", [2])
    assert (poison.seen, poison.spoiled) == (1, 1)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"id":7}', b"7"),
        (b'{"id": 1.50 }', b"1.50"),
        (b'{"id":18446744073709551617}', b"18446744073709551617"),
        (b'{"id":"x"}', b"x"),
        (b'{"id":"\\u00e9\\n"}', "é\n".encode()),
        (b'{"id":null}', None),
        (b'{"id":{"a":1}}', b'{"a":1}'),
    ],
)
def test_a_key_is_the_field_with_all_its_digits(line: bytes, key: bytes | None) -> None:
    assert one(line, key_field="id", strict=True) == event(line, key)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"other":1}', SkipReason.NO_KEY_FIELD),
        (b"[1]", SkipReason.NOT_JSON),
        (b"not json", SkipReason.NOT_JSON),
        (b"\xff", SkipReason.NOT_JSON),
        (b'{"id":"\xff"}', SkipReason.NOT_JSON),
        (b'{"id":1,"other":"\xff"}', SkipReason.NOT_JSON),
        (b"[" * 100_000, SkipReason.NOT_JSON),
        (b'{"id":' * 100_000, SkipReason.NOT_JSON),
    ],
)
def test_a_line_without_the_key_is_skipped_and_made_up_poison_has_none(line: bytes, reason: SkipReason) -> None:
    assert one(line, key_field="id", strict=True) is reason
    assert one(line, key_field="id") == event(line)


@pytest.mark.parametrize(
    ("line", "tombstones", "expected"),
    [
        (b"k:v:w", False, event(b"v:w", b"k")),
        (b"k:", False, event(b"", b"k")),
        (b"k:", True, event(None, b"k")),
        (b":v", True, event(b"v", b"")),
        (b"kv", True, SkipReason.NO_SEPARATOR),
    ],
)
def test_the_key_ends_at_the_first_separator_and_an_empty_value_may_be_a_tombstone(
    line: bytes, tombstones: bool, expected: SendableEvent | SkipReason
) -> None:
    assert one(line, separator=b":", tombstones=tombstones, strict=True) == expected


def test_a_tombstone_needs_no_time() -> None:
    assert one(b"k:", separator=b":", tombstones=True, timestamp_field="t", strict=True) == event(None, b"k")


@pytest.mark.parametrize(
    "text",
    [
        '"2026-01-01T12:00:00Z"',
        '"2026-01-01 13:00:00.0009+01:00"',
        "1767268800",
        "1767268800000",
        "1767268800000999",
        "1767268800000999999",
        '"1767268800000"',
        "1.7672688e9",
    ],
)
def test_a_time_is_read_as_columns_of_times_are(text: str) -> None:
    line = f'{{"t":{text}}}'.encode()

    assert one(line, timestamp_field="t", strict=True) == event(line, None, AT_NOON_MS)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"t":null}', SkipReason.NO_TIMESTAMP),
        (b'{"u":1}', SkipReason.NO_TIMESTAMP),
        (b"{", SkipReason.NOT_JSON),
        (b'{"t":"noon"}', SkipReason.BAD_TIMESTAMP),
        (b'{"t":"\xff"}', SkipReason.NOT_JSON),
        (b'{"t":true}', SkipReason.BAD_TIMESTAMP),
        (b'{"t":[1]}', SkipReason.BAD_TIMESTAMP),
        (b'{"t":1e99}', SkipReason.BAD_TIMESTAMP),
        (b'{"t":"1970-01-01T00:00:00Z"}', SkipReason.BAD_TIMESTAMP),  # the client would send the time of now
        (b'{"t":"1969-12-31T23:59:59.999Z"}', SkipReason.BAD_TIMESTAMP),  # Kafka would take it for none
    ],
)
def test_a_line_without_a_time_that_can_be_sent_is_skipped(line: bytes, reason: SkipReason) -> None:
    assert one(line, timestamp_field="t", strict=True) is reason


def test_the_key_in_front_and_a_time_inside_the_value_go_together() -> None:
    line = b'k\t{"t":1767268800}'

    assert one(line, separator=b"\t", timestamp_field="t") == event(b'{"t":1767268800}', b"k", AT_NOON_MS)


def test_key_and_time_may_be_the_same_field() -> None:
    line = b'{"t":1767268800}'

    assert one(line, key_field="t", timestamp_field="t") == event(line, b"1767268800", AT_NOON_MS)


def test_what_needs_no_look_inside_is_passed_on_as_it_is() -> None:
    chunk = Chunk([b"a", b"b"], range(4, 6), "x", whole=True)

    assert list(shaped([chunk], Shaper(strict=True))) == [SendableBatch([b"a", b"b"], (), (), "x", range(4, 6))]
