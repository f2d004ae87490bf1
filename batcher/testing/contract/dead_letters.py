"""The laws that every dead-letter queue keeps, as tests to inherit: `class TestMine(DeadLetterLaws)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from batcher.errors import DeadLetterFailed
from batcher.protocols import DeadLetterQueue
from batcher.records import DeadLetter, Headers, Partition, Record


@dataclass
class DeadLetterCase:
    """Hold a queue with the means to look into it, to break it and to repair it."""

    queue: DeadLetterQueue
    stored: Callable[[], Sequence[DeadLetter]]
    break_it: Callable[[], object]
    mend_it: Callable[[], object]


def letter(
    offset: int = 7,
    *,
    key: bytes | None = b"user-1",
    value: bytes | None = b'{"id": "x"}',
    headers: Headers = (),
    timestamp_ms: int | None = 1_700_000_000_123,
    partition: Partition = Partition("events", 3),  # noqa: B008  a NamedTuple is immutable
    message: str = "field id: not a number",
    path: str | None = "id",
) -> DeadLetter:
    """Return a dead letter; what is not given is plain."""
    record = Record(partition, offset, timestamp_ms, key, value, headers)
    return DeadLetter(record, "decode", "type", message, path)


class DeadLetterLaws:
    """Hold a dead-letter queue to the laws. A suite inherits from it and has a fixture `case`: a `DeadLetterCase`."""

    @pytest.mark.parametrize(
        "sent",
        [
            letter(),
            letter(key=None, value=None, timestamp_ms=None, path=None),
            letter(key=b"", value=b""),
            letter(key=b"\xff\xfe", value=b"\x80\x00\x81"),
            letter(timestamp_ms=0),
            letter(timestamp_ms=-62_135_596_800_000),
            letter(headers=(("a", b"1"), ("a", None), ("", b""), ("trace", b"\xff\x00"))),
            letter(headers=(("__connect.errors.topic", b"elsewhere"), ("batcher.stage", b"sink"))),
            letter(offset=2**62, partition=Partition("events", 2**31 - 1)),
            DeadLetter(letter().record, "sink", "overflow", "column n: 300 does not fit UInt8", "n"),
        ],
        ids=["plain", "nulls", "empty", "bytes", "epoch", "before-epoch", "headers", "put-aside-twice", "high", "sink"],
    )
    def test_a_sent_letter_can_be_read_back_whole(self, case: DeadLetterCase, sent: DeadLetter) -> None:
        case.queue.send([sent])
        assert list(case.stored()) == [sent]

    def test_letters_are_stored_in_the_order_they_were_sent(self, case: DeadLetterCase) -> None:
        letters = [letter(offset) for offset in range(300)]
        case.queue.send(letters[:100])
        case.queue.send(letters[100:])
        assert list(case.stored()) == letters

    def test_sending_no_letters_stores_none(self, case: DeadLetterCase) -> None:
        case.queue.send([])
        assert list(case.stored()) == []

    def test_a_letter_sent_twice_carries_the_same_coordinates(self, case: DeadLetterCase) -> None:
        case.queue.send([letter(41), letter(42)])
        case.queue.send([letter(42)])
        assert [(one.record.partition, one.record.offset) for one in case.stored()] == [
            (Partition("events", 3), 41),
            (Partition("events", 3), 42),
            (Partition("events", 3), 42),
        ]

    @pytest.mark.parametrize(
        "sent",
        [
            letter(partition=Partition("a\r\n\x1b[2Jb", 0)),
            letter(key=b"\r\n\x1b[31m\x00\xc2\x9b", value=b'line\r\nline\x00{"offset": 1}\n'),
            letter(headers=(("x\r\ny\x1b[0m", b"\x00\n"),)),
            letter(value=bytes(range(256)) * 3906),
            letter(key=b"k" * 500_000, value=b"v" * 1_000_000),
            letter(path="ä.世"),
        ],
        ids=["topic", "key-and-value", "header", "1-MB", "large-key", "field-name"],
    )
    def test_hostile_content_is_kept_and_hides_no_other_letter(self, case: DeadLetterCase, sent: DeadLetter) -> None:
        case.queue.send([letter(1), sent, letter(2)])
        assert list(case.stored()) == [letter(1), sent, letter(2)]

    def test_a_letter_that_cannot_be_stored_is_an_error_that_shows_no_payload(self, case: DeadLetterCase) -> None:
        case.break_it()
        with pytest.raises(DeadLetterFailed) as failed:
            case.queue.send([letter(key=b"the-key", value=b"the-value", headers=(("h", b"the-header"),))])
        case.mend_it()
        assert "\n" not in str(failed.value)
        assert not any(secret in str(failed.value) for secret in ("the-key", "the-value", "the-header"))

    def test_a_queue_goes_on_after_a_failure(self, case: DeadLetterCase) -> None:
        case.queue.send([letter(1)])
        case.break_it()
        with pytest.raises(DeadLetterFailed):
            case.queue.send([letter(2)])
        case.mend_it()
        case.queue.send([letter(2), letter(3)])
        assert {one.record.offset for one in case.stored()} == {1, 2, 3}

    def test_closing_twice_is_harmless(self, case: DeadLetterCase) -> None:
        case.queue.send([letter()])
        case.queue.close()
        case.queue.close()
        assert len(case.stored()) == 1
