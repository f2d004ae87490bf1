from collections.abc import Iterable, Mapping
from typing import cast

import pytest

from batcher.errors import SourceLost
from batcher.records import Partition, Position
from batcher.sources.kafka.group_progress import ASK_EVERY_S, GroupProgress
from batcher.sources.kafka.offsets import StartOffsets
from batcher.testing.clock import ManualClock

A, B = Partition("events", 0), Partition("events", 1)
PATIENCE_S = 60.0


class Group:
    """What the broker says: both logs end at 100."""

    def __init__(self, **committed: int) -> None:
        self.positions = {{"a": A, "b": B}[name]: offset for name, offset in committed.items()}
        self.asked = 0
        self.away = False

    def watermarks(self, _partition: Partition) -> tuple[int, int]:
        return 0, 100

    def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, Position]:
        self.asked += 1
        if self.away:
            raise SourceLost("no answer")
        return {one: Position(self.positions[one]) for one in partitions if one in self.positions}


def others(group: Group, clock: ManualClock) -> GroupProgress:
    return GroupProgress(cast(StartOffsets, group), [A, B], PATIENCE_S, clock)


def test_what_is_ours_needs_no_commit_of_others() -> None:
    group = Group()

    assert others(group, ManualClock()).through([A, B])
    assert group.asked == 0


@pytest.mark.parametrize(("group", "through"), [(Group(), False), (Group(b=99), False), (Group(b=100), True)])
def test_the_end_has_come_when_the_others_have_committed_up_to_it(group: Group, *, through: bool) -> None:
    assert others(group, ManualClock()).through([A]) is through


def test_one_without_a_partition_waits_for_all() -> None:
    clock, group = ManualClock(), Group(a=100)
    waiting = others(group, clock)

    early = waiting.through([])
    group.positions[B] = 100
    clock.advance(ASK_EVERY_S)

    assert (early, waiting.through([])) == (False, True)


def test_the_broker_is_asked_now_and_then_and_at_once_after_a_rebalance() -> None:
    clock, group = ManualClock(), Group(b=5)
    waiting = others(group, clock)

    waiting.through([A])
    waiting.through([A])
    assert group.asked == 1

    group.positions[B] = 100
    waiting.moved()
    assert waiting.through([A])


def test_what_was_said_of_other_partitions_does_not_hold_after_a_rebalance() -> None:
    waiting = others(Group(b=100), ManualClock())
    assert waiting.through([A])

    waiting.moved()

    assert not waiting.through([])


def test_where_nothing_moves_patience_comes_to_an_end() -> None:
    clock, group = ManualClock(), Group(b=5)
    waiting = others(group, clock)

    said = []
    for offset in (5, 6, 6):
        group.positions[B] = offset
        said.append(waiting.through([A]))
        clock.advance(PATIENCE_S - 1)
    assert said == [False, False, False]

    clock.advance(2)
    assert waiting.through([A])


def test_a_rebalance_begins_patience_anew() -> None:
    clock, group = ManualClock(), Group(b=5)
    waiting = others(group, clock)
    waiting.through([A])
    clock.advance(PATIENCE_S - 1)

    waiting.moved()
    clock.advance(2)

    assert not waiting.through([A])


def test_brokers_that_do_not_answer_are_not_the_end() -> None:
    group = Group(b=100)
    group.away = True

    assert not others(group, ManualClock()).through([A])
