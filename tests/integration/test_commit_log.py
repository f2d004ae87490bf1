"""Each commit of a group is found again, in order, with its intents, whatever came after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batcher.records import Intent, Partition, Position, Range
from batcher.testing.kafka import Broker
from tests.harness.commit_log import Commit, CommitLog
from tests.harness.processes import BatcherProcess

pytestmark = [pytest.mark.broker]


def test_every_commit_is_there_with_its_intents_and_a_step_back_is_named(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str]
) -> None:
    topic, group = new_topic(2), new_group()
    one, two = Partition(topic, 0), Partition(topic, 1)
    announced = (Intent(Range(one, 10, 19), None),)
    first = {one: Position(10, announced, "ä" * 100), two: Position(5)}
    for positions in (first, {one: Position(20)}, {one: Position(3)}):
        broker.commit(group, positions)
    broker.commit(new_group(), {one: Position(1)})

    log = CommitLog.of(broker.bootstrap, group)

    found = [commit.position for commit in log.by_partition[one]]
    assert found == [Position(10, announced, "ä" * 100), Position(20), Position(3)]
    assert [commit.next_offset for commit in log.by_partition[two]] == [5]
    assert [(step.before.next_offset, step.after.next_offset) for step in log.went_back] == [(20, 3)]
    times = [commit.at_s for commit in log.commits]
    assert times == sorted(times)


def test_the_longest_rest_is_between_commits_that_move() -> None:
    partition = Partition("orders", 0)
    steps = ((0, 100.0), (5, 101.0), (5, 107.0), (9, 108.5), (9, 120.0))
    log = CommitLog([Commit(partition, Position(next_offset), at_s) for next_offset, at_s in steps], generations=1)
    assert log.longest_rest_s == {partition: 7.5}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_generations_of_a_group_are_counted(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], protocol: str
) -> None:
    topic, group = new_topic(1), new_group()
    broker.produce(topic, ['{"id":1}'] * 10)
    flags = ("--sink", "null", "-b", broker.bootstrap, "-t", topic, "-g", group, "-X", f"group.protocol={protocol}")
    counts = []
    for _ in range(2):
        with BatcherProcess(*flags, "--until-eof") as running:
            assert running.wait() == 0
        counts.append(CommitLog.of(broker.bootstrap, group).generations)
    assert 0 < counts[0] < counts[1]
