"""A target whose columns change while a pipeline runs, and one that refuses blocks for no row's sake."""

import threading
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import (
    BlockRejected,
    DeadLetterLimitExceeded,
    RowsRejected,
    SchemaChanged,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.records import Batch, Block, Decoded, Delivered, Partition, Rejection
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, SMALL_NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink, TableSink
from batcher.testing.values import make_batch, make_records

A = Partition("events", 0)
WIDE, NARROW = NUMBERS, SMALL_NUMBERS


class Desk:
    def __init__(
        self, sink: ScriptedSink | None = None, *, schema: pa.Schema = WIDE, queue: bool = True, max_bisect: int = 1000
    ) -> None:
        self.sink = sink or ScriptedSink(schema, coordinates=())
        self.queue = MemoryDeadLetterQueue()
        self.retries: list[BaseException] = []
        self.abort = threading.Event()
        self.writer = Writer(
            self.sink,
            self.sink.open(),
            NumberFormat(),
            dead_letters=self.queue if queue else None,
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_consecutive=20, max_bisect=max_bisect)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6),
            abort=self.abort,
            on_retry=self.retried,
        )

    def retried(self, error: BaseException, _: object) -> None:
        self.retries.append(error)
        if len(self.retries) >= 50:
            self.abort.set()

    def deliver(self, batch: Batch) -> Delivered:
        return self.writer.write(self.writer.prepare(batch))

    def numbers(self) -> list[object]:
        return [row["n"] for row in self.sink.rows()]


def batch(*values: object, first: int = 0) -> Batch:
    return named("group", make_batch(make_records([str(value) for value in values], partition=A, first_offset=first)))


def expecting(schema: pa.Schema, more: Callable[[Block], None] = lambda _: None) -> Callable[[Block], None]:
    """Return a table that has these columns, whatever was sent before it is asked anything else."""

    def step(block: Block) -> None:
        if block.table.schema.field("n").type != schema.field("n").type:
            raise SchemaChanged("n is another type now", schema)
        more(block)

    return step


def sums_up(delivered: Delivered) -> bool:
    parts = delivered.written + delivered.suppressed + delivered.dead_lettered + delivered.skipped
    return delivered.rows == parts


def test_a_column_that_became_wider_takes_the_records_it_refused_when_they_were_decoded() -> None:
    desk = Desk(schema=NARROW)
    desk.sink.before = expecting(WIDE)

    delivered = desk.deliver(batch(1, 300, 2))

    assert desk.numbers() == [1, 300, 2]
    assert (delivered.written, delivered.dead_lettered) == (3, 0)
    assert desk.queue.letters == []
    assert len(set(desk.sink.attempts)) == 1


def test_a_column_that_became_narrower_bends_nothing() -> None:
    desk = Desk()
    desk.sink.before = expecting(NARROW)

    delivered = desk.deliver(batch(1, 300, 2))

    assert desk.numbers() == [1, 2]
    assert [(one.record.offset, one.reason, one.stage) for one in desk.queue.letters] == [(1, "overflow", "decode")]
    assert (delivered.written, delivered.dead_lettered, delivered.refused_by_sink) == (2, 1, 0)
    assert len(set(desk.sink.attempts)) == 1
    assert desk.retries == []


def test_what_was_decoded_ahead_is_decoded_again_and_later_batches_need_no_second_attempt() -> None:
    desk = Desk()
    desk.sink.before = expecting(NARROW)
    ahead = [desk.writer.prepare(batch(n, first=n)) for n in (1, 2)]

    for prepared in ahead:
        desk.writer.write(prepared)
    desk.deliver(batch(3, first=3))

    assert desk.numbers() == [1, 2, 3]
    assert len(desk.sink.attempts) == 4


def test_refused_records_count_once_when_their_batch_is_decoded_again() -> None:
    desk = Desk(schema=NARROW)
    desk.sink.before = expecting(WIDE)
    for first in (0, 20, 40):
        desk.sink.before = expecting(WIDE if first % 40 == 0 else NARROW)
        delivered = desk.deliver(batch(*["x"] * 9, *range(3), first=first))
        assert sums_up(delivered)
    assert len(desk.queue.letters) == 27


def test_a_change_between_two_halves_writes_no_row_twice() -> None:
    desk = Desk()
    halves: list[int] = []

    def changing(block: Block) -> None:
        if block.table.schema.field("n").type == pa.int64():
            if halves:
                raise SchemaChanged("n is narrower", NARROW)
            if block.rows > 2:
                raise BlockRejected("constraint")
            halves.append(block.rows)

    desk.sink.before = changing
    delivered = desk.deliver(batch(1, 2, 300, 4))

    assert desk.numbers() == [1, 2, 4]
    assert [one.record.offset for one in desk.queue.letters] == [2]
    assert sums_up(delivered)


def test_a_change_after_an_attempt_of_unknown_outcome_writes_no_row_twice() -> None:
    sink = TableSink(WIDE)
    desk = Desk(sink)
    stored: list[Block] = []

    def lose_the_answer(block: Block) -> None:
        if not stored:
            stored.append(block)
            raise SinkUnavailable("reset after apply")

    def change_then(block: Block) -> None:
        if stored and block.table.schema.field("n").type == pa.int64():
            raise SchemaChanged("n is narrower", NARROW)

    sink.before, sink.after = change_then, lose_the_answer
    delivered = desk.deliver(batch(1, 300))

    assert desk.numbers() == [1, 300]
    assert desk.queue.letters == []
    assert sums_up(delivered)


def test_a_replay_takes_the_new_columns_and_only_what_is_missing() -> None:
    sink = TableSink(WIDE)
    Desk(sink).deliver(batch(1, 2))
    desk = Desk(sink)
    sink.before = expecting(NARROW)

    delivered = desk.deliver(replace(batch(1, 2, 3), replayed=True))

    assert desk.numbers() == [1, 2, 3]
    assert (delivered.written, delivered.suppressed) == (1, 2)


def test_a_table_that_goes_on_changing_is_waited_for_as_one_that_is_away() -> None:
    desk = Desk()
    schemas = [NARROW, WIDE, NARROW, WIDE]

    def flap(block: Block) -> None:
        if schemas:
            raise SchemaChanged("again", schemas.pop(0))

    desk.sink.before = flap
    desk.deliver(batch(1))

    assert desk.numbers() == [1]
    assert [type(error) for error in desk.retries] == [SinkUnavailable] * 3


def suspicious(bad: Callable[[object], bool]) -> Callable[[Block], None]:
    def step(block: Block) -> None:
        if any(bad(n) for n in block.table["n"].to_pylist()):
            raise BlockRejected("code 190", "unlisted", suspect=True)

    return step


def test_of_an_unlisted_error_the_one_row_to_blame_is_found() -> None:
    desk = Desk()
    desk.sink.before = suspicious(lambda n: n == 5)

    delivered = desk.deliver(batch(*range(9)))

    assert desk.numbers() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert [(one.record.offset, one.reason) for one in desk.queue.letters] == [(5, "unlisted")]
    assert sums_up(delivered)


@pytest.mark.parametrize("max_bisect", [1000, 6])
def test_when_every_row_fails_alone_nothing_is_dead_lettered_and_the_block_comes_again(max_bisect: int) -> None:
    desk = Desk(max_bisect=max_bisect)
    broken = True

    def until_mended(block: Block) -> None:
        nonlocal broken
        broken = broken and len(desk.retries) < 2
        if broken:
            raise BlockRejected("code 190", "unlisted", suspect=True)

    desk.sink.before = until_mended
    delivered = desk.deliver(batch(*range(12)))

    assert desk.numbers() == list(range(12))
    assert desk.queue.letters == []
    assert [type(error) for error in desk.retries] == [SinkMisconfigured] * 2
    assert (delivered.written, delivered.dead_lettered) == (12, 0)


def test_a_search_that_wrote_something_and_takes_too_long_stops_as_ever() -> None:
    desk = Desk(max_bisect=4)
    desk.sink.before = suspicious(lambda n: n in (5, 11))
    with pytest.raises(DeadLetterLimitExceeded, match=r"--dlq\.max-bisect"):
        desk.deliver(batch(*range(12)))
    assert desk.queue.letters == []


def test_without_a_place_for_dead_letters_an_unlisted_error_pauses() -> None:
    desk = Desk(queue=False)
    desk.sink.before = suspicious(lambda _: len(desk.retries) < 1)
    desk.deliver(batch(1, 2))
    assert "--dlq.topic" in str(desk.retries[0])
    assert desk.numbers() == [1, 2]


def test_a_lone_bad_record_does_not_stall_a_table_that_takes_others_and_a_broken_table_costs_no_more_than_it() -> None:
    desk = Desk()
    desk.sink.before = suspicious(lambda n: n == 5)
    desk.deliver(batch(1))
    desk.deliver(batch(5, first=1))
    assert [one.record.offset for one in desk.queue.letters] == [1]
    assert desk.numbers() == [1]

    # Nothing was written since: now it may be the table.
    with pytest.raises(SinkMisconfigured, match="nothing is dead-lettered"):
        desk.deliver(batch(5, first=2))
    assert [one.record.offset for one in desk.queue.letters] == [1]


def test_rows_that_the_sink_names_are_dead_letters_whatever_is_suspect_besides() -> None:
    desk = Desk()

    def both(block: Block) -> None:
        found = block.table["n"].to_pylist()
        if 1 in found:
            raise RowsRejected([Rejection(found.index(1), "range", "n: out of range")])
        raise BlockRejected("code 190", suspect=True)

    desk.sink.before = both
    delivered = desk.deliver(batch(1, 2))
    assert {one.reason for one in desk.queue.letters} == {"range", "refused"}
    assert sums_up(delivered)


def test_a_batch_with_dead_letters_is_a_warning_with_the_most_frequent_reason_and_the_first_coordinates() -> None:
    desk = Desk(schema=NARROW)
    with capture_logs() as lines:
        delivered = desk.deliver(batch(1, 300, 2, 301, first=40))

    [line] = [line for line in lines if line["event"] == "records_refused"]
    assert line["log_level"] == "warning"
    assert (line["reason"], line["count"], line["message"], line["field"]) == (
        "overflow",
        2,
        "n: does not fit int8",
        "n",
    )
    assert (line["topic"], line["partition"], line["offset"], line["total"]) == ("events", 0, 41, 2)
    assert delivered.reasons == {"overflow": 2}


def test_an_unknown_field_stops_the_pipeline_at_its_record_where_the_settings_say_so() -> None:
    class Halting(NumberFormat):
        def decoder(self, schema: pa.Schema) -> "Halting":
            return Halting(schema)

        def decode(self, batch: Batch) -> Decoded:
            decoded = super().decode(batch)
            rejection = Rejection(1, "unknown_field", "is no column (--decode.on-unknown)", "user.city")
            return replace(
                decoded,
                table=decoded.table.slice(0, 1),
                positions=decoded.positions.slice(0, 1),
                rejections=(rejection,),
            )

    sink = ScriptedSink(WIDE, coordinates=())
    writer = Writer(
        sink,
        sink.open(),
        Halting(),
        dead_letters=MemoryDeadLetterQueue(),
        limit=DeadLetterLimit(DeadLetterPolicy()),
        retry=RetryPolicy(),
        abort=threading.Event(),
        halt_on_unknown=True,
    )
    with pytest.raises(
        DeadLetterLimitExceeded, match=r"events\[0\] offset 8 has a field that no column takes: user\.city"
    ):
        writer.write(writer.prepare(batch(1, 2, first=7)))
    assert sink.attempts == []
