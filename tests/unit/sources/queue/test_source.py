"""What a queue adds to the laws of every source: priorities, groups of several members, gaps, delayed messages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batcher.errors import CommitRefused, CommitUnconfirmed, ConfigurationError, DataGap, SourceLost
from batcher.protocols import Outgoing
from batcher.records import Partition, Position, Range
from batcher.sources.queue import file as queue_file
from batcher.sources.queue.admin import purge
from batcher.sources.queue.file import QueueFile, place_of
from batcher.sources.queue.publisher import QueuePublisher
from batcher.sources.queue.reader import QueueReader
from batcher.sources.queue.source import QueueOptions, QueueSource
from batcher.testing.clock import ManualClock
from batcher.testing.listener import RecordingListener, offsets, read, read_for, read_until

NewQueue = Callable[..., QueueFile]


class Readers:
    """Sources of one group of one queue."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock(1000.0)
        self.opened: list[QueueSource] = []

    def open(self, **options: Any) -> tuple[QueueSource, RecordingListener]:
        source, listener = QueueSource(QueueOptions(self.path, "g", clock=self.clock, **options)), RecordingListener()
        source.open(listener)
        self.opened.append(source)
        return source, listener


@pytest.fixture
def readers(path: Path) -> Any:
    made = Readers(path)
    yield made
    for source in made.opened:
        source.close()


def publish(file: QueueFile, count: int, **options: Any) -> None:
    QueuePublisher(file).store([Outgoing(b"%d" % number, **options) for number in range(count)])


def lane(number: int) -> Partition:
    return Partition("q", number)


def test_messages_of_a_higher_priority_are_fetched_first(new_queue: NewQueue, readers: Readers) -> None:
    file = new_queue(priorities=3)
    for priority in (0, 2, 1):
        publish(file, 5, priority=priority)
    source, _ = readers.open()
    found = [run.partition.number for run in source.fetch(12, 1 << 20, 0.0)]
    assert found == [2, 1, 0]
    publish(file, 5, priority=2)
    assert [(run.partition.number, len(run)) for run in source.fetch(6, 1 << 20, 0.0)] == [(2, 5), (0, 1)]


def test_lanes_of_one_priority_take_turns(new_queue: NewQueue, readers: Readers) -> None:
    publish(new_queue(lanes=3), 30)
    source, _ = readers.open()
    assert {source.fetch(5, 1 << 20, 0.0)[0].partition.number for _ in range(3)} == {0, 1, 2}


def test_a_member_that_joins_gets_its_share_from_where_the_first_has_committed(
    new_queue: NewQueue, readers: Readers
) -> None:
    publish(new_queue(lanes=2), 20)
    first, heard = readers.open()
    heard.revoking = lambda lanes: first.commit({one: Position(4, (), "m") for one in lanes}, 5.0)
    read(first, 20)
    second, other = readers.open()
    runs: list[Any] = []
    while not runs:
        first.fetch(100, 1 << 20, 0.01)
        runs = list(second.fetch(100, 1 << 20, 0.01))

    [moved] = heard.revoked
    assert len(moved) == 1
    assert other.assigned[-1] == {one: Position(4, (), "m") for one in moved}
    assert offsets(runs) == {next(iter(moved)): list(range(4, 10))}
    with pytest.raises(CommitRefused):
        first.commit({next(iter(moved)): Position(9)}, 5.0)


def test_a_member_that_was_taken_for_dead_loses_its_lanes_and_stores_nothing_more(
    new_queue: NewQueue, readers: Readers
) -> None:
    publish(new_queue(lanes=2), 20)
    frozen, heard = readers.open()
    read(frozen, 20)
    readers.clock.advance(31.0)
    second, other = readers.open()
    read(second, 20)

    assert set(other.owned) == {lane(0), lane(1)}
    with pytest.raises(CommitRefused) as refused:
        frozen.commit({lane(0): Position(9), lane(1): Position(9)}, 5.0)
    assert set(refused.value.reasons) == {lane(0), lane(1)}
    read_until(frozen, lambda _: bool(heard.lost))
    assert heard.lost == [frozenset({lane(0), lane(1)})]
    assert heard.revoked == []


def test_the_end_has_come_when_the_other_members_have_committed_theirs(new_queue: NewQueue, readers: Readers) -> None:
    publish(new_queue(lanes=2), 20)
    other, _ = readers.open()
    read_until(other, lambda _: bool(other.reached))
    source, heard = readers.open(until_eof=True)
    read_until(other, lambda _: bool(source.fetch(100, 1 << 20, 0.0)) and len(other.reached) == 1)
    before = source.exhausted
    other.commit({next(iter(other.reached)): Position(10)}, 5.0)
    after = source.exhausted
    readers.clock.advance(31.0)
    read_for(source, 0.5)

    assert (before, after) == (False, True)
    assert len(heard.owned) == 1, "at the end nothing more is taken"


def test_the_lanes_of_a_dead_member_are_read_before_the_end(new_queue: NewQueue, readers: Readers) -> None:
    publish(new_queue(lanes=2), 20)
    dead, _ = readers.open()
    read_until(dead, lambda _: bool(dead.reached))
    source, heard = readers.open(until_eof=True)
    read_until(dead, lambda _: bool(source.fetch(100, 1 << 20, 0.0)) and len(dead.reached) == 1)
    readers.clock.advance(31.0)
    before = source.exhausted
    read_until(source, lambda _: source.exhausted)

    assert not before
    assert set(heard.owned) == {lane(0), lane(1)}


def test_messages_that_are_gone_are_a_gap_unless_people_removed_them(new_queue: NewQueue, readers: Readers) -> None:
    file = new_queue()
    publish(file, 10)
    source, _ = readers.open()
    read(source, 10)
    source.commit({lane(0): Position(3)}, 5.0)
    source.close()
    file.db.execute("DELETE FROM message WHERE place < ?", (place_of(0, 6),))
    file.db.execute("UPDATE lane SET first = 6")

    halted, heard = readers.open()
    for _ in range(2):
        with pytest.raises(DataGap, match=r"q\[0\]: offsets 3-5 \(3\) are gone .*--queue.on-gap skip"):
            halted.fetch(100, 1 << 20, 0.0)
    halted.close()
    assert heard.assigned == []
    skipping, heard = readers.open(on_gap="skip")
    assert offsets(read(skipping, 4)) == {lane(0): [6, 7, 8, 9]}
    skipping.close()
    purge(file, None)
    after, heard = readers.open()
    read_until(after, lambda _: bool(heard.assigned))
    assert heard.assigned == [{lane(0): Position(10)}]


def test_a_file_that_is_older_than_what_was_read_from_it_is_a_gap(new_queue: NewQueue, readers: Readers) -> None:
    file = new_queue()
    publish(file, 10)
    readers.open()[0].close()
    file.db.execute("UPDATE cursor SET next = 11")
    source, _ = readers.open()
    with pytest.raises(DataGap, match="the log ends at 10"):
        source.fetch(1, 1 << 20, 0.0)


@pytest.mark.parametrize(("start", "first"), [("earliest", 0), ("latest", 10), (0, 0), (1 << 50, 10)])
def test_a_new_group_starts_where_it_is_told_and_stays_there(
    start: Any, first: int, new_queue: NewQueue, readers: Readers
) -> None:
    file = new_queue()
    publish(file, 10)
    readers.open(start=start)[0].close()
    publish(file, 10)
    source, _ = readers.open(start="latest")
    assert offsets(read(source, 20 - first)) == {lane(0): list(range(first, 20))}


def test_a_delayed_message_is_read_when_it_is_due(new_queue: NewQueue, readers: Readers) -> None:
    file = new_queue()
    QueuePublisher(file, clock=readers.clock).store([Outgoing(b"late", delay_s=60.0), Outgoing(b"now")])
    source, _ = readers.open()
    assert [run.values.to_pylist() for run in read(source, 1)] == [[b"now"]]
    readers.clock.advance(60.0)
    assert [run.values.to_pylist() for run in read(source, 1)] == [[b"late"]]


def test_a_commit_that_does_not_get_the_lock_is_tried_again_by_the_pipeline(
    new_queue: NewQueue, readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_file, "BUSY_S", 0.0)
    file = new_queue()
    publish(file, 1)
    source, _ = readers.open()
    read(source, 1)
    file.db.execute("BEGIN IMMEDIATE")
    with pytest.raises(CommitUnconfirmed, match="another process holds the queue"):
        source.commit({lane(0): Position(1)}, 5.0)
    file.db.execute("ROLLBACK")
    source.commit({lane(0): Position(1)}, 5.0)


def test_the_lag_is_what_is_not_committed(new_queue: NewQueue, readers: Readers) -> None:
    publish(new_queue(), 10)
    source, _ = readers.open()
    read(source, 10)
    assert source.lag() == {lane(0): 10}


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_file_that_is_no_queue_is_refused(content: bytes, path: Path, readers: Readers) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not the file of a queue"):
        readers.open()


def test_a_queue_that_is_not_there_is_refused_with_the_command_that_makes_it(path: Path, readers: Readers) -> None:
    with pytest.raises(ConfigurationError, match=f"batcher queue create --queue.path {path}"):
        readers.open()
    assert not path.exists()


def test_a_damaged_file_ends_reading(new_queue: NewQueue, readers: Readers) -> None:
    file = new_queue()
    source, _ = readers.open()
    source.fetch(1, 1 << 20, 0.0)
    file.db.execute("DROP TABLE message")
    file.db.execute("UPDATE lane SET next = 1")
    with pytest.raises(SourceLost, match="the queue cannot be used"):
        source.fetch(1, 1 << 20, 0.0)


def test_ranges_are_read_again_without_a_group(new_queue: NewQueue, path: Path) -> None:
    file = new_queue()
    publish(file, 10)
    QueuePublisher(file).store([Outgoing(b"x")])
    file.db.execute("DELETE FROM message WHERE place = ?", (place_of(0, 4),))
    with closing(QueueReader(path, "g")) as reader:
        assert reader.open() == [lane(0)]
        assert reader.watermarks(lane(0)) == (0, 11)
        assert (reader.committed([lane(0)]), reader.members()) == ({}, 0)
        found, nulls = reader.offsets(Range(lane(0), 2, 6))
        assert (found.to_pylist(), nulls.to_pylist()) == ([2, 3, 5, 6], [False] * 4)
        assert [run.values.to_pylist() for run in reader.records(Range(lane(0), 8, 20))] == [[b"8", b"9", b"x"]]
        assert (reader.at_time(lane(0), 0), reader.at_time(lane(0), 1 << 50)) == (0, None)
        purge(file, None)
        with pytest.raises(DataGap, match="was removed meanwhile"):
            reader.offsets(Range(lane(0), 2, 6))
