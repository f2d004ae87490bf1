"""A consumer that is no pipeline: what it pulled is its own for a lease, and done when it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from batcher.errors import ConfigurationError
from batcher.protocols import Outgoing
from batcher.records import Position
from batcher.sources.queue.admin import replay, stats
from batcher.sources.queue.consumer import QueueConsumer
from batcher.sources.queue.file import QueueFile
from batcher.sources.queue.membership import Membership
from batcher.sources.queue.publisher import QueuePublisher
from batcher.sources.queue.source import QueueOptions, QueueSource
from batcher.testing.clock import ManualClock
from batcher.testing.listener import RecordingListener

NewQueue = Callable[..., QueueFile]


class Desk:
    """One queue with consumers, all by one clock."""

    def __init__(self, file: QueueFile) -> None:
        self.file = file
        self.clock = ManualClock(1000.0)
        self.publisher = QueuePublisher(file, clock=self.clock)

    def publish(self, *values: str, **options: Any) -> None:
        self.publisher.store([Outgoing(value.encode(), **options) for value in values])
        self.clock.advance(1.0)

    def consumer(self, group: str = "g") -> QueueConsumer:
        return QueueConsumer(self.file, group, clock=self.clock)

    def pull(self, count: int = 10, group: str = "g") -> list[str]:
        return [one["payload"] for one in self.consumer(group).pull(count, 30.0)]


@pytest.fixture
def desk(new_queue: NewQueue) -> Desk:
    return Desk(new_queue(lanes=2, priorities=2))


def test_higher_priorities_come_first_then_the_oldest_of_all_lanes(desk: Desk) -> None:
    desk.publish("a")
    desk.publish("b")
    desk.publish("c", key=b"k")
    desk.publish("urgent", priority=1)
    assert desk.pull(2) == ["urgent", "a"]
    assert desk.pull(9) == ["b", "c"]
    assert desk.pull() == []


def test_every_group_gets_every_message_and_consumers_of_one_group_share_them(desk: Desk) -> None:
    desk.publish("a", "b", "c")
    first, second = desk.pull(2), desk.pull(2)
    assert sorted(first + second) == ["a", "b", "c"]
    assert sorted(desk.pull(9, "other")) == ["a", "b", "c"]


def test_what_was_not_acknowledged_comes_again_after_its_lease_with_its_attempt(desk: Desk) -> None:
    desk.publish("a")
    [one] = desk.consumer().pull(1, 30.0)
    assert (one["status"], one["attempt"]) == ("in flight", 1)
    assert desk.pull() == []
    desk.clock.advance(30.0)
    [again] = desk.consumer().pull(1, 30.0)
    assert (again["id"], again["attempt"]) == (one["id"], 2)


def test_what_was_acknowledged_is_done_also_where_an_older_one_is_not(desk: Desk) -> None:
    desk.publish("a", "b", "c", key=b"k")
    pulled = desk.consumer().pull(3, 30.0)
    assert desk.consumer().acknowledge([pulled[1]["id"], pulled[2]["id"]]) == []
    assert stats(desk.file)["groups"] == [{"group": "g", "behind": 3, "in_flight": 1, "members": 0}]
    desk.clock.advance(30.0)
    assert desk.pull() == ["a"]
    assert desk.consumer().acknowledge([pulled[0]["id"]]) == []
    assert stats(desk.file)["groups"] == [{"group": "g", "behind": 0, "in_flight": 0, "members": 0}]
    desk.clock.advance(30.0)
    assert desk.pull() == []


def test_what_was_given_back_comes_again_at_once(desk: Desk) -> None:
    desk.publish("a")
    [one] = desk.consumer().pull(1, 30.0)
    assert desk.consumer().give_back([one["id"]]) == []
    assert desk.pull() == ["a"]


def test_ids_that_a_group_does_not_have_in_hand_are_told_and_the_others_are_done(desk: Desk) -> None:
    desk.publish("a", "b", key=b"k")
    [one] = desk.consumer().pull(1, 30.0)
    lane = one["id"].partition("-")[0]
    assert desk.consumer().acknowledge(["nowhere", one["id"], f"{lane}-1"]) == ["nowhere", f"{lane}-1"]
    assert desk.pull() == ["b"]


def test_messages_that_were_purged_hold_up_nothing(desk: Desk) -> None:
    desk.publish("a", "b", "c", key=b"k")
    pulled = desk.consumer().pull(3, 30.0)
    lane = int(pulled[0]["id"].partition("-")[0])
    desk.file.db.execute("DELETE FROM message WHERE value = CAST('a' AS BLOB)")
    desk.file.db.execute("UPDATE lane SET first = 1, purged = 1 WHERE number = ?", (lane,))
    desk.consumer().acknowledge([one["id"] for one in pulled[1:]])
    assert stats(desk.file)["groups"][0]["behind"] == 0


def test_a_group_is_set_back_to_a_message_a_time_and_the_beginning(desk: Desk) -> None:
    desk.publish("a", "b", "c", key=b"k")
    middle = int(desk.clock() * 1000)
    desk.publish("d", key=b"k")
    pulled = desk.consumer().pull(9, 30.0)
    desk.consumer().acknowledge([one["id"] for one in pulled])
    assert replay(desk.file, "g", None, pulled[1]["id"]) == 3
    assert desk.pull() == ["b", "c", "d"]
    assert replay(desk.file, "g", middle, None) == 1
    assert desk.pull() == ["d"]
    assert replay(desk.file, "g", "earliest", None) == 4
    assert replay(desk.file, "g", "latest", None) == 0
    assert replay(desk.file, "new", "earliest", None) == 4
    with pytest.raises(ConfigurationError, match="has no message with this id"):
        replay(desk.file, "g", None, "nothing")


def test_a_group_that_a_pipeline_reads_is_neither_pulled_from_nor_set_back(desk: Desk) -> None:
    desk.publish("a")
    source = QueueSource(QueueOptions(desk.file.path, "g"))
    source.open(RecordingListener())
    try:
        source.fetch(1, 1 << 20, 0.0)
        for refused in (desk.pull, lambda: replay(desk.file, "g", "earliest", None)):
            with pytest.raises(ConfigurationError, match=r"--queue\.group g"):
                refused()
    finally:
        source.close()
    assert desk.pull() == ["a"]


def test_a_group_whose_pipeline_has_announced_ranges_is_not_pulled_from(desk: Desk) -> None:
    desk.publish("a")
    member = Membership(desk.file, "g", 30.0, clock=desk.clock)
    desk.pull(9, "other")
    replay(desk.file, "g", "earliest", None)
    member.take()
    member.store({0: Position(0, (), "mark")})
    member.leave()
    with pytest.raises(ConfigurationError, match="a pipeline reads for this group"):
        desk.pull()


def test_a_pipeline_does_not_start_for_a_group_that_has_messages_in_hand(desk: Desk) -> None:
    desk.publish("a")
    [one] = desk.consumer().pull(1, 30.0)
    with pytest.raises(ConfigurationError, match="batcher queue pull"):
        QueueSource(QueueOptions(desk.file.path, "g")).open(RecordingListener())
    desk.consumer().acknowledge([one["id"]])
    source = QueueSource(QueueOptions(desk.file.path, "g"))
    source.open(RecordingListener())
    source.close()
