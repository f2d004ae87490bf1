"""`batcher produce` asks about its topic until the brokers have heard of it."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from batcher.cli.support import kafka_topic
from batcher.errors import ConfigurationError
from batcher.settings import Settings
from batcher.sources.kafka.asking import Complaints

UNKNOWN = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
LEADERLESS = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
FORBIDDEN = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Brokers:
    """Answer a question about a topic with one error after the other, the last one for ever."""

    def __init__(self, *errors: KafkaError | None) -> None:
        self.errors = list(errors)
        self.asked = 0

    def list_topics(self, topic: str, _timeout_s: float) -> Any:
        self.asked += 1
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        return SimpleNamespace(topics={topic: SimpleNamespace(error=error)})


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_topic, "PAUSE_S", 0.0)


def test_a_topic_that_was_just_made_gets_time_to_be_known() -> None:
    brokers: Any = Brokers(UNKNOWN, UNKNOWN, None)
    assert kafka_topic.topic_error("t", brokers, Complaints(), made=True) is None
    assert brokers.asked == 3


@pytest.mark.parametrize("made", [True, False])
def test_a_new_topic_gets_time_for_its_leaders_also_where_a_broker_makes_it_by_itself(made: bool) -> None:
    brokers: Any = Brokers(LEADERLESS, LEADERLESS, None)
    assert kafka_topic.topic_error("t", brokers, Complaints(), made=made) is None
    assert brokers.asked == 3


@pytest.mark.parametrize("error", [UNKNOWN, LEADERLESS])
def test_that_time_has_an_end(error: KafkaError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_topic, "KNOWN_S", 0.0)
    brokers: Any = Brokers(error)
    assert kafka_topic.topic_error("t", brokers, Complaints(), made=True) is error


@pytest.mark.parametrize(("error", "made"), [(UNKNOWN, False), (FORBIDDEN, True)])
def test_any_other_error_is_an_answer(error: KafkaError, made: bool) -> None:
    brokers: Any = Brokers(error, None)
    assert kafka_topic.topic_error("t", brokers, Complaints(), made=made) is error


@pytest.mark.parametrize(
    ("error", "create", "hinted"), [(UNKNOWN, False, True), (UNKNOWN, True, False), (FORBIDDEN, False, False)]
)
def test_the_flag_that_makes_a_topic_is_named_only_where_it_would_help(
    error: KafkaError, create: bool, hinted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_topic, "KNOWN_S", 0.0)
    monkeypatch.setattr(kafka_topic, "create_topic", lambda *_: None)
    brokers: Any = Brokers(error)
    with pytest.raises(ConfigurationError) as caught:
        kafka_topic.require_topic("t", brokers, Complaints(), Settings(), argparse.Namespace(create=create))
    assert ("--create" in str(caught.value)) is hinted
