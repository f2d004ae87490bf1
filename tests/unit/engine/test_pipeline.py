import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.engine.assembly import DeliveryMode
from batcher.engine.pipeline import Pipeline
from batcher.engine.reconcile import OnExisting
from batcher.engine.report import Summary
from batcher.engine.retry import RetryPolicy
from batcher.errors import (
    BatcherError,
    ConfigurationError,
    DataGap,
    DeadLetterLimitExceeded,
    DrainTimeout,
    SinkMisconfigured,
    SinkUnavailable,
    SourceLost,
    Unreachable,
)
from batcher.protocols import SinkInfo
from batcher.records import Batch, Block, Decoded, Partition, Position
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import FileSink, ScriptedSink, TableSink
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.patience import wait_for

A, B = Partition("events", 0), Partition("events", 1)

both_guarantees = pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])


class Plant:
    """A pipeline over doubles, run in a thread so that the test can play the main program."""

    def __init__(
        self,
        *,
        until_eof: bool = False,
        max_records: int | None = None,
        stop_timeout_s: float = 20.0,
        queue: bool = True,
        flush: FlushPolicy | None = None,
        delivery: DeliveryMode = "auto",
        log: MemoryLog | None = None,
        sink: ScriptedSink | None = None,
        on_existing: OnExisting = "halt",
        ignore_intents: bool = False,
        merge_partitions: bool = False,
        start_timeout_s: float = 30.0,
    ) -> None:
        self.log = log or MemoryLog([A, B])
        self.source = MemorySource(self.log, until_eof=until_eof)
        self.sink = sink or ScriptedSink(NUMBERS)
        self.queue = MemoryDeadLetterQueue()
        self.pipeline = Pipeline(
            self.source,
            self.sink,
            NumberFormat(),
            name="group",
            dead_letters=self.queue if queue else None,
            flush=flush or FlushPolicy(max_rows=10, max_wait_s=0.02),
            retry=RetryPolicy(wait_s=0.001, max_wait_s=0.001),
            max_records=max_records,
            stop_timeout_s=stop_timeout_s,
            delivery=delivery,
            on_existing=on_existing,
            ignore_intents=ignore_intents,
            merge_partitions=merge_partitions,
            start_timeout_s=start_timeout_s,
        )

    def run(self) -> Summary:
        return self.pipeline.run()

    @contextmanager
    def running(self) -> Iterator["Outcome"]:
        outcome = Outcome()

        def main() -> None:
            try:
                outcome.summary = self.run()
            except BatcherError as error:
                outcome.error = error
            except Exception as error:
                outcome.bug = error

        thread = threading.Thread(target=main)
        thread.start()
        try:
            yield outcome
        finally:
            thread.join(30)
            assert not thread.is_alive()

    def progress(self) -> dict[Partition, int]:
        return {partition: at.next_offset for partition, at in self.log.committed.items() if at.next_offset}

    def offsets(self, partition: Partition) -> list[object]:
        return sorted(row["_offset"] for row in self.sink.rows() if row["_partition"] == partition.number)  # type: ignore[type-var]


class Outcome:
    summary: Summary | None = None
    error: BatcherError | None = None
    bug: Exception | None = None


@both_guarantees
def test_until_eof_everything_there_is_written_and_committed(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery, until_eof=True)
    plant.log.produce(A, [str(i) for i in range(95)])
    plant.log.produce(B, ["1", "x", None])

    summary = plant.run()

    assert plant.offsets(A) == list(range(95))
    assert plant.offsets(B) == [0]
    assert plant.queue.coordinates() == {(B, 1)}
    assert plant.log.committed == {A: Position(95), B: Position(3)}
    assert (summary.consumed, summary.written, summary.dead_lettered, summary.skipped) == (98, 96, 1, 1)
    assert summary.delivery == delivery


@both_guarantees
def test_max_records_stops_after_exactly_that_many(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery, max_records=42)
    plant.log.produce(A, [str(i) for i in range(100)])

    summary = plant.run()

    assert summary.consumed == 42
    assert plant.offsets(A) == list(range(42))
    assert plant.log.committed[A] == Position(42)


def test_a_lone_record_is_written_when_its_wait_is_over() -> None:
    plant = Plant(flush=FlushPolicy(max_rows=1000, max_wait_s=0.01))
    plant.log.produce(A, ["1"])
    with plant.running():
        wait_for(lambda: plant.log.committed.get(A) == Position(1), "its commit")
        plant.pipeline.stop()


@both_guarantees
def test_stop_writes_and_commits_what_is_buffered_and_leaves_the_group(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery, flush=FlushPolicy(max_rows=1000, max_wait_s=3600))
    plant.log.produce(A, ["1", "2"])
    with plant.running() as outcome:
        wait_for(lambda: plant.pipeline.summary().consumed == 2, "both records in memory")
        plant.pipeline.stop()

    assert outcome.summary is not None
    assert plant.offsets(A) == [0, 1]
    assert plant.log.committed == {A: Position(2)}
    assert plant.source.owned == frozenset()
    assert plant.sink.closed == 1


@both_guarantees
def test_a_sink_that_is_away_at_the_deadline_ends_the_stop_with_nothing_lost(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery, stop_timeout_s=0.3)

    def away(_: Block) -> None:
        raise SinkUnavailable("away")

    plant.sink.before = away
    plant.log.produce(A, ["1", "2"])
    with plant.running() as outcome:
        wait_for(lambda: len(plant.sink.attempts) > 1, "a second attempt")
        plant.pipeline.stop()

    assert isinstance(outcome.error, DrainTimeout)
    assert "2 records will be read again" in str(outcome.error)
    assert outcome.error.exit_code == 75
    assert plant.progress() == {}


@both_guarantees
def test_a_write_that_hangs_does_not_keep_the_process_past_its_deadline(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery, stop_timeout_s=0.3)
    plant.sink.release.clear()
    plant.log.produce(A, ["1"])
    try:
        with plant.running() as outcome:
            wait_for(plant.sink.holding.is_set, "a write that hangs")
            plant.pipeline.stop()
        assert isinstance(outcome.error, DrainTimeout)
        assert "still busy: write" in str(outcome.error)
    finally:
        plant.sink.release.set()
    wait_for(lambda: not any(thread.name == "write" for thread in threading.enumerate()), "the end of the thread")
    assert plant.progress() == {}


@both_guarantees
def test_abort_ends_at_once_and_commits_nothing_more(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery)

    def away(_: Block) -> None:
        raise SinkUnavailable("away")

    plant.sink.before = away
    plant.log.produce(A, ["1"])
    with plant.running() as outcome:
        wait_for(lambda: len(plant.sink.attempts) > 1, "a second attempt")
        plant.pipeline.abort()

    assert isinstance(outcome.error, DrainTimeout)
    assert plant.progress() == {}


@both_guarantees
def test_a_bug_in_the_sink_comes_out_of_run_and_nothing_more_is_committed(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery)

    def bug(_: Block) -> None:
        raise ZeroDivisionError

    plant.sink.before = bug
    plant.log.produce(A, ["1"])
    with plant.running() as outcome:
        pass

    assert isinstance(outcome.bug, ZeroDivisionError)
    assert plant.progress() == {}


def test_a_source_that_is_lost_takes_the_write_loop_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plant = Plant()

    def lost(*_: object) -> None:
        raise SourceLost("gone")

    monkeypatch.setattr(plant.source, "fetch", lost)
    with plant.running() as outcome:
        pass

    assert isinstance(outcome.error, SourceLost)


@both_guarantees
def test_poison_without_a_queue_commits_the_good_batches_before_it_and_nothing_past_it(delivery: DeliveryMode) -> None:
    plant = Plant(delivery=delivery, queue=False, flush=FlushPolicy(max_rows=10, max_wait_s=3600))
    plant.log.produce(A, [*(str(i) for i in range(15)), "x", *(str(i) for i in range(20))])
    with plant.running() as outcome:
        pass

    assert isinstance(outcome.error, DeadLetterLimitExceeded)
    assert "events[0] offset 15" in str(outcome.error)
    assert plant.progress() == {A: 10}
    assert plant.offsets(A) == list(range(10))


def test_a_fault_found_while_decoding_ends_the_run_and_what_was_written_before_is_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant = Plant(flush=FlushPolicy(max_rows=10, max_wait_s=3600))
    decode = NumberFormat.decode

    def refuse_the_third(format_: NumberFormat, batch: Batch) -> Decoded:
        if batch.number == 3:
            raise ConfigurationError("no such schema")
        return decode(format_, batch)

    monkeypatch.setattr(NumberFormat, "decode", refuse_the_third)
    plant.log.produce(A, [str(i) for i in range(50)])
    with plant.running() as outcome:
        pass

    assert isinstance(outcome.error, ConfigurationError)
    written = len(plant.offsets(A))
    assert written in {10, 20}
    assert plant.log.committed == {A: Position(written)}


def test_a_sink_that_fails_to_open_stops_before_anything_is_read() -> None:
    for raised, expected in (
        (SinkMisconfigured("no table"), SinkMisconfigured),
        (SinkUnavailable("away"), Unreachable),
    ):
        plant = Plant(start_timeout_s=0)

        def failing(error: Exception = raised) -> SinkInfo:
            raise error

        plant.sink.open = failing  # type: ignore[method-assign]
        with pytest.raises(expected):
            plant.run()
        assert plant.log.owners == {}


def test_a_stalled_sink_pauses_reading_at_the_memory_bound_and_reading_goes_on_afterwards() -> None:
    plant = Plant(flush=FlushPolicy(max_rows=10, max_bytes=1000, max_wait_s=0.01))
    plant.pipeline = Pipeline(
        plant.source,
        plant.sink,
        NumberFormat(),
        name="group",
        dead_letters=plant.queue,
        flush=FlushPolicy(max_rows=10, max_bytes=1000, max_wait_s=0.01),
        memory_bytes=2000,
        max_records=200,
    )
    plant.sink.release.clear()
    plant.log.produce(A, [str(i) for i in range(200)])
    with plant.running():
        wait_for(lambda: A in plant.source.paused, "a pause")
        read_while_stalled = plant.pipeline.summary().consumed
        plant.sink.release.set()

    assert read_while_stalled < 100
    assert plant.offsets(A) == list(range(200))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"stop_timeout_s": 0}, "--stop-timeout"),
        ({"max_records": 0}, "--max-records"),
        ({"memory_bytes": 1000}, "--batch.memory"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_opened(settings: dict[str, object], flag: str) -> None:
    log = MemoryLog([A])
    with pytest.raises(ConfigurationError, match=flag):
        Pipeline(MemorySource(log), ScriptedSink(NUMBERS), NumberFormat(), name="g", **settings)  # type: ignore[arg-type]


def died_after_a_write(sink: ScriptedSink, *, max_rows: int = 7, merge_partitions: bool = False) -> MemoryLog:
    """Return the log as a process leaves it that dies between a write and its commit."""
    flush = FlushPolicy(max_rows=max_rows, max_wait_s=3600)
    plant = Plant(until_eof=True, sink=sink, flush=flush, merge_partitions=merge_partitions)
    plant.log.produce(A, [str(i) for i in range(20)])
    plant.log.produce(B, [str(i) for i in range(20)])

    def die(_: Block) -> None:
        raise ZeroDivisionError

    sink.after = die
    with plant.running() as outcome:
        pass
    assert isinstance(outcome.bug, ZeroDivisionError)
    assert plant.progress() == {}
    assert sink.blocks
    sink.after = lambda _: None
    return plant.log


SINKS: dict[str, Callable[[], ScriptedSink]] = {
    "tokens are remembered": lambda: ScriptedSink(NUMBERS),
    "rows can be asked for": lambda: TableSink(NUMBERS),
    "files have names": lambda: FileSink(NUMBERS),
}


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("max_rows", [3, 7, 100])
def test_a_write_without_its_commit_is_not_repeated_by_the_next_process_however_it_cuts_its_batches(
    sink: str, max_rows: int
) -> None:
    target = SINKS[sink]()
    log = died_after_a_write(target)
    plant = Plant(until_eof=True, log=log, sink=target, flush=FlushPolicy(max_rows=max_rows, max_wait_s=3600))

    summary = plant.run()

    assert plant.offsets(A) == plant.offsets(B) == list(range(20))
    assert log.committed == {A: Position(20), B: Position(20)}
    assert summary.duplicates_suppressed == (7 if isinstance(target, TableSink) else 0)
    assert summary.consumed == summary.written + summary.duplicates_suppressed


def test_batches_of_several_partitions_are_not_repeated_either() -> None:
    target = TableSink(NUMBERS)
    log = died_after_a_write(target, max_rows=30, merge_partitions=True)
    assert {span.partition for block in target.blocks.values() for span in block.ranges} == {A, B}

    plant = Plant(until_eof=True, log=log, sink=target, merge_partitions=True)
    plant.run()

    assert plant.offsets(A) == plant.offsets(B) == list(range(20))


@pytest.mark.parametrize("sink", [ScriptedSink(NUMBERS), FileSink(NUMBERS)])
def test_partitions_are_merged_only_where_the_target_can_be_asked(sink: ScriptedSink) -> None:
    with pytest.raises(ConfigurationError, match=r"--batch\.merge-partitions: memory cannot be asked"):
        Plant(sink=sink, merge_partitions=True).run()


def test_exactly_once_is_refused_where_the_target_cannot_keep_it() -> None:
    plant = Plant(sink=ScriptedSink(NUMBERS, repeats="none"), delivery="exactly-once")

    with pytest.raises(ConfigurationError, match="--delivery exactly-once: memory cannot keep it"):
        plant.run()
    assert plant.log.owners == {}


def test_a_start_that_fails_claims_no_guarantee() -> None:
    class Away(ScriptedSink):
        def open(self) -> SinkInfo:
            raise Unreachable("there is nobody")

    plant = Plant(sink=Away(NUMBERS), start_timeout_s=0.0)
    with pytest.raises(Unreachable):
        plant.run()
    assert plant.pipeline.summary().delivery is None


def test_strange_metadata_stop_their_partition_and_in_the_end_the_process_says_so() -> None:
    log = MemoryLog([A, B])
    log.committed[A] = strange = Position(0, unreadable="it is no intent of batcher")
    plant = Plant(until_eof=True, log=log)
    for partition in (A, B):
        log.produce(partition, ["1", "2"])
    with plant.running() as outcome:
        pass

    assert isinstance(outcome.error, ConfigurationError)
    assert "nothing was read from 1 partitions" in str(outcome.error)
    assert log.committed == {A: strange, B: Position(2)}
    assert (plant.offsets(A), plant.offsets(B)) == ([], [0, 1])


@both_guarantees
def test_strange_metadata_that_are_ignored_are_replaced(delivery: DeliveryMode) -> None:
    log = MemoryLog([A, B])
    log.committed[A] = Position(1, unreadable="the metadata of the committed offset is no intent of batcher")
    plant = Plant(until_eof=True, log=log, ignore_intents=True, delivery=delivery)
    log.produce(A, ["1", "2"])
    plant.run()

    assert plant.offsets(A) == [1]
    assert log.committed[A] == Position(2)


def test_offsets_that_were_set_back_stop_the_process_unless_it_is_told_what_to_do() -> None:
    rows: dict[OnExisting, int] = {"skip": 20, "write": 40}
    for on_existing, expected in rows.items():
        log, sink = MemoryLog([A, B]), TableSink(NUMBERS)
        log.produce(A, [str(i) for i in range(20)])
        Plant(until_eof=True, log=log, sink=sink).run()
        log.committed[A] = Position(0)

        with pytest.raises(DataGap, match=r"events\[0\] up to offset 19"):
            Plant(until_eof=True, log=log, sink=sink).run()
        assert len(sink.rows()) == 20
        Plant(until_eof=True, log=log, sink=sink, on_existing=on_existing).run()
        assert len(sink.rows()) == expected


def test_a_broker_and_a_target_that_come_up_late_are_waited_for() -> None:
    plant = Plant(until_eof=True)
    plant.log.produce(A, ["1"])
    failures = {"sink": 2, "source": 2}
    ready: list[tuple[bool, str]] = []

    def late(name: str, open_: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if failures[name]:
                ready.append(plant.pipeline.ready)
                failures[name] -= 1
                raise Unreachable("connection refused")
            return open_(*arguments)

        return call

    plant.sink.open = late("sink", plant.sink.open)  # type: ignore[method-assign]
    plant.source.open = late("source", plant.source.open)  # type: ignore[method-assign]
    with capture_logs() as lines:
        plant.run()

    assert plant.offsets(A) == [0]
    waited = [line["waiting_for"] for line in lines if line["event"] == "waiting_at_start"]
    assert waited == ["the target", "the brokers"]
    assert ready[1::2] == [
        (False, "waiting for the target: connection refused"),
        (False, "waiting for the brokers: connection refused"),
    ]


def test_a_broker_that_does_not_come_up_is_unreachable_and_nothing_was_read() -> None:
    plant = Plant(start_timeout_s=0)

    def refuse(_: object) -> None:
        raise Unreachable("no broker answers")

    plant.source.open = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(Unreachable, match=r"^no broker answers$"):
        plant.run()


@pytest.mark.parametrize("part", ["sink", "source"])
def test_a_stop_is_heard_while_a_target_or_a_client_hangs_at_the_start(part: str) -> None:
    plant = Plant()
    hanging, release = threading.Event(), threading.Event()

    def hang(*_: object) -> Any:
        hanging.set()
        release.wait(60)
        raise Unreachable("at last")

    getattr(plant, part).open = hang
    try:
        with plant.running() as outcome:
            wait_for(hanging.is_set, "an open that hangs")
            plant.pipeline.stop()
        assert isinstance(outcome.error, DrainTimeout)
        assert "stopped before it had begun" in str(outcome.error)
        assert outcome.error.exit_code == 75
    finally:
        release.set()
