"""The first question to a broker: how long it may take, and when waiting is of no use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.errors import ConfigurationError, Unreachable
from batcher.sources.kafka.cluster import DOWN_AFTER_S, ConnectionLog, first_look
from batcher.sources.kafka.options import KafkaOptions
from batcher.testing.clock import ManualClock

TIMEOUT_S: Final = 10.0

FOUND: Final = SimpleNamespace(
    topics={"events": SimpleNamespace(error=None, partitions={0: None, 1: None})}, controller_id=1, brokers={1: None}
)

SILENT: Final = KafkaError(KafkaError._TRANSPORT)
SLOW: Final = KafkaError(KafkaError._TIMED_OUT)


class Silent:
    """Be a consumer whose broker needs some time for an answer; `event` comes while it is waited for."""

    def __init__(
        self, error: KafkaError = SILENT, answers_after_s: float = 1e9, event: KafkaError | None = None
    ) -> None:
        self.clock = ManualClock()
        self.log = ConnectionLog()
        self._error = error
        self._answers_after_s = answers_after_s
        self._event = event
        self._began = self.clock()

    def list_topics(self, timeout: float) -> Any:
        if self._answers_after_s <= timeout:
            return FOUND
        self.clock.advance(timeout)
        raise KafkaException(self._error)

    def poll(self, _timeout_s: float) -> None:
        if self._event is not None:
            self.log.on_error(self._event)

    def look(self) -> Any:
        options = KafkaOptions("nowhere:9092", ("events",), "g")
        return first_look(cast("Any", self), options, self.log, TIMEOUT_S, self.clock)

    @property
    def waited_s(self) -> float:
        return self.clock() - self._began


def test_a_broker_that_is_slow_to_answer_is_heard() -> None:
    assert [number for _, number in Silent(SLOW, answers_after_s=2.0).look().partitions] == [0, 1]


def test_a_broker_that_never_answers_is_waited_for_to_the_end_and_named() -> None:
    silent = Silent()
    with pytest.raises(Unreachable, match="broker nowhere:9092 does not answer: "):
        silent.look()
    assert silent.waited_s == pytest.approx(TIMEOUT_S)


@pytest.mark.parametrize(
    ("event", "raised", "after_s"),
    [
        (KafkaError(KafkaError._AUTHENTICATION), ConfigurationError, 0.5),
        (KafkaError(KafkaError._ALL_BROKERS_DOWN), Unreachable, DOWN_AFTER_S),
    ],
    ids=["wrong password", "nothing listens"],
)
def test_where_waiting_is_of_no_use_it_ends_early(event: KafkaError, raised: type[Exception], after_s: float) -> None:
    silent = Silent(event=event)
    with pytest.raises(raised, match="broker nowhere:9092"):
        silent.look()
    assert silent.waited_s == pytest.approx(after_s)
