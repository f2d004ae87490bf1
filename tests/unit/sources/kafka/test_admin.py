"""What the brokers do not tell is said once and not asked again."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from batcher.sources.kafka import admin as kafka_admin
from batcher.sources.kafka.admin import NO_ID, Admin
from batcher.sources.kafka.options import KafkaOptions

TOPIC_ID = "0SGPdqKs+zSjlJSN/u2IPQ"


class Client:
    """Be an admin client that answers about each topic with the next of these."""

    def __init__(self, *answers: str | BaseException) -> None:
        self._answers = list(answers)
        self.asked = 0

    def describe_topics(self, _topics: Any, *, request_timeout: float) -> dict[str, Future[Any]]:
        del request_timeout
        self.asked += 1
        return {"events": self._next()}

    def _next(self) -> Future[Any]:
        answer, future = self._answers.pop(0), Future[Any]()
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(SimpleNamespace(topic_id=answer))
        return future


def admin(monkeypatch: pytest.MonkeyPatch, client: Client, *, able: bool = True) -> Admin:
    monkeypatch.setattr(kafka_admin, "AdminClient", lambda _: client)
    return Admin(KafkaOptions("b:1", ("events",), "g"), able=able)


def refusal(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


def test_ids_are_written_as_kafkas_tools_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert admin(monkeypatch, Client(TOPIC_ID)).topic_ids(["events"], 1.0) == {"events": "0SGPdqKs-zSjlJSN_u2IPQ"}


def test_a_topic_that_is_gone_and_one_without_an_id_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, without = Client(refusal(KafkaError.UNKNOWN_TOPIC_OR_PART)), Client(NO_ID)

    assert admin(monkeypatch, gone).topic_ids(["events"], 1.0) == {"events": None}
    assert admin(monkeypatch, without).topic_ids(["events"], 1.0) == {}


@pytest.mark.parametrize(
    "answer",
    [refusal(KafkaError.UNSUPPORTED_VERSION), refusal(KafkaError.TOPIC_AUTHORIZATION_FAILED), TimeoutError()],
)
def test_brokers_that_do_not_tell_are_asked_once_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, answer: BaseException
) -> None:
    client = Client(answer)
    asking = admin(monkeypatch, client)

    with capture_logs() as lines:
        assert [asking.topic_ids(["events"], 1.0) for _ in range(3)] == [{}, {}, {}]

    assert client.asked == 1
    assert [line["event"] for line in lines] == ["topic_ids_unknown"]


def test_brokers_that_answered_before_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = admin(monkeypatch, Client(TOPIC_ID, TimeoutError(), TOPIC_ID))

    answers = [asking.topic_ids(["events"], 1.0) for _ in range(3)]

    assert answers[1] is None
    assert answers[0] == answers[2] != {}


def test_where_nobody_could_answer_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()

    assert admin(monkeypatch, client, able=False).topic_ids(["events"], 1.0) == {}
    assert client.asked == 0
