"""The laws of queues with receipts, over all that there are, and over one in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pytest

from batcher.sources.receipts.gateway import Gateway
from batcher.sources.sqs.gateway import SqsGateway
from batcher.sources.sqs.settings import Sqs
from batcher.testing.clock import ManualClock
from batcher.testing.contract.receipts import ReceiptCase, ReceiptLaws
from batcher.testing.receipts import LEASE_S, MemoryGateway, MemoryQueue
from batcher.testing.sqs import SqsQueue


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


class SqsCase(ReceiptCase):
    lease_s = 2.0

    def __init__(self, queue: SqsQueue) -> None:
        self._queue = queue

    def publish(self, bodies: Sequence[bytes]) -> None:
        self._queue.send(bodies)

    def gateway(self, *, max_held: int = 1000) -> Gateway:
        options = Sqs.model_validate(
            {
                "queue": self._queue.name,
                "endpoint": self._queue.server.endpoint,
                "visibility": "2s",
                "wait": "0s",
                "max_in_flight": max_held,
            }
        )
        return SqsGateway(options)


CASES: Final[dict[str, Callable[[pytest.FixtureRequest], ReceiptCase]]] = {
    "memory": lambda _: MemoryCase(),
    "memory:prefetching": lambda _: MemoryCase(ahead=7),
    "sqs": lambda request: SqsCase(request.getfixturevalue("new_queue")()),
}


class TestEveryQueue(ReceiptLaws):
    @pytest.fixture(params=list(CASES))
    def case(self, request: pytest.FixtureRequest) -> ReceiptCase:
        return CASES[request.param](request)
