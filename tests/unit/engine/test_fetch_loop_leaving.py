"""The fetch loop fails: what it does while it leaves the group must neither commit nor hide the reason."""

import threading
from collections.abc import Collection, Mapping, Sequence

import pytest

from batcher.core.buffer import FlushPolicy
from batcher.engine.assembly import DeliveryMode
from batcher.engine.pipeline import Pipeline
from batcher.errors import RecordUnreadable, SourceLost
from batcher.records import Block, Partition, Position, Records
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource

A = Partition("events", 0)


class Unconfirmed(MemorySource):
    """A source whose broker never answers a commit."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.asked = threading.Event()

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        self.asked.set()
        raise SourceLost("commit not confirmed")


class Buggy(MemorySource):
    """A source with a bug that shows when the buffer is full."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.asked = threading.Event()

    def pause(self, partitions: Collection[Partition]) -> None:
        self.asked.set()
        raise ZeroDivisionError


class Damaged(MemorySource):
    """A source whose log cannot be read from offset 15 on."""

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        if self._positions.get(A) == 15:
            raise RecordUnreadable("events[0]: the record at offset 15 cannot be read")
        return super().fetch(min(max_records, 15 - self._positions.get(A, 0)), max_bytes, timeout_s)


def started(
    source: Unconfirmed | Buggy | Damaged, sink: ScriptedSink, delivery: DeliveryMode = "auto"
) -> tuple[Pipeline, threading.Thread, list[BaseException]]:
    flush = FlushPolicy(max_rows=10, max_bytes=1000, max_wait_s=0.02)
    pipeline = Pipeline(
        source,
        sink,
        NumberFormat(),
        name="group",
        flush=flush,
        memory_bytes=1000,
        stop_timeout_s=2.0,
        delivery=delivery,
    )
    ended: list[BaseException] = []

    def main() -> None:
        try:
            pipeline.run()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    return pipeline, thread, ended


def test_the_reason_is_told_though_a_stop_comes_while_the_group_is_left() -> None:
    log, sink = MemoryLog([A]), ScriptedSink(NUMBERS)
    source = Unconfirmed(log)

    def hold_the_next(_: Block) -> None:
        sink.release.clear()

    sink.after = hold_the_next
    log.produce(A, ["1"] * 20)
    pipeline, thread, ended = started(source, sink)
    assert source.asked.wait(30)
    pipeline.stop()
    thread.join(30)
    sink.release.set()

    assert [type(error) for error in ended] == [SourceLost]


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_after_a_bug_nothing_more_is_committed(delivery: DeliveryMode) -> None:
    log, sink = MemoryLog([A]), ScriptedSink(NUMBERS)
    source = Buggy(log)
    sink.release.clear()
    log.produce(A, ["1"] * 1000)
    _, thread, ended = started(source, sink, delivery)
    assert source.asked.wait(30)
    sink.release.set()
    thread.join(30)

    assert [type(error) for error in ended] == [ZeroDivisionError]
    assert log.committed.get(A, Position(0)).next_offset == 0


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_before_a_place_that_cannot_be_read_everything_is_written_and_committed(delivery: DeliveryMode) -> None:
    log, sink = MemoryLog([A]), ScriptedSink(NUMBERS)
    log.produce(A, ["1"] * 100)
    _, thread, ended = started(Damaged(log), sink, delivery)
    thread.join(30)

    assert [type(error) for error in ended] == [RecordUnreadable]
    assert log.committed[A].next_offset == 15
    assert len(sink.rows()) == 15
