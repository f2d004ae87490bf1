"""Records sent back to their topic: only a delivery report says that one arrived."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.dead_letters.kit import resend
from batcher.dead_letters.kit.report import ReplayReport
from batcher.dead_letters.kit.resend import Resender, arguments
from batcher.dead_letters.kit.select import ATTEMPTS, StoredLetter
from batcher.records import DeadLetter, Headers, Partition, Record


def stored(
    offset: int = 1, *, headers: Headers = (), omitted: tuple[str, ...] = (), timestamp_ms: int | None = 5
) -> StoredLetter:
    record = Record(Partition("events", 3), offset, timestamp_ms, b"k", b"v", headers)
    return StoredLetter(DeadLetter(record, "decode", "syntax", "not JSON"), "g", None, "here", omitted)


Report_ = Callable[[KafkaError | None, Any], None]


class ScriptedProducer:
    """Answer for each record, in order of `answers`, with a report, an error of the call, or (text) nothing."""

    def __init__(self, answers: list[KafkaError | Exception | str | None]) -> None:
        self.answers = answers
        self.sent: list[dict[str, Any]] = []
        self.reports: list[tuple[Report_, KafkaError | None]] = []

    def produce(self, *, on_delivery: Report_, **given: Any) -> None:
        answer = self.answers[len(self.sent)]
        self.sent.append(given)
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, str):
            self.reports.append((on_delivery, answer))

    def poll(self, _timeout_s: float) -> int:
        return 0

    def flush(self, _timeout_s: float) -> int:
        while self.reports:
            report, error = self.reports.pop()
            report(error, None)
        return 0


@pytest.fixture
def resender(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Resender, ScriptedProducer, ReplayReport]]:
    def make(
        *answers: KafkaError | Exception | str | None, **options: Any
    ) -> tuple[Resender, ScriptedProducer, ReplayReport]:
        producer, report = ScriptedProducer(list(answers)), ReplayReport()
        monkeypatch.setattr(resend, "Producer", lambda *_args, **_kwargs: producer)
        return Resender("k:1", {}, report, **options), producer, report

    return make


Made = Callable[..., tuple[Resender, ScriptedProducer, ReplayReport]]


def test_each_record_counts_by_its_own_report(resender: Made) -> None:
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no")
    one, _, report = resender(None, refused, None, KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION)))
    one.take([stored(offset) for offset in range(4)])
    assert report.replayed == 2
    assert [(failure.id, failure.reason) for failure in report.failures] == [
        ("events:3:1", "TOPIC_AUTHORIZATION_FAILED"),
        ("events:3:3", "_UNKNOWN_PARTITION"),
    ]


def test_an_empty_queue_without_a_report_is_no_success(resender: Made) -> None:
    one, _, report = resender(None, "silence")
    one.take([stored(1), stored(2)])
    assert (report.replayed, [failure.id for failure in report.failures]) == (1, ["events:3:2"])
    assert not report.all_there


def test_what_was_sent_back_often_enough_or_is_not_whole_is_skipped(resender: Made) -> None:
    one, producer, report = resender(None, max_attempts=2)
    letters = [stored(1, headers=((ATTEMPTS, str(count).encode()),)) for count in (1, 2, 3)]
    one.take([*letters, stored(2, omitted=("value",))])
    assert (report.replayed, report.facts()["skipped"]) == (1, {"attempts": 2, "not_whole": 1})
    assert [given["headers"] for given in producer.sent] == [[(ATTEMPTS, b"2")]]


def test_a_dry_run_sends_nothing(resender: Made) -> None:
    one, producer, report = resender(dry_run=True)
    one.take([stored(1), stored(2)])
    assert (report.replayed, producer.sent) == (2, [])


def test_a_record_goes_back_to_its_partition_as_it_was() -> None:
    own: Headers = (("h", b"1"), (ATTEMPTS, b"1"), ("h", None))
    assert arguments(stored(headers=own)) == {
        "topic": "events",
        "partition": 3,
        "key": b"k",
        "value": b"v",
        "timestamp": 5,
        "headers": [("h", b"1"), ("h", None), (ATTEMPTS, b"2")],
    }


@pytest.mark.parametrize("timestamp_ms", [None, 0])
def test_a_time_that_cannot_be_sent_is_left_to_the_broker(timestamp_ms: int | None) -> None:
    assert "timestamp" not in arguments(stored(timestamp_ms=timestamp_ms))


def test_a_time_before_1970_is_sent_as_it_was() -> None:
    assert arguments(stored(timestamp_ms=-5))["timestamp"] == -5
