"""A group of static members that left partitions to nobody is told by two looks, and shares out anew."""

from __future__ import annotations

import threading
from collections.abc import Collection

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from batcher.records import Partition
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.kafka.unowned import AGAIN_S, QUIET_S, UnownedPartitions
from batcher.testing.clock import ManualClock

A, B, C = (Partition("events", number) for number in range(3))


class Group:
    """Answer with what is left over, or raise it; count who joins."""

    def __init__(self, *answers: Collection[Partition] | Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.joined: list[Collection[str]] = []

    def unowned(self, topics: Collection[str], _timeout_s: float) -> Collection[Partition] | None:
        assert topics == ("events",)
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else ()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def join(self, _options: KafkaOptions, topics: Collection[str], _ended: threading.Event) -> None:
        self.joined.append(sorted(topics))


def watch(group: Group, clock: ManualClock, **more: object) -> UnownedPartitions:
    given = {"brokers": "b", "topics": ("events",), "group": "g", "instance": "one", **more}
    return UnownedPartitions(KafkaOptions(**given), group.unowned, join=group.join, clock=clock)  # type: ignore[arg-type]


def rounds(found: UnownedPartitions, clock: ManualClock, count: int) -> None:
    """Let so many looks come to their end."""
    for _ in range(count):
        clock.advance(max(QUIET_S, AGAIN_S))
        found.look(["events"])
        for thread in threading.enumerate():
            if thread.name == "unowned":
                thread.join()


def test_what_has_no_owner_in_two_looks_is_shared_out_anew_and_said() -> None:
    group, clock = Group({A, B}, {A, B}, ()), ManualClock()
    found = watch(group, clock)
    found.moved()

    with capture_logs() as logs:
        rounds(found, clock, 2)

    assert group.joined == [["events"]]
    [line] = [one for one in logs if one["event"] == "partitions_unowned"]
    assert (line["partitions"], line["count"]) == (["events[0]", "events[1]"], 2)
    # Once more, after the rest; then there is nothing to look for.
    rounds(found, clock, 20)
    assert group.asked == 3


def test_a_group_in_which_it_does_not_help_is_left_alone_for_ever_longer() -> None:
    group, clock = Group(*[{A}] * 1000), ManualClock()
    found = watch(group, clock)
    found.moved()
    joined = []
    for _ in range(80):
        rounds(found, clock, 1)
        joined.append(len(group.joined))

    # In 800 s: after two looks, and then after 60, 120, 240 and 480 s.
    assert joined[-1] == 4
    assert joined[5] == 1


def test_a_group_that_is_sharing_out_is_asked_again_and_left_alone() -> None:
    group, clock = Group(None, None, {A}, {C}, ()), ManualClock()
    found = watch(group, clock)
    found.moved()

    rounds(found, clock, 6)

    assert group.asked == 5
    assert group.joined == []


def test_nothing_is_asked_before_things_have_settled_nor_without_a_change() -> None:
    group, clock = Group(), ManualClock()
    found = watch(group, clock)
    rounds(found, clock, 2)
    assert group.asked == 0

    found.moved()
    clock.advance(QUIET_S - 1)
    found.moved()
    clock.advance(QUIET_S - 1)
    found.look(["events"])
    assert group.asked == 0

    rounds(found, clock, 3)
    assert group.asked == 1


def test_brokers_that_do_not_say_it_change_nothing() -> None:
    group, clock = Group(KafkaException(KafkaError(KafkaError._TIMED_OUT))), ManualClock()
    found = watch(group, clock)
    found.moved()

    rounds(found, clock, 2)

    assert (group.asked, group.joined) == (1, [])


@pytest.mark.parametrize(
    "more",
    [
        {"instance": None},
        {"properties": {"group.protocol": "consumer"}},
        {"properties": {"partition.assignment.strategy": "range"}},
    ],
    ids=["no static member", "kip-848", "range"],
)
def test_where_it_cannot_happen_nobody_looks(more: dict[str, object]) -> None:
    group, clock = Group(), ManualClock()
    found = watch(group, clock, **more)
    found.moved()

    rounds(found, clock, 2)

    assert group.asked == 0
