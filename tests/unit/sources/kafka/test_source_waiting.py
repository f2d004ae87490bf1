"""What a fetch does while nothing comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from batcher.sources.kafka import source as kafka
from batcher.sources.kafka.native_reader import NativeReader
from batcher.sources.kafka.records_reader import MessageReader, RecordReader
from batcher.sources.kafka.source import KafkaOptions, KafkaSource

LOOKING_S = 0.00001


class Clock:
    """Go on a little at every look, as real ones do."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += LOOKING_S
        return self.now


class Idle:
    """Be a consumer whose topic is empty: waits in whole milliseconds, as librdkafka does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.calls = 0

    def consume(self, _count: int, timeout_s: float) -> list[Any]:
        self.calls += 1
        self._clock.now += int(timeout_s * 1000) / 1000
        return []


class IdleFetcher:
    """Be the extension's end of such a consumer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def fetch(self, _records: int, _bytes: int, timeout_ms: int, _linger_ms: int) -> tuple[list[Any], list[Any]]:
        self._clock.now += timeout_ms / 1000
        return [], []


@pytest.mark.parametrize("natively", [False, True])
def test_a_fetch_without_records_asks_once_and_does_not_spin(monkeypatch: pytest.MonkeyPatch, natively: bool) -> None:
    clock = Clock()
    monkeypatch.setattr(kafka, "time", SimpleNamespace(monotonic=clock))
    source, idle = KafkaSource(KafkaOptions("nowhere:9092", ("events",), "g")), Idle(clock)
    consumer = cast("Any", idle)
    reader: RecordReader = (
        NativeReader(consumer, IdleFetcher(clock), None) if natively else MessageReader(consumer, None)
    )
    monkeypatch.setattr(source, "_consumer", consumer)
    monkeypatch.setattr(source, "_reader", reader)

    assert source.fetch(100, 1 << 24, 0.1) == []

    assert idle.calls == 1
    assert clock.now == pytest.approx(0.1, abs=0.002)
