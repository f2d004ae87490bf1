"""What tests and benchmarks ask of a group."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from batcher.testing import kafka
from batcher.testing.kafka import committed_offsets


class Group:
    """Answer the questions of a consumer, errors first."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def committed(self, asked: list[TopicPartition], _timeout_s: float) -> list[TopicPartition]:
        """Return what was asked for."""
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return asked


def test_offsets_are_asked_for_again_while_a_group_has_no_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "ASKED_AGAIN_S", 0.0)
    group: Any = Group(KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert committed_offsets(group, [TopicPartition("t", 0, 5)]) == [TopicPartition("t", 0, 5)]


@pytest.mark.parametrize(
    ("code", "timeout_s"), [(KafkaError.GROUP_AUTHORIZATION_FAILED, 30.0), (KafkaError.NOT_COORDINATOR, -1.0)]
)
def test_offsets_that_cannot_be_had_are_an_error(code: int, timeout_s: float) -> None:
    group: Any = Group(code, code)
    with pytest.raises(KafkaException):
        committed_offsets(group, [TopicPartition("t", 0)], timeout_s)
