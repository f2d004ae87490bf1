"""What the Kafka source says of itself."""

from __future__ import annotations

import json

import pytest

from batcher.embedded.mock_cluster import MockCluster
from batcher.records import Partition
from batcher.sources.kafka.progress import ReadProgress
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.listener import RecordingListener


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


def test_a_revoke_may_take_half_of_the_session(mock_cluster: MockCluster) -> None:
    mock_cluster.create_topic("events")
    properties = {"session.timeout.ms": "6000"}
    source = KafkaSource(KafkaOptions(mock_cluster.bootstrap, ("events",), "g", properties=properties))

    info = source.open(RecordingListener())
    source.close()

    assert info.drain_timeout_s == 3.0
