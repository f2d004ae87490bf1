"""The options of SQS, and what a wrong one is answered with."""

from __future__ import annotations

import pytest

from batcher.sources.sqs.connection import Connection
from batcher.sources.sqs.publisher import _parts
from batcher.sources.sqs.settings import Sqs


def test_each_worker_has_the_number_it_was_given() -> None:
    options = Sqs(queue="q")

    assert [options.worker, options.of_worker(3).worker] == [0, 3]
    assert options.of_worker(3).queue == "q"


def test_times_are_whole_seconds_rounded_up() -> None:
    options = Sqs.model_validate({"queue": "q", "visibility": "1100ms", "wait": "200ms"})

    assert (options.visibility_s, options.wait_s) == (2, 1)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"queue": "https://key:secret@sqs.eu-west-1.amazonaws.com/1/q"}, "queue"),
        ({"queue": "q", "endpoint": "http://key:secret@localhost"}, "endpoint"),
        ({"queue": "q", "endpoint": "localhost:9324"}, "endpoint"),
    ],
)
def test_keys_in_a_url_and_an_endpoint_that_is_none_are_refused(given: dict[str, str], field: str) -> None:
    [fault] = Sqs.model_validate(given).impossible()

    assert fault.field == field
    assert "secret" not in fault.message


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ({"queue": "https://sqs.eu-west-1.amazonaws.com/1/q"}, "https://sqs.eu-west-1.amazonaws.com"),
        ({"queue": "http://localhost:9324/1/q"}, "http://localhost:9324"),
        ({"queue": "q", "endpoint": "http://localhost:9324"}, "http://localhost:9324"),
        ({"queue": "q", "region": "us-east-2"}, "https://sqs.us-east-2.amazonaws.com"),
    ],
)
def test_where_the_queue_is_follows_from_its_url_its_endpoint_or_its_region(
    given: dict[str, str], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3", reason="needs the extra [sqs]")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    connection = Connection(Sqs.model_validate(given))
    connection.close()

    assert connection.target == f"q at {at}"


def test_messages_are_sent_in_parts_that_a_request_takes() -> None:
    small = [{"MessageBody": "x"}] * 25
    large = [{"MessageBody": "ü" * 60_000}] * 5

    assert [len(part) for part in _parts(small)] == [10, 10, 5]
    assert [len(part) for part in _parts(large)] == [2, 2, 1]
    assert [len(part) for part in _parts([{"MessageBody": "x" * 300_000}])] == [1]
