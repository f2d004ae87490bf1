"""What is looked at: all that was committed and is still there, or the part that was asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import pytest

from batcher.audit.scope import Bound, Scope, bound_of, scopes_of
from batcher.errors import ConfigurationError
from batcher.records import Partition, Position

A, B = Partition("events", 0), Partition("events", 1)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Places:
    """Be a log from 100 to 200 in each partition, with a record every second before noon, and a group."""

    def __init__(self, **committed: int) -> None:
        self._committed = {{"a": A, "b": B}[name]: Position(offset) for name, offset in committed.items()}

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        return {partition: at for partition, at in self._committed.items() if partition in partitions}

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        assert partition in (A, B)
        return 100, 200

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        assert partition in (A, B)
        offset = 200 - (int(NOON.timestamp()) - time_ms // 1000)
        return max(100, offset) if offset < 200 else None


def only(places: Places, start: Bound | None = None, end: Bound | None = None) -> Scope:
    (found,) = scopes_of(places, [A], start, end)
    return found


@pytest.mark.parametrize(
    ("committed", "start", "end", "expected"),
    [
        (150, None, None, (100, 150)),
        (150, 120, None, (120, 150)),
        (150, 5, 130, (100, 130)),
        (150, None, 180, (100, 150)),
        (150, 160, None, (160, 160)),
        (150, 140, 120, (140, 140)),
        (50, None, None, (100, 100)),
        (250, None, None, (100, 200)),
        (150, NOON.replace(hour=11, minute=59, second=0), None, (140, 150)),
        (150, None, NOON.replace(hour=11, minute=58, second=50), (100, 130)),
        (150, None, NOON, (100, 150)),
        (150, NOON, None, (200, 200)),
    ],
)
def test_the_scope_is_what_is_there_committed_and_asked_for(
    committed: int, start: Bound | None, end: Bound | None, expected: tuple[int, int]
) -> None:
    found = only(Places(a=committed), start, end)
    assert (found.first, found.next_offset) == expected


def test_how_far_the_group_is_from_the_end_is_said() -> None:
    assert only(Places(a=150)).behind == 50
    assert only(Places(a=250)).behind == 0


def test_what_expired_unread_and_what_was_cut_is_said() -> None:
    assert (only(Places(a=60)).expired, only(Places(a=60)).cut) == (40, 0)
    assert (only(Places(a=250)).expired, only(Places(a=250)).cut) == (0, 50)
    assert only(Places(a=60), start=100).expired == 0


def test_without_any_commit_nothing_can_be_proved_unless_it_is_said_how_far() -> None:
    with pytest.raises(ConfigurationError, match="no committed offset for any of these partitions: check -g"):
        only(Places())
    found = only(Places(), end=170)
    assert (found.first, found.next_offset, found.behind) == (100, 170, None)
    assert only(Places(), end=NOON).next_offset == 200


def test_a_partition_without_a_commit_beside_one_that_has_one_is_not_looked_at() -> None:
    found = scopes_of(Places(a=150), [A, B])
    assert [(one.first, one.next_offset) for one in found] == [(100, 150), (100, 100)]


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("1200", 1200),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T12:00:00", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
    ],
)
def test_a_bound_is_an_offset_or_a_time_in_utc_unless_it_says_otherwise(text: str, bound: Bound) -> None:
    assert bound_of("--from", text) == bound


@pytest.mark.parametrize("text", ["yesterday", "-5", "", "1.5"])
def test_another_bound_is_refused_with_its_flag(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--to: is an offset, or a time"):
        bound_of("--to", text)
