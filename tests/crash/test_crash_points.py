"""What is announced, written and committed at the moment of each crash point: the order that exactly-once rests on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from batcher.records import Partition, Position
from batcher.testing.kafka import Broker
from tests.harness.census import Census, Filling, dead_letters_in, fill, letter_coordinates
from tests.harness.crash_points import Trap, traps_of
from tests.harness.patience import LONG
from tests.harness.processes import BatcherProcess
from tests.harness.targets import ParquetDirectory

EVERY = (
    *("before_intent", "after_intent", "before_write", "mid_write"),
    *("after_write", "after_dead_letters", "before_commit", "after_commit"),
)
RECORDS = 3_000
BATCH = 1_000


def test_the_variables_say_where_how_often_and_how() -> None:
    given = {"CRASH_AT": "after_write:3,before_commit", "STOP_AT": "before_write:2", "HANG_AT": "in_revoke:1.5"}
    assert traps_of(given) == [
        Trap("after_write", "kill", 3),
        Trap("before_commit", "kill"),
        Trap("before_write", "stop", 2),
        Trap("in_revoke", "hang", 1, 1.5),
    ]
    assert traps_of({"HANG_AT": "before_write:4:9"}) == [Trap("before_write", "hang", 4, 9.0)]
    assert traps_of({}) == []


def test_a_point_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'nowhere'.*before_intent.*after_replay_write"):
        traps_of({"CRASH_AT": "nowhere"})


class Found(NamedTuple):
    """Say what a dead process left: the commit, what it announces, and the offsets in finished files."""

    next_offset: int
    announced: list[tuple[int, int]]
    written: list[int]
    letters: int


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic)
    return fill(broker, topic, 1, RECORDS, poison=3)


class Job(NamedTuple):
    """Hold a group that nobody has used, with a root of eight directories and a topic for dead letters."""

    broker: Broker
    orders: Filling
    target: ParquetDirectory
    group: str
    letters_topic: str

    @property
    def flags(self) -> tuple[str, ...]:
        where = ("-b", self.broker.bootstrap, "-t", self.orders.topic, "-g", self.group)
        batches = ("--batch.max-rows", str(BATCH), "--batch.max-wait", "1h")
        membership = ("--kafka.instance", self.group)
        letters = ("--dlq.topic", self.letters_topic)
        return (*where, *batches, *membership, *letters, *self.target.arguments, "--delivery", "exactly-once")

    def found(self) -> Found:
        partition = Partition(self.orders.topic, 0)
        position = self.broker.committed(self.group, [partition]).get(partition, Position(0))
        announced = [(intent.range.first, intent.range.last) for intent in position.intents]
        return Found(position.next_offset, announced, sorted(o for _, o in self.written()), len(self.letters()))

    def written(self) -> list[tuple[Partition, int]]:
        return list(self.target.loaded().coordinates)

    def letters(self) -> set[tuple[Partition, int]]:
        return set(letter_coordinates(dead_letters_in(self.broker.bootstrap, self.letters_topic)))


@pytest.fixture
def job(
    broker: Broker, orders: Filling, tmp_path: Path, new_group: Callable[[], str], new_topic: Callable[..., str]
) -> Job:
    target = ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow", partition_by=("country",))
    return Job(broker, orders, target, new_group(), new_topic())


def crash(job: Job, points: str) -> Found:
    with BatcherProcess(*job.flags, environment={"CRASH_AT": points}, module="tests.harness.crash_points") as process:
        assert process.wait() == -signal.SIGKILL
        assert process.named("crash_point")[-1]["point"] in points
    return job.found()


FIRST = [(0, BATCH - 1)]


def holds(point: str, found: Found) -> bool:
    """Tell whether what was found is what a crash at the first passing of a point may leave."""
    nothing = found.next_offset == 0 and not found.written
    announced = found.next_offset == 0 and found.announced[:1] == FIRST
    first_is_whole = sum(offset < BATCH for offset in found.written) == BATCH - 1
    whole = len(found.written) == BATCH - 1  # one of each batch is poison
    return {
        "before_intent": nothing and not found.announced,
        "after_intent": nothing and announced,
        "before_write": nothing and announced,
        "mid_write": announced and 0 < len(found.written) < BATCH - 1,
        "after_write": announced and whole and not found.letters,
        "after_dead_letters": announced and whole and found.letters == 1,
        # On the other thread: the write loop may be at the next announced batch by then.
        "before_commit": announced and first_is_whole and found.letters >= 1,
        "after_commit": found.next_offset == BATCH and found.letters >= 1 and FIRST[0] not in found.announced,
    }[point]


@pytest.mark.broker
@pytest.mark.parametrize("point", EVERY if LONG else ["after_intent", "mid_write", "before_commit"])
def test_a_crash_at_a_point_leaves_what_the_order_of_steps_says_and_a_new_start_makes_it_whole(
    job: Job, point: str
) -> None:
    found = crash(job, point)
    assert holds(point, found), found

    with BatcherProcess(*job.flags, "--until-eof") as process:
        assert process.wait() == 0
    # What was announced is replayed, and exactly that.
    replayed = [span for event in process.named("batch_written") if event["replayed"] for span in event["ranges"]]
    assert replayed == [f"{job.orders.topic}[0] {first}-{last}" for first, last in found.announced]
    census = Census.of(job.orders.offsets, job.written(), job.letters())
    assert census.exact, census


@pytest.mark.broker
@pytest.mark.parametrize("point", ["during_replay", "mid_write", "after_replay_write"] if LONG else ["mid_write"])
def test_a_crash_in_a_replay_is_followed_by_the_same_replay(job: Job, point: str) -> None:
    first = crash(job, "mid_write")
    second = crash(job, point)
    assert (second.next_offset, second.announced) == (first.next_offset, first.announced)
    assert set(second.written) >= set(first.written)

    with BatcherProcess(*job.flags, "--until-eof") as process:
        assert process.wait() == 0
    census = Census.of(job.orders.offsets, job.written(), job.letters())
    assert census.exact, census
