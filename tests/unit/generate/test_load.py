import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.errors import Unreachable
from batcher.generate.limits import TopicLimits
from batcher.generate.load import STOP_S, TICK_S, Load, PublisherLoad
from batcher.generate.shape import SendableBatch
from batcher.generate.skipped import Skipped, SkipReason
from batcher.protocols import Outgoing
from batcher.testing.clock import ManualClock


class ScriptedProducer:
    """Report on poll; refuse the first attempt of every record when full; lose what it is told to."""

    def __init__(
        self,
        *,
        full: bool = False,
        fails: Callable[[bytes], bool] = lambda _: False,
        lost: int = 0,
        code: int = KafkaError.MSG_SIZE_TOO_LARGE,
    ) -> None:
        self.sent: list[tuple[bytes, bytes | None]] = []
        self.full = full
        self.waits: list[float] = []
        self._fails = fails
        self._lost = lost
        self._code = code
        self.stuck = False
        self.extras: list[dict[str, Any]] = []
        self.flushed_s: list[float] = []
        self._reports: list[Callable[[], None]] = []
        self.on_wait: Callable[[float], None] = lambda _: None
        self.on_flush: Callable[[float], None] = lambda _: None

    def produce(
        self, _topic: str, value: bytes, key: bytes | None, on_delivery: Callable[..., None], **extra: Any
    ) -> None:
        if self.full:
            raise BufferError
        self.full = self.stuck
        self.sent.append((value, key))
        self.extras.append(extra)
        error = KafkaError(self._code, "too large") if self._fails(value) else None
        self._reports.append(lambda: on_delivery(error, None))

    def poll(self, timeout_s: float) -> int:
        self.full = self.stuck
        if timeout_s:
            self.waits.append(timeout_s)
            self.on_wait(timeout_s)
        while self._reports:
            self._reports.pop(0)()
        return 0

    def flush(self, timeout_s: float) -> int:
        self.flushed_s.append(timeout_s)
        self.on_flush(timeout_s)
        self.poll(0)
        return self._lost


def load(producer: ScriptedProducer, **options: Any) -> Load:
    return Load(producer, "t", **options)  # type: ignore[arg-type]


def events(*values: bytes) -> SendableBatch:
    return SendableBatch(values, numbers=range(1, 1 + len(values)))


def test_every_record_is_sent_and_counted_by_its_report() -> None:
    producer = ScriptedProducer()
    sending = load(producer)

    assert sending.send([events(b"a", b"bc"), events(), events(b"d")]) == 0
    assert [value for value, _ in producer.sent] == [b"a", b"bc", b"d"]
    assert (sending.delivered, sending.failed, sending.nbytes) == (3, 0, 4)


def test_a_full_queue_loses_nothing() -> None:
    producer = ScriptedProducer(full=True)
    sending = load(producer)

    sending.send([events(b"a", b"b")])

    assert [value for value, _ in producer.sent] == [b"a", b"b"]


def test_failed_deliveries_are_counted_by_kind_with_the_words_of_the_broker_once() -> None:
    sending = load(ScriptedProducer(fails=lambda value: value.startswith(b"big")))

    sending.send([events(b"a", b"big1", b"b", b"big2")])

    assert (sending.delivered, sending.failed) == (2, 2)
    assert [(one.name, one.message, one.count) for one in sending.failures.values()] == [
        ("MSG_SIZE_TOO_LARGE", "too large", 2)
    ]
    assert sending.lasting


def test_a_record_above_our_own_bound_is_skipped_and_the_place_of_the_first_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = ScriptedProducer()
    take = producer.produce

    def produce(topic: str, value: bytes, key: bytes | None, on_delivery: Callable[..., None]) -> None:
        if value == b"big":
            raise KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large"))
        take(topic, value, key, on_delivery)

    monkeypatch.setattr(producer, "produce", produce)
    skipped = Skipped()
    sending = load(producer, skipped=skipped)

    sending.send([SendableBatch([b"big", b"a", b"big"], source="x.txt", numbers=[7, 8, 9])])

    assert (sending.delivered, sending.failed) == (1, 0)
    assert (skipped.counts, skipped.first) == ({SkipReason.TOO_LARGE: 2}, {SkipReason.TOO_LARGE: "x.txt:7"})


def test_headers_partition_and_time_are_those_asked_for() -> None:
    producer = ScriptedProducer()

    load(producer, headers=(("a", b"b"),), partition=3).send([SendableBatch([b"x", None], [None, b"k"], [5, 6])])

    assert producer.extras == [
        {"headers": [("a", b"b")], "partition": 3, "timestamp": 5},
        {"headers": [("a", b"b")], "partition": 3, "timestamp": 6},
    ]
    assert producer.sent == [(b"x", None), (None, b"k")]


def test_what_the_topic_would_refuse_with_its_whole_batch_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.generate.limits.time.time_ns", lambda: 10_000 * 1_000_000)
    config = {
        "cleanup.policy": "compact,delete",
        "message.timestamp.before.max.ms": "1000",
        "message.timestamp.after.max.ms": "2000",
    }
    skipped, producer = Skipped(), ScriptedProducer()
    values, keys = [b"a", b"b", b"c", b"d", b"e"], [None, b"k", b"k", b"k", b"k"]
    batch = SendableBatch(values, keys, [10_000, 8_999, 9_000, 12_000, 12_001], "x", range(1, 6))

    load(producer, limits=TopicLimits.of(config), skipped=skipped).send([batch])

    assert [value for value, _ in producer.sent] == [b"c", b"d"]
    assert skipped.first == {SkipReason.NO_KEY: "x:1", SkipReason.TOO_EARLY: "x:2", SkipReason.TOO_LATE: "x:5"}


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_nothing_more_is_sent_once_nothing_can_be_delivered(code: int) -> None:
    producer = ScriptedProducer(fails=lambda _: True, code=code)
    sending = load(producer)

    sending.send(events(b"x") for _ in range(1000))

    assert len(producer.sent) == 1
    assert sending.lasting


def test_a_record_that_timed_out_may_be_delivered_at_the_next_start() -> None:
    producer = ScriptedProducer(fails=lambda value: value == b"a", code=KafkaError._MSG_TIMED_OUT)
    sending = load(producer)

    sending.send([events(b"a"), events(b"b")])

    assert (sending.delivered, sending.failed, sending.lasting) == (1, 1, False)


def test_what_nobody_reported_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr("batcher.generate.load.time.monotonic", clock)
    producer = ScriptedProducer(lost=2)
    producer.on_flush = clock.advance

    assert load(producer).send([events(b"a")], 10.0) == 2
    assert sum(producer.flushed_s) == pytest.approx(10.0)


def test_a_stop_waits_for_reports_only_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr("batcher.generate.load.time.monotonic", clock)
    stop = threading.Event()
    producer = ScriptedProducer(lost=2)

    def wait(timeout_s: float) -> None:
        clock.advance(timeout_s)
        stop.set()

    producer.on_flush = wait

    assert load(producer, stop=stop).send([events(b"a")]) == 2
    assert max(producer.flushed_s) <= TICK_S
    assert sum(producer.flushed_s) <= STOP_S + 2 * TICK_S


def test_a_stop_ends_the_wait_for_brokers_that_take_nothing_and_what_was_not_sent_is_known() -> None:
    stop = threading.Event()
    producer = ScriptedProducer()
    producer.stuck = True
    producer.on_wait = lambda _: stop.set()
    sending = load(producer, stop=stop)

    sending.send([events(b"a", b"b", b"c")])

    assert [value for value, _ in producer.sent] == [b"a"]
    assert sending.unsent == 2


def test_a_rate_spreads_the_records_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr("batcher.generate.load.time.monotonic", clock)
    producer = ScriptedProducer()
    producer.on_wait = clock.advance
    started = clock()

    load(producer, rate=1000.0).send([events(*[b"x"] * 1000), events(*[b"x"] * 1000)])

    assert len(producer.sent) == 2000
    assert clock() - started == pytest.approx(2.0)
    assert max(producer.waits) <= TICK_S


def test_a_stop_ends_the_sending_after_the_piece_at_hand() -> None:
    stop = threading.Event()
    producer = ScriptedProducer()
    producer.on_wait = lambda _: stop.set()

    sending = load(producer, rate=20.0, stop=stop)
    sending.send([events(*[b"x"] * 1000)])

    assert sending.delivered == len(producer.sent) == 1


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


def test_events_are_published_in_batches_with_keys_and_headers() -> None:
    publisher, headers = ScriptedPublisher(), (("h", b"v"),)
    sending = PublisherLoad(publisher, headers=headers)

    assert sending.send([SendableBatch([b"ab", b"cd", b"ef"], [b"a", None, None]), events(), events(b"g")]) == 0
    assert publisher.batches == [
        [Outgoing(b"ab", b"a", headers), Outgoing(b"cd", None, headers)],
        [Outgoing(b"ef", None, headers)],
        [Outgoing(b"g", None, headers)],
    ]
    assert (sending.delivered, sending.failed, sending.nbytes) == (4, 0, 7)


def test_what_a_queue_refuses_is_counted_and_the_rest_is_sent() -> None:
    sending = PublisherLoad(ScriptedPublisher(refuses=lambda value: value == b"b"))
    assert sending.send([events(b"a", b"b", b"c")]) == 0
    assert (sending.delivered, sending.failed, list(sending.failures)) == (2, 1, ["no b'b'"])


def test_a_queue_that_takes_nothing_is_not_asked_again() -> None:
    publisher = ScriptedPublisher(refuses=lambda _: True)
    sending = PublisherLoad(publisher)
    assert sending.send([events(b"a", b"b", b"c")]) == 0
    assert (len(publisher.batches), sending.delivered, sending.failed) == (1, 0, 2)


def test_of_a_batch_without_an_answer_nothing_is_known() -> None:
    sending = PublisherLoad(ScriptedPublisher(away=1))
    assert sending.send([events(b"a", b"b", b"c"), events(b"d")]) == 1
    assert (sending.delivered, sending.failed, list(sending.failures)) == (2, 0, ["no answer"])


def test_a_stop_ends_publishing_after_the_batch_that_is_under_way() -> None:
    stop = threading.Event()

    def stopping(_: bytes) -> bool:
        stop.set()
        return False

    sending = PublisherLoad(ScriptedPublisher(refuses=stopping), stop=stop)
    assert sending.send([events(b"a", b"b", b"c")]) == 0
    assert sending.delivered == 2
