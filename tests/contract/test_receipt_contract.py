"""The laws of queues with receipts, over all that there are, and over one in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pytest

from batcher.sources.receipts.gateway import Gateway
from batcher.testing.clock import ManualClock
from batcher.testing.contract.receipts import ReceiptCase, ReceiptLaws
from batcher.testing.receipts import LEASE_S, MemoryGateway, MemoryQueue


class MemoryCase(ReceiptCase):
    lease_s = LEASE_S

    def __init__(self, ahead: int = 0) -> None:
        self._clock = ManualClock()
        self._queue = MemoryQueue(self._clock)
        self._ahead = ahead
        self.clock, self.sleep = self._clock, self._clock.advance

    def publish(self, bodies: Sequence[bytes]) -> None:
        self._queue.publish(*bodies)

    def gateway(self, *, max_held: int = 1000) -> Gateway:
        return MemoryGateway(self._queue, max_held=max_held, ahead=self._ahead)


CASES: Final[dict[str, Callable[[pytest.FixtureRequest], ReceiptCase]]] = {
    "memory": lambda _: MemoryCase(),
    "memory:prefetching": lambda _: MemoryCase(ahead=7),
}


class TestEveryQueue(ReceiptLaws):
    @pytest.fixture(params=list(CASES))
    def case(self, request: pytest.FixtureRequest) -> ReceiptCase:
        return CASES[request.param](request)
