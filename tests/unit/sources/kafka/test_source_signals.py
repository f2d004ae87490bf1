"""Signals while librdkafka is being read: what Python does in between must not cost a record."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from batcher.embedded.mock_cluster import MockCluster
from batcher.records import Partition, Position, Records
from batcher.sources.kafka import native_reader, records_reader
from batcher.sources.kafka.columns import to_records
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.kafka import produce
from batcher.testing.listener import RecordingListener, offsets, read
from tests.harness.fetch_paths import FETCHES, Path

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


@pytest.fixture(params=FETCHES)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def source(mock_cluster: MockCluster, path: Path) -> Iterator[KafkaSource]:
    mock_cluster.create_topic(PART.topic)
    produce(mock_cluster.bootstrap, PART.topic, [b"%d" % number for number in range(RECORDS)])
    opened = KafkaSource(options(mock_cluster, path))
    opened.open(RecordingListener())
    yield opened
    opened.close()


def options(cluster: MockCluster, path: Path) -> KafkaOptions:
    properties = {"group.protocol": "consumer"}
    return KafkaOptions(cluster.bootstrap, (PART.topic,), "g", properties=properties, native=path)


def before_columns(monkeypatch: pytest.MonkeyPatch, path: Path, action: Callable[[], object]) -> None:
    """Have something happen where librdkafka has moved on behind the records and they are not returned yet."""

    def after(made: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*arguments: Any) -> Any:
            action()
            return made(*arguments)

        return acted

    if path == "off":
        monkeypatch.setattr(records_reader, "to_records", after(to_records))
    else:
        monkeypatch.setattr(native_reader, "Records", after(Records))


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_handlers")
def test_signals_that_are_only_noted_cost_no_record(
    source: KafkaSource, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = 0

    def note(*_: object) -> None:
        nonlocal noted
        noted += 1

    signal.signal(signal.SIGINT, note)
    # The thread hits elsewhere.
    before_columns(monkeypatch, path, lambda: os.kill(os.getpid(), signal.SIGINT))
    runs: list[Records] = []
    with signalled(source):
        while sum(map(len, runs)) < RECORDS:
            runs += source.fetch(100, 1 << 24, 0.1)

    assert noted >= len(runs)
    assert offsets(runs) == {PART: list(range(RECORDS))}


@pytest.mark.usefixtures("_handlers")
def test_a_handler_that_raises_ends_the_source_and_a_successor_reads_what_was_not_returned(
    mock_cluster: MockCluster, source: KafkaSource, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted() -> NoReturn:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the handler did not run")

    returned = offsets(read(source, 100))[PART]
    signal.signal(signal.SIGINT, fail)
    before_columns(monkeypatch, path, interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.fetch(100, 1 << 24, 5.0)
    monkeypatch.undo()

    with pytest.raises(KeyboardInterrupt):
        source.fetch(100, 1 << 24, 0.1)
    source.commit({PART: Position(len(returned))}, 20.0)
    source.close()
    successor = KafkaSource(options(mock_cluster, path))
    successor.open(RecordingListener())
    try:
        rest = offsets(read(successor, RECORDS - len(returned)))[PART]
    finally:
        successor.close()
    assert returned + rest == list(range(RECORDS))
