"""A switch pauses and never breaks a pipeline: what was read is written or read again, and it is said everywhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.core.offsets import Offsets
from batcher.engine.dispatcher import Dispatcher
from batcher.engine.off_switch import OffSwitch, SwitchAction
from batcher.engine.pipeline import Pipeline
from batcher.engine.report import Summary, waiting_for
from batcher.records import Intent, Partition, Position, Range
from batcher.telemetry.metrics import Metrics
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource
from batcher.testing.values import make_records
from tests.harness.hand_engine import HandEngine
from tests.harness.patience import wait_for

A = Partition("events", 0)


class Switch:
    """What a person turns."""

    def __init__(self, *, off: bool = False) -> None:
        self.says: bool | Exception = off

    def ask(self) -> bool:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def switch_of(switch: Switch, action: SwitchAction = "hold") -> OffSwitch:
    return OffSwitch(switch.ask, action, "a test", look_every_s=0.002)


@contextmanager
def running(pipeline: Pipeline) -> Iterator[list[Summary]]:
    found: list[Summary] = []
    thread = threading.Thread(target=lambda: found.append(pipeline.run()))
    thread.start()
    try:
        yield found
    finally:
        pipeline.stop()
        thread.join(30)
        assert not thread.is_alive()


def made(log: MemoryLog, sink: ScriptedSink, switch: OffSwitch, **more: Any) -> Pipeline:
    return Pipeline(
        MemorySource(log),
        sink,
        NumberFormat(),
        name="group",
        flush=FlushPolicy(max_rows=10, max_wait_s=0.01),
        switch=switch,
        **more,
    )


def test_every_change_is_told_once_and_a_switch_that_cannot_be_asked_counts_as_on() -> None:
    switch = Switch()
    changes: list[bool] = []
    one = switch_of(switch)
    one._changed = lambda: changes.append(one.off)
    with capture_logs() as logs:
        for says in (False, True, True, OSError("away"), OSError("away"), True, False):
            switch.says = says
            one.look()

    assert changes == [True, False, True, False]
    assert [entry["event"] for entry in logs] == [
        "switched_off",
        "off_switch_unreachable",
        "switched_on",
        "off_switch_back",
        "switched_off",
        "switched_on",
    ]


def test_a_pipeline_that_is_held_from_the_start_reads_nothing_until_it_is_switched_on() -> None:
    log, sink, switch = MemoryLog([A]), ScriptedSink(NUMBERS), Switch(off=True)
    log.produce(A, ["1"] * 25)
    metrics = Metrics("memory")
    pipeline = made(log, sink, switch_of(switch), subscribers=[metrics])
    metrics.watch(pipeline.status)
    with running(pipeline):
        wait_for(lambda: pipeline.status().off_switch, "the switch to be seen")
        wait_for(lambda: pipeline.status().partitions and pipeline.status().partitions[A].paused, "the pause")
        assert pipeline.ready == (False, "held: switched off by a test")
        assert pipeline.status().waiting_for == "its pause, or its off switch, to end"
        assert "batcher_off_switch_state 1.0" in metrics.render()
        assert sink.rows() == []
        switch.says = False
        wait_for(lambda: len(sink.rows()) == 25, "all rows")
        assert pipeline.ready == (True, "")
        assert pipeline.status().off_switch == ""


def test_what_comes_while_the_switch_drops_is_skipped_committed_and_counted() -> None:
    log, sink, switch = MemoryLog([A]), ScriptedSink(NUMBERS), Switch(off=True)
    log.produce(A, ["1"] * 25)
    metrics = Metrics("memory")
    pipeline = made(log, sink, switch_of(switch, "drop"), subscribers=[metrics])
    with running(pipeline) as summaries:
        wait_for(lambda: log.committed.get(A, Position(0)).next_offset == 25, "the commit of what was dropped")
        assert pipeline.ready == (True, "records are dropped: switched off by a test")
        switch.says = False
        wait_for(lambda: pipeline.status().off_switch == "", "the switch to be on again")
        log.produce(A, ["2"] * 5)
        wait_for(lambda: len(sink.rows()) == 5, "the rows that came later")

    [summary] = summaries
    assert (summary.consumed, summary.written, summary.skipped, summary.paused) == (30, 5, 25, 25)
    assert 'batcher_records_skipped_total{reason="paused"} 25.0' in metrics.render()
    assert 'reason="tombstone"} 25' not in metrics.render()


def test_a_target_that_comes_while_it_is_held_is_held_too() -> None:
    one, other = HandEngine(), HandEngine()
    dispatcher = Dispatcher.to(one.shared)
    dispatcher.hold(held=True)
    dispatcher.add(other.shared)
    assert one.shared.snapshot().held
    assert other.shared.snapshot().held
    dispatcher.hold(held=False)

    assert not other.shared.snapshot().held


@pytest.mark.parametrize("announces", [True, False])
def test_while_it_is_held_nothing_is_begun_and_afterwards_everything(announces: bool) -> None:
    engine = HandEngine(policy=FlushPolicy(10, 1 << 20, 60.0), offsets=Offsets("group", announces=announces))
    engine.assign({A: Position(0)})
    engine.put([make_records(["1"] * 20, partition=A)])
    one = engine.begin()
    assert one is not None
    engine.ready(one)
    engine.committed(engine.take_commit(), engine.clock())
    engine.shared.hold(held=True)

    assert engine.head() is None
    assert engine.next_read().pause == {A}
    snapshot = engine.shared.snapshot()
    assert waiting_for(snapshot, None) == "its pause, or its off switch, to end"
    # An empty log is no end while nothing of it may be read.
    engine.shared.fetched([], {}, exhausted=True)
    assert engine.phase == "running"
    engine.shared.hold(held=False)
    assert engine.next_read().resume == {A}
    engine.committed(engine.take_commit(), engine.clock())
    assert engine.head() is one


def test_a_stop_while_it_is_held_writes_nothing_and_leaves_everything_to_the_next_start() -> None:
    engine = HandEngine(policy=FlushPolicy(10, 1 << 20, 60.0), offsets=Offsets("group", announces=False))
    engine.assign({A: Position(0)})
    engine.put([make_records(["1"] * 20, partition=A)])
    one = engine.begin()
    assert one is not None
    engine.ready(one)
    engine.shared.hold(held=True)
    engine.drain()

    assert engine.head() is None
    assert engine.drained
    assert engine.take_commit().get(A, Position(0)).next_offset == 0


def test_a_drain_that_has_begun_goes_on_though_it_is_held() -> None:
    engine = HandEngine(policy=FlushPolicy(10, 1 << 20, 60.0), offsets=Offsets("group", announces=False))
    engine.assign({A: Position(0)})
    engine.put([make_records(["1"] * 5, partition=A)])
    engine.drain()
    engine.shared.hold(held=True)
    one = engine.begin()
    assert one is not None
    engine.ready(one)

    assert engine.head() is one


def test_an_announced_range_is_completed_though_records_are_dropped() -> None:
    log, sink, switch = MemoryLog([A]), ScriptedSink(NUMBERS), Switch(off=True)
    log.produce(A, ["1"] * 25)
    log.committed[A] = Position(0, (Intent(Range(A, 0, 9)),), "1")
    pipeline = made(log, sink, switch_of(switch, "drop"))
    with running(pipeline):
        wait_for(lambda: log.committed[A].next_offset == 25, "the commit of all")

    assert {row["_offset"] for row in sink.rows()} == set(range(10))
