"""The fetch loop and the whole pipeline on a queue with receipts, in memory."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.engine.pipeline import Pipeline
from batcher.records import Block, Deferral, Outcome
from batcher.sources.receipts.source import REASON, ReceiptSource
from batcher.telemetry.events import BatchWritten, Event
from batcher.testing.clock import ManualClock
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.receipts import LEASE_S, MemoryGateway, MemoryQueue
from batcher.testing.sinks import ScriptedSink
from tests.harness.hand_engine import HandEngine


class Floor:
    """A queue of numbers, and a pipeline that loads it; a wait for messages takes a thousandth of its time."""

    def __init__(self, numbers: int, *, max_held: int = 1000, flush: FlushPolicy | None = None) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(self.clock)
        self.queue.publish(*[b"%d" % number for number in range(numbers)])
        self.gateway = MemoryGateway(self.queue, max_held=max_held)
        self.sink = ScriptedSink(NUMBERS)
        self.triggers: Counter[str] = Counter()
        source = ReceiptSource(self.gateway, until_eof=True, clock=self.clock, sleep=self._sleep)
        self.pipeline = Pipeline(
            source, self.sink, NumberFormat(), name="loaders", flush=flush, subscribers=[self._count]
        )

    def numbers(self) -> list[object]:
        return sorted(row["n"] for row in self.sink.rows())  # type: ignore[type-var]

    def _sleep(self, seconds: float) -> None:
        time.sleep(0.001)
        self.clock.advance(seconds)

    def _count(self, event: Event) -> None:
        if isinstance(event, BatchWritten):
            self.triggers[event.batch.trigger] += 1


def test_a_queue_is_loaded_and_the_start_says_what_is_guaranteed_and_why() -> None:
    floor = Floor(50, flush=FlushPolicy(max_rows=20, max_wait_s=0.01))
    with capture_logs() as logs:
        summary = floor.pipeline.run()
    [started] = [one for one in logs if one["event"] == "pipeline_started"]

    assert (started["delivery"], started["reason"]) == ("at-least-once", REASON)
    assert floor.numbers() == list(range(50))
    assert floor.queue.messages == {}
    assert summary.written == 50


def test_what_a_sink_defers_comes_again_from_the_queue_and_everything_adds_up() -> None:
    floor = Floor(8, flush=FlushPolicy(max_rows=8, max_wait_s=0.01))
    put_off: Counter[int] = Counter()

    def outcome(block: Block) -> Outcome | None:
        deferred = []
        for row, number in enumerate(block.table["n"].to_pylist()):
            if number in (2, 5) and put_off[number] < 2:
                put_off[number] += 1
                deferred.append(Deferral(row, 3.0, "busy"))
        return Outcome(deferred=tuple(deferred)) if deferred else None

    floor.sink.outcome = outcome
    summary = floor.pipeline.run()

    assert floor.numbers() == list(range(8))
    assert put_off == {2: 2, 5: 2}
    assert floor.queue.messages == {}
    assert (summary.consumed, summary.written, summary.released) == (12, 8, 4)
    assert floor.pipeline.status().counts.released == 4


def test_a_queue_that_hands_out_no_more_does_not_wait_for_a_batch_to_fill() -> None:
    floor = Floor(50, max_held=10, flush=FlushPolicy(max_rows=1000, max_wait_s=600.0))
    summary = floor.pipeline.run()

    assert summary.written == 50
    assert floor.triggers["saturated"] >= 4


def test_a_failed_pipeline_gives_back_what_it_holds_and_nothing_is_lost() -> None:
    floor = Floor(30, flush=FlushPolicy(max_rows=10, max_wait_s=0.01))

    def crash(_: Block) -> None:
        raise ZeroDivisionError

    floor.sink.after = crash
    with pytest.raises(ZeroDivisionError):
        floor.pipeline.run()

    assert len(floor.queue.messages) == 30
    assert floor.queue.invisible == 0


class HandedOut:
    """A fetch loop on a queue; the test plays the other loops."""

    def __init__(self, numbers: int = 5) -> None:
        self.engine = HandEngine(policy=FlushPolicy(5, 1 << 20, 60.0))
        self.clock = self.engine.clock
        self.queue = MemoryQueue(self.clock)
        self.queue.publish(*[b"%d" % number for number in range(numbers)])
        self.gateway = MemoryGateway(self.queue)
        source = ReceiptSource(self.gateway, clock=self.clock, sleep=self.clock.sleep)
        self.loop = self.engine.reading(source, drain_timeout_s=LEASE_S * 3)
        self.loop.step()
        one = self.engine.begin()
        assert one is not None
        self.engine.ready(one)
        self.batch = self.engine.head()

    def finish(self, *rows: int) -> None:
        assert self.batch is not None
        [span] = self.batch.batch.ranges
        offsets = {span.first + row: 10.0 for row in rows}
        with self.engine.shared.changing() as state:
            state.finished(self.batch, self.clock(), {span.partition: offsets})


def test_a_record_is_given_back_before_its_neighbours_are_acknowledged() -> None:
    desk = HandedOut()
    desk.finish(1, 3)
    desk.loop.step()

    assert [call for call in desk.gateway.calls if call in ("release", "acknowledge")] == ["release", "acknowledge"]
    assert sorted(one.body.value for one in desk.queue.messages.values()) == [b"1", b"3"]
    assert [one.visible_at - desk.clock() for one in desk.queue.messages.values()] == pytest.approx([10.0, 10.0], abs=1)


def test_a_queue_that_does_not_answer_a_release_gets_its_commit_and_the_record_comes_with_its_lease() -> None:
    desk = HandedOut()
    desk.gateway.fail("release")
    desk.finish(1)
    with capture_logs() as logs:
        desk.loop.step()

    assert "not_released" in [one["event"] for one in logs]
    assert [one.body.value for one in desk.queue.messages.values()] == [b"1"]


def test_leases_are_extended_while_a_revocation_waits_for_the_batch_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = HandedOut()
    waits = 0

    def wait_changed(timeout_s: float, **_: bool) -> None:
        nonlocal waits
        waits += 1
        desk.clock.advance(1.0)
        if waits == LEASE_S * 2:
            desk.finish()

    monkeypatch.setattr(desk.engine.shared, "wait_changed", wait_changed)
    desk.loop.leave()

    assert waits >= LEASE_S * 2
    assert desk.queue.messages == {}, "all of it was still held when it was acknowledged"
