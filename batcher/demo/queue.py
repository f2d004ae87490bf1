"""The demo's embedded queue: a file in its directory, and the orders that are published to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from batcher.demo.log import GROUP, PARTITIONS, TICK_S, TOPIC, DemoOrders
from batcher.errors import BatcherError
from batcher.protocols import Outgoing
from batcher.records import Partition
from batcher.sources.queue.file import QueueShape, create, opened
from batcher.sources.queue.publisher import QueuePublisher
from batcher.sources.queue.reader import QueueReader

MAX_LOT: Final = 5_000


class SmallQueue:
    """Make the queue in a directory (see `DemoLog`)."""

    name = "queue"
    own_name = "a queue of your own"
    rejoin: Sequence[str] = ()

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"{TOPIC}.db"
        create(self._path, QueueShape(TOPIC, lanes=PARTITIONS)).close()
        self._reader = QueueReader(self._path, GROUP)
        self._partitions: Sequence[Partition] = self._reader.open()
        self.told = f"Queue: one SQLite file, {self._path}, {PARTITIONS} lanes"
        self.flags: Sequence[str] = ("--source", "queue", "--queue.path", str(self._path), "--queue.group", GROUP)
        own = directory / "my-orders.db"
        self.own_orders: Sequence[str] = ("--to", "queue", "--queue.path", str(own))
        self.own_flags: Sequence[str] = ("--source", "queue", "--queue.path", str(own), "--queue.group", "my-group")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._reader.close()

    def committed(self) -> list[int]:
        """Return the next offset of each lane that the pipeline has committed."""
        found = self._reader.committed(self._partitions)
        return [found[one].next_offset if one in found else 0 for one in self._partitions]

    def orders(self, count: int, rate: float) -> DemoOrders:
        """Return the orders, not begun."""
        return QueueOrders(self._path, count, rate)


class QueueOrders(DemoOrders):
    """Publish made-up orders. What is in the file can wait there, so nothing is throttled."""

    def __init__(self, path: Path, count: int, rate: float) -> None:
        super().__init__(count, rate)
        self._path = path

    def _append_all(self) -> None:
        try:
            self._publish_all()
        except BatcherError as error:
            self.error = str(error)

    def _publish_all(self) -> None:
        publisher = QueuePublisher(opened(self._path))
        started, made = time.monotonic(), 0
        try:
            while made < self._count and not self._stop.wait(TICK_S):
                due = int((time.monotonic() - started) * self._rate) - made
                lot = self._generator.take(min(due, MAX_LOT, self._count - made))
                for id_ in publisher.store([Outgoing(event) for event in lot]).ids:
                    lane, _, offset = id_.partition("-")
                    self.offsets[int(lane)].append(int(offset))
                made += len(lot)
        finally:
            publisher.close()
