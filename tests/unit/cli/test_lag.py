"""How far a group is behind: what is counted, how fast it goes, and what is said of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import cast

import pytest

from batcher.cli.main import main
from batcher.cli.support.lag import GroupPlace, LagLook, begin_at, facts, lines, look, pace, said
from batcher.errors import Unreachable
from batcher.protocols import ReadableLog
from batcher.records import Intent, Partition, Position, Range

A, B = Partition("orders", 0), Partition("orders", 1)


class WrittenLog:
    """Answer as a log with two partitions of a hundred records does."""

    def __init__(self, committed: Mapping[Partition, Position], members: int | None = 1) -> None:
        self._committed = committed
        self._members = members

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        return {one: self._committed[one] for one in partitions if one in self._committed}

    def watermarks(self, partition: Partition) -> tuple[int, int]:
        return (10, 100)

    def at_time(self, partition: Partition, time_ms: int) -> int | None:
        return 40 if partition == A else None

    def members(self) -> int:
        if self._members is None:
            raise Unreachable("not known")
        return self._members


def seen(
    committed: Mapping[Partition, Position], at_s: float = 0.0, start: str = "earliest", **more: object
) -> LagLook:
    log = cast("ReadableLog", WrittenLog(committed, cast("int | None", more.get("members", 1))))
    ends = cast("Mapping[Partition, int] | None", more.get("ends"))
    return look(log, [A, B], begin_at(start), ends, clock=lambda: at_s)


def test_a_partition_without_a_commit_is_behind_from_where_a_run_would_begin() -> None:
    assert seen({}).behind == 180
    assert seen({}, start="latest").behind == 0
    assert [one.behind for one in seen({}, start="1000").places.values()] == [60, 0]
    assert [one.behind for one in seen({}, start="0=90,1=95").places.values()] == [10, 5]


def test_what_an_intent_names_is_behind_and_said_to_be_on_its_way() -> None:
    announced = Position(50, (Intent(Range(A, 50, 59)), Intent(Range(A, 60, 69))))
    found = seen({A: announced, B: Position(100)})
    assert found.places[A].announced == 20
    assert said(found, None) == "50 records behind, 20 of them being written or written already"


def test_rate_and_time_left_come_from_two_looks_and_count_what_comes_in() -> None:
    before = LagLook(0.0, {A: GroupPlace(0, 1000, 100)}, 1)
    now = LagLook(10.0, {A: GroupPlace(0, 1100, 600)}, 1)
    found = pace(before, now, [A])
    assert (found.commits, found.arrives, found.eta_s) == (50.0, 10.0, 12.5)
    assert said(now, before) == "500 records behind; at this rate 12 s"


@pytest.mark.parametrize(
    ("end", "committed", "members", "expected"),
    [
        (2000, 200, 1, "it falls back"),
        (1000, 100, 0, "no process runs for this group"),
        (1000, 100, 2, "nothing was committed for 10 s"),
        (1000, 1000, 1, "nothing is left to load"),
    ],
)
def test_a_group_that_does_not_catch_up_is_told_why(end: int, committed: int, members: int, expected: str) -> None:
    before = LagLook(0.0, {A: GroupPlace(0, 1000, 100)}, members)
    now = LagLook(10.0, {A: GroupPlace(0, end, committed)}, members)
    assert said(now, before).endswith(expected)


def test_what_is_wrong_with_a_position_is_said() -> None:
    now = seen({A: Position(5), B: Position(120)})
    text = "\n".join(lines("g", now, None))
    assert "orders[0]: 5 offsets expired before they were read" in text
    assert "orders[1]: the log ends at 100, before the commit" in text
    unreadable = seen({A: Position(50, unreadable="the intent is damaged")})
    assert "orders[0]: the intent is damaged; see --ignore-intents" in "\n".join(lines("g", unreadable, None))


def test_a_run_with_an_end_is_behind_up_to_its_end() -> None:
    assert seen({A: Position(20)}, ends={A: 30}).behind == 10


def test_sixty_columns_are_enough_and_json_has_the_same_numbers() -> None:
    places = {A: GroupPlace(0, 45_678_901, 500_000), B: GroupPlace(0, 45_678_901, 26_543_210)}
    earlier = {one: replace(place, committed=place.next_offset - 123_456) for one, place in places.items()}
    now, before = LagLook(2.0, places, 3), LagLook(0.0, earlier, 3)
    assert max(len(line) for line in "\n".join(lines("group", now, before)).splitlines()[:6]) <= 60
    found = facts("g", now, before)
    assert found["behind"] == sum(one["behind"] for one in found["partitions"]) == now.behind
    assert facts("g", now, None)["eta_s"] is None


def test_members_that_cannot_be_asked_for_are_not_known_and_no_fault() -> None:
    assert seen({}, members=None).members is None


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["lag", "-b", "localhost:1", "-t", "t", "-g", "g"], 69),
        (["lag", "-b", "localhost:1", "-t", "t"], 2),
        (["lag", "--source", "sqs", "--sqs.queue", "q"], 2),
        (["lag", "-b", "k", "-t", "t", "-g", "g", "--watch", "--every", "0s"], 2),
    ],
)
def test_what_cannot_be_looked_at_has_the_exit_code_of_its_reason(argv: list[str], code: int) -> None:
    assert main(argv) == code
