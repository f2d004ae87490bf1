"""What a source of receipts does in time, by a clock that the test moves."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from batcher.errors import CommitUnconfirmed
from batcher.records import Position
from batcher.sources.receipts.gateway import Received
from batcher.sources.receipts.source import IDLE_S, ReceiptSource
from batcher.testing.clock import ManualClock
from batcher.testing.contract.receipts import Reader, numbered
from batcher.testing.receipts import LEASE_S, MemoryGateway, MemoryQueue


class Desk:
    """A queue, a gateway to it and a reader, on one clock."""

    def __init__(self, *, max_held: int = 1000, messages: int = 10, now_ms: int = 1_700_000_000_000) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(self.clock)
        self.queue.publish(*numbered(messages))
        self.gateway = MemoryGateway(self.queue, max_held=max_held)
        self.source = ReceiptSource(
            self.gateway, worker=3, clock=self.clock, sleep=self.clock.sleep, now_ms=lambda: now_ms
        )
        self.reader = Reader(self.source, self.clock)

    def beats(self) -> int:
        return self.gateway.calls.count("extend")


def test_leases_are_extended_each_third_of_their_time_and_not_more_often() -> None:
    desk = Desk()
    desk.reader.read(10)
    before = desk.beats()
    desk.reader.read_for(LEASE_S * 3)

    assert 8 <= desk.beats() - before <= 10
    assert desk.queue.invisible == 10


def test_leases_are_extended_where_the_fetch_loop_waits_and_does_not_fetch() -> None:
    desk = Desk()
    desk.reader.read(10)
    for _ in range(100):
        desk.clock.advance(1.0)
        desk.source.extend_leases()

    assert desk.queue.invisible == 10


def test_without_a_heartbeat_messages_come_again_although_they_are_held() -> None:
    desk = Desk()
    desk.gateway.without_lease()
    source = ReceiptSource(desk.gateway, clock=desk.clock, sleep=desk.clock.sleep)
    reader = Reader(source, desk.clock)
    runs = reader.read(10) + reader.read_for(LEASE_S * 1.5)

    assert sum(map(len, runs)) == 20


def test_a_heartbeat_that_is_not_answered_is_sent_again_soon_and_named_once() -> None:
    desk = Desk()
    desk.reader.read(10)
    desk.gateway.fail("extend", times=2)
    with capture_logs() as logs:
        desk.reader.read_for(LEASE_S * 2)

    assert [one["event"] for one in logs] == ["leases_not_extended"]
    assert desk.queue.invisible == 10
    assert desk.source.lapsed == 0


def test_a_lease_that_ended_is_counted_and_named_once_and_the_others_are_acknowledged() -> None:
    desk = Desk()
    [run] = desk.reader.read(10)
    for name in list(desk.queue.messages)[:4]:
        desk.queue.messages[name].visible_at = 0.0
    with capture_logs() as logs:
        desk.reader.commit(run.next_offset)
        desk.reader.commit(run.next_offset)

    assert desk.source.lapsed == 4
    assert [one["event"] for one in logs] == ["leases_lapsed"]
    assert len(desk.queue.messages) == 4


def test_an_acknowledgement_without_an_answer_is_made_again_for_the_same_messages() -> None:
    desk = Desk()
    [run] = desk.reader.read(10)
    desk.gateway.fail("acknowledge")
    with pytest.raises(CommitUnconfirmed):
        desk.reader.commit(run.next_offset)
    assert len(desk.queue.messages) == 10
    desk.reader.commit(run.next_offset)

    assert desk.queue.messages == {}


def test_a_release_without_an_answer_leaves_the_message_to_its_lease() -> None:
    desk = Desk()
    [run] = desk.reader.read(10)
    desk.gateway.fail("release")
    with pytest.raises(CommitUnconfirmed):
        desk.reader.release([run.first_offset])
    desk.reader.commit(run.next_offset)
    assert len(desk.queue.messages) == 1
    again = desk.reader.read_for(LEASE_S + 1)

    assert [value for one in again for value in one.values.to_pylist()] == [b"000000"]


def test_what_is_held_is_released_after_the_revocation_and_before_the_gateway_closes() -> None:
    desk = Desk()
    [run] = desk.reader.read(10)
    desk.reader.listener.revoking = lambda _: desk.reader.commit(run.first_offset + 4)
    assert desk.queue.invisible == 10
    desk.source.close()
    desk.source.close()

    assert desk.gateway.calls[-2:] == ["acknowledge", "release"]
    assert desk.gateway.closed
    assert desk.queue.invisible == 0
    assert len(desk.queue.messages) == 6


def test_a_queue_that_is_away_at_the_end_is_left_to_its_leases() -> None:
    desk = Desk()
    desk.reader.read(10)
    desk.gateway.fail("release")
    with capture_logs() as logs:
        desk.source.close()

    assert "not_released" in [one["event"] for one in logs]
    assert desk.gateway.closed


def test_half_of_what_may_be_held_is_saturated_once_nothing_more_comes() -> None:
    desk = Desk(max_held=16, messages=10)
    desk.reader.read(10)
    assert not desk.reader.saturated()
    desk.reader.read_for(IDLE_S * 2)
    assert desk.reader.saturated()
    few = Desk(max_held=100, messages=10)
    few.reader.read(10)
    few.reader.read_for(IDLE_S * 2)

    assert not few.reader.saturated(), "a few wait for more, as long as a batch may"


def test_numbers_begin_with_the_time_so_that_no_later_run_repeats_them() -> None:
    early, late = Desk(now_ms=1_700_000_000_000), Desk(now_ms=1_700_000_000_001)
    [a], [b] = early.reader.read(10), late.reader.read(10)

    assert a.partition == ("queue", 3)
    assert 1_700_000_000_000 << 20 <= a.first_offset < 1_700_000_000_001 << 20
    assert early.reader.listener.owned == {a.partition: Position(a.first_offset)}
    assert a.last_offset < b.first_offset


def test_what_the_queue_says_of_a_message_is_in_the_columns() -> None:
    desk = Desk(messages=0)
    desk.queue.publish(
        Received(None, "", b"1", key=b"k", timestamp_ms=5, headers=(("a", b"1"), ("b", None))), Received(None, "", b"2")
    )
    [run] = desk.reader.read(2)

    assert run.headers is not None
    assert run.headers.to_pylist() == [[{"key": "a", "value": b"1"}, {"key": "b", "value": None}], None]
    assert (run.keys.to_pylist(), run.timestamps_ms.to_pylist()) == ([b"k", None], [5, None])
    assert run.attempts is not None
    assert run.attempts.to_pylist() == [1, 1]
