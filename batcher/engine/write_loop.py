"""The flusher: brings a batch to a durable end when it is due, and only then asks for its commit.

Two threads, so that a batch is decoded while the one before it is written: the *decoder* takes a batch when it is due,
the *flusher* writes it. Batches keep their order.
"""

from __future__ import annotations

import structlog

from batcher.core.offsets import LawBroken
from batcher.core.sizing import Pace
from batcher.engine.shared import Exchange
from batcher.engine.writer import Delivery
from batcher.errors import BatchSuperseded
from batcher.telemetry.observer import Observer

log = structlog.get_logger(__name__)


class Flusher:
    """Deliver due batches. `prepare` and `write` do one batch each; the two `run…` go on until there is nothing more.

    Whatever the delivery raises ends a run.
    """

    def __init__(self, exchange: Exchange, delivery: Delivery, observer: Observer, pace: Pace | None = None) -> None:
        self._exchange = exchange
        self._delivery = delivery
        self._observer = observer
        self._pace = pace

    def run_decoder(self) -> None:
        """Decode until there will be nothing more to decode."""
        while self._exchange.wait_due():
            self.prepare()

    def run(self) -> None:
        """Write until there will be nothing more to write."""
        while self._exchange.wait_ready():
            self.write()

    def prepare(self) -> bool:
        """Decode the next due batch and tell whether there was one."""
        receipt = self._exchange.begin()
        if receipt is None:
            return False
        self._exchange.ready(receipt, self._delivery.prepare(receipt.batch))
        return True

    def write(self) -> bool:
        """Write the next decoded batch and tell whether there was one."""
        self._check_newcomers()
        head = self._exchange.head()
        if head is None:
            return False
        receipt, prepared = head
        batch = receipt.batch
        try:
            delivered = self._delivery.write(prepared, lambda: self._exchange.wait_held(receipt))
        except BatchSuperseded:
            log.warning("batch_superseded", number=batch.number, ranges=[str(span) for span in batch.ranges[:8]])
            self._exchange.hand_back(receipt)
            return True
        found = delivered.written + delivered.suppressed + delivered.dead_lettered + delivered.skipped
        if found != batch.rows:
            raise LawBroken(f"{batch.ranges[0]}: {found} of {batch.rows} records accounted for; please report this")
        self._observer.delivered(batch, delivered)
        self._exchange.finish(receipt)
        if self._pace is not None:
            self._pace.wrote()
        log.info(
            "batch_written",
            number=batch.number,
            trigger=batch.trigger,
            replayed=batch.replayed,
            rows=delivered.rows,
            dead_lettered=delivered.dead_lettered,
            suppressed=delivered.suppressed,
            bytes=delivered.nbytes,
            decode_s=round(delivered.decode_s, 3),
            write_s=round(delivered.write_s, 3),
            ranges=[str(span) for span in batch.ranges[:8]],
        )
        return True

    def _check_newcomers(self) -> None:
        """Look whether the target holds records of new partitions that nobody announced, before we announce any."""
        positions, epochs = self._exchange.newcomers()
        if not positions:
            return
        found = self._delivery.beyond(positions)
        if found:
            # While the target was asked, somebody else may have taken over and written on.
            ours = self._exchange.wait_confirmed({partition: epochs[partition] for partition in found})
            self._delivery.judge(positions, {partition: found[partition] for partition in ours})
        self._exchange.cleared(epochs)
