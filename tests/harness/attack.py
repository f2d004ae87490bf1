"""Attack a pipeline while records keep coming, and tell afterwards whether one is lost or there twice.

with Scene(broker, target, tmp_path, topic=topic, group=group, delivery="exactly-once", workers=2) as scene:
    scene.start()                               # both workers, and a live producer
    first = scene.workers[0]
    first.running.wait_for("batch_written", count=3)
    first.kill()                                # or suspend(), resume(), drain()
    first.start(CRASH_AT="after_write:2")       # see crash_points
    assert first.died()
    first.start()
    verdict = scene.settle()                    # everything committed, SIGTERM, exit 0
assert verdict.exact, verdict

`kill_loop` does the like so many times. Workers have a static membership (`--kafka.instance`) unless told otherwise:
without, the group keeps a dead one's partitions back until its session ends, and most kills would hit a process that
owns nothing. Batches are small and cut by time and by rows, so that a successor would cut them elsewhere.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, Self

from batcher.dead_letters.directory import read_letters
from batcher.records import Partition
from batcher.testing.kafka import Broker
from tests.harness.census import committed_offsets, offsets_below
from tests.harness.live_orders import LiveOrders
from tests.harness.patience import PATIENCE_S
from tests.harness.processes import BatcherProcess, Event
from tests.harness.targets import Target
from tests.harness.verdict import Deeds, Verdict, judged

SESSION_MS: Final = 6_000
"""The shortest session that a broker with default settings accepts."""

SMALL_BATCHES: Final = ("--batch.max-rows", "1000", "--batch.max-wait", "100ms")
"""Mostly cut by time, and by rows after some seconds of absence: batches of full size would be cut the same again."""


class Worker:
    """Run one process of a group again and again with the same flags, and remember what each run logged.

    `kills` and `stops` count what was done to it; a kill that it did to itself at a crash point counts too.
    """

    def __init__(self, name: str, flags: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._environment = environment or {}
        self.kills = 0
        self.stops = 0
        self.hit: Counter[str] = Counter()
        """How often each crash point killed it."""
        self._flags = tuple(flags)
        self._runs: list[BatcherProcess] = []

    @property
    def running(self) -> BatcherProcess:
        """Return the present run, or the last one; raise RuntimeError before the first."""
        if not self._runs:
            raise RuntimeError(f"{self.name} has not been started")
        return self._runs[-1]

    @property
    def alive(self) -> bool:
        """Return whether it runs, frozen or not."""
        return bool(self._runs) and self.running.exit_code is None

    @property
    def runs(self) -> Sequence[Sequence[Event]]:
        """Return the events of each run, oldest first."""
        return [run.events for run in self._runs]

    def start(self, **traps: str) -> BatcherProcess:
        """Start it, with traps as `crash_points` has them: `start(CRASH_AT="after_write:2")`."""
        environment = {**self._environment, **traps}
        module = "tests.harness.crash_points" if environment else "batcher"
        self._runs.append(BatcherProcess(*self._flags, environment=environment, module=module))
        self.running.start()
        return self.running

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.alive:
            self.kills += 1
        self.running.kill()

    def suspend(self) -> None:
        """Freeze it."""
        self.stops += 1
        self.running.suspend()

    def resume(self) -> None:
        """Let it go on."""
        self.running.resume()

    def died(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until a crash point has killed it and return whether that happened within the time.

        Raise RuntimeError when it ended in another way.
        """
        deadline = time.monotonic() + timeout_s
        while self.running.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.01)
        code = self.running.exit_code
        if code is None:
            return False
        self.running.kill()  # reads the rest of its log
        if code != -signal.SIGKILL:
            raise RuntimeError(f"{self.name} ended with {code} instead\n{self.running.stderr[-3000:]}")
        self.kills += 1
        self.hit.update([self.running.named("crash_point")[-1]["point"]])
        return True

    def drain(self, timeout_s: float = PATIENCE_S) -> Mapping[str, object]:
        """Stop it in good order and return its summary; raise RuntimeError unless it ends with 0."""
        # Before that a signal ends the interpreter, whatever is installed later.
        self.running.wait_for("pipeline_started", timeout_s=timeout_s)
        self.running.signal(signal.SIGTERM)
        code = self.running.wait(timeout_s)
        if code != 0:
            raise RuntimeError(f"{self.name} ended with {code}\n{self.running.stderr[-3000:]}")
        return self.running.summary

    def end(self) -> None:
        """Make sure that nothing of it runs, without counting."""
        for run in self._runs:
            run.kill()


class Scene:
    """Hold a topic with a live producer, a group of workers that load it into a target, and the truth about both.

    The topic has to be there, empty, with `partitions`; `directory` is for dead letters. `flags` come last, so they
    win. `static` gives workers a static membership. With `slow_writes_s` each write takes up to so much longer.
    Everything random comes from `seed`.
    """

    def __init__(
        self,
        broker: Broker,
        target: Target,
        directory: Path,
        *,
        topic: str,
        group: str,
        delivery: str,
        partitions: int = 3,
        workers: int = 1,
        rate: float = 2_000,
        static: bool = True,
        flags: Sequence[str] = (),
        slow_writes_s: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.broker = broker
        self.target = target
        self.topic = topic
        self.group = group
        self.seed = seed
        self.random = Random(seed)  # nothing here is secret
        self.orders = LiveOrders(broker, topic, partitions, rate=rate, seed=seed)
        self._letters = directory / "letters"
        self._static = static
        self._environment = {"SLOW_WRITES": str(slow_writes_s)} if slow_writes_s else {}
        self._flags = (
            *("-b", broker.bootstrap, "-t", topic, "-g", group, "--delivery", delivery),
            *("-X", f"session.timeout.ms={SESSION_MS}", "-X", "heartbeat.interval.ms=500"),
            *("--dlq.path", str(self._letters), *SMALL_BATCHES, *target.arguments, *flags),
        )
        self.workers = [self.worker(f"worker-{number}") for number in range(workers)]

    def __enter__(self) -> Self:
        self.orders.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        for worker in self.workers:
            worker.end()
        self.orders.__exit__()

    def worker(self, name: str, *flags: str) -> Worker:
        """Return one more worker, not started; the caller puts it into `workers` if it is to be counted."""
        instance = ("--kafka.instance", f"{self.group}-{name}") if self._static else ()
        return Worker(name, (*self._flags, *instance, *flags), self._environment)

    def start(self) -> None:
        """Start all workers and return when each has written a batch."""
        for worker in self.workers:
            worker.start()
        for worker in self.workers:
            worker.running.wait_for("batch_written")

    def settle(self, timeout_s: float = 120.0) -> Verdict:
        """Bring everything to its end and return the verdict.

        No more is produced; workers that are down are started; when all offsets are committed each gets a SIGTERM.
        Raise RuntimeError when a worker ends by itself or not with 0, TimeoutError when it takes longer.
        """
        self.orders.stop()
        for worker in self.workers:
            if not worker.alive:
                worker.start()
        deadline = time.monotonic() + timeout_s
        everything = offsets_below({part: end for part, end in self.broker.ends(self.topic).items() if end})
        while (done := committed_offsets(self.broker, self.group, everything)) != everything:
            for worker in self.workers:
                if not worker.alive:
                    worker.running.kill()
                    raise RuntimeError(f"{worker.name} has ended by itself\n{worker.running.stderr[-3000:]}")
            if time.monotonic() > deadline:
                logs = "\n".join(worker.running.stderr[-2000:] for worker in self.workers)
                raise TimeoutError(f"committed {done} of {everything} within {timeout_s:.0f} s\n{logs}")
            time.sleep(0.1)
        for worker in self.workers:
            worker.drain()
        return self.verdict()

    def verdict(self) -> Verdict:
        """Return what is true now; `settle` calls it at the end."""
        loaded = self.target.loaded()
        letters = [
            (Partition(letter["topic"], letter["partition"]), letter["offset"])
            for letter in read_letters(self._letters)
        ]
        deeds = Deeds(
            seed=self.seed,
            kills=sum(worker.kills for worker in self.workers),
            stops=sum(worker.stops for worker in self.workers),
            hit=sum((worker.hit for worker in self.workers), Counter()),
            runs=[run for worker in self.workers for run in worker.runs],
        )
        return judged(self.orders.ids, self.orders.poison, loaded, letters, deeds)
