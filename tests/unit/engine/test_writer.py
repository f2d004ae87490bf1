import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.core.offsets import named
from batcher.engine.reconcile import OnExisting
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import (
    BatchSuperseded,
    BlockRejected,
    ConfigurationError,
    DataGap,
    DeadLetterFailed,
    DeadLetterLimitExceeded,
    RowsRejected,
    SchemasUnavailable,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.formats.json.format import JsonFormat
from batcher.protocols import Decoder, Format
from batcher.records import Batch, Block, Decoded, Delivered, Intent, Partition, Range, Rejection, write_id
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import AnsweringSink, FileSink, ScriptedSink, TableSink
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)

S = TypeVar("S", bound=ScriptedSink)


class Desk:
    """A writer with everything it talks to."""

    def __init__(
        self,
        *,
        queue: bool = True,
        schema: pa.Schema | None = NUMBERS,
        coordinates: tuple[str, ...] = (),
        sink: ScriptedSink | None = None,
        on_existing: OnExisting = "halt",
        max_bisect: int = 1000,
        format_: Format | None = None,
    ) -> None:
        self.sink = sink or ScriptedSink(schema, coordinates=coordinates)
        self.queue = MemoryDeadLetterQueue()
        self.abort = threading.Event()
        self.retries: list[BaseException] = []
        self.writer = Writer(
            self.sink,
            self.sink.open(),
            format_ or NumberFormat(),
            dead_letters=self.queue if queue else None,
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0, max_bisect=max_bisect)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6),
            abort=self.abort,
            on_retry=lambda error, _: self.retries.append(error),
            on_existing=on_existing,
        )

    def deliver(self, batch: Batch, held: Callable[[], bool] = lambda: True) -> Delivered:
        return self.writer.write(self.writer.prepare(named("group", batch)), held)

    def check(self, positions: Mapping[Partition, int]) -> None:
        reconciler = self.writer.reconciler
        reconciler.check_existing(positions, reconciler.max_offset_above(positions))

    @property
    def asked(self) -> list[str]:
        assert isinstance(self.sink, AnsweringSink)
        return self.sink.asked

    def numbers(self) -> list[object]:
        return [row["n"] for row in self.sink.rows()]


def numbers(*values: str | None, partition: Partition = A, first: int = 0) -> Batch:
    return make_batch(make_records(list(values), partition=partition, first_offset=first))


def replay(batch: Batch) -> Batch:
    return replace(batch, trigger="range", replayed=True)


def holding(sink: S, *there: Batch) -> S:
    earlier = Desk(sink=sink)
    for batch in there:
        earlier.deliver(batch)
    sink.attempts.clear()
    return sink


def table(*there: Batch) -> TableSink:
    return holding(TableSink(NUMBERS), *there)


def sums_up(delivered: Delivered) -> bool:
    parts = delivered.written + delivered.suppressed + delivered.dead_lettered + delivered.skipped
    return delivered.rows == parts


def failing(*errors: Exception) -> Callable[[Block], None]:
    left = list(errors)

    def step(_: Block) -> None:
        if left:
            raise left.pop(0)

    return step


def refusing(bad: int, error: Callable[[Block, int], Exception]) -> Callable[[Block], None]:
    def step(block: Block) -> None:
        listed = block.table["n"].to_pylist()
        if bad in listed:
            raise error(block, listed.index(bad))

    return step


def test_every_record_ends_in_the_sink_or_the_queue_or_is_skipped() -> None:
    desk = Desk()

    delivered = desk.deliver(numbers("1", "x", None, "2"))

    assert (delivered.rows, delivered.written, delivered.dead_lettered, delivered.skipped) == (4, 2, 1, 1)
    assert desk.numbers() == [1, 2]
    assert desk.queue.coordinates() == {(A, 1)}


def test_the_time_between_decoding_and_writing_is_told() -> None:
    desk = Desk()
    prepared = desk.writer.prepare(named("group", numbers("1")))
    assert prepared.ready_at is not None
    earlier = replace(prepared, ready_at=prepared.ready_at - 5.0)
    assert 5.0 <= desk.writer.write(earlier).waited_s < 5.0 + 60.0
    decoded_again = replace(prepared, ready_at=prepared.ready_at + 60.0)
    assert desk.writer.write(decoded_again).waited_s == 0.0


def test_coordinates_follow_the_rows_and_not_the_positions() -> None:
    desk = Desk(coordinates=("_topic", "_partition", "_offset", "_timestamp", "_key"))
    first = make_records(["x", "1"], partition=A, first_offset=10, keys=[b"a", b"b"])
    second = make_records(["2", "y", "3"], partition=B, first_offset=20)

    desk.deliver(make_batch(first, second))

    assert [(r["n"], r["_topic"], r["_partition"], r["_offset"], r["_key"]) for r in desk.sink.rows()] == [
        (1, "events", 0, 11, b"b"),
        (2, "events", 1, 20, None),
        (3, "events", 1, 22, None),
    ]


def test_a_block_is_one_contiguous_record_batch() -> None:
    desk = Desk(coordinates=("_offset",))

    desk.deliver(make_batch(make_records(["1", "2"], partition=A), make_records(["3"], partition=B)))

    (block,) = desk.sink.blocks.values()
    assert len(block.table.to_batches()) == 1


def test_a_sink_that_is_away_gets_the_same_block_again_under_the_same_token() -> None:
    desk = Desk()
    desk.sink.before = failing(SinkUnavailable("away"), SinkUnavailable("away"))

    desk.deliver(numbers("1"))

    assert len(desk.sink.attempts) == 3
    assert len(set(desk.sink.attempts)) == 1
    assert desk.numbers() == [1]


def test_a_block_that_was_stored_before_the_error_is_not_stored_twice() -> None:
    desk = Desk()
    desk.sink.after = failing(SinkUnavailable("reset after apply"))

    desk.deliver(numbers("1", "2"))

    assert desk.numbers() == [1, 2]


def test_a_misconfigured_target_is_asked_again_and_dead_letters_nothing() -> None:
    desk = Desk()
    desk.sink.before = failing(SinkMisconfigured("no such table"))

    desk.deliver(numbers("1"))

    assert desk.queue.letters == []
    assert desk.numbers() == [1]
    assert [type(error) for error in desk.retries] == [SinkMisconfigured]


def test_rows_the_sink_names_are_put_aside_and_the_rest_is_written() -> None:
    desk = Desk()
    desk.sink.before = refusing(2, lambda _, row: RowsRejected([Rejection(row, "range", "n: out of range")]))

    delivered = desk.deliver(numbers("x", "1", "2", "3"))

    assert desk.numbers() == [1, 3]
    assert {(letter.record.offset, letter.stage) for letter in desk.queue.letters} == {(0, "decode"), (2, "sink")}
    assert (delivered.written, delivered.dead_lettered, delivered.refused_by_sink) == (2, 2, 1)


def test_a_refused_block_is_halved_until_the_bad_row_stands_alone() -> None:
    desk = Desk()
    desk.sink.before = refusing(5, lambda *_: BlockRejected("constraint", "constraint"))

    desk.deliver(numbers(*(str(i) for i in range(9))))

    assert desk.numbers() == [0, 1, 2, 3, 4, 6, 7, 8]
    assert [(letter.record.offset, letter.reason) for letter in desk.queue.letters] == [(5, "constraint")]


def test_parts_of_a_block_have_tokens_of_their_own_that_are_the_same_next_time() -> None:
    tokens = []
    for _ in range(2):
        desk = Desk()
        desk.sink.before = refusing(5, lambda *_: BlockRejected("constraint"))
        desk.deliver(numbers(*(str(i) for i in range(9))))
        tokens.append(desk.sink.attempts)

    assert tokens[0] == tokens[1]
    assert len(set(tokens[0])) == len(tokens[0])


def test_a_part_of_a_batch_is_never_taken_for_another_one_after_compaction() -> None:
    class Died(BaseException):
        pass

    desk = Desk()

    def die_after_the_first_half(block: Block) -> None:
        if 4 in block.table["n"].to_pylist():
            raise BlockRejected("constraint")
        if desk.sink.blocks:
            raise Died

    desk.sink.before = die_after_the_first_half
    batch = numbers(*"01234")
    with pytest.raises(Died):
        desk.deliver(batch)
    assert desk.numbers() == [0, 1]
    desk.sink.before = refusing(4, lambda *_: BlockRejected("constraint"))

    desk.deliver(replay(replace(batch, runs=(batch.runs[0].slice(1),))))

    assert {1, 2, 3}.issubset(desk.numbers())


def test_a_batch_of_nothing_but_rejects_writes_nothing_and_is_done() -> None:
    desk = Desk()

    delivered = desk.deliver(numbers("x", "y"))

    assert desk.sink.attempts == []
    assert delivered.dead_lettered == 2


def test_without_a_queue_the_first_bad_record_stops_before_anything_is_written() -> None:
    desk = Desk(queue=False)

    with pytest.raises(
        DeadLetterLimitExceeded, match=r"events\[0\] offset 1 cannot be loaded: is not a number"
    ) as error:
        desk.deliver(numbers("1", "x"))

    assert desk.sink.attempts == []
    assert "--dlq.topic" in str(error.value)
    assert error.value.exit_code == 78


@pytest.mark.parametrize("max_bisect", [0, 2])
def test_a_search_that_takes_too_many_inserts_stops_and_dead_letters_nothing(max_bisect: int) -> None:
    desk = Desk(max_bisect=max_bisect)
    desk.sink.before = refusing(2, lambda *_: BlockRejected("constraint"))

    with pytest.raises(DeadLetterLimitExceeded, match=r"--dlq\.max-bisect"):
        desk.deliver(numbers("0", "1", "2", "3"))

    assert len(desk.sink.attempts) == max_bisect + 1
    assert desk.queue.letters == []


def test_without_a_queue_a_refused_block_is_not_halved_because_its_good_half_would_be_written_at_every_restart() -> (
    None
):
    desk = Desk(queue=False)
    desk.sink.before = refusing(2, lambda *_: BlockRejected("constraint"))

    with pytest.raises(DeadLetterLimitExceeded, match=r"events\[0\] 0-3"):
        desk.deliver(numbers("0", "1", "2", "3"))

    assert desk.sink.rows() == []


def test_letters_are_offered_again_until_the_queue_takes_them() -> None:
    desk = Desk()
    desk.queue.failures = 3

    delivered = desk.deliver(numbers("1", "x"))

    assert delivered.dead_lettered == 1
    assert [letter.record.offset for letter in desk.queue.letters] == [1]
    assert [type(error) for error in desk.retries] == [DeadLetterFailed] * 3
    assert desk.numbers() == [1]


def test_an_abort_ends_the_wait_for_the_queue() -> None:
    desk = Desk()
    desk.queue.broken = True
    desk.abort.set()

    with pytest.raises(DeadLetterFailed):
        desk.deliver(numbers("1", "x"))


def test_letters_of_a_batch_that_changed_hands_are_left_to_its_new_owner() -> None:
    desk = Desk()
    desk.queue.broken = True
    answers = iter([True, True, False])

    with pytest.raises(BatchSuperseded):
        desk.deliver(numbers("1", "x"), lambda: next(answers))

    assert desk.queue.letters == []


def test_an_abort_ends_retrying_with_the_last_error() -> None:
    desk = Desk()

    def away(_: Block) -> None:
        desk.abort.set()
        raise SinkUnavailable("away")

    desk.sink.before = away
    with pytest.raises(SinkUnavailable):
        desk.deliver(numbers("1"))

    assert len(desk.sink.attempts) == 1


def test_a_schema_that_cannot_be_pinned_stops_at_once_because_nothing_was_ever_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk(schema=None)

    def pin(_: pa.Schema) -> pa.Schema:
        raise SinkMisconfigured("--parquet.partition-by: no column day")

    monkeypatch.setattr(desk.sink, "pin", pin)
    with pytest.raises(ConfigurationError, match="no column day"):
        desk.deliver(numbers("1"))
    assert desk.retries == []


def test_a_target_without_a_schema_takes_it_from_the_first_readable_batch() -> None:
    desk = Desk(schema=None)

    desk.deliver(numbers("x"))
    assert desk.sink.schema is None
    desk.deliver(numbers("7", first=1))

    assert desk.sink.schema == NUMBERS
    assert desk.numbers() == [7]


def test_a_first_batch_without_a_readable_record_is_refused_record_by_record() -> None:
    desk = Desk(schema=None, format_=JsonFormat())

    desk.deliver(numbers("x", '"text"'))
    desk.deliver(numbers('{"n":7}', first=2))

    assert [letter.reason for letter in desk.queue.letters] == ["syntax", "not_object"]
    assert desk.numbers() == [7]


def test_a_replay_first_asks_whether_a_write_is_under_way_and_then_what_is_there() -> None:
    sink = table()
    desk = Desk(sink=sink)
    sink.before = lambda _: sink.asked.append("written")

    desk.deliver(replay(numbers("1", "2")))

    assert desk.asked == ["running", "present", "written", "running", "present"]


def test_a_batch_that_nobody_can_have_written_is_written_without_a_question() -> None:
    desk = Desk(sink=table())

    desk.deliver(numbers("1", "2"))

    assert desk.asked == []
    assert desk.numbers() == [1, 2]


def test_a_replay_goes_unasked_to_a_target_where_a_repeat_leaves_no_second_copy() -> None:
    desk = Desk(sink=FileSink(NUMBERS))

    delivered = desk.deliver(replay(numbers("1", "2")))

    assert desk.asked == []
    assert (delivered.written, delivered.suppressed) == (2, 0)


def test_a_replay_of_which_nothing_is_there_is_written_whole_under_the_token_it_always_had() -> None:
    first, again = Desk(sink=table()), Desk(sink=table())
    first.deliver(numbers("1", "2"))

    delivered = again.deliver(replay(numbers("1", "2")))

    assert again.sink.attempts == first.sink.attempts
    assert (delivered.written, delivered.suppressed) == (2, 0)


def test_a_replay_of_which_all_is_there_writes_nothing_and_counts_what_it_kept_back() -> None:
    desk = Desk(sink=table(numbers("1", "2", None, "3")))

    delivered = desk.deliver(replay(numbers("1", "2", None, "3")))

    assert desk.sink.attempts == []
    assert (delivered.written, delivered.suppressed, delivered.skipped) == (0, 3, 1)
    assert sums_up(delivered)
    assert desk.numbers() == [1, 2, 3]


def test_a_replay_of_which_some_is_there_writes_only_the_rest_under_the_token_it_always_had() -> None:
    desk, plain = Desk(sink=table(numbers("1", "2", "3", first=3))), Desk(sink=table())
    batch = replay(numbers("x", "10", None, "1", "2", "3", "11"))
    plain.deliver(batch)

    delivered = desk.deliver(batch)

    assert desk.numbers() == [1, 2, 3, 10, 11]
    assert (delivered.written, delivered.suppressed, delivered.dead_lettered, delivered.skipped) == (2, 3, 1, 1)
    assert sums_up(delivered)
    assert desk.sink.attempts == plain.sink.attempts


class Forgetful(TableSink):
    """A table that has lost rows and remembers their token."""

    def __init__(self, *known: str) -> None:
        super().__init__(NUMBERS)
        self.known = set(known)

    def keep(self, block: Block) -> None:
        if block.token not in self.known:
            super().keep(block)


def test_what_a_target_drops_as_known_and_does_not_have_is_written_under_another_token_which_is_always_the_same() -> (
    None
):
    token = "group|events|0|0-2|1700000000000"
    tokens = []
    for _ in range(2):
        desk = Desk(sink=Forgetful(token))
        delivered = desk.deliver(replay(numbers("1", "2", "3")))
        assert desk.numbers() == [1, 2, 3]
        assert delivered.written == 3
        tokens.append(desk.sink.attempts)

    assert tokens[0] == tokens[1]
    assert tokens[0][0] == token
    assert len(set(tokens[0])) == len(tokens[0]) == 2


def test_an_attempt_of_our_own_that_failed_is_a_reason_to_look_too() -> None:
    sink = Forgetful("group|events|0|0-1|1700000000000")
    desk = Desk(sink=sink)
    sink.before = failing(SinkUnavailable("reset"))

    desk.deliver(numbers("1", "2"))

    assert desk.numbers() == [1, 2]
    assert desk.asked == ["running", "present"]


def test_coordinates_follow_the_rows_that_were_missing() -> None:
    desk = Desk(sink=table(numbers("1", first=1)))

    desk.deliver(replay(numbers("0", "1", "2")))

    assert [(row["n"], row["_offset"]) for row in desk.sink.rows()] == [(1, 1), (0, 0), (2, 2)]


@pytest.mark.parametrize("fetched", [(A, B), (B, A)])
def test_each_partition_of_a_replayed_batch_is_asked_for_by_itself(fetched: tuple[Partition, Partition]) -> None:
    runs = {part: make_records(["1", "2"], partition=part, first_offset=first) for part, first in ((A, 5), (B, 90))}
    desk = Desk(sink=table(make_batch(runs[A]), make_batch(runs[B].slice(1))))

    delivered = desk.deliver(replay(make_batch(*[runs[partition] for partition in fetched])))

    assert desk.asked == ["running", "present", "present"] * 2
    assert (delivered.written, delivered.suppressed) == (1, 3)
    assert sorted((row["_partition"], row["_offset"]) for row in desk.sink.rows()) == [(0, 5), (0, 6), (1, 90), (1, 91)]


def test_while_an_earlier_write_is_under_way_nothing_is_asked_or_written_and_its_rows_count() -> None:
    memory = table()
    desk = Desk(sink=memory)
    batch = replay(numbers("1", "2"))
    whole = desk.writer.prepare(named("group", batch))
    name = write_id("group|events|0|0-1|1700000000000")
    memory.under_way.add(name)
    left = [1, 2, 3]

    def question(what: str) -> None:
        if what == "running" and left:
            left.pop()
            if not left:
                memory.under_way.clear()
                earlier = Desk(sink=FileSink(NUMBERS))
                earlier.deliver(batch)
                memory.blocks.update(earlier.sink.blocks)

    memory.on_question = question
    delivered = desk.writer.write(whole)

    assert memory.asked == ["running"] * 3 + ["present"]
    assert [type(error) for error in desk.retries] == [SinkUnavailable] * 2
    assert memory.attempts == []
    assert delivered.suppressed == 2


def test_a_part_of_a_batch_of_several_partitions_asks_for_the_write_of_the_whole_too() -> None:
    memory = table()
    desk = Desk(sink=memory)
    whole = "ab" * 16
    intent = Intent(Range(A, 0, 1), 1_700_000_000_000, whole)
    batch = replace(replay(numbers("1", "2")), intents=(intent,))
    memory.under_way.add(whole)

    def question(_: str) -> None:
        if len(memory.asked) > 4:
            memory.under_way.clear()

    memory.on_question = question
    desk.deliver(batch)

    assert len(desk.retries) > 1
    assert desk.numbers() == [1, 2]


def test_a_replay_waits_for_a_part_of_the_batch_that_a_server_is_still_at() -> None:
    class Died(BaseException):
        pass

    memory, sent = table(), list[Block]()

    def die_after_sending(block: Block) -> None:
        if 4 in block.table["n"].to_pylist():
            raise BlockRejected("constraint")
        sent.append(block)
        raise Died

    memory.before = die_after_sending
    with pytest.raises(Died):
        Desk(sink=memory).deliver(numbers(*"01234"))
    memory.under_way.add(write_id(sent[0].token))
    memory.before = refusing(4, lambda *_: BlockRejected("constraint"))

    def question(_: str) -> None:
        if len(memory.asked) == 3:
            memory.under_way.clear()
            memory.keep(sent[0])

    memory.on_question = question
    desk = Desk(sink=memory)
    desk.deliver(replay(numbers(*"01234")))

    assert sorted(desk.numbers()) == [0, 1, 2, 3]  # type: ignore[type-var]


def test_a_question_that_finds_the_target_away_is_asked_again() -> None:
    memory = table(numbers("1"))
    desk = Desk(sink=memory)
    errors: list[Exception] = [SinkUnavailable("away"), SinkMisconfigured("no right to SELECT")]

    def question(_: str) -> None:
        if errors:
            raise errors.pop()

    memory.on_question = question
    delivered = desk.deliver(replay(numbers("1", "2")))

    assert (delivered.written, delivered.suppressed) == (1, 1)
    assert len(desk.retries) == 2


def test_letters_of_a_replayed_batch_are_sent_again_because_nobody_knows_whether_they_were() -> None:
    memory = table(numbers("1", first=1))
    desk = Desk(sink=memory)
    memory.before = refusing(2, lambda _, row: RowsRejected([Rejection(row, "range", "n: out of range")]))

    delivered = desk.deliver(replay(numbers("x", "1", "2", "3")))

    assert {(letter.record.offset, letter.stage) for letter in desk.queue.letters} == {(0, "decode"), (2, "sink")}
    assert (delivered.written, delivered.suppressed, delivered.dead_lettered) == (1, 1, 2)
    assert sums_up(delivered)


def test_every_part_of_a_batch_is_one_record_batch() -> None:
    memory = table(numbers("1", first=1))
    desk = Desk(sink=memory)
    memory.before = refusing(5, lambda *_: BlockRejected("constraint"))

    desk.deliver(replay(numbers(*(str(i) for i in range(9)))))

    assert all(len(block.table.to_batches()) == 1 for block in memory.blocks.values())
    assert sorted(desk.numbers()) == [0, 1, 2, 3, 4, 6, 7, 8]  # type: ignore[type-var]


def test_a_batch_that_is_not_ours_is_neither_asked_for_nor_written() -> None:
    for batch in (numbers("1"), replay(numbers("1"))):
        memory = table()
        desk = Desk(sink=memory)

        with pytest.raises(BatchSuperseded):
            desk.deliver(batch, held=lambda: False)

        assert (memory.asked, memory.attempts) == ([], [])


def test_a_batch_that_changed_hands_after_a_failed_attempt_is_not_offered_again() -> None:
    desk = Desk()
    desk.sink.after = failing(SinkUnavailable("reset"), SinkUnavailable("reset"))
    answers = [True, True, False]

    with pytest.raises(BatchSuperseded):
        desk.deliver(numbers("1"), held=lambda: answers.pop(0))

    assert len(desk.sink.attempts) == 2
    assert answers == []


def test_each_part_of_a_batch_is_written_only_while_it_is_ours() -> None:
    desk = Desk()
    desk.sink.before = refusing(3, lambda *_: BlockRejected("constraint"))
    answers = [True, True, False]

    with pytest.raises(BatchSuperseded):
        desk.deliver(numbers("0", "1", "2", "3"), held=lambda: answers.pop(0))

    assert desk.numbers() == [0, 1]
    assert desk.queue.letters == []


def test_one_batch_that_changed_hands_says_nothing_about_the_next() -> None:
    desk = Desk()
    with pytest.raises(BatchSuperseded):
        desk.deliver(numbers("1"), held=lambda: False)

    desk.deliver(numbers("2", first=1))

    assert desk.numbers() == [2]


@pytest.mark.parametrize("sink", [TableSink(NUMBERS), FileSink(NUMBERS)])
def test_records_beyond_the_committed_offset_stop_the_process(sink: ScriptedSink) -> None:
    desk = Desk(sink=holding(sink, numbers("1", "2", first=5)))

    desk.check({A: 7, B: 0})
    with pytest.raises(
        DataGap, match=r"memory holds records of events\[0\] up to offset 6, but .* 4.* commit offset 7"
    ):
        desk.check({A: 4, B: 0})


def test_the_partition_that_is_furthest_beyond_is_the_one_that_is_named() -> None:
    desk = Desk(sink=table(numbers("1", first=9), numbers("1", partition=B, first=99)))

    with pytest.raises(DataGap, match=r"events\[1\] up to offset 99"):
        desk.check({A: 0, B: 0})


def test_existing_records_are_skipped_where_that_was_asked_for_and_only_where_they_may_be() -> None:
    desk = Desk(sink=table(numbers("1", first=1), numbers("3", first=3)), on_existing="skip")
    desk.check({A: 0})

    first = desk.deliver(numbers("0", "1", "2"))
    second = desk.deliver(numbers("3", "4", first=3))
    desk.asked.clear()
    third = desk.deliver(numbers("5", first=5))

    assert [(each.written, each.suppressed) for each in (first, second, third)] == [(2, 1), (1, 1), (1, 0)]
    assert desk.asked == []
    assert sorted(desk.numbers()) == [0, 1, 2, 3, 4, 5]  # type: ignore[type-var]


def test_a_target_that_cannot_be_asked_is_not() -> None:
    desk = Desk()
    desk.deliver(numbers("1", first=9))

    desk.check({A: 0})


def test_the_look_for_existing_records_waits_until_the_target_answers() -> None:
    memory = table(numbers("1", first=9))
    desk = Desk(sink=memory)
    memory.on_question = lambda _: failing_once()
    errors = [SinkUnavailable("away")]

    def failing_once() -> None:
        if errors:
            raise errors.pop()

    with pytest.raises(DataGap):
        desk.check({A: 0})
    assert len(desk.retries) == 1


class AwayRegistry:
    """A format whose registry does not answer at first."""

    def __init__(self, times: int) -> None:
        self.left = times

    def infer(self, batch: Batch) -> pa.Schema | None:
        return NumberFormat().infer(batch)

    def grow(self, schema: pa.Schema, batch: Batch) -> pa.Schema:
        return NumberFormat().grow(schema, batch)

    def decoder(self, schema: pa.Schema) -> Decoder:
        return AwayDecoder(NumberFormat().decoder(schema), self)


class AwayDecoder:
    def __init__(self, decoder: Decoder, registry: AwayRegistry) -> None:
        self._decoder = decoder
        self._registry = registry

    @property
    def schema(self) -> pa.Schema:
        return self._decoder.schema

    def decode(self, batch: Batch) -> Decoded:
        if self._registry.left:
            self._registry.left -= 1
            raise SchemasUnavailable("the registry does not answer")
        return self._decoder.decode(batch)


def test_a_registry_that_is_down_is_waited_for_and_costs_no_record() -> None:
    desk = Desk(format_=AwayRegistry(3))
    with capture_logs() as lines:
        done = desk.deliver(numbers("1", "x"))

    assert (done.written, done.dead_lettered) == (1, 1)
    assert [type(error) for error in desk.retries] == [SchemasUnavailable] * 3
    assert [line["log_level"] for line in lines if line["event"] == "schemas_unavailable"] == ["error"] * 3


def test_a_wait_for_a_registry_ends_with_the_pipeline() -> None:
    desk = Desk(format_=AwayRegistry(10**9))
    desk.abort.set()

    with pytest.raises(SchemasUnavailable):
        desk.deliver(numbers("1"))


def test_two_writers_in_one_process_know_nothing_of_each_other() -> None:
    one, two = Desk(sink=table(numbers("1", first=1)), on_existing="skip"), Desk(sink=table())
    one.check({A: 0})
    for desk in (one, two):
        desk.deliver(numbers("0", "1"))

    assert sorted(map(str, one.numbers())) == sorted(map(str, two.numbers())) == ["0", "1"]
    assert one.asked.count("present") > two.asked.count("present") == 0
