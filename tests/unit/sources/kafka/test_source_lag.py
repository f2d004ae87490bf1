"""What the Kafka source says of its lag, to any thread."""

from __future__ import annotations

import json

import pytest

from batcher.records import Partition
from batcher.sources.kafka.progress import ReadProgress
from batcher.sources.kafka.source import KafkaOptions, KafkaSource


def statistics(*numbers: int) -> str:
    return json.dumps({"topics": {"events": {"partitions": {str(number): {"consumer_lag": 7} for number in numbers}}}})


def test_the_lag_can_be_asked_for_while_new_statistics_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    source = KafkaSource(KafkaOptions("nowhere:9092", ("events",), "g"))

    class Interrupted(ReadProgress):
        """Let the fetch thread have its turn at every look."""

        def __contains__(self, partition: Partition) -> bool:
            source._on_statistics(statistics(0, 1, 2))
            return True

    monkeypatch.setattr(source, "_progress", Interrupted())
    source._on_statistics(statistics(0, 1))

    assert source.lag() == {Partition("events", 0): 7, Partition("events", 1): 7}
