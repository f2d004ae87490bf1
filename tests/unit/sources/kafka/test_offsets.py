"""What becomes of a question about offsets that is not answered at once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.errors import ConfigurationError, SourceLost
from batcher.records import Partition, Position
from batcher.sources.kafka import offsets
from batcher.sources.kafka.offsets import StartOffsets
from batcher.sources.kafka.options import KafkaOptions

PART: Final = Partition("events", 0)


def place(offset: int, error: KafkaError | None = None) -> SimpleNamespace:
    return SimpleNamespace(topic=PART.topic, partition=PART.number, offset=offset, metadata=None, error=error)


QUESTIONS: Final[dict[str, tuple[Callable[[StartOffsets], Any], Any, Any]]] = {
    "watermarks": (lambda asking: asking.watermarks(PART), (3, 9), (3, 9)),
    "time": (lambda asking: asking.at_time(PART, 1_700_000_000_000), [place(5)], 5),
    "committed": (lambda asking: asking.committed([PART]), [place(5)], {PART: Position(5)}),
}
"""Each question, what the client answers, and what is returned then."""


class Answers:
    """Be a consumer that gives one answer after another, whatever it is asked."""

    def __init__(self, *answers: object) -> None:
        self.left = list(answers)

    def committed(self, _wanted: object, _timeout_s: float) -> object:
        answer = self.left.pop(0)
        if isinstance(answer, KafkaError):
            raise KafkaException(answer)
        return answer

    get_watermark_offsets = offsets_for_times = committed


def asking(*answers: object) -> StartOffsets:
    return StartOffsets(cast("Any", Answers(*answers)), KafkaOptions("nowhere:9092", ("events",), "g"))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "RETRY_PAUSE_S", 0.0)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_may_be_answered_a_moment_later_is_asked_again(question: str) -> None:
    ask, answer, returned = QUESTIONS[question]
    moved = KafkaError(KafkaError.NOT_COORDINATOR)
    assert ask(asking(moved, moved, answer)) == returned


@pytest.mark.parametrize("question", QUESTIONS)
def test_missing_rights_are_said_at_once_with_what_was_asked(question: str) -> None:
    ask, answer, _ = QUESTIONS[question]
    with pytest.raises(ConfigurationError, match=r"no access to the .* (of events\[0\]|of group g)"):
        ask(asking(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), answer))


@pytest.mark.parametrize("question", QUESTIONS)
def test_without_an_answer_in_time_no_offset_is_guessed(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "LOOKUP_TIMEOUT_S", 0.0)
    ask, answer, _ = QUESTIONS[question]
    with pytest.raises(SourceLost, match=r"could not be had: .* start again when the broker answers"):
        ask(asking(KafkaError(KafkaError.NOT_COORDINATOR), answer))


def test_an_error_about_one_partition_is_no_commit_that_is_not_there() -> None:
    unstable = place(-1001, KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT))
    assert asking([unstable], [place(5)]).committed([PART]) == {PART: Position(5)}
