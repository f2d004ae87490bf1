"""Signals while librdkafka is being read: what Python does in between must not cost a record."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from batcher.embedded.mock_cluster import MockCluster
from batcher.records import Partition, Position, Records
from batcher.sources.kafka import source as kafka
from batcher.sources.kafka.columns import to_records
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import produce
from batcher.testing.listener import RecordingListener, offsets, read

PART = Partition("events", 0)
RECORDS = 20_000
SIGNALS = 300


@contextmanager
def signalled(source: KafkaSource) -> Iterator[None]:
    """Send this process SIGINT all the time, 300 times at most."""
    stop = threading.Event()

    def send() -> None:
        for _ in range(SIGNALS):
            if stop.wait(0.003):
                return
            os.kill(os.getpid(), signal.SIGINT)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


@pytest.fixture
def source(mock_cluster: MockCluster) -> Iterator[KafkaSource]:
    mock_cluster.create_topic(PART.topic)
    produce(mock_cluster.bootstrap, PART.topic, [b"%d" % number for number in range(RECORDS)])
    opened = KafkaSource(options(mock_cluster))
    opened.open(RecordingListener())
    yield opened
    opened.close()


def options(cluster: MockCluster) -> KafkaOptions:
    return KafkaOptions(cluster.bootstrap, (PART.topic,), "g", properties={"group.protocol": "consumer"})


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_handlers")
def test_signals_that_are_only_noted_cost_no_record(source: KafkaSource, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = 0

    def signalled_between(*arguments: Any) -> Any:
        # Where librdkafka has moved on behind the messages and they are not returned yet; the thread hits elsewhere.
        os.kill(os.getpid(), signal.SIGINT)
        return to_records(*arguments)

    def note(*_: object) -> None:
        nonlocal noted
        noted += 1

    signal.signal(signal.SIGINT, note)
    monkeypatch.setattr(kafka, "to_records", signalled_between)
    runs: list[Records] = []
    with signalled(source):
        while sum(map(len, runs)) < RECORDS:
            runs += source.fetch(100, 1 << 24, 0.1)

    assert noted >= len(runs)
    assert offsets(runs) == {PART: list(range(RECORDS))}


@pytest.mark.usefixtures("_handlers")
def test_a_handler_that_raises_ends_the_source_and_a_successor_reads_what_was_not_returned(
    mock_cluster: MockCluster, source: KafkaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted(*_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the handler did not run")

    returned = offsets(read(source, 100))[PART]
    signal.signal(signal.SIGINT, fail)
    # librdkafka has moved on behind these records by now.
    monkeypatch.setattr(kafka, "to_records", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.fetch(100, 1 << 24, 5.0)
    monkeypatch.undo()

    with pytest.raises(KeyboardInterrupt):
        source.fetch(100, 1 << 24, 0.1)
    source.commit({PART: Position(len(returned))}, 20.0)
    source.close()
    successor = KafkaSource(options(mock_cluster))
    successor.open(RecordingListener())
    try:
        rest = offsets(read(successor, RECORDS - len(returned)))[PART]
    finally:
        successor.close()
    assert returned + rest == list(range(RECORDS))
