"""Let everything go wrong at random for as long as one likes, and watch the memory meanwhile.

with disturbed("cooperative-sticky", "ClickHouse", workers=2, static=True) as scene:
    scene.start()
    soak = Soak(scene, server)
    soak.rage(600)
    verdict = scene.settle()
assert verdict.exact, verdict
assert soak.growth_bytes < 64 << 20, soak

The broker is frozen, or killed and started again; inserts are answered late, wrongly or not at all; the disk of a
worker takes nothing for a while, its dead letters included; workers are killed, frozen and asked to leave. The first
worker is spared what would end it: its memory is the one that is measured. Disks and memory are Linux's.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Final

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.real_broker import RealBroker
from tests.harness.attack import Scene, Worker
from tests.harness.patience import wait_for

TICK_S: Final = 0.1

REST_S: Final = 1.5
"""The longest rest between two troubles."""

EXPLAINED: Final = frozenset({0, 69, 75, -signal.SIGKILL})
"""Exit codes of workers that were asked to leave, found no broker or target at their start, could not store a dead
letter, or were killed: nothing is lost, start it again."""

DELAY_S: Final = 3.0
"""Longer than the scene's inserts may take: the client has given up when the server stores the rows."""

FULL_S: Final = 4.0
"""How long a disk is full, unless the worker ends before."""


class Soak:
    """Make trouble for a scene that is running. `server` is that of its target, if it has one.

    `troubles` counts what was done, `ends` the exit codes that came of it; `rss` has the memory of the first worker in
    bytes, a sample a tick.
    """

    def __init__(self, scene: Scene, server: ClickHouseServer | None = None) -> None:
        self.troubles: Counter[str] = Counter()
        self.rss: list[int] = []
        self.ends: Counter[int] = Counter()
        self._scene = scene
        self._server = server
        self._random = scene.random
        self._steady, *self._others = scene.workers
        kinds: list[Callable[[], None]] = [self._kill, self._freeze, self._leave, self._full_disk]
        if isinstance(scene.broker, RealBroker):
            kinds += [self._freeze_broker, self._restart_broker]
        if server is not None:
            kinds += [self._wrong_answers, self._late_answers, self._lost_answers]
        self._kinds = kinds

    def __str__(self) -> str:
        done = ", ".join(f"{name} {count}" for name, count in sorted(self.troubles.items()))
        ends = ", ".join(f"{count} by {code}" for code, count in sorted(self.ends.items()))
        return f"{done}; ends {ends or 'none'}; memory {self._of(self.rss)}, grown by {self.growth_bytes >> 20} MiB"

    @property
    def growth_bytes(self) -> int:
        """Return by how much the last third of the samples is above the one before it; the first is for warming up."""
        third = len(self.rss) // 3
        if not third:
            return 0
        return int(median(self.rss[2 * third :]) - median(self.rss[third : 2 * third]))

    def rage(self, seconds: float) -> None:
        """Make trouble for so long, each kind once at least; then mend everything and wait until all workers write.

        Raise RuntimeError when a worker ends in a way that nothing done to it explains.
        """
        ends = time.monotonic() + seconds
        waiting: list[Callable[[], None]] = []
        while time.monotonic() < ends or waiting:
            if not waiting:
                # In turns, in a new order each time: a short form meets every kind as well.
                waiting = self._random.sample(self._kinds, len(self._kinds))
            trouble = waiting.pop()
            self.troubles[trouble.__name__.lstrip("_")] += 1
            trouble()
            self._pass(self._random.uniform(0.2, REST_S))
        self._mend()

    def _pass(self, seconds: float) -> None:
        """Let time pass, look after the workers, and take samples."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._look_after()
            with suppress(OSError, RuntimeError):
                self.rss.append(self._steady.running.memory_bytes())
            time.sleep(TICK_S)

    def _look_after(self) -> None:
        for worker in self._scene.workers:
            code = worker.running.exit_code
            if code is None:
                continue
            if code not in EXPLAINED or worker is self._steady:
                raise RuntimeError(f"{worker.name} ended with {code}\n{worker.running.stderr[-3000:]}")
            worker.running.kill()  # reads the rest of its log
            worker.start()
            self.ends[code] += 1

    def _victim(self) -> Worker:
        return self._random.choice(self._others)

    def _kill(self) -> None:
        self._victim().kill()

    def _freeze(self) -> None:
        worker = self._random.choice(self._scene.workers)
        worker.suspend()
        time.sleep(self._random.uniform(0.5, 3.0))
        worker.resume()

    def _leave(self) -> None:
        worker = self._victim()
        # Before that it does not listen yet.
        if worker.alive and worker.running.named("pipeline_started"):
            worker.running.signal(signal.SIGTERM)

    def _full_disk(self) -> None:
        """Let no file of a worker grow: what it writes fails, at its next poison a dead letter."""
        import resource  # not everywhere

        worker = self._victim()
        with suppress(ProcessLookupError, RuntimeError, TimeoutError):
            # At its start such a limit is a wrong setting, and ends it with 78 as it should.
            worker.running.wait_for("pipeline_started")
            soft, hard = resource.prlimit(worker.running.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(worker.running.pid, resource.RLIMIT_FSIZE, (0, hard))
            ends = time.monotonic() + FULL_S
            while worker.alive and time.monotonic() < ends:
                time.sleep(TICK_S)
            if worker.alive:
                resource.prlimit(worker.running.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def _freeze_broker(self) -> None:
        broker = self._real_broker
        broker.suspend()
        self._pass(self._random.uniform(0.5, 4.0))
        broker.resume()

    def _restart_broker(self) -> None:
        broker = self._real_broker
        broker.kill()
        self._pass(self._random.uniform(0.2, 1.0))
        broker.start()

    def _wrong_answers(self) -> None:
        if self._random.random() < 0.5:
            self._inserts.inject("status", code=self._random.choice((500, 503)), times=self._random.randint(1, 4))
        else:
            self._inserts.inject("exception", code=self._random.choice((241, 252, 202)), times=2)

    def _late_answers(self) -> None:
        self._inserts.inject("delay", delay_s=DELAY_S)

    def _lost_answers(self) -> None:
        self._inserts.inject(self._random.choice(("reset_before_apply", "reset_after_apply")))

    def _mend(self) -> None:
        before = {worker.name: (worker.running, len(worker.running.events)) for worker in self._scene.workers}

        def wrote(worker: Worker) -> bool:
            run, seen = before[worker.name]
            fresh = worker.running.events[seen:] if worker.running is run else worker.running.events
            return any(event["event"] == "batch_written" for event in fresh)

        def all_wrote() -> bool:
            self._look_after()
            return all(wrote(worker) for worker in self._scene.workers)

        wait_for(all_wrote, "all workers to write again", 120.0)

    @property
    def _real_broker(self) -> RealBroker:
        assert isinstance(self._scene.broker, RealBroker)
        return self._scene.broker

    @property
    def _inserts(self) -> ClickHouseServer:
        assert self._server is not None
        return self._server

    @staticmethod
    def _of(samples: list[int]) -> str:
        return f"{min(samples) >> 20} to {max(samples) >> 20} MiB" if samples else "not measured"
