"""The flusher thread: takes a batch when it is due, brings it to a durable end, and only then asks for its commit."""

from __future__ import annotations

import structlog

from batcher.delivery import Delivery
from batcher.exchange import Exchange
from batcher.observer import Observer

log = structlog.get_logger(__name__)


class Flusher:
    """Deliver due batches. `step` does one if there is one; `run` goes on until the pipeline has drained or aborted."""

    def __init__(self, exchange: Exchange, delivery: Delivery, observer: Observer) -> None:
        self._exchange = exchange
        self._delivery = delivery
        self._observer = observer

    def run(self) -> None:
        """Deliver until there will be nothing more to deliver. Whatever the delivery raises ends the run."""
        while self._exchange.wait_due():
            self.step()

    def step(self) -> bool:
        """Deliver the next due batch and tell whether there was one."""
        receipt = self._exchange.begin()
        if receipt is None:
            return False
        batch = receipt.batch
        delivered = self._delivery.deliver(batch)
        self._observer.delivered(batch, delivered)
        self._exchange.finish(receipt)
        log.info(
            "batch_written",
            number=batch.number,
            trigger=batch.trigger,
            rows=delivered.rows,
            dead_lettered=delivered.dead_lettered,
            bytes=delivered.nbytes,
            decode_s=round(delivered.decode_s, 3),
            write_s=round(delivered.write_s, 3),
            ranges=[str(span) for span in batch.ranges[:8]],
        )
        return True
