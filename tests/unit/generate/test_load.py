import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.cli.verbs import produce
from batcher.errors import Unreachable
from batcher.generate.events import Poison
from batcher.generate.load import TICK_S, Load, PublisherLoad, limited, lines
from batcher.protocols import Outgoing
from batcher.testing.clock import ManualClock


class ScriptedProducer:
    """Report on poll; refuse the first attempt of every record when full; lose what it is told to."""

    def __init__(self, *, full: bool = False, fails: Callable[[bytes], bool] = lambda _: False, lost: int = 0) -> None:
        self.sent: list[tuple[bytes, bytes | None]] = []
        self.full = full
        self.waits: list[float] = []
        self._fails = fails
        self._lost = lost
        self._reports: list[Callable[[], None]] = []
        self.on_wait: Callable[[float], None] = lambda _: None

    def produce(self, _topic: str, value: bytes, key: bytes | None, on_delivery: Callable[..., None]) -> None:
        if self.full:
            raise BufferError
        self.full = False
        self.sent.append((value, key))
        error = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large") if self._fails(value) else None
        self._reports.append(lambda: on_delivery(error, None))

    def poll(self, timeout_s: float) -> int:
        self.full = False
        if timeout_s:
            self.waits.append(timeout_s)
            self.on_wait(timeout_s)
        while self._reports:
            self._reports.pop(0)()
        return 0

    def flush(self, _timeout_s: float) -> int:
        self.poll(0)
        return self._lost


def load(producer: ScriptedProducer, **options: Any) -> Load:
    return Load(producer, "t", **options)  # type: ignore[arg-type]


def test_every_record_is_sent_and_counted_by_its_report() -> None:
    producer = ScriptedProducer()
    sending = load(producer)

    assert sending.send([[b"a", b"bc"], [], [b"d"]]) == 0
    assert [value for value, _ in producer.sent] == [b"a", b"bc", b"d"]
    assert (sending.delivered, sending.failed, sending.nbytes) == (3, 0, 4)


def test_a_full_queue_loses_nothing() -> None:
    producer = ScriptedProducer(full=True)
    sending = load(producer)

    sending.send([[b"a", b"b"]])

    assert [value for value, _ in producer.sent] == [b"a", b"b"]


def test_a_failed_delivery_is_no_delivery() -> None:
    sending = load(ScriptedProducer(fails=lambda value: value == b"big"))

    sending.send([[b"a", b"big", b"b"]])

    assert (sending.delivered, sending.failed, sending.first_error) == (2, 1, "too large")


def test_a_record_that_is_refused_at_once_is_no_delivery_either(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = ScriptedProducer()
    take = producer.produce

    def produce(topic: str, value: bytes, key: bytes | None, on_delivery: Callable[..., None]) -> None:
        if value == b"big":
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large"))
        take(topic, value, key, on_delivery)

    monkeypatch.setattr(producer, "produce", produce)
    sending = load(producer)

    sending.send([[b"big", b"a"]])

    assert (sending.delivered, sending.failed, sending.first_error) == (1, 1, "too large")


def test_what_nobody_reported_on_is_told() -> None:
    assert load(ScriptedProducer(lost=2)).send([[b"a"]]) == 2


def test_a_rate_spreads_the_records_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr("batcher.generate.load.time.monotonic", clock)
    producer = ScriptedProducer()
    producer.on_wait = clock.advance
    started = clock()

    load(producer, rate=1000.0).send([[b"x"] * 1000, [b"x"] * 1000])

    assert len(producer.sent) == 2000
    assert clock() - started == pytest.approx(2.0)
    assert max(producer.waits) <= TICK_S


def test_a_stop_ends_the_sending_after_the_piece_at_hand() -> None:
    stop = threading.Event()
    producer = ScriptedProducer()
    producer.on_wait = lambda _: stop.set()

    sending = load(producer, rate=20.0, stop=stop)
    sending.send([[b"x"] * 1000])

    assert sending.delivered == len(producer.sent) == 1


def test_lines_of_a_pipe_are_sent_as_they_come_and_empty_ones_left_out() -> None:
    reader, writer = os.pipe()
    found = lines(reader, threading.Event())

    os.write(writer, b'{"a":1}\r\n\n{"b":2}\n{"c"')
    assert next(found) == [b'{"a":1}', b'{"b":2}']
    os.write(writer, b":3}")
    os.close(writer)
    assert [line for chunk in found for line in chunk] == [b'{"c":3}']
    os.close(reader)


def test_a_pipe_that_says_nothing_does_not_keep_a_stop_waiting() -> None:
    reader, writer = os.pipe()
    stop = threading.Event()
    stop.set()

    assert list(lines(reader, stop)) == []
    os.close(reader)
    os.close(writer)


def test_a_count_cuts_the_last_chunk() -> None:
    taken = limited([[b"a", b"b"], [b"c", b"d"], [b"e"]], 3, Poison(0))

    assert [event for chunk in taken for event in chunk] == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (b'{"id":7}', b"7"),
        (b'{"id":"x"}', b"x"),
        (b'{"id":null}', None),
        (b'{"other":1}', None),
        (b"[1]", None),
        (b"not json", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_key_is_a_field_and_poison_has_none(event: bytes, key: bytes | None) -> None:
    keys = produce._keys("id")

    assert keys is not None
    assert keys(event) == key


class ScriptedPublisher:
    """Take batches of two; refuse what `refuses` says; with `away` not answer from the n-th batch on."""

    target = "a queue"
    batch = 2

    def __init__(self, *, refuses: Callable[[bytes], bool] = lambda _: False, away: int | None = None) -> None:
        self.batches: list[list[Outgoing]] = []
        self._refuses = refuses
        self._away = away

    def publish(self, messages: Sequence[Outgoing], _timeout_s: float) -> Sequence[str]:
        if self._away is not None and len(self.batches) >= self._away:
            raise Unreachable("no answer")
        self.batches.append(list(messages))
        return [f"no {one.value!r}" for one in messages if self._refuses(one.value)]

    def close(self) -> None:
        """Let go of nothing."""


def test_events_are_published_in_batches_with_their_keys() -> None:
    publisher = ScriptedPublisher()
    sending = PublisherLoad(publisher, keys=lambda event: event[:1])

    assert sending.send([[b"ab", b"cd", b"ef"], [], [b"g"]]) == 0
    assert publisher.batches == [
        [Outgoing(b"ab", b"a"), Outgoing(b"cd", b"c")],
        [Outgoing(b"ef", b"e")],
        [Outgoing(b"g", b"g")],
    ]
    assert (sending.delivered, sending.failed, sending.nbytes) == (4, 0, 7)


def test_what_a_queue_refuses_is_counted_and_the_rest_is_sent() -> None:
    sending = PublisherLoad(ScriptedPublisher(refuses=lambda value: value == b"b"))
    assert sending.send([[b"a", b"b", b"c"]]) == 0
    assert (sending.delivered, sending.failed, sending.first_error) == (2, 1, "no b'b'")


def test_a_queue_that_takes_nothing_is_not_asked_again() -> None:
    publisher = ScriptedPublisher(refuses=lambda _: True)
    sending = PublisherLoad(publisher)
    assert sending.send([[b"a", b"b", b"c"]]) == 0
    assert (len(publisher.batches), sending.delivered, sending.failed) == (1, 0, 2)


def test_of_a_batch_without_an_answer_nothing_is_known() -> None:
    sending = PublisherLoad(ScriptedPublisher(away=1))
    assert sending.send([[b"a", b"b", b"c"], [b"d"]]) == 1
    assert (sending.delivered, sending.failed, sending.first_error) == (2, 0, "no answer")


def test_a_stop_ends_publishing_after_the_batch_that_is_under_way() -> None:
    stop = threading.Event()

    def stopping(_: bytes) -> bool:
        stop.set()
        return False

    sending = PublisherLoad(ScriptedPublisher(refuses=stopping), stop=stop)
    assert sending.send([[b"a", b"b", b"c"]]) == 0
    assert sending.delivered == 2
