"""A rate holds up the write loop for as long as it says, and no other target."""

from __future__ import annotations

import threading
import time

import pytest

from batcher.core.buffer import FlushPolicy
from batcher.core.rate import RatePolicy
from batcher.engine.pipeline import Pipeline
from batcher.records import Partition
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource

A = Partition("events", 0)


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_topic_is_loaded_to_its_end_at_the_rate(delivery: str) -> None:
    log, sink = MemoryLog([A]), ScriptedSink(NUMBERS)
    log.produce(A, ["1"] * 25)
    sizes: list[int] = []
    sink.after = lambda block: sizes.append(block.rows)
    pipeline = Pipeline(
        MemorySource(log, until_eof=True),
        sink,
        NumberFormat(),
        name="group",
        flush=FlushPolicy(max_rows=5, max_wait_s=0.01),
        delivery=delivery,  # type: ignore[arg-type]
        rate=RatePolicy(100.0),
    )
    began = time.monotonic()
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    thread.join(30)

    assert not thread.is_alive(), "the write loop was not woken up"
    assert sizes == [5] * 5
    # Not a speed: four of the five had to wait for the one before them.
    assert time.monotonic() - began >= 0.19
