"""What a publisher is told when it returns holds: the messages are there, once, in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from batcher.errors import Unreachable
from batcher.protocols import Outgoing
from batcher.sources.queue import file as queue_file
from batcher.sources.queue import publisher as queue_publisher
from batcher.sources.queue.delay import Delays
from batcher.sources.queue.file import QueueFile, QueueFull, lane_of, offset_of
from batcher.sources.queue.publisher import QueuePublisher
from batcher.testing.clock import ManualClock

NewQueue = Callable[..., QueueFile]


def stored(file: QueueFile, columns: str = "value") -> list[Any]:
    found = file.db.execute(f"SELECT place, {columns} FROM message ORDER BY place").fetchall()
    return [(lane_of(place), offset_of(place), *rest) for place, *rest in found]


def messages(*values: str, **options: Any) -> list[Outgoing]:
    return [Outgoing(value.encode(), **options) for value in values]


def test_messages_of_one_lane_are_stored_in_their_order(new_queue: NewQueue) -> None:
    file = new_queue()
    publisher = QueuePublisher(file)
    assert publisher.store(messages("a", "b")).ids == ["0-0", "0-1"]
    assert publisher.publish(messages("c"), 1.0) == []
    assert stored(file) == [(0, 0, b"a"), (0, 1, b"b"), (0, 2, b"c")]


def test_messages_of_one_key_share_a_lane_and_others_take_turns(new_queue: NewQueue) -> None:
    file = new_queue(lanes=4)
    publisher = QueuePublisher(file)
    publisher.store(messages(*"abcdefgh", key=b"k"))
    assert len({lane for lane, *_ in stored(file)}) == 1
    publisher.store(messages(*"ijklmnop"))
    assert {lane for lane, *_ in stored(file)} == {0, 1, 2, 3}


def test_a_message_with_an_id_that_is_there_is_not_stored_again(new_queue: NewQueue) -> None:
    file = new_queue()
    publisher = QueuePublisher(file)
    publisher.store(messages("a", "b"), ["one", "two"])
    again = publisher.store(messages("a", "b", "c", "c"), ["one", "two", "three", "three"])
    assert again.ids == ["one", "two", "three", "three"]
    assert stored(file, "id, value") == [(0, 0, "one", b"a"), (0, 1, "two", b"b"), (0, 2, "three", b"c")]


def test_the_id_of_a_delayed_message_is_known_as_well(new_queue: NewQueue) -> None:
    file = new_queue()
    publisher = QueuePublisher(file)
    publisher.store(messages("a", delay_s=60.0), ["one"])
    publisher.store(messages("a"), ["one"])
    assert stored(file) == []


@pytest.mark.parametrize("id_", ["", "0-17", "d3"])
def test_an_id_that_could_be_one_of_the_queues_own_is_refused(id_: str, new_queue: NewQueue) -> None:
    file = new_queue()
    done = QueuePublisher(file).store(messages("a", "b"), [id_, "fine"])
    assert done.ids == ["fine"]
    assert "the queue's own" in done.refused[0]


def test_a_priority_that_the_queue_does_not_have_is_refused_and_the_others_are_stored(new_queue: NewQueue) -> None:
    file = new_queue(priorities=2)
    wrong = [Outgoing(b"a", priority=2), Outgoing(b"b", priority=1), Outgoing(b"c", priority=-1)]
    refused = QueuePublisher(file).publish(wrong, 1.0)
    assert refused == ["priority 2: queue q has 0 to 1", "priority -1: queue q has 0 to 1"]
    assert stored(file) == [(1, 0, b"b")]


def test_a_delayed_message_is_appended_when_it_is_due_and_keeps_its_id(new_queue: NewQueue) -> None:
    file, clock = new_queue(), ManualClock(1000.0)
    publisher, delays = QueuePublisher(file, clock=clock), Delays(file, clock=clock)
    headers = (("message_type", b"t"), ("h", b"\xff"), ("h", None))
    ids = publisher.store([Outgoing(b"late", b"k", headers, 5.0), Outgoing(b"soon", delay_s=1.0)]).ids
    publisher.store(messages("now"))
    assert delays.move_due() == 0
    clock.advance(5.0)
    assert delays.move_due() == 2
    assert delays.move_due() == 0
    assert ids == ["d1", "d2"]
    found = stored(file, "id, key, value, type, published_ms")
    assert found == [
        (0, 0, None, None, b"now", None, 1_000_000),
        (0, 1, "d2", None, b"soon", None, 1_005_000),
        (0, 2, "d1", b"k", b"late", "t", 1_005_000),
    ]


def test_a_publisher_that_cannot_get_the_lock_says_so_in_time(
    new_queue: NewQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_file, "BUSY_S", 0.0)
    monkeypatch.setattr(queue_publisher, "PAUSE_S", 0.0)
    other, file = new_queue(), new_queue()
    other.db.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unreachable, match="another process holds the queue"):
        QueuePublisher(file).publish(messages("a"), 0.0)
    other.db.execute("ROLLBACK")
    assert stored(file) == []


def test_on_a_full_disk_every_message_is_refused_and_nothing_is_half_there(new_queue: NewQueue) -> None:
    file = new_queue()
    publisher = QueuePublisher(file)
    publisher.store(messages("kept"))
    file.db.execute(f"PRAGMA max_page_count = {file.db.execute('PRAGMA page_count').fetchone()[0] + 1}")
    refused = publisher.publish(messages(*["x" * 1000] * 50), 1.0)
    assert len(refused) == 50
    assert "the disk is full: nothing was stored" in refused[0]
    assert stored(file) == [(0, 0, b"kept")]
    with pytest.raises(QueueFull):
        publisher.store(messages(*["x" * 1000] * 50))
    assert publisher.publish(messages("b"), 1.0) == []
