"""The laws of queues with receipts, over all that there are, and over one in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Final

import pytest

from batcher.embedded.nsq import Nsqd
from batcher.protocols.publisher import Outgoing
from batcher.sources.kafka.options import KafkaOptions
from batcher.sources.nsq.gateway import gateway_of
from batcher.sources.nsq.publisher import NsqPublisher
from batcher.sources.nsq.settings import Nsq
from batcher.sources.receipts.gateway import Gateway
from batcher.sources.share.gateway import ShareGateway
from batcher.sources.sqs.gateway import SqsGateway
from batcher.sources.sqs.settings import Sqs
from batcher.testing.clock import ManualClock
from batcher.testing.contract.receipts import ReceiptCase, ReceiptLaws
from batcher.testing.kafka import Broker, produce
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

    def gateway(self, *, max_held: int = 1000, long: bool = False) -> Gateway:
        del long  # LEASE_S is
        return MemoryGateway(self._queue, max_held=max_held, ahead=self._ahead)


class SqsCase(ReceiptCase):
    lease_s = 2.0

    def __init__(self, queue: SqsQueue) -> None:
        self._queue = queue

    def publish(self, bodies: Sequence[bytes]) -> None:
        self._queue.send(bodies)

    def gateway(self, *, max_held: int = 1000, long: bool = False) -> Gateway:
        options = Sqs.model_validate(
            {
                "queue": self._queue.name,
                "endpoint": self._queue.server.endpoint,
                "visibility": "60s" if long else "2s",
                "wait": "0s",
                "max_in_flight": max_held,
            }
        )
        return SqsGateway(options)


class NsqCase(ReceiptCase):
    lease_s = 2.0

    def __init__(self, nsqd: Nsqd) -> None:
        self._options = Nsq(
            topic=f"topic-{uuid.uuid4().hex}",
            channel="readers",
            nsqd=(nsqd.address,),
            msg_timeout=timedelta(seconds=self.lease_s),
        )

    def publish(self, bodies: Sequence[bytes]) -> None:
        with closing(NsqPublisher(self._options)) as publisher:
            assert publisher.publish([Outgoing(body) for body in bodies], 10.0) == []

    def gateway(self, *, max_held: int = 1000, long: bool = False) -> Gateway:
        changes = {"max_in_flight": max_held, **({"msg_timeout": timedelta(seconds=60)} if long else {})}
        return gateway_of(self._options.model_copy(update=changes), longest_batch_s=1.0)


class ShareCase(ReceiptCase):
    """A share group: nobody can extend a lock, and a reader is handed out nothing before all is acknowledged."""

    lease_s = 31.0
    delays = False
    counts_attempts = False
    knows_depth = False
    extends = False
    bounded = False

    def __init__(self, broker: Broker, topic: str, group: str) -> None:
        self._broker, self._topic, self._group = broker, topic, group

    def publish(self, bodies: Sequence[bytes]) -> None:
        produce(self._broker.bootstrap, self._topic, bodies)

    def gateway(self, *, max_held: int = 1000, long: bool = False) -> Gateway:
        del max_held, long
        return ShareGateway(KafkaOptions(self._broker.bootstrap, (self._topic,), self._group))


def share_case(request: pytest.FixtureRequest) -> ReceiptCase:
    broker: Broker = request.getfixturevalue("broker")
    return ShareCase(broker, request.getfixturevalue("new_topic")(1), request.getfixturevalue("new_group")())


CASES: Final[dict[str, Callable[[pytest.FixtureRequest], ReceiptCase]]] = {
    "memory": lambda _: MemoryCase(),
    "memory:prefetching": lambda _: MemoryCase(ahead=7),
    "share": share_case,
    "sqs": lambda request: SqsCase(request.getfixturevalue("new_queue")()),
    "nsq": lambda request: NsqCase(request.getfixturevalue("nsqd")),
}


class TestEveryQueue(ReceiptLaws):
    @pytest.fixture(
        params=[
            # A lock of the broker lasts 30 s.
            pytest.param(name, marks=[pytest.mark.broker, pytest.mark.long] if name == "share" else [])
            for name in CASES
        ]
    )
    def case(self, request: pytest.FixtureRequest) -> ReceiptCase:
        return CASES[request.param](request)
