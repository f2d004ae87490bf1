"""The write loop: makes a batch durable, and only then asks for its commit.

Several threads may run one loop. Each takes a batch that has no partition in common with those of the others.
"""

from __future__ import annotations

import structlog

from batcher.core.in_flight import BatchInFlight
from batcher.core.offsets import LawBroken
from batcher.engine.shared import SharedState
from batcher.engine.sizer import Sizer
from batcher.engine.writer import Writer
from batcher.errors import BatcherError, BatchSuperseded
from batcher.records import Batch, Delivered
from batcher.telemetry.events import BatchWritten, Events, TimeSpent

log = structlog.get_logger(__name__)


class WriteLoop:
    """Write decoded batches. `step` does one, `run` goes on until there will be nothing more. Any number of threads.

    Any error of the writer ends a run, and nothing more is begun; what other threads write comes to its end. `target`
    is the name of the target, empty where there is only one.
    """

    def __init__(
        self,
        shared: SharedState,
        writer: Writer,
        events: Events,
        sizer: Sizer | None = None,
        *,
        target: str = "",
    ) -> None:
        self._shared = shared
        self._writer = writer
        self._reconciler = writer.reconciler
        self._events = events
        self._sizer = sizer
        self._target = target

    def run(self) -> None:
        """Write until there will be nothing more to write."""
        while self._shared.wait_write_due():
            self.step()

    def step(self) -> bool:
        """Write the next decoded batch and return whether there was one."""
        self._check_existing()
        with self._shared.changing() as state:
            one = state.next_write(self._shared.clock())
        if one is None or one.prepared is None:
            return False
        try:
            self._finished(one, self._writer.write(one.prepared, lambda: self._shared.wait_held(one)))
        except BatchSuperseded:
            batch = one.batch
            log.warning("batch_superseded", number=batch.number, ranges=[str(span) for span in batch.ranges[:8]])
            with self._shared.changing() as state:
                state.hand_back(one, self._shared.clock())
        except BatcherError:
            # At once with the end: the next batch of its partitions must not be begun by another thread.
            self._shared.halt(one)
            raise
        return True

    def _finished(self, one: BatchInFlight, delivered: Delivered) -> None:
        batch = one.batch
        found = delivered.written + delivered.suppressed + delivered.dead_lettered + delivered.skipped
        found += delivered.released
        if found != batch.rows:
            raise LawBroken(f"{batch.ranges[0]}: {found} of {batch.rows} records accounted for; please report this")
        self._events.publish(TimeSpent("decode", delivered.decode_s - delivered.transform_s))
        if delivered.transform_s:
            self._events.publish(TimeSpent("transform", delivered.transform_s))
        self._events.publish(TimeSpent("write", delivered.write_s))
        self._events.publish(BatchWritten(batch, delivered, self._target))
        # Before another thread may begin the next batch of these partitions: the lines of each come in its order.
        _log_written(batch, delivered, self._target)
        with self._shared.changing() as state:
            state.finished(one, self._shared.clock(), delivered.releases)
        if self._sizer is not None:
            self._sizer.wrote()

    def _check_existing(self) -> None:
        """Check whether the target holds records of new partitions that were never announced, before any are."""
        with self._shared.asking() as state:
            positions, epochs = state.take_unchecked()
        if not positions:
            return
        found = self._reconciler.max_offset_above(positions)
        if found:
            # While the target was asked, another process may have taken over and gone on writing.
            ours = self._shared.wait_confirmed({partition: epochs[partition] for partition in found})
            self._reconciler.check_existing(positions, {partition: found[partition] for partition in ours})
        with self._shared.changing() as state:
            state.mark_checked(epochs)


def _log_written(batch: Batch, delivered: Delivered, target: str) -> None:
    log.info(
        "batch_written",
        number=batch.number,
        trigger=batch.trigger,
        replayed=batch.replayed,
        rows=delivered.rows,
        dead_lettered=delivered.dead_lettered,
        suppressed=delivered.suppressed,
        **({"released": delivered.released} if delivered.released else {}),
        **({"filtered": delivered.filtered} if delivered.filtered else {}),
        **({"paused": delivered.paused} if delivered.paused else {}),
        bytes=delivered.nbytes,
        decode_s=round(delivered.decode_s, 3),
        write_s=round(delivered.write_s, 3),
        ranges=[str(span) for span in batch.ranges[:8]],
        **({"target": target} if target else {}),
    )
