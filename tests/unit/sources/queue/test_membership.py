"""The lanes of a group are shared fairly, each has one owner, and what has no living owner is taken over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from batcher.records import Intent, Partition, Position, Range
from batcher.sources.queue.file import QueueFile, QueueShape
from batcher.sources.queue.membership import Membership, share
from batcher.sources.queue.places import begin
from batcher.sources.queue.process import has_ended, own_process
from batcher.testing.clock import ManualClock

NewQueue = Callable[..., QueueFile]

SESSION_S = 30.0


class Group:
    """Members of one group, each with a connection of its own; `settle` lets them act in turn until nothing moves."""

    def __init__(self, new_queue: NewQueue) -> None:
        self.new_queue = new_queue
        self.clock = ManualClock(1000.0)
        begin(new_queue(), "g", "earliest")

    def member(self) -> Membership:
        return Membership(self.new_queue(), "g", SESSION_S, clock=self.clock)

    def settle(self, *members: Membership) -> list[set[int]]:
        for _ in range(10):
            for member in members:
                view = member.look()
                if surplus := member.surplus(view):
                    member.release(surplus)
                member.take()
        return [member.mine(member.look()) for member in members]


@pytest.fixture
def group(new_queue: NewQueue) -> Group:
    new_queue(lanes=4, priorities=2).close()
    return Group(new_queue)


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("lanes", [1, 3, 4, 8])
def test_the_shares_of_all_members_are_all_lanes_of_each_priority(members: int, lanes: int) -> None:
    shape = QueueShape("q", lanes, 3)
    for priority in range(3):
        shares = [share(shape, priority, members, number) for number in range(members)]
        assert sum(shares) == lanes
        assert max(shares) - min(shares) <= 1


def test_members_that_come_and_go_share_all_lanes_of_each_priority(group: Group) -> None:
    a, b, c = group.member(), group.member(), group.member()
    assert group.settle(a) == [set(range(8))]
    both = group.settle(a, b)
    assert [len(one) for one in both] == [4, 4]
    assert [len(one & {0, 1, 2, 3}) for one in both] == [2, 2]
    three = group.settle(a, b, c)
    assert sorted(map(len, three)) == [2, 3, 3]
    assert set().union(*three) == set(range(8))
    b.leave()
    assert sorted(map(len, group.settle(a, c))) == [4, 4]


def test_who_has_a_fair_share_gives_nothing_away(group: Group) -> None:
    a, b = group.member(), group.member()
    before = group.settle(a, b)
    assert group.settle(a, b) == before
    assert not a.surplus(a.look())
    assert not a.due(a.look())


def test_a_silent_member_loses_its_lanes_after_its_session_and_its_commits_are_refused(group: Group) -> None:
    a, b = group.member(), group.member()
    mine, _ = group.settle(a, b)
    group.clock.advance(SESSION_S + 1)
    assert group.settle(b) == [set(range(8))]
    assert a.store({lane: Position(1) for lane in mine}) == mine
    assert all(next_ == 0 for next_, _ in b.stored(mine).values())
    assert not a.mine(a.look())


def test_a_clock_that_was_set_back_keeps_nobody_alive_for_ever(group: Group) -> None:
    a, b = group.member(), group.member()
    group.settle(a, b)
    group.clock.advance(-1000.0)
    assert group.settle(b) == [set(range(8))]


def test_a_member_that_was_taken_for_dead_joins_again(group: Group) -> None:
    a, b = group.member(), group.member()
    group.settle(a, b)
    group.clock.advance(SESSION_S + 1)
    group.settle(b)
    assert sorted(map(len, group.settle(a, b))) == [4, 4]


def test_the_lanes_of_a_process_that_was_killed_are_free_at_once(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    machine, _, born = own_process().split(" ")
    killed = f"{machine} {int(dead.stdout)} {born}"
    a = group.member()
    with monkeypatch.context() as patch:
        patch.setattr("batcher.sources.queue.membership.own_process", lambda: killed)
        group.settle(a)
    assert group.settle(group.member()) == [set(range(8))]


def test_a_process_is_told_from_another_that_has_its_number_by_now() -> None:
    name = own_process()
    machine, pid, born = name.split(" ")
    assert not has_ended(name)
    assert int(pid) == os.getpid()
    assert has_ended(f"{machine} {pid} {born}1") or not born
    assert not has_ended(f"elsewhere {pid} {born}1"), "what runs on another machine cannot be seen"


def test_what_was_committed_is_handed_to_the_next_owner_with_its_intents(group: Group) -> None:
    a, b = group.member(), group.member()
    group.settle(a)
    lane = Partition("q", 3)
    position = Position(5, (Intent(Range(lane, 5, 9), 77), Intent(Range(lane, 10, 12), None, "0" * 32)), "mark")
    assert a.store({3: position}) == set()
    a.leave()
    assert b.position(3, b.take()[3]) == position
