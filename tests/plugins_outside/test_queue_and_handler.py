"""A queue with receipts and a handler, built outside the tree: the contracts carry what comes next."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from batcher import FlushPolicy, Pipeline, RetryPolicy, Summary
from batcher.errors import ConfigurationError
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink

if TYPE_CHECKING:
    from tests.plugins_outside.queueing.handler import Drop, Handler, Later
    from tests.plugins_outside.queueing.receipts import Queue, Receipts
else:
    sys.path.insert(0, str(Path(__file__).parent / "queueing"))
    from handler import Drop, Handler, Later
    from receipts import Queue, Receipts


class Calls:
    """A handler's function that remembers, and answers as the message asks."""

    def __init__(self) -> None:
        self.seen: Counter[bytes | None] = Counter()

    def __call__(self, value: bytes | None, headers: dict[str, bytes | None]) -> None:
        assert headers == {}
        self.seen[value] += 1
        if value == b"4" and self.seen[value] < 3:
            raise Later(0.001)
        if value == b"5":
            raise Drop
        if value == b"6":
            raise ValueError


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    made.publish(*[b"%d" % number for number in range(1, 9)], b"x")
    yield made
    assert made.messages == {}, "every message is acknowledged in the end"


def loaded(pipeline: Pipeline) -> Summary:
    summary = pipeline.run()
    assert summary.consumed == summary.written + summary.dead_lettered + summary.skipped
    return summary


def test_each_message_is_handled_and_acknowledged_once_it_has_an_outcome(queue: Queue) -> None:
    calls, letters = Calls(), MemoryDeadLetterQueue()
    pipeline = Pipeline(
        Receipts(queue),
        Handler(calls),
        NumberFormat(),
        name="handlers",
        dead_letters=letters,
        flush=FlushPolicy(max_rows=4, max_wait_s=0.01),
        retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
    )
    summary = loaded(pipeline)

    assert summary.delivery == "at-least-once"
    assert (summary.written, summary.dead_lettered, summary.skipped) == (6, 2, 1)
    assert calls.seen == Counter({b"1": 1, b"2": 1, b"3": 1, b"4": 3, b"5": 1, b"6": 1, b"7": 1, b"8": 1})
    assert sorted((one.record.value, one.stage, one.reason) for one in letters.letters) == [
        (b"6", "sink", "handler"),
        (b"x", "decode", "syntax"),
    ]
    assert set(queue.deliveries.values()) == {1}


def test_a_queue_is_loaded_into_a_table_at_least_once_and_the_status_says_why() -> None:
    queue = Queue()
    queue.publish(*[b"%d" % number for number in range(50)])
    sink = ScriptedSink(NUMBERS)
    pipeline = Pipeline(Receipts(queue), sink, NumberFormat(), name="loaders")
    assert loaded(pipeline).written == 50
    status = pipeline.status()

    assert (status.delivery, status.delivery_reason) == (
        "at-least-once",
        "a queue hands a message to another reader, in another order",
    )
    assert queue.messages == {}


def test_more_than_the_source_keeps_is_refused_at_the_start_with_its_reason() -> None:
    pipeline = Pipeline(
        Receipts(Queue()), ScriptedSink(NUMBERS), NumberFormat(), name="loaders", delivery="exactly-once"
    )
    with pytest.raises(ConfigurationError, match="exactly-once: the source cannot keep it: a queue hands a message"):
        pipeline.run()


def test_a_message_that_was_not_acknowledged_comes_again_when_its_lease_is_over() -> None:
    now = [0.0]
    queue = Queue(clock=lambda: now[0], lease_s=30.0)
    queue.publish(b"1", b"2")
    sink = ScriptedSink(NUMBERS)

    def crash(_: object) -> None:
        raise ZeroDivisionError

    sink.after = crash
    with pytest.raises(ZeroDivisionError):
        Pipeline(Receipts(queue), sink, NumberFormat(), name="loaders").run()
    assert len(queue.messages) == 2
    sink.after = lambda _: None
    now[0] = 31.0
    loaded(Pipeline(Receipts(queue), sink, NumberFormat(), name="loaders"))

    assert queue.messages == {}
    assert {row["n"] for row in sink.rows()} == {1, 2}
    assert set(queue.deliveries.values()) == {2}
