import threading
from collections.abc import Callable

import pyarrow as pa
import pytest

from batcher.delivery import Delivery
from batcher.errors import (
    BlockRejected,
    ConfigurationError,
    DeadLetterFailed,
    PoisonLimitExceeded,
    RowsRejected,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.poison import PoisonLimit, PoisonPolicy
from batcher.records import Batch, Block, Delivered, Partition, Rejection
from batcher.retry import RetryPolicy
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.values import make_batch, make_records

A, B = Partition("events", 0), Partition("events", 1)


class Desk:
    """A delivery with everything it talks to."""

    def __init__(
        self, *, queue: bool = True, schema: pa.Schema | None = NUMBERS, coordinates: tuple[str, ...] = ()
    ) -> None:
        self.sink = ScriptedSink(schema, coordinates=coordinates)
        self.queue = MemoryDeadLetterQueue()
        self.abort = threading.Event()
        self.retries: list[BaseException] = []
        self.delivery = Delivery(
            self.sink,
            self.sink.open(),
            NumberFormat(),
            dead_letters=self.queue if queue else None,
            poison=PoisonLimit(PoisonPolicy(max_ratio=1.0)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6),
            abort=self.abort,
            name="group",
            on_retry=self.retries.append,
        )

    def deliver(self, batch: Batch) -> Delivered:
        return self.delivery.write(self.delivery.prepare(batch))

    def numbers(self) -> list[object]:
        return [row["n"] for row in self.sink.rows()]


def numbers(*values: str | None, partition: Partition = A, first: int = 0) -> Batch:
    return make_batch(make_records(list(values), partition=partition, first_offset=first))


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


def test_a_batch_of_nothing_but_rejects_writes_nothing_and_is_done() -> None:
    desk = Desk()

    delivered = desk.deliver(numbers("x", "y"))

    assert desk.sink.attempts == []
    assert delivered.dead_lettered == 2


def test_without_a_queue_the_first_bad_record_stops_before_anything_is_written() -> None:
    desk = Desk(queue=False)

    with pytest.raises(PoisonLimitExceeded, match=r"events\[0\] offset 1 cannot be loaded: is not a number") as error:
        desk.deliver(numbers("1", "x"))

    assert desk.sink.attempts == []
    assert "--dlq.topic" in str(error.value)
    assert error.value.exit_code == 78


def test_without_a_queue_a_refused_block_is_not_halved_because_its_good_half_would_be_written_at_every_restart() -> (
    None
):
    desk = Desk(queue=False)
    desk.sink.before = refusing(2, lambda *_: BlockRejected("constraint"))

    with pytest.raises(PoisonLimitExceeded, match=r"events\[0\] 0-3"):
        desk.deliver(numbers("0", "1", "2", "3"))

    assert desk.sink.rows() == []


def test_a_queue_that_fails_stops_the_batch() -> None:
    desk = Desk()
    desk.queue.broken = True

    with pytest.raises(DeadLetterFailed):
        desk.deliver(numbers("1", "x"))


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
