"""Attack pipelines that load an embedded queue while messages keep coming, and count what has arrived.

with QueueScene(target, tmp_path, workers=2) as scene:
    scene.start()                          # all workers, and a live publisher
    kill_loop(scene, 6, WITH_INTENTS)
    end = scene.settle()                   # everything committed, SIGTERM, exit 0
assert end.census.exact, end
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Self

from batcher.dead_letters.directory import read_letters
from batcher.demo.queue import QueueOrders
from batcher.records import Partition
from batcher.sources.queue.file import QueueShape, create
from batcher.sources.queue.reader import QueueReader
from tests.harness.attack import SMALL_BATCHES, Worker
from tests.harness.census import Census, Coordinate
from tests.harness.patience import wait_for
from tests.harness.targets import Target

LANES = 4
NAME = "orders"
GROUP = "loaders"


class QueueVerdict(NamedTuple):
    """Say what has arrived, and how much was done to get it wrong."""

    census: Census
    rows: int
    kills: int
    replays: int


class QueueScene:
    """Hold a queue with a live publisher and workers that load it; `flags` come last, so they win."""

    def __init__(
        self,
        target: Target,
        directory: Path,
        *,
        workers: int = 2,
        rate: float = 1_500,
        flags: Sequence[str] = (),
        seed: int = 1,
    ) -> None:
        self.target = target
        self.seed = seed
        self.path = directory / "orders.db"
        create(self.path, QueueShape(NAME, lanes=LANES)).close()
        self.orders = QueueOrders(self.path, 1 << 40, rate)
        self._letters = directory / "letters"
        self._flags = (
            *("--source", "queue", "--queue.path", str(self.path), "--queue.group", GROUP),
            *("--dlq.path", str(self._letters), *SMALL_BATCHES, *target.arguments, *flags),
        )
        self.workers = [self.worker(f"worker-{number}") for number in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.orders.stop()
        for worker in self.workers:
            worker.end()

    def worker(self, name: str) -> Worker:
        """Return one more worker, not started; the caller puts it into `workers` if it is to be counted."""
        return Worker(name, self._flags)

    def start(self) -> None:
        """Start the publisher and all workers, and return when each has written a batch."""
        self.orders.start()
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            worker.running.wait_for("batch_written")

    def settle(self, timeout_s: float = 120.0) -> QueueVerdict:
        """Bring everything to its end: publish no more, start who is down, wait for the last commit, and count."""
        self.orders.stop()
        assert not self.orders.error
        for worker in self.workers:
            if not worker.alive:
                worker.start()
        with closing(QueueReader(self.path, GROUP)) as reader:
            lanes = reader.open()
            ends = {lane: reader.watermarks(lane)[1] for lane in lanes}
            wait_for(
                lambda: {lane: at.next_offset for lane, at in reader.committed(lanes).items()} == ends,
                "the last commit",
                timeout_s,
            )
        for worker in self.workers:
            worker.drain()
        found = self.target.loaded().coordinates
        produced = {Partition(NAME, lane): offsets for lane, offsets in enumerate(self.orders.offsets)}
        events = [event for worker in self.workers for run in worker.runs for event in run]
        return QueueVerdict(
            Census.of(produced, found, self._refused()),
            len(found),
            sum(worker.kills for worker in self.workers),
            sum(event["event"] == "batch_written" and event["replayed"] for event in events),
        )

    def _refused(self) -> Iterator[Coordinate]:
        # A process that is killed between its letters and its commit sends them again.
        yield from {(Partition(one["topic"], one["partition"]), one["offset"]) for one in read_letters(self._letters)}
