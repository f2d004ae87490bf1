"""What a group has not read is kept, whatever else happens; what all have read goes, by age or where room is needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batcher.protocols import Outgoing
from batcher.sources.queue import retention
from batcher.sources.queue.admin import forget, purge, purge_read, stats
from batcher.sources.queue.file import QueueFile, QueueFull, place_of
from batcher.sources.queue.places import begin
from batcher.sources.queue.publisher import QueuePublisher
from batcher.sources.queue.retention import Retention
from batcher.testing.clock import ManualClock

NewQueue = Callable[..., QueueFile]


def fill(file: QueueFile, clock: ManualClock, count: int = 10, size: int = 1) -> QueuePublisher:
    publisher = QueuePublisher(file, clock=clock)
    publisher.store([Outgoing(b"x" * size)] * count)
    return publisher


def read(file: QueueFile, group: str, next_: int) -> None:
    begin(file, group, "earliest")
    file.db.execute("UPDATE cursor SET next = ? WHERE readers = ?", (next_, group))


def first(file: QueueFile) -> int:
    found = file.ends()[0].first
    rows = file.db.execute("SELECT count(*), min(place) FROM message").fetchone()
    assert rows == (file.ends()[0].next - found, place_of(0, found) if rows[0] else None)
    return found


def test_only_what_every_group_has_read_is_removed_when_it_is_old(new_queue: NewQueue) -> None:
    file, clock = new_queue(retain_ms=60_000), ManualClock(1000.0)
    fill(file, clock)
    clock.advance(30.0)
    fill(file, clock)
    read(file, "fast", 20)
    read(file, "slow", 7)
    clock.advance(31.0)
    Retention(file, clock=clock).trim_soon()
    assert first(file) == 7
    read(file, "slow", 20)
    Retention(file, clock=clock).trim_soon()
    assert first(file) == 10


def test_without_any_group_nothing_is_removed(new_queue: NewQueue) -> None:
    file, clock = new_queue(retain_ms=1), ManualClock(1000.0)
    fill(file, clock)
    clock.advance(1e6)
    Retention(file, clock=clock).trim_soon()
    assert first(file) == 0
    assert purge_read(file) == 0


def test_much_that_is_old_goes_little_by_little_because_readers_have_more_to_do(
    new_queue: NewQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "REMOVED_AT_ONCE", 3)
    file, clock = new_queue(retain_ms=1000), ManualClock(1000.0)
    fill(file, clock)
    read(file, "g", 8)
    clock.advance(60.0)
    trimmed = Retention(file, clock=clock)
    seen = []
    for _ in range(5):
        trimmed.trim_soon()
        seen.append(first(file))
    assert seen == [3, 6, 8, 8, 8]


def test_many_are_removed_in_several_transactions(new_queue: NewQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "REMOVED_AT_ONCE", 3)
    file = new_queue()
    fill(file, ManualClock(1000.0))
    read(file, "g", 8)
    assert purge_read(file) == 8
    assert first(file) == 8


def test_room_is_made_of_what_was_read_and_a_full_queue_names_who_is_behind(new_queue: NewQueue) -> None:
    file, clock = new_queue(max_bytes=400_000), ManualClock(1000.0)
    publisher = fill(file, clock, 200, 1000)
    read(file, "slow", 0)
    with pytest.raises(QueueFull, match="group slow has 200 messages to read; nothing was stored"):
        publisher.store([Outgoing(b"x" * 1000)] * 200)
    read(file, "slow", 150)
    assert len(publisher.store([Outgoing(b"x" * 1000)] * 100).ids) == 100
    assert first(file) == 150
    refused = publisher.publish([Outgoing(b"x" * 1000)] * 300, 1.0)
    assert len(refused) == 300
    assert forget(file, "slow")
    assert "no group has read anything" in publisher.publish([Outgoing(b"x" * 1000)] * 300, 1.0)[0]


def test_a_purge_removes_what_was_not_read_too_and_groups_go_on_behind_it(new_queue: NewQueue) -> None:
    file, clock = new_queue(), ManualClock(1000.0)
    fill(file, clock)
    read(file, "g", 4)
    clock.advance(60)
    publisher = fill(file, clock)
    publisher.store([Outgoing(b"late", delay_s=60.0)])
    assert purge(file, int(clock.now_s * 1000)) == 10
    assert (first(file), stats(file)["groups"][0]["behind"]) == (10, 10)
    assert purge(file, None) == 11
    assert (stats(file)["messages"], stats(file)["delayed"], stats(file)["groups"][0]["behind"]) == (0, 0, 0)
    assert publisher.store([Outgoing(b"new")]).ids == ["0-20"]
