"""What was missing is loaded once, by batches that take nobody's place; duplicates go out and come back once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcher.audit.auditor import Auditor, Finding
from batcher.audit.ranges import Span, windows
from batcher.audit.repair import NotingQueue, Repaired, Repairer
from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import DeadLetterLimitExceeded, SinkUnavailable
from batcher.protocols import SinkInfo
from batcher.records import Block, Partition, Range, Records
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import AnsweringSink, FileSink, TableSink
from batcher.testing.values import EVENTS_0, make_block, make_records

Values = Mapping[int, bytes | None]


class MemoryLog:
    """Keep records of one partition, and hand them out in runs of three."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def offsets(self, asked: Range) -> tuple[pa.Int64Array, pa.BooleanArray]:
        found = self._inside(asked)
        return pa.array(found, pa.int64()), pa.array([self.values[offset] is None for offset in found], pa.bool_())

    def records(self, asked: Range) -> Iterator[Records]:
        found = self._inside(asked)
        for start in range(0, len(found), 3):
            some = found[start : start + 3]
            yield make_records([self.values[offset] for offset in some], offsets=some)

    def _inside(self, asked: Range) -> list[int]:
        return sorted(offset for offset in self.values if asked.first <= offset <= asked.last)


class RemovableTable(TableSink):
    """A table whose rows can be taken out; `removed` are the spans, in their order."""

    def __init__(self) -> None:
        super().__init__(NUMBERS)
        self.removed: list[tuple[int, int]] = []

    def open(self) -> SinkInfo:
        info = super().open()
        return replace(info, capabilities=info.capabilities | {"remove"})

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        self.removed += spans
        for token, block in list(self.blocks.items()):
            kept = [
                row
                for row, offset in enumerate(block.table["_offset"].to_pylist())
                if not any(first <= offset <= last for first, last in spans)
            ]
            del self.blocks[token]
            if kept:
                self.blocks[token] = Block(block.table.take(kept), block.positions.take(kept), token, block.ranges)


class Desk:
    """A mender with a log, a target and a queue."""

    def __init__(self, log: Values, target: AnsweringSink, *, max_rows: int = 1000, queue: bool = True) -> None:
        self.log = MemoryLog(log)
        self.target = target
        self.info = target.open()
        self.letters = MemoryDeadLetterQueue()
        self.noting = NotingQueue(self.letters) if queue else None
        writer = Writer(
            target,
            self.info,
            NumberFormat(),
            dead_letters=self.noting,
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6),
            abort=threading.Event(),
            reconcile="always",
        )
        self.mender = Repairer(
            self.log,
            target,
            writer,
            self.noting,
            name="group|repair",
            max_rows=max_rows,
            max_bytes=1 << 20,
            whole_ranges=self.info.repeats != "query",
        )

    def put(self, *rows: int) -> None:
        """Write a row for each of these offsets, each by itself."""
        for number, offset in enumerate(rows):
            table = pa.table({"n": [offset]}, schema=NUMBERS)
            names = self.info.coordinates
            block = make_block(table, first_offset=offset, token=f"{offset}, {number}", coordinates=names)
            self.target.keep(block)

    def findings(self) -> list[Finding]:
        letters = {EVENTS_0: pa.array(sorted({offset for _, offset in self.letters.coordinates()}), pa.int64())}
        auditor = Auditor(self.log, self.target, letters)
        return [auditor.look(one) for one in windows(EVENTS_0, 0, 40)]

    def load(self) -> Repaired:
        done = Repaired()
        for finding in self.findings():
            done = done.plus(self.mender.load(finding))
        return done

    def replace_duplicates(self) -> Repaired:
        assert isinstance(self.target, RemovableTable)
        (finding,) = self.findings()
        return self.mender.replace_duplicates(finding, self.target)

    @property
    def rows(self) -> list[int]:
        return sorted(int(str(row["_offset"])) for row in self.target.rows())


def numbers(*offsets: int) -> Values:
    return {offset: b"%d" % offset for offset in offsets}


@settings(deadline=None)
@given(st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)), st.integers(1, 9), st.booleans())
def test_whatever_is_missing_is_there_once_afterwards_and_what_was_there_stays(
    log: set[int], held: set[int], max_rows: int, files: bool
) -> None:
    desk = Desk(numbers(*log), FileSink(NUMBERS) if files else TableSink(NUMBERS), max_rows=max_rows)
    desk.put(*held)

    assert desk.load() == Repaired(loaded=len(log - held))
    assert desk.rows == sorted(log | held)
    assert all(block.rows <= max(max_rows, 1) for block in desk.target.blocks.values())


def test_a_batch_never_spans_what_a_target_that_replaces_by_range_holds() -> None:
    desk = Desk(numbers(*range(10)), FileSink(NUMBERS))
    desk.put(3, 4, 8)
    desk.load()
    assert sorted(desk.target.blocks) == sorted(
        f"events[0] {first}-{last}" for first, last in ((0, 2), (3, 3), (4, 4), (5, 7), (8, 8), (9, 9))
    )


def test_a_file_of_which_all_but_the_middle_was_lost_keeps_the_middle() -> None:
    desk = Desk(numbers(*range(10)), FileSink(NUMBERS))
    table = pa.table({"n": [4, 5]}, schema=NUMBERS)
    block = make_block(table, first_offset=4, coordinates=desk.info.coordinates)
    desk.target.keep(Block(block.table, block.positions, "group|events|0|0-9", (Range(EVENTS_0, 0, 9),)))

    assert desk.load().loaded == 8
    assert desk.rows == list(range(10))


def test_bad_records_become_dead_letters_once_and_tombstones_are_skipped() -> None:
    desk = Desk({**numbers(0, 1, 2), 3: b"x", 4: None, 5: b"5"}, TableSink(NUMBERS))
    desk.put(1)

    assert desk.load() == Repaired(loaded=3, dead_lettered=1)
    assert desk.letters.coordinates() == {(EVENTS_0, 3)}
    assert desk.load() == Repaired()
    assert (desk.rows, len(desk.letters.letters)) == ([0, 1, 2, 5], 1)


def test_a_bad_record_with_nowhere_to_put_it_ends_it_as_in_a_run() -> None:
    with pytest.raises(DeadLetterLimitExceeded, match=r"events\[0\] offset 3 cannot be loaded"):
        Desk({3: b"x"}, TableSink(NUMBERS), queue=False).load()


class Remembering(TableSink):
    """A table that drops what comes under a token it has seen, although the rows are gone since.

    It has seen the first `seen` tokens that come.
    """

    def __init__(self, seen: int) -> None:
        super().__init__(NUMBERS)
        self.seen = seen
        self.tokens: set[str] = set()

    def keep(self, block: Block) -> None:
        if len(self.tokens) < self.seen:
            self.tokens.add(block.token)
        if block.token not in self.tokens:
            super().keep(block)


@pytest.mark.parametrize("seen", [1, 2, 3, 5])
def test_rows_whose_tokens_the_table_remembers_are_loaded_under_others(seen: int) -> None:
    desk = Desk({**numbers(0, 1, 2), 3: b"x"}, Remembering(seen))

    assert desk.load() == Repaired(loaded=3, dead_lettered=1)
    assert desk.rows == [0, 1, 2]
    assert len(desk.letters.letters) == 1


def test_rows_that_no_name_gets_into_the_table_are_not_counted_as_loaded() -> None:
    assert Desk(numbers(0, 1, 2), Remembering(1000)).load() == Repaired(loaded=0)


def test_a_target_that_goes_away_in_the_middle_gets_nothing_twice() -> None:
    desk = Desk(numbers(*range(6)), FileSink(NUMBERS), max_rows=2)
    failures = [SinkUnavailable("gone"), None, SinkUnavailable("gone")]

    def stored_but_lost(_: Block) -> None:
        failure = failures.pop() if failures else None
        if failure is not None:
            raise failure

    desk.target.after = stored_but_lost
    assert desk.load() == Repaired(loaded=6)
    assert desk.rows == list(range(6))


def test_duplicates_go_out_in_every_copy_and_come_back_once() -> None:
    desk = Desk(numbers(*range(10)), RemovableTable(), max_rows=2)
    desk.put(*range(10), 3, 4, 4, 7)

    assert desk.replace_duplicates() == Repaired(loaded=3, removed=3)
    assert desk.rows == list(range(10))
    assert isinstance(desk.target, RemovableTable)
    assert desk.target.removed == [(3, 4), (7, 7)]


def test_duplicates_that_the_log_no_longer_has_stay_and_are_said() -> None:
    desk = Desk(numbers(4, 5), RemovableTable())
    desk.put(2, 2, 3, 3, 4, 4)

    done = desk.replace_duplicates()
    assert done == Repaired(loaded=1, removed=1, refused=((EVENTS_0, Span(2, 3, 2)),), refused_offsets=2)
    assert desk.rows == [2, 2, 3, 3, 4]


def test_what_was_taken_out_before_a_crash_is_missing_and_not_lost() -> None:
    desk = Desk(numbers(*range(4)), RemovableTable())
    desk.put(0, 1, 1, 2, 3)

    def crash(_: Block) -> None:
        raise KeyboardInterrupt

    desk.target.before = crash
    with pytest.raises(KeyboardInterrupt):
        desk.replace_duplicates()
    desk.target.before = lambda _: None
    assert desk.rows == [0, 2, 3]
    assert desk.load() == Repaired(loaded=1)
    assert desk.rows == [0, 1, 2, 3]
