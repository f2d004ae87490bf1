"""Questions in slices: what counts as an answer, and that a signal is heard while there is none."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.cli import main as cli
from batcher.dead_letters.directory import DirectoryDeadLetterQueue
from batcher.dead_letters.kafka import KafkaDeadLetterQueue
from batcher.records import DeadLetter, Partition, Record
from batcher.sources.kafka.asking import Complaints, Stopped, asked

AWAY = KafkaException(KafkaError(KafkaError._TRANSPORT))
SLOW = KafkaException(KafkaError(KafkaError._TIMED_OUT))
REFUSED = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

HEARD_S = 5.0
"""A slice is a tenth of that, and the whole time twice or six times as much."""


class Asking:
    """Answer each question after a time, or fail when that is over; `times` is what each was given."""

    def __init__(self, error: KafkaException, answers_after_s: float = 1e9, fails_after_s: float = 1e9) -> None:
        self.error = error
        self.answers_after_s = answers_after_s
        self.fails_after_s = fails_after_s
        self.times: list[float] = []
        self.now_s = 100.0

    def __call__(self, timeout_s: float) -> str:
        self.times.append(round(timeout_s, 3))
        if self.answers_after_s <= timeout_s:
            return "answer"
        self.now_s += min(timeout_s, self.fails_after_s)
        raise self.error

    def ask(
        self,
        timeout_s: float,
        stopped: Callable[[], bool] = lambda: False,
        reason: Callable[[], KafkaError | None] = lambda: None,
    ) -> str:
        return asked(self, timeout_s, stopped, clock=lambda: self.now_s, reason=reason)


def test_what_nobody_answers_takes_the_whole_time_in_slices_and_fails_as_the_last_of_them() -> None:
    asking = Asking(AWAY)
    with pytest.raises(KafkaException) as raised:
        asking.ask(1.75)
    assert raised.value is AWAY
    assert asking.times == [0.5, 0.5, 0.5, 0.25]


CERTIFICATE = KafkaError(KafkaError._SSL, "certificate verify failed")
ALERT = KafkaError(KafkaError._TRANSPORT, "Receive failed: ssl/tls alert bad certificate")
BROKEN = KafkaError(KafkaError._TRANSPORT, "Connection refused")
DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN)


@pytest.mark.parametrize("error", [CERTIFICATE, ALERT])
def test_a_client_that_is_turned_away_asks_once_and_says_why(error: KafkaError) -> None:
    asking = Asking(SLOW)
    with pytest.raises(KafkaException) as raised:
        asking.ask(30.0, reason=lambda: error)
    assert raised.value.args[0] is error
    assert len(asking.times) == 1


def test_a_broker_that_may_come_is_asked_to_the_end_and_what_the_client_said_is_the_reason() -> None:
    asking = Asking(SLOW)
    with pytest.raises(KafkaException) as raised:
        asking.ask(1.75, reason=lambda: BROKEN)
    assert raised.value.args[0] is BROKEN
    assert sum(asking.times) == 1.75


def test_the_reason_outlives_the_news_that_all_brokers_are_down() -> None:
    complaints = Complaints()
    for error in (DOWN, BROKEN, DOWN):
        complaints(error)
    assert complaints.last is BROKEN


def test_a_broker_that_was_asked_and_is_slow_gets_longer_and_longer() -> None:
    asking = Asking(SLOW, answers_after_s=3.0)
    assert asking.ask(30.0) == "answer"
    assert asking.times == [0.5, 1.0, 2.0, 4.0]


def test_an_error_before_the_time_is_over_is_an_answer() -> None:
    asking = Asking(REFUSED, fails_after_s=0.1)
    with pytest.raises(KafkaException):
        asking.ask(30.0)
    assert asking.times == [0.5]


def test_a_stop_is_looked_for_between_slices() -> None:
    asking = Asking(AWAY)
    with pytest.raises(Stopped):
        asking.ask(30.0, lambda: len(asking.times) == 2)
    assert asking.times == [0.5, 0.5]


@contextmanager
def interrupted_when_asked() -> Iterator[str]:
    """Yield the address of a broker that takes a question, sends this process SIGINT then, and never answers."""

    def take() -> None:
        with suppress(TimeoutError), listener.accept()[0] as connection:
            connection.recv(1)
            os.kill(os.getpid(), signal.SIGINT)
            over.wait()

    over = threading.Event()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # For a command that ends without having asked.
        listener.settimeout(HEARD_S)
        taking = threading.Thread(target=take)
        taking.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            taking.join()
            signal.signal(signal.SIGINT, before)


@pytest.fixture
def kept(tmp_path: Path) -> str:
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dead"), "loaders")
    queue.open()
    queue.send([DeadLetter(Record(Partition("events", 0), 1, None, None, b"{"), "decode", "syntax", "not JSON")])
    queue.close()
    return str(tmp_path / "dead")


TOPIC = ("--dlq.topic", "events.dlq")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("produce", "-t", "events", "--count", "1"), 130),
        (("dlq", "ls", *TOPIC), 130),
        (("dlq", "purge", "--before", "1h", *TOPIC), 130),
        (("dlq", "replay", "--to", "topic", "--dlq.path", "KEPT"), 75),
        (("dlq", "replay", "--sink", "parquet", "--parquet.path", "OUT", *TOPIC), 75),
        (("verify", "-t", "events", "-g", "g", "--sink", "parquet", "--parquet.path", "OUT"), 130),
        (("bench", "-t", "events"), 130),
    ],
)
def test_a_broker_that_never_answers_keeps_no_signal_waiting(
    argv: tuple[str, ...], code: int, kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"KEPT": kept, "OUT": str(tmp_path / "out")}
    with interrupted_when_asked() as brokers:
        began = time.monotonic()
        assert cli.main([*(named.get(word, word) for word in argv), "-b", brokers]) == code
        took_s = time.monotonic() - began
    assert took_s < HEARD_S
    said = capsys.readouterr().err.splitlines()
    assert said == (["batcher: stopped before the end; start it again for the rest"] if code == 75 else [])


def test_a_queue_of_dead_letters_that_is_being_opened_hears_a_signal() -> None:
    with interrupted_when_asked() as brokers:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            KafkaDeadLetterQueue(brokers, "events.dlq").open()
        assert time.monotonic() - began < HEARD_S
