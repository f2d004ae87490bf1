from datetime import UTC, datetime, timedelta

import pytest

from batcher.dead_letters.kit.select import ATTEMPTS, StoredLetter, Where, coordinate, counted, each_once, where
from batcher.records import DeadLetter, Headers, Partition, Record, Stage

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def stored(
    offset: int = 1,
    *,
    topic: str = "events",
    number: int = 0,
    stage: Stage = "decode",
    reason: str = "syntax",
    failed_at: datetime | None = NOON,
    headers: Headers = (),
) -> StoredLetter:
    record = Record(Partition(topic, number), offset, None, b"k", b"value", headers)
    return StoredLetter(DeadLetter(record, stage, reason, "not JSON"), "g", failed_at, "here")


def test_values_of_one_kind_are_alternatives_and_kinds_hold_together() -> None:
    chosen = where("reason=syntax,reason=null,stage=decode")
    assert chosen(stored(reason="syntax"))
    assert chosen(stored(reason="null"))
    assert not chosen(stored(reason="overflow"))
    assert not chosen(stored(reason="null", stage="sink"))


@pytest.mark.parametrize(
    ("text", "other"),
    [("topic=events", stored(topic="e")), ("partition=0", stored(number=1)), ("stage=decode", stored(stage="sink"))],
)
def test_each_name_of_a_filter_leaves_the_others_out(text: str, other: StoredLetter) -> None:
    assert where(text)(stored())
    assert not where(text)(other)


@pytest.mark.parametrize("text", ["", "reason", "reason=", "colour=red", "stage=neither", "partition=x", ","])
def test_a_filter_that_means_nothing_is_refused_with_the_names_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"names|stage|partition"):
        where(text)


def test_the_first_moment_counts_and_the_last_does_not() -> None:
    hour = timedelta(hours=1)
    chosen = Where().during(NOON, NOON + hour)
    assert [chosen(stored(failed_at=at)) for at in (NOON - hour, NOON, NOON + hour)] == [False, True, False]


def test_a_letter_without_a_moment_is_in_no_time_but_in_an_open_filter() -> None:
    assert Where()(stored(failed_at=None))
    assert not Where(since=NOON)(stored(failed_at=None))
    assert not Where(before=NOON)(stored(failed_at=None))


def test_an_id_finds_its_record_also_in_a_topic_with_colons() -> None:
    assert coordinate("a:b:3:17") == (Partition("a:b", 3), 17)
    assert Where(coordinate=coordinate("events:0:1"))(stored(1))
    assert not Where(coordinate=coordinate("events:0:1"))(stored(2))


@pytest.mark.parametrize("text", ["", "events", "events:1", ":1:2", "events:x:1", "events:1:-1"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TOPIC:PARTITION:OFFSET"):
        coordinate(text)


@pytest.mark.parametrize(
    ("content", "attempts"), [(b"2", 2), (b"", 0), (None, 0), (b"many", 0), (b"9" * 40, 0), ("²".encode(), 0)]
)
def test_attempts_are_counted_by_the_last_header_and_anything_else_is_none(
    content: bytes | None, attempts: int
) -> None:
    assert stored(headers=((ATTEMPTS, b"7"), ("other", b"9"), (ATTEMPTS, content))).attempts == attempts
    assert stored().attempts == 0


def test_a_record_that_is_kept_twice_comes_once() -> None:
    letters = [stored(1), stored(2), stored(1), stored(1, number=1)]
    assert [one.id for one in each_once(letters)] == ["events:0:1", "events:0:2", "events:1:1"]


def test_counts_tell_letters_from_records_and_say_first_and_last() -> None:
    later = NOON + timedelta(minutes=1)
    rows = counted([stored(2, failed_at=later), stored(1), stored(2, failed_at=None), stored(3, reason="null")])
    assert [row.example for row in rows] == ["events:0:3", "events:0:1"]
    assert [(row.reason, row.letters, row.records, row.first, row.last) for row in rows] == [
        ("null", 1, 1, NOON, NOON),
        ("syntax", 3, 2, NOON, later),
    ]
