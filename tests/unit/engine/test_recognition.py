"""A message that a queue delivers again is not written again where the target knows it by its name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import Block, Delivered
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.values import make_batch, make_records


class NamedSink(ScriptedSink):
    """A table with the names of messages, which tells those it has."""

    def __init__(self) -> None:
        super().__init__(NUMBERS)
        self.names: set[str] = set()
        self.asked: list[tuple[list[str], tuple[int, int] | None]] = []
        self.unavailable = 0
        self.after = self.remember

    def open(self) -> SinkInfo:
        info = super().open()
        return replace(info, capabilities=info.capabilities | {"messages"})

    def remember(self, block: Block) -> None:
        self.names.update(name for name in block.table["_message_id"].to_pylist() if name is not None)

    def stored(self, ids: pa.StringArray, times_ms: tuple[int, int] | None) -> pa.StringArray:
        if self.unavailable:
            self.unavailable -= 1
            raise SinkUnavailable("away")
        self.asked.append((ids.to_pylist(), times_ms))
        return pa.array([name for name in ids.to_pylist() if name in self.names], pa.string())


class Desk:
    """A writer with such a sink."""

    def __init__(self) -> None:
        self.sink, self.letters = NamedSink(), MemoryDeadLetterQueue()
        self.offset = 0
        self.writer = Writer(
            self.sink,
            self.sink.open(),
            NumberFormat(),
            dead_letters=self.letters,
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6),
            abort=threading.Event(),
        )

    def deliver(self, *messages: tuple[str | None, str]) -> Delivered:
        """Write messages, each with its name and its value."""
        names: Sequence[str | None] = [name for name, _ in messages]
        run = make_records([value for _, value in messages], first_offset=self.offset)
        self.offset += len(messages)
        batch = named("group", make_batch(replace(run, ids=pa.array(names, pa.string()))))
        done = self.writer.write(self.writer.prepare(batch))
        assert done.rows == done.written + done.suppressed + done.dead_lettered + done.skipped
        return done

    def numbers(self) -> list[object]:
        return sorted(row["n"] for row in self.sink.rows())  # type: ignore[type-var]


def test_a_message_that_comes_again_is_suppressed_and_its_neighbours_are_written() -> None:
    desk = Desk()
    desk.deliver(("a", "1"), ("b", "2"))
    done = desk.deliver(("b", "2"), ("c", "3"), ("a", "1"))

    assert desk.numbers() == [1, 2, 3]
    assert (done.written, done.suppressed) == (1, 2)


def test_where_all_came_again_nothing_is_written() -> None:
    desk = Desk()
    desk.deliver(("a", "1"), ("b", "2"))
    before = len(desk.sink.attempts)
    done = desk.deliver(("a", "1"), ("b", "2"))

    assert len(desk.sink.attempts) == before
    assert (done.written, done.suppressed) == (0, 2)


def test_a_message_that_is_in_a_batch_twice_is_written_once() -> None:
    desk = Desk()
    done = desk.deliver(("a", "1"), ("b", "2"), ("a", "1"), ("a", "1"))

    assert desk.numbers() == [1, 2]
    assert (done.written, done.suppressed) == (2, 2)


def test_messages_without_a_name_are_all_written() -> None:
    desk = Desk()
    done = desk.deliver((None, "1"), (None, "2"), ("a", "3"), (None, "1"), ("a", "3"))

    assert desk.numbers() == [1, 1, 2, 3]
    assert done.suppressed == 1
    assert [asked for asked, _ in desk.sink.asked] == [["a"]]


def test_what_cannot_be_read_is_not_asked_for_and_the_times_bound_the_question() -> None:
    desk = Desk()
    done = desk.deliver(("a", "x"), ("b", "2"), ("c", "3"))

    assert desk.sink.asked == [(["b", "c"], (1_700_000_000_001, 1_700_000_000_002))]
    assert (done.written, done.dead_lettered) == (2, 1)


def test_a_target_that_does_not_answer_is_asked_again_before_anything_is_written() -> None:
    desk = Desk()
    desk.deliver(("a", "1"))
    desk.sink.unavailable = 3
    done = desk.deliver(("a", "1"), ("b", "2"))

    assert desk.numbers() == [1, 2]
    assert done.suppressed == 1


def test_a_source_whose_records_have_no_names_costs_no_question() -> None:
    desk = Desk()
    batch = named("group", make_batch(make_records(["1", "2"])))
    desk.writer.write(desk.writer.prepare(batch))

    assert desk.sink.asked == []
    assert desk.numbers() == [1, 2]
