"""A sink may write a part of a block: what it says of the other rows is what becomes of them."""

import threading
from collections.abc import Callable

import pytest

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import BatcherError, BlockRejected, DeadLetterLimitExceeded, DeferredTooLong, SinkUnavailable
from batcher.records import Batch, Block, Deferral, Delivered, Outcome, Rejection
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import FileSink, ScriptedSink, TableSink
from batcher.testing.values import EVENTS_0, make_batch, make_records


class Waits(threading.Event):
    """An event that notes how long it was waited for, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return self.is_set()


class Desk:
    """A writer with a sink whose outcomes the test decides."""

    def __init__(
        self,
        sink: ScriptedSink | None = None,
        *,
        queue: bool = True,
        max_elapsed_s: float | None = None,
        releases: bool = False,
    ) -> None:
        self.sink = sink or ScriptedSink(NUMBERS)
        self.queue = MemoryDeadLetterQueue()
        self.abort = Waits()
        self.writer = Writer(
            self.sink,
            self.sink.open(),
            NumberFormat(),
            dead_letters=self.queue if queue else None,
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6, max_elapsed_s=max_elapsed_s),
            abort=self.abort,
            releases=releases,
        )

    def deliver(self, batch: Batch, held: Callable[[], bool] = lambda: True) -> Delivered:
        return self.writer.write(self.writer.prepare(batch), held)

    def answering(self, *outcomes: Outcome | None) -> None:
        left = list(outcomes)
        self.sink.outcome = lambda _: left.pop(0) if left else None

    def numbers(self) -> list[object]:
        return sorted(row["n"] for row in self.sink.rows())  # type: ignore[type-var]


def numbers(*values: str) -> Batch:
    return named("group", make_batch(make_records(list(values))))


def adds_up(done: Delivered) -> bool:
    return done.rows == done.written + done.suppressed + done.dead_lettered + done.skipped + done.released


def test_rows_that_a_sink_rejects_are_dead_letters_and_the_others_are_not_written_again() -> None:
    desk = Desk()
    desk.answering(Outcome(rejected=(Rejection(1, "handler", "was refused"),)))
    done = desk.deliver(numbers("1", "x", "2", "3"))

    assert desk.numbers() == [1, 3]
    assert len(desk.sink.attempts) == 1
    assert [(one.record.offset, one.stage, one.reason) for one in desk.queue.letters] == [
        (1, "decode", "syntax"),
        (2, "sink", "handler"),
    ]
    assert (done.written, done.dead_lettered, done.refused_by_sink) == (2, 2, 1)
    assert adds_up(done)


def test_rows_that_a_sink_defers_come_again_after_their_delay_and_under_a_token_of_their_own() -> None:
    desk = Desk()
    deferred = (Deferral(0, 5.0, "busy"), Deferral(2, 1.0, "busy"), Deferral(3, 1.0, "busy"))
    desk.answering(Outcome(deferred=deferred))
    done = desk.deliver(numbers("1", "2", "3", "4"))

    assert desk.numbers() == [1, 2, 3, 4]
    assert [block.table["n"].to_pylist() for block in desk.sink.blocks.values()] == [[2], [3, 4], [1]]
    whole, *parts = desk.sink.attempts
    assert all(token.startswith(f"{whole}|") for token in parts)
    assert len({whole, *parts}) == 3
    assert [round(waited) for waited in desk.abort.waited] == [1, 5]
    assert (done.written, done.dead_lettered, done.skipped) == (4, 0, 0)


def test_rows_that_are_deferred_again_and_again_are_written_once_in_the_end() -> None:
    desk = Desk()
    desk.answering(*[Outcome(deferred=(Deferral(0, 0.0),))] * 3000)
    done = desk.deliver(numbers("1", "2"))

    assert desk.numbers() == [1, 2]
    assert len(desk.sink.attempts) == 3001
    assert len(set(desk.sink.attempts)) == 3001, "a sink that knows a token does not take it again"
    assert {len(token) for token in desk.sink.attempts[1:]} == {len(desk.sink.attempts[1])}
    assert adds_up(done)


def test_rows_that_are_deferred_are_given_back_to_a_queue_that_takes_them_and_nothing_waits() -> None:
    desk = Desk(releases=True)
    rejected, deferred = (Rejection(0, "bad", "is bad"),), (Deferral(1, 5.0, "busy"), Deferral(3, 60.0, "busy"))
    desk.answering(Outcome(rejected, deferred, dropped=(4,)))
    done = desk.deliver(numbers("x", "1", "2", "3", "4", "5"))

    assert desk.numbers() == [3]
    assert len(desk.sink.attempts) == 1
    assert desk.abort.waited == []
    # Named by their offsets, one of which could not be decoded.
    assert done.releases == {EVENTS_0: {2: 5.0, 4: 60.0}}
    assert (done.written, done.dead_lettered, done.skipped, done.released) == (1, 2, 1, 2)
    assert adds_up(done)


def test_rows_that_are_deferred_in_the_half_of_a_block_are_given_back_too() -> None:
    desk = Desk(releases=True)
    refusals = [BlockRejected("some row is bad")]

    def refuse(_: Block) -> None:
        if refusals:
            raise refusals.pop()

    desk.sink.before = refuse
    desk.answering(Outcome(deferred=(Deferral(1, 2.0),)), Outcome(deferred=(Deferral(0, 3.0),)))
    done = desk.deliver(numbers("1", "2", "3", "4"))

    assert done.releases == {EVENTS_0: {1: 2.0, 2: 3.0}}
    assert desk.numbers() == [1, 4]
    assert adds_up(done)


def test_rows_that_a_sink_drops_are_skipped_and_counted() -> None:
    desk = Desk()
    desk.answering(Outcome(dropped=(0, 1)))
    done = desk.deliver(numbers("1", "2", "3"))

    assert desk.numbers() == [3]
    assert (done.written, done.skipped, done.dropped) == (1, 2, 2)
    assert adds_up(done)


def test_a_block_of_which_nothing_was_written_is_done_when_each_row_is_accounted_for() -> None:
    desk = Desk()
    desk.answering(
        Outcome(rejected=(Rejection(0, "bad", "is bad"),), deferred=(Deferral(1, 0.5),), dropped=(2,)),
        Outcome(rejected=(Rejection(0, "late", "is too late"),)),
    )
    done = desk.deliver(numbers("1", "2", "3"))

    assert desk.numbers() == []
    assert sorted((one.record.offset, one.reason) for one in desk.queue.letters) == [(0, "bad"), (1, "late")]
    assert (done.written, done.dead_lettered, done.skipped) == (0, 2, 1)


def test_a_rejected_row_stops_the_pipeline_where_there_is_no_dead_letter_queue() -> None:
    desk = Desk(queue=False)
    desk.answering(Outcome(rejected=(Rejection(0, "bad", "is bad"),)))

    with pytest.raises(DeadLetterLimitExceeded, match=r"events\[0\] offset 0 cannot be loaded: is bad"):
        desk.deliver(numbers("1"))


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(rejected=(Rejection(0, "a", "b"),), dropped=(0,)),
        Outcome(deferred=(Deferral(0, 1.0), Deferral(0, 2.0))),
        Outcome(dropped=(2,)),
        Outcome(dropped=(-1,)),
    ],
)
def test_an_outcome_that_cannot_be_is_a_fault_of_the_sink(outcome: Outcome) -> None:
    desk = Desk()
    desk.answering(outcome)

    with pytest.raises(BatcherError, match="names a row twice, or one that the block does not have; correct the sink"):
        desk.deliver(numbers("1", "2"))


def test_a_sink_whose_repeats_replace_cannot_write_in_part() -> None:
    desk = Desk(FileSink(NUMBERS))
    desk.answering(Outcome(dropped=(0,)))

    with pytest.raises(BatcherError, match=r"cannot write events\[0\] 0-1 in part; correct the sink"):
        desk.deliver(numbers("1", "2"))


def test_what_is_deferred_at_a_stop_is_given_up_and_nothing_of_the_batch_counts_as_written() -> None:
    desk = Desk()
    desk.answering(Outcome(deferred=(Deferral(0, 60.0, "busy"),)))
    desk.sink.after = lambda _: desk.abort.set()

    with pytest.raises(DeferredTooLong, match=r"still defers 1 rows of events\[0\] 0-1: busy"):
        desk.deliver(numbers("1", "2"))
    assert len(desk.sink.attempts) == 1


def test_rows_are_not_deferred_for_longer_than_anything_is_tried() -> None:
    desk = Desk(max_elapsed_s=10.0)
    desk.answering(Outcome(deferred=(Deferral(0, 60.0, "busy"),)))

    with pytest.raises(DeferredTooLong, match="busy"):
        desk.deliver(numbers("1", "2"))
    assert desk.abort.waited == []


def test_a_table_is_asked_for_the_durable_rows_only_after_a_repeat() -> None:
    desk = Desk(TableSink(NUMBERS))
    errors = [SinkUnavailable("away")]

    def away(_: Block) -> None:
        if errors:
            raise errors.pop()

    desk.sink.before = away
    desk.answering(Outcome(dropped=(1,)))
    done = desk.deliver(numbers("1", "2", "3"))

    assert desk.numbers() == [1, 3]
    assert (done.written, done.skipped) == (2, 1)
