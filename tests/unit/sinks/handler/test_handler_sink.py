"""What becomes of a message is what its handler says, by threads and by an event loop, through the real delivery."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from batcher import Drop, Message, Reject, Retry
from batcher.core.limits import DeadLetterLimit, DeadLetterPolicy
from batcher.engine.retry import RetryPolicy
from batcher.engine.writer import Writer
from batcher.errors import DeferredTooLong
from batcher.formats.raw.format import RawFormat
from batcher.plugins import RetryWaits
from batcher.protocols import Distribution, Format
from batcher.records import Delivered, Headers, Records
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.formats import NumberFormat
from batcher.testing.values import EVENTS_0, make_batch, make_records
from sinks.handler.sink import Handler, HandlerOptions, HandlerSink

OTHER = EVENTS_0._replace(number=1)


class Waits(threading.Event):
    """An event that notes how long it was waited for, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(round(timeout or 0.0, 1))
        return self.is_set()


class Desk:
    """A delivery into a handler, whose waits pass at once."""

    def __init__(self, handler: Handler, format_: Format | None = None, **options: Any) -> None:
        self.sink = HandlerSink(handler, HandlerOptions(**options))
        self.queue = MemoryDeadLetterQueue()
        self.abort = Waits()
        self.info = self.sink.open()
        self.writer = Writer(
            self.sink,
            self.info,
            format_ or RawFormat(),
            dead_letters=self.queue,
            limit=DeadLetterLimit(DeadLetterPolicy(max_ratio=1.0)),
            retry=RetryPolicy(wait_s=1e-6, max_wait_s=1e-6),
            abort=self.abort,
        )

    def deliver(self, *values: bytes, keys: Sequence[bytes | None] | None = None) -> Delivered:
        return self.deliver_runs(make_records(values, keys=keys))

    def deliver_runs(self, *runs: Records) -> Delivered:
        return self.writer.write(self.writer.prepare(make_batch(*runs)))

    @property
    def letters(self) -> list[tuple[bytes | None, str, str]]:
        return [(one.record.value, one.reason, one.message) for one in self.queue.letters]

    def times(self) -> dict[str, int]:
        values = self.sink.measures()[0].values
        return {kind: one.count for kind, one in values.items() if isinstance(one, Distribution) and one.count}


Desks = Callable[..., Desk]


@pytest.fixture(params=["thread", "async"])
def desk(request: pytest.FixtureRequest) -> Iterator[Desks]:
    """Return what makes a desk for a plain function, which is made an `async def` for one of the two."""
    made: list[Desk] = []

    def make(handler: Callable[[Any], object], **options: Any) -> Desk:
        async def handle(message: Any) -> object:
            await asyncio.sleep(0)
            return handler(message)

        made.append(Desk(handle if request.param == "async" else handler, **options))
        return made[-1]

    yield make
    for one in made:
        one.sink.close()


def fates(message: Message) -> object:
    match message.value:
        case b"drop":
            raise Drop
        case b"reject":
            raise Reject("never", reason="late")
        case b"later" if message.attempt == 1:
            raise Retry(7.0)
        case b"again" if message.attempt < 3:
            raise Retry
        case b"false" if message.attempt < 2:
            return False
        case b"bad":
            raise ValueError("secret")
        case b"exit":
            raise SystemExit
        case b"true":
            return True
    return None


def test_each_message_has_the_fate_that_the_handler_says(desk: Desks) -> None:
    one = desk(fates, waits=RetryWaits("exponential", 0.5, 30.0))
    delivered = one.deliver(b"done", b"true", b"drop", b"reject", b"later", b"again", b"false", b"bad", b"exit")

    assert (delivered.written, delivered.dead_lettered, delivered.dropped) == (5, 3, 1)
    assert delivered.reasons == {"late": 1, "attempts": 2}
    # again, false, bad and exit; again, bad and exit; bad and exit, twice; and what asked for its own wait.
    assert one.abort.waited == [0.5, 1.0, 2.0, 4.0, 7.0]
    assert one.times() == {"done": 5, "retry": 4, "rejected": 1, "dropped": 1, "error": 10}


def test_a_dead_letter_says_how_often_and_why_without_the_text_of_the_error(desk: Desks) -> None:
    one = desk(fates, max_attempts=2)
    one.deliver(b"bad", b"done")
    ((value, reason, message),) = one.letters

    assert (value, reason) == (b"bad", "attempts")
    assert message.startswith("the handler was called 2 times, and at last it raised ValueError (test_handler_sink.py")
    assert "secret" not in message


def test_waits_are_linear_where_the_settings_say_so_and_end_at_the_longest(desk: Desks) -> None:
    one = desk(fates, waits=RetryWaits("linear", 2.0, 5.0))
    one.deliver(b"bad", b"done")

    assert one.abort.waited == [2.0, 4.0, 5.0, 5.0]


def test_an_attempt_counts_on_from_what_the_source_counted(desk: Desks) -> None:
    seen: list[tuple[int, int]] = []

    def handle(message: Message) -> bool:
        seen.append((message.offset, message.attempt))
        return False

    one = desk(handle, max_attempts=4)
    records = make_records([b"a", b"b"])
    columns = (records.offsets, records.timestamps_ms, records.keys, records.values, None)
    one.deliver_runs(Records(EVENTS_0, *columns, ids=pa.array(["x", "y"]), attempts=pa.array([3, 1], pa.int32())))

    assert sorted(seen) == [(0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert [reason for _, reason, _ in one.letters] == ["attempts", "attempts"]


def test_a_message_has_all_that_the_source_knows(desk: Desks) -> None:
    seen: list[Message] = []
    headers: Headers = (("trace", b"1"), ("trace", b"2"), ("none", None))
    one = desk(seen.append)
    records = make_records([b'{"n": 1}'], keys=[b"k"], headers=[headers], first_offset=7)
    columns = (records.offsets, records.timestamps_ms, records.keys, records.values, records.headers)
    one.deliver_runs(Records(OTHER, *columns, ids=pa.array(["x"]), attempts=pa.array([2], pa.int32())))
    (message,) = seen

    assert (message.value, message.json(), message.key) == (b'{"n": 1}', {"n": 1}, b"k")
    assert (message.topic, message.partition, message.offset) == ("events", 1, 7)
    assert (message.id, message.attempt, message.headers) == ("x", 2, {"trace": b"2", "none": None})
    assert message.timestamp is not None
    assert message.timestamp.isoformat() == "2023-11-14T22:13:20+00:00"
    assert "n" not in repr(message).replace("events", "").replace("attempt", "").replace("Message", "")


def test_a_value_that_is_no_json_is_a_dead_letter_at_once(desk: Desks) -> None:
    one = desk(lambda message: message.json() and None)
    one.deliver(b"{", b"{}")

    assert one.letters == [(b"{", "syntax", "the value is not JSON")]
    assert one.times() == {"done": 1, "rejected": 1}


def test_as_many_calls_go_on_at_once_as_there_are_workers() -> None:
    # Nobody gets past it alone.
    barrier = threading.Barrier(4, timeout=30)
    one = Desk(lambda message: barrier.wait() and None, workers=4)
    assert one.deliver(*[b"x"] * 8).written == 8
    one.sink.close()


def test_as_many_async_calls_go_on_at_once_as_there_are_workers_and_not_more() -> None:
    going: Counter[str] = Counter()
    most: list[int] = []
    together = asyncio.Event()

    async def handle(message: Message) -> None:
        going["on"] += 1
        most.append(going["on"])
        if going["on"] == 4:
            together.set()
        await together.wait()
        await asyncio.sleep(0)
        going["on"] -= 1

    one = Desk(handle, workers=4)
    assert one.deliver(*[b"x"] * 12).written == 12
    assert max(most) == 4
    one.sink.close()


@pytest.mark.parametrize(("order", "left"), [("key", 3), ("partition", 5)])
def test_behind_a_message_that_comes_again_the_rest_of_its_key_waits(desk: Desks, order: str, left: int) -> None:
    seen: list[bytes] = []

    def handle(message: Message) -> bool:
        assert message.value is not None
        seen.append(message.value)
        return message.value != b"a2" or message.attempt == 3

    one = desk(handle, order=order, workers=4)
    delivered = one.deliver(*(b"a1", b"b1", b"a2", b"b2", b"a3", b"b3"), keys=[b"a", b"b", b"a", b"b", b"a", b"b"])

    assert delivered.written == 6
    assert [value for value in seen if value.startswith(b"a")] == [b"a1", b"a2", b"a2", b"a2", b"a3"]
    assert [value for value in seen if value.startswith(b"b")] == [b"b1", b"b2", b"b3"]
    if order == "partition":
        assert seen == [b"a1", b"b1", b"a2", b"a2", b"a2", b"b2", b"a3", b"b3"]


def test_behind_a_message_that_had_all_its_attempts_the_rest_of_its_key_goes_on_at_once(desk: Desks) -> None:
    seen: list[bytes | None] = []

    def handle(message: Message) -> bool:
        seen.append(message.value)
        return message.value != b"a1"

    one = desk(handle, order="key", max_attempts=2)
    one.deliver(b"a1", b"a2", b"a3", keys=[b"a"] * 3)

    assert seen == [b"a1", b"a1", b"a2", b"a3"]
    assert len(one.abort.waited) == 1


def test_what_comes_again_of_a_key_comes_together(desk: Desks) -> None:
    seen: list[list[bytes | None]] = []

    def handle(messages: list[Message]) -> list[object] | None:
        seen.append([one.value for one in messages])
        return [Retry(5.0), Retry(1.0)] if len(seen) == 1 else None

    one = desk(handle, order="key", batch=2)
    assert one.deliver(b"1", b"2", b"3", keys=[b"a"] * 3).written == 3
    assert seen == [[b"1", b"2"], [b"1", b"2"], [b"3"]]
    assert one.abort.waited == [5.0]


def test_messages_of_different_partitions_do_not_wait_for_each_other() -> None:
    barrier = threading.Barrier(2, timeout=30)
    one = Desk(lambda message: barrier.wait() and None, order="partition", workers=2)
    runs = [make_records([b"1", b"2"], partition=partition) for partition in (EVENTS_0, OTHER)]
    assert one.deliver_runs(*runs).written == 4
    one.sink.close()


def test_messages_without_a_key_wait_for_nobody() -> None:
    barrier = threading.Barrier(2, timeout=30)
    one = Desk(lambda message: barrier.wait() and None, order="key", workers=2)
    assert one.deliver(b"1", b"2").written == 2
    one.sink.close()


def test_a_handler_of_lists_gets_lists_and_answers_for_each_or_for_all(desk: Desks) -> None:
    sizes: list[int] = []

    def handle(messages: list[Message]) -> object:
        sizes.append(len(messages))
        if messages[0].value == b"0" and messages[0].attempt == 1:
            return [None, False, Reject("no"), Drop, ValueError()]
        if messages[0].value == b"5":
            raise Reject("all of them")
        if messages[0].value == b"10":
            return [True]
        return None

    one = desk(handle, batch=5, max_attempts=2, workers=1)
    delivered = one.deliver(*[b"%d" % number for number in range(12)])

    # 10 and 11 had one outcome for two messages, so they come again, in one list with 1 and 4.
    assert sizes == [5, 5, 2, 4]
    assert (delivered.written, delivered.dropped) == (5, 1)
    assert sorted(value or b"" for value, *_ in one.letters) == [b"2", b"5", b"6", b"7", b"8", b"9"]
    assert delivered.reasons == {"rejected": 6}


def test_what_else_a_handler_returns_is_ignored_and_said_once_in_the_log(
    desk: Desks, capsys: pytest.CaptureFixture[str]
) -> None:
    one = desk(lambda message: {"id": 1})
    assert one.deliver(b"1", b"2").written == 2
    assert capsys.readouterr().out.count("it returned dict, which is ignored") == 1


def test_what_nobody_awaits_is_a_failed_attempt() -> None:
    async def other() -> None: ...

    one = Desk(lambda message: other(), max_attempts=1)
    one.deliver(b"1", b"2")
    assert all("it returned something to be awaited" in message for *_, message in one.letters)
    one.sink.close()


def test_an_async_call_that_takes_too_long_is_cancelled_and_tried_again() -> None:
    ended: list[str] = []

    async def handle(message: Message) -> None:
        if message.value == b"slow":
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

    one = Desk(handle, timeout_s=0.01, max_attempts=2)
    assert one.deliver(b"slow", b"fast").written == 1
    assert ended == ["cancelled"] * 2
    assert one.letters == [
        (b"slow", "timeout", "the handler was called 2 times, and at last it took longer than 0.01 s")
    ]
    one.sink.close()


def test_a_delay_may_be_a_timedelta_and_what_is_no_time_is_an_error_of_the_handler(desk: Desks) -> None:
    delays: dict[bytes | None, Any] = {b"1": timedelta(seconds=3), b"2": "5", b"3": float("inf"), b"4": -1}

    def handle(message: Message) -> None:
        raise Retry(delays[message.value])

    one = desk(handle, max_attempts=2)
    one.deliver(*[value for value in delays if value is not None])
    assert one.abort.waited == [0.0, 0.5, 3.0]
    assert sum("no number of seconds" in message for *_, message in one.letters) == 2


def test_another_format_decides_what_reaches_the_handler_which_gets_it_as_it_came() -> None:
    seen: list[bytes | None] = []
    one = Desk(lambda message: seen.append(message.value), format_=NumberFormat())
    delivered = one.deliver(b"1", b"x", b"2")
    assert sorted(value or b"" for value in seen) == [b"1", b"2"]
    assert [(value, reason) for value, reason, _ in one.letters] == [(b"x", "syntax")]
    assert delivered.written == 2
    one.sink.close()


def test_a_timeout_of_the_handlers_own_is_an_error_like_any_other() -> None:
    async def handle(message: Message) -> None:
        raise TimeoutError

    one = Desk(handle, timeout_s=60.0, max_attempts=1)
    one.deliver(b"1")
    assert [reason for _, reason, _ in one.letters] == ["attempts"]
    one.sink.close()


def test_an_interrupt_lets_calls_end_and_gives_back_what_was_not_begun(desk: Desks) -> None:
    seen: list[bytes | None] = []

    def handle(message: Message) -> None:
        seen.append(message.value)
        one.sink.interrupt(at_once=False)

    one = desk(handle, workers=1)
    one.abort.set()
    with pytest.raises(DeferredTooLong, match=r"defers 2 rows of .*: the pipeline stops"):
        one.deliver(b"1", b"2", b"3")
    assert seen == [b"1"]
    with pytest.raises(DeferredTooLong, match="defers 2 rows"):
        one.deliver(b"4", b"5")
    assert seen == [b"1"], "nothing is begun after an interrupt"


def test_an_interrupt_at_once_waits_for_no_call() -> None:
    begun, free = threading.Event(), threading.Event()

    def handle(message: Message) -> None:
        begun.set()
        free.wait(30)

    one = Desk(handle, workers=1)
    one.abort.set()

    def interrupt() -> None:
        begun.wait(30)
        one.sink.interrupt(at_once=True)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(DeferredTooLong, match="defers 2 rows"):
        one.deliver(b"1", b"2")
    free.set()
    thread.join()
    one.sink.close()


def test_an_interrupt_at_once_cancels_async_calls() -> None:
    ended = threading.Event()

    async def handle(message: Message) -> None:
        asyncio.get_running_loop().call_soon(lambda: one.sink.interrupt(at_once=True))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    one = Desk(handle, workers=1)
    one.abort.set()
    with pytest.raises(DeferredTooLong):
        one.deliver(b"1")
    assert ended.wait(30)
    one.sink.close()


def test_workers_are_made_once() -> None:
    seen: set[int] = set()
    one = Desk(lambda message: seen.add(threading.get_ident()), workers=3)
    for _ in range(20):
        one.deliver(*[b"x"] * 5)
    assert len(seen) <= 3
    one.sink.close()


def test_a_class_is_made_once_and_its_instance_called() -> None:
    made: list[object] = []

    class Handler:
        def __init__(self) -> None:
            made.append(self)

        def __call__(self, message: Message) -> bool:
            return self is made[0]

    one = Desk(Handler)
    assert one.deliver(b"1", b"2").written == 2
    assert len(made) == 1
    one.sink.close()


def test_the_sink_says_what_it_promises_and_how_it_calls() -> None:
    one = Desk(fates, workers=3)
    assert one.info.guarantee == "at-least-once"
    assert one.info.target == "handler fates (3 threads)"
    values = {measure.name: measure.values for measure in one.sink.measures()}
    assert values["handler_workers"] == {"": 3.0}
    one.sink.close()
