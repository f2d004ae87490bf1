"""What a fetch does while nothing comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from batcher.sources.kafka import source as kafka
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


def test_a_fetch_without_records_asks_once_and_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(kafka, "time", SimpleNamespace(monotonic=clock))
    source, idle = KafkaSource(KafkaOptions("nowhere:9092", ("events",), "g")), Idle(clock)
    monkeypatch.setattr(source, "_consumer", cast("Any", idle))

    assert source.fetch(100, 1 << 24, 0.1) == []

    assert idle.calls == 1
    assert clock.now == pytest.approx(0.1, abs=0.002)
