"""One pipeline into several targets: each keeps its guarantee by itself, and one that fails holds up its own topics."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.core.limits import DeadLetterPolicy
from batcher.engine.pipeline import Pipeline
from batcher.engine.retry import RetryPolicy
from batcher.engine.routes import Routes, Target
from batcher.errors import (
    BatcherError,
    ConfigurationError,
    DeadLetterLimitExceeded,
    SinkMisconfigured,
    SinkUnavailable,
    Unreachable,
)
from batcher.protocols import PartitionListener, SinkInfo, SourceInfo
from batcher.records import Block, DeadLetter, Partition, Position
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import AnsweringSink, FileSink, MemorySink, ScriptedSink, TableSink
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.patience import wait_for

A, B, C = Partition("a", 0), Partition("b", 0), Partition("c", 0)
A1 = Partition("a", 1)
ANY_SHARE = DeadLetterPolicy(max_ratio=1.0, max_consecutive=10**9)


class Works:
    """Run pipelines of one group into sinks by name, which stay from one to the next."""

    def __init__(self, partitions: Sequence[Partition] = (A, A1, B, C), rules: Sequence[tuple[str, str]] = ()) -> None:
        self.log = MemoryLog(partitions)
        self.sinks: dict[str, MemorySink] = {}
        self.make: Callable[[str], MemorySink] = lambda _: ScriptedSink(NUMBERS)
        self.made: list[tuple[str, tuple[str, ...]]] = []
        self.rules = rules or ((".*", "to_{topic}"),)
        self.queue = MemoryDeadLetterQueue()

    def sink(self, name: str) -> MemorySink:
        return self.sinks.setdefault(name, self.make(name))

    def target(self, name: str, topics: Sequence[str]) -> Target:
        self.made.append((name, tuple(topics)))
        return Target(self.sink(name), NumberFormat())

    def pipeline(
        self,
        source: MemorySource | None = None,
        *,
        queue: bool = True,
        memory_bytes: int = 48 << 20,
        max_records: int | None = None,
        flush: FlushPolicy | None = None,
    ) -> Pipeline:
        return Pipeline(
            source or MemorySource(self.log, until_eof=True),
            Routes(self.rules, self.target),
            name="group",
            dead_letters=self.queue if queue else None,
            flush=flush or FlushPolicy(max_rows=10, max_bytes=1 << 20, max_wait_s=0.02),
            memory_bytes=memory_bytes,
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
            poison=ANY_SHARE,
            max_records=max_records,
        )

    def offsets(self, name: str, partition: Partition) -> list[object]:
        return sorted(
            row["_offset"]  # type: ignore[type-var]
            for row in (self.sinks[name].rows() if name in self.sinks else [])
            if (row["_topic"], row["_partition"]) == partition
        )

    @contextmanager
    def running(self, pipeline: Pipeline) -> Iterator[list[BaseException]]:
        errors: list[BaseException] = []

        def main() -> None:
            try:
                pipeline.run()
            except BatcherError as error:
                errors.append(error)

        thread = threading.Thread(target=main)
        thread.start()
        try:
            yield errors
        finally:
            pipeline.stop()
            thread.join(30)
            assert not thread.is_alive()


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_each_topic_is_in_the_target_of_its_name_and_everything_is_committed() -> None:
    works = Works()
    for partition, count in ((A, 25), (A1, 5), (B, 31), (C, 1)):
        works.log.produce(partition, numbers(count))

    summary = works.pipeline().run()

    assert [works.offsets("to_a", A), works.offsets("to_a", A1)] == [list(range(25)), list(range(5))]
    assert [works.offsets("to_b", B), works.offsets("to_c", C)] == [list(range(31)), [0]]
    assert {partition: at.next_offset for partition, at in works.log.committed.items()} == {A: 25, A1: 5, B: 31, C: 1}
    assert {name: one.written for name, one in summary.targets.items()} == {"to_a": 30, "to_b": 31, "to_c": 1}
    assert (summary.consumed, summary.written, summary.delivery) == (62, 62, "exactly-once")
    assert sorted(works.made) == [("to_a", ("a",)), ("to_b", ("b",)), ("to_c", ("c",))]
    assert all(sink.closed for sink in works.sinks.values())


def test_topics_that_lead_to_one_name_share_a_target() -> None:
    works = Works(rules=[("a|b", "both"), (".*", "rest")])
    for partition in (A, B, C):
        works.log.produce(partition, numbers(3))

    works.pipeline().run()

    assert works.made == [("both", ("a", "b")), ("rest", ("c",))]
    assert [works.offsets("both", A), works.offsets("both", B), works.offsets("rest", C)] == [[0, 1, 2]] * 3


def test_a_topic_without_a_route_is_refused_before_anything_is_opened() -> None:
    works = Works(rules=[("a|b", "both")])
    with pytest.raises(ConfigurationError, match=r"no --route is for c; give one for every topic"):
        works.pipeline().run()
    assert works.made == []


def test_a_source_that_cannot_offer_partitions_is_refused() -> None:
    class Plain(MemorySource):
        def open(self, listener: PartitionListener) -> SourceInfo:
            return replace(super().open(listener), capabilities=frozenset())

    works = Works()
    with pytest.raises(ConfigurationError, match="Plain has no capability offer"):
        works.pipeline(Plain(works.log)).run()


def test_the_guarantee_is_that_of_the_weakest_target_and_each_keeps_its_own() -> None:
    works = Works()
    works.make = lambda name: ScriptedSink(NUMBERS, repeats="none" if name == "to_b" else "token")
    works.log.produce(A, numbers(3))
    works.log.produce(B, numbers(3))
    pipeline = works.pipeline()

    summary = pipeline.run()

    assert summary.delivery == "at-least-once"
    assert {name: one.delivery for name, one in pipeline.status().targets.items()} == {
        "to_a": "exactly-once",
        "to_b": "at-least-once",
        "to_c": "exactly-once",
    }


def test_a_target_that_does_not_answer_holds_up_its_own_topics_and_no_others() -> None:
    works = Works()
    away = threading.Event()
    away.set()

    def before(_: Block) -> None:
        if away.is_set():
            raise SinkUnavailable("away")

    slow = works.sinks["to_a"] = ScriptedSink(NUMBERS)
    slow.before = before
    source = MemorySource(works.log)
    pipeline = works.pipeline(source, memory_bytes=3 << 12, flush=FlushPolicy(max_rows=10, max_bytes=1 << 10))
    with works.running(pipeline) as errors:
        for partition in (A, B, C):
            works.log.produce(partition, numbers(2000))
        wait_for(lambda: len(works.offsets("to_b", B)) == len(works.offsets("to_c", C)) == 2000, "the others")
        wait_for(lambda: A in source.paused, "the topic of the broken target to be paused")
        status = pipeline.status()
        away.clear()
        wait_for(lambda: len(works.offsets("to_a", A)) == 2000, "what was held up")

    assert errors == []
    assert status.targets["to_a"].waiting_for == "the target: away"
    assert status.waiting_for == "to_a: the target: away; to_b: records; to_c: records"
    # Its share of the memory, and what one fetch may bring beyond.
    assert status.targets["to_a"].buffer.limit_bytes == (3 << 12) // 3
    assert works.offsets("to_a", A) == list(range(2000))


def test_a_target_that_fails_for_good_is_given_up_once_what_is_durable_of_it_is_committed() -> None:
    works = Works()
    works.log.produce(A, numbers(30))
    works.log.produce(A, ["no number"])
    works.log.produce(A, numbers(30))
    works.log.produce(B, numbers(50))
    pipeline = works.pipeline(queue=False)

    with capture_logs() as logs, pytest.raises(DeadLetterLimitExceeded):
        pipeline.run()

    assert works.offsets("to_b", B) == list(range(50))
    assert works.log.committed[B].next_offset == 50
    assert works.offsets("to_a", A) == list(range(works.log.committed[A].next_offset))
    assert works.log.committed[A].next_offset >= 20
    [failed] = [one for one in logs if one["event"] == "target_failed"]
    assert failed["target"] == "to_a"
    assert pipeline.summary().targets["to_a"].failed
    assert not works.log.trespasses


def test_a_bug_in_one_target_ends_them_all() -> None:
    works = Works()
    bad = works.sinks["to_a"] = ScriptedSink(NUMBERS)

    def before(_: Block) -> None:
        raise ZeroDivisionError

    bad.before = before
    works.log.produce(A, numbers(1))
    with pytest.raises(ZeroDivisionError):
        works.pipeline(MemorySource(works.log)).run()


class Late(ScriptedSink):
    """Not there until `there` is set; counts how often it was opened."""

    def __init__(self, error: BatcherError) -> None:
        super().__init__(NUMBERS)
        self.there = threading.Event()
        self.opened = 0
        self._error = error

    def open(self) -> SinkInfo:
        self.opened += 1
        if not self.there.is_set():
            raise self._error
        return super().open()


class Growing(MemorySource):
    """Say at the start that it reads topic `b` only, and be given `a` while it runs."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log, partitions=[B])


@pytest.mark.parametrize("error", [SinkMisconfigured("no such table"), Unreachable("away"), SinkUnavailable("away")])
def test_a_topic_that_comes_later_waits_for_its_target_and_is_read_from_its_commit(
    error: BatcherError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.engine.targets.FIRST_WAIT_S", 0.01)
    works = Works()
    late = works.sinks["to_a"] = Late(error)
    works.log.committed[A] = Position(3)
    works.log.produce(A, numbers(10))
    works.log.produce(B, numbers(5))
    source = Growing(works.log)
    with works.running(works.pipeline(source)) as errors:
        wait_for(lambda: works.offsets("to_b", B) == list(range(5)), "what was there")
        source.assign([A])
        wait_for(lambda: late.opened > 2, "attempts to open it")
        works.log.produce(B, numbers(5))
        wait_for(lambda: works.offsets("to_b", B) == list(range(10)), "the other to go on")
        late.there.set()
        wait_for(lambda: works.offsets("to_a", A) == list(range(3, 10)), "the records of the late topic")
        works.log.produce(A, numbers(1))
        wait_for(lambda: works.offsets("to_a", A) == list(range(3, 11)), "more of them")

    assert errors == []
    assert works.log.committed[A].next_offset == 11
    assert late.closed == 1


def test_a_topic_that_comes_later_and_has_no_route_is_named_and_left_alone() -> None:
    works = Works(rules=[("b", "to_b")])
    works.log.produce(A, numbers(10))
    source = Growing(works.log)
    pipeline = works.pipeline(source)
    with works.running(pipeline) as errors:
        wait_for(lambda: source.owned == {B}, "the first partition")
        source.assign([A])
        works.log.produce(B, numbers(5))
        wait_for(lambda: works.offsets("to_b", B) == list(range(5)), "the others to go on")
        stopped = pipeline.status().partitions[A].stopped
    assert stopped == "no --route is for topic a"
    assert A not in works.log.committed
    [error] = errors
    assert isinstance(error, ConfigurationError)


def test_a_stop_while_a_late_target_is_still_waited_for_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.engine.targets.FIRST_WAIT_S", 3600.0)
    works = Works()
    late = works.sinks["to_a"] = Late(SinkMisconfigured("no such table"))
    source = Growing(works.log)
    with works.running(works.pipeline(source)) as errors:
        wait_for(lambda: source.owned == {B}, "the first partition")
        source.assign([A])
        wait_for(lambda: late.opened, "an attempt to open it")
    assert [type(error) for error in errors] == [ConfigurationError]


def test_max_records_counts_the_records_of_all_targets() -> None:
    works = Works()
    for partition in (A, B, C):
        works.log.produce(partition, numbers(100))

    summary = works.pipeline(MemorySource(works.log), max_records=42).run()

    assert summary.consumed == summary.written == 42
    assert sum(at.next_offset for at in works.log.committed.values()) == 42


def test_dead_letters_of_all_targets_go_to_one_queue_one_send_at_a_time() -> None:
    class Careful(MemoryDeadLetterQueue):
        busy = False
        overlapped = False

        def send(self, letters: Sequence[DeadLetter]) -> None:
            self.overlapped |= self.busy
            self.busy = True
            threading.Event().wait(0.001)
            super().send(letters)
            self.busy = False

    works = Works()
    queue = works.queue = Careful()
    for partition in (A, B, C):
        works.log.produce(partition, ["1", "x"] * 50)

    works.pipeline().run()

    assert len(queue.coordinates()) == 150
    assert not queue.overlapped


@pytest.mark.parametrize("kind", [ScriptedSink, TableSink, FileSink])
@pytest.mark.parametrize("seed", range(8))
def test_whatever_fails_and_whenever_it_is_killed_each_record_is_in_its_target_once(
    kind: type[AnsweringSink], seed: int
) -> None:
    chance = random.Random(seed)
    works = Works()

    def make(_: str) -> MemorySink:
        sink = kind(NUMBERS)
        sink.before = lambda _: _fail(chance, 0.15)
        if kind is not TableSink:  # which remembers no token, so that an attempt must not fail once it has the rows
            sink.after = lambda _: _fail(chance, 0.15)
        return sink

    works.make = make
    sent: Mapping[Partition, int] = {A: 90, A1: 40, B: 120, C: 7}
    for partition, count in sent.items():
        works.log.produce(partition, numbers(count))
    for _ in range(4):
        source = MemorySource(works.log)
        pipeline = works.pipeline(source)
        with works.running(pipeline) as errors:
            _wait_for_batches(pipeline, chance.randrange(1, 8), works, sent)
            pipeline.abort()
        assert all(type(error).__name__ == "DrainTimeout" for error in errors)

    works.pipeline().run()

    assert {partition: works.offsets(f"to_{partition.topic}", partition) for partition in sent} == {
        partition: list(range(count)) for partition, count in sent.items()
    }


def _wait_for_batches(pipeline: Pipeline, count: int, works: Works, sent: Mapping[Partition, int]) -> None:
    wait_for(lambda: pipeline.summary().batches >= count or _all_committed(works, sent), "some batches")


def _all_committed(works: Works, sent: Mapping[Partition, int]) -> bool:
    return all(part in works.log.committed and works.log.committed[part].next_offset == n for part, n in sent.items())


def _fail(chance: random.Random, share: float) -> None:
    if chance.random() < share:
        raise SinkUnavailable("away")
