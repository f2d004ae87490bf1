"""Several write loops beside each other: what one does not get done holds up its own partitions and no others."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from batcher.core.buffer import FlushPolicy
from batcher.core.limits import DeadLetterPolicy
from batcher.engine.assembly import writers
from batcher.engine.pipeline import Pipeline
from batcher.engine.retry import RetryPolicy
from batcher.errors import BatcherError, BlockRejected, ConfigurationError, DeadLetterLimitExceeded, SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import Block, Outcome, Partition
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.patience import PATIENCE_S, wait_for

A, B, C = (Partition("events", number) for number in range(3))


class ParallelSink(ScriptedSink):
    """Take several blocks at a time, and note which partitions are written at once. `stuck` ones do not get on."""

    def __init__(self) -> None:
        super().__init__(NUMBERS)
        self.stuck = {partition: threading.Event() for partition in (A, B, C)}
        for event in self.stuck.values():
            event.set()
        self.inside: Counter[Partition] = Counter()
        self.most = 0
        self.overlaps: list[Partition] = []
        self.order: list[tuple[Partition, int]] = []
        self._noting = threading.Lock()

    def open(self) -> SinkInfo:
        return replace(super().open(), concurrent=True)

    def write(self, block: Block) -> Outcome | None:
        [span] = block.ranges
        with self._noting:
            self.inside[span.partition] += 1
            self.overlaps += [part for part, count in self.inside.items() if count > 1]
            self.most = max(self.most, sum(self.inside.values()))
            self.order.append((span.partition, span.first))
        try:
            self.stuck[span.partition].wait(20)
            return super().write(block)
        finally:
            with self._noting:
                self.inside[span.partition] -= 1


class Works:
    """A pipeline over doubles, run in a thread."""

    def __init__(
        self, *, count: int = 3, until_eof: bool = False, letters: bool = True, max_ratio: float = 1.0
    ) -> None:
        self.log = MemoryLog([A, B, C])
        self.sink = ParallelSink()
        self.pipeline = Pipeline(
            MemorySource(self.log, until_eof=until_eof),
            self.sink,
            NumberFormat(),
            name="group",
            dead_letters=MemoryDeadLetterQueue() if letters else None,
            flush=FlushPolicy(max_rows=10, max_wait_s=0.02),
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
            poison=DeadLetterPolicy(max_ratio=max_ratio),
            writers=count,
        )
        self.error: BatcherError | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        def main() -> None:
            try:
                self.pipeline.run()
            except BatcherError as error:
                self.error = error

        thread = threading.Thread(target=main)
        thread.start()
        try:
            yield
        finally:
            for event in self.sink.stuck.values():
                event.set()
            self.pipeline.stop()
            thread.join(30)
            assert not thread.is_alive()

    def committed(self, partition: Partition) -> int:
        found = self.log.committed.get(partition)
        return found.next_offset if found is not None else 0


def test_a_write_that_does_not_get_on_holds_up_its_own_partition_and_no_other() -> None:
    works = Works()
    works.sink.stuck[A].clear()
    for partition in (A, B, C):
        works.log.produce(partition, ["1"] * 45)
    with works.running():
        wait_for(lambda: works.committed(B) == works.committed(C) == 45, "the others to be committed")
        works.log.produce(B, ["1"] * 45)
        wait_for(lambda: works.committed(B) == 90, "another one to go on")

        assert works.committed(A) == 0
        assert [first for partition, first in works.sink.order if partition == A] == [0]
        status = works.pipeline.status()
        assert [one.ranges[0].partition for one in status.writing] == [A]
        assert status.writers == 3
        works.sink.stuck[A].set()
        wait_for(lambda: works.committed(A) == 45, "the rest")
    assert works.error is None


def test_what_another_writer_has_written_does_not_end_a_failure_that_lasts() -> None:
    works = Works()
    again, mended = threading.Event(), threading.Event()
    failed: list[Block] = []

    def refuse_once(block: Block) -> None:
        if block.ranges[0].partition == B:
            assert again.wait(PATIENCE_S)
        elif not failed:
            failed.append(block)
            raise SinkUnavailable("away")
        else:
            again.set()
            assert mended.wait(PATIENCE_S)

    works.sink.before = refuse_once
    for partition in (A, B):
        works.log.produce(partition, ["1"] * 25)
    with works.running():
        wait_for(lambda: works.committed(B) == 25, "the other to be committed")
        error = works.pipeline.status().last_error
        assert error is not None
        assert not error.recovered
        mended.set()
        wait_for(lambda: works.committed(A) == 25, "the rest")
    assert works.error is None


def test_retries_of_one_partition_do_not_hold_up_others_and_the_status_says_that_it_fails_until_it_is_mended() -> None:
    works = Works()
    mended = threading.Event()

    def refuse(block: Block) -> None:
        if block.ranges[0].partition == A and not mended.is_set():
            raise SinkUnavailable("away")

    works.sink.before = refuse
    for partition in (A, B):
        works.log.produce(partition, ["1"] * 25)
    with works.running():
        wait_for(lambda: works.committed(B) == 25, "the other to be committed")
        wait_for(lambda: any(one.attempts > 2 for one in works.pipeline.status().writing), "attempts")
        error = works.pipeline.status().last_error
        # What was written meanwhile does not make it well.
        assert error is not None
        assert not error.recovered
        mended.set()
        wait_for(lambda: works.committed(A) == 25, "the rest")
        error = works.pipeline.status().last_error
        assert error is not None
        assert error.recovered


def test_batches_of_one_partition_are_written_one_at_a_time_and_in_their_order() -> None:
    works = Works(until_eof=True)
    works.sink.after = lambda _: time.sleep(0.002)
    for partition in (A, B, C):
        works.log.produce(partition, ["1"] * 195)
    works.pipeline.run()

    assert works.sink.overlaps == []
    assert works.sink.most > 1
    for partition in (A, B, C):
        firsts = [first for part, first in works.sink.order if part == partition]
        assert firsts == sorted(set(firsts))
        assert works.committed(partition) == 195


def test_when_one_write_fails_the_others_come_to_their_end_and_are_committed() -> None:
    works = Works(letters=False)
    works.sink.stuck[B].clear()

    def refuse(block: Block) -> None:
        if block.ranges[0].partition == A:
            works.sink.stuck[B].set()
            raise BlockRejected("constraint")

    works.sink.before = refuse
    works.sink.stuck[A].clear()
    works.log.produce(B, ["1"] * 10)
    with works.running():
        wait_for(lambda: works.sink.inside[B] == 1, "a write")
        works.log.produce(A, ["1"] * 25)
        wait_for(lambda: works.sink.inside[A] == 1, "another write")
        works.sink.stuck[A].set()
        wait_for(lambda: works.error is not None, "the end")

    assert isinstance(works.error, DeadLetterLimitExceeded)
    assert works.committed(B) == 10
    assert works.committed(A) == 0
    # The next batch of the partition that failed was not begun.
    assert [first for partition, first in works.sink.order if partition == A] == [0]


def test_what_all_write_loops_refuse_counts_together() -> None:
    works = Works(max_ratio=0.5)
    works.sink.before = lambda _: (_ for _ in ()).throw(BlockRejected("constraint"))
    for partition in (A, B, C):
        works.log.produce(partition, ["1"] * 5)
    with works.running():
        wait_for(lambda: works.error is not None, "the end")

    assert "every record so far" in str(works.error)


@pytest.mark.parametrize(
    ("concurrent", "wanted", "found"), [(False, 4, 1), (True, 4, 4), (True, 1, 1), (False, None, 1)]
)
def test_a_sink_that_takes_one_block_at_a_time_has_one_writer(concurrent: bool, wanted: int | None, found: int) -> None:
    assert writers(SinkInfo("t", NUMBERS, concurrent=concurrent), wanted) == found


@pytest.mark.parametrize(
    ("cores", "remote", "found"),
    [(1, False, 2), (2, False, 2), (2, True, 4), (4, False, 4), (4, True, 8), (16, True, 8)],
)
def test_without_a_wish_there_are_as_many_writers_as_cores_and_twice_as_many_over_a_network(
    monkeypatch: pytest.MonkeyPatch, cores: int, remote: bool, found: int
) -> None:
    monkeypatch.setattr("batcher.engine.assembly.cores", lambda: cores)
    assert writers(SinkInfo("t", NUMBERS, concurrent=True, remote=remote)) == found


def test_no_writer_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--batch\.writers must be at least 1"):
        Works(count=0)
