"""What a rate does to the state: batches wait, the wait is told, and a stop is over in its time."""

from __future__ import annotations

import pytest

from batcher.core.buffer import FlushPolicy
from batcher.core.rate import RateLimit, RatePolicy
from batcher.engine.report import waiting_for
from batcher.records import Partition, Position
from batcher.testing.values import make_records
from tests.harness.hand_engine import HandEngine

A = Partition("events", 0)


@pytest.fixture
def engine() -> HandEngine:
    rate = RateLimit(RatePolicy(10.0, drain_s=2.0))
    one = HandEngine(policy=FlushPolicy(10, 1 << 20, 60.0), rate=rate)
    one.assign({A: Position(0)})
    return one


def put(engine: HandEngine, rows: int) -> None:
    engine.put([make_records(["1"] * rows, partition=A)])
    # One batch after the other is decoded when there is room.
    decode(engine)


def decode(engine: HandEngine) -> None:
    while (one := engine.begin()) is not None:
        engine.ready(one)


def write(engine: HandEngine) -> bool:
    """Write the next batch if it may be written now."""
    decode(engine)
    engine.committed(engine.take_commit(), engine.clock())
    one = engine.head()
    if one is not None:
        engine.finish(one)
        engine.committed(engine.take_commit(), engine.clock())
    return one is not None


def test_a_batch_waits_until_the_one_before_it_is_paid_for(engine: HandEngine) -> None:
    put(engine, 30)
    assert write(engine)
    assert not write(engine)
    snapshot = engine.shared.snapshot()
    assert snapshot.rate_wait_s == pytest.approx(1.0)
    assert not snapshot.awaits_commit
    assert waiting_for(snapshot, None) == "the rate of batch.rate, for 1.0 s"
    engine.clock.advance(0.9)
    assert not write(engine)
    engine.clock.advance(0.1)

    assert write(engine)


def test_the_write_loop_sleeps_as_long_as_the_rate_says_and_no_longer(engine: HandEngine) -> None:
    put(engine, 20)
    assert write(engine)
    decode(engine)
    engine.committed(engine.take_commit(), engine.clock())

    assert engine.state.write_wait_s(engine.clock()) == pytest.approx(1.0)
    engine.clock.advance(1.0)
    assert engine.state.write_wait_s(engine.clock()) == 0.0
    assert engine.state.write_due(engine.clock())


def test_a_stop_writes_what_waits_in_its_time_though_the_rate_would_not(engine: HandEngine) -> None:
    put(engine, 100)
    assert write(engine)
    began = engine.clock()
    engine.drain()
    written = 1
    while not engine.drained:
        written += write(engine)
        engine.clock.advance(0.05)
        assert engine.clock() - began <= 2.6, "longer than a stop may take"

    assert written == 10


def test_the_end_of_a_topic_keeps_the_rate(engine: HandEngine) -> None:
    put(engine, 50)
    began = engine.clock()
    engine.drain("end")
    while not engine.drained:
        write(engine)
        engine.clock.advance(0.1)

    assert engine.clock() - began == pytest.approx(4.1, abs=0.2)
