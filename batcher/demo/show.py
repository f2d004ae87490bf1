"""Play the demo: start everything, kill the pipeline once, let another one finish, and count."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.dead_letters.directory import read_letters
from batcher.demo.audit import Sums, audit
from batcher.demo.kafka import SmallKafka
from batcher.demo.log import POISON, DemoLog, DemoOrders
from batcher.demo.queue import SmallQueue
from batcher.demo.targets import Answer, ClickHouseTarget, DemoTarget, ParquetTarget
from batcher.demo.view import DemoProgress, DemoView
from batcher.demo.worker import DemoWorker, Event, typed
from batcher.embedded.jars import Unavailable
from batcher.errors import BatcherError, Unreachable

PRODUCE_S: Final = 10.0
"""How long the orders come in, if the pipeline keeps up."""

MIN_RATE: Final = 5_000.0
MAX_RATE: Final = 50_000.0

KILL_AFTER: Final = 0.3
"""The share of the orders that is written before the pipeline is killed."""

STALL_S: Final = 60.0
"""Give up when nothing is committed for this long; a restart takes 4 s, 6 s with both cores busy (measured)."""

DRAIN_S: Final = 40.0
"""More than the stop timeout of the pipeline."""

LOOK_S: Final = 0.1


class PipelineFailed(BatcherError):
    """Report that the pipeline ended by itself, or made no progress; `exit_code` is the pipeline's own."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # the pipeline's, not one for the class


@dataclass(frozen=True, slots=True)
class Result:
    """Hold the count, how often the pipeline was killed, how many batches its successor wrote again, and its end."""

    sums: Sums
    kills: int
    replayed: int
    drained: bool
    seconds: float
    directory: Path

    @property
    def exit_code(self) -> int:
        """Return 0 if the sums fit and the pipeline drained, else 1."""
        return 0 if self.sums.fits and self.drained else 1

    def facts(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "produced": self.sums.produced,
            "poison": self.sums.poison,
            "written": self.sums.written,
            "dead_lettered": self.sums.dead_lettered,
            "lost": self.sums.lost,
            "duplicated": self.sums.duplicated,
            "replayed": self.replayed,
            "dead_letters_duplicated": self.sums.dead_letters_duplicated,
            "kills": self.kills,
            "seconds": round(self.seconds, 3),
            "directory": str(self.directory),
            "exit": self.exit_code,
        }


class Show:
    """Play once into an empty `directory`. Raise BatcherError when something does not start or does not go on."""

    def __init__(self, sink: str, records: int, directory: Path, view: DemoView, source: str = "kafka") -> None:
        self._source = source
        self._target: DemoTarget = ClickHouseTarget(directory) if sink == "clickhouse" else ParquetTarget(directory)
        self._records = records
        self._directory = directory
        self._letters = directory / "dead-letters"
        self._log = directory / "pipeline.log"
        self._view = view
        self._kills = 0
        self._batches = 0
        self._replayed = 0
        self._suppressed = 0
        self._durable = (0, 0.0)

    def play(self) -> Result:
        """Play and return the result."""
        started = time.monotonic()
        view = self._view
        name = "Kafka" if self._source == "kafka" else "an embedded queue"
        view.title(f"batcher demo: {name} into {self._target.name}, with a crash in the middle")
        with self._log_of_orders() as log:
            view.step(log.told)
            self._target.prepare()
            view.step(f"Target: {self._target.name}, {self._target.place}")
            orders, drained = self._load(log)
        rows, answer = self._target.read()
        result = Result(
            audit(orders.offsets, orders.poisoned, rows, read_letters(self._letters)),
            self._kills,
            self._replayed,
            drained,
            time.monotonic() - started,
            self._directory,
        )
        self._tell(result, answer, log)
        return result

    def _log_of_orders(self) -> DemoLog:
        if self._source == "queue":
            return SmallQueue(self._directory)
        try:
            return SmallKafka()
        except Unavailable as error:
            raise Unreachable(f"the demo's Kafka cannot start: {error}") from error

    def _load(self, log: DemoLog) -> tuple[DemoOrders, bool]:
        rate = min(max(self._records / PRODUCE_S, MIN_RATE), MAX_RATE)
        orders = log.orders(self._records, rate)
        view, command = self._view, self._command(log)
        try:
            with self._worker(command) as worker:
                view.step(f"Pipeline: a process of its own, pid {worker.pid}", *_lines(command))
                self._until_open(worker)
                view.step(f"Orders: {self._records:,} at {rate:,.0f} a second, {POISON:.1%} of them broken on purpose")
                orders.start()
                with view.following():
                    rows = self._until_kill(log, orders, worker)
                    view.step(
                        f"kill -9 {worker.pid} at the worst moment: {rows:,} orders just written, not yet committed",
                        style="bold red",
                    )
                    worker.wait(DRAIN_S)
                    with self._worker(command) as successor:
                        view.step(f"The same command again, pid {successor.pid}: it goes on at the last commit")
                        self._until_done(log, orders, successor)
                        successor.stop()
                        code = successor.wait(DRAIN_S)
            ending = "did not end in time" if code is None else f"exit code {code}"
            view.step(f"SIGTERM once everything is committed: the pipeline drains and ends, {ending}")
        finally:
            orders.stop()
        return orders, code == 0

    def _command(self, log: DemoLog) -> list[str]:
        return [*self._target.flags, *log.flags, "--dlq.path", str(self._letters), *log.rejoin]

    @contextmanager
    def _worker(self, command: list[str]) -> Iterator[DemoWorker]:
        worker = DemoWorker(command, self._log)
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait(DRAIN_S)
            self._batches += worker.batches

    def _until_open(self, worker: DemoWorker) -> None:
        deadline = time.monotonic() + STALL_S
        while (event := worker.next_event(LOOK_S)) is None or event["event"] != "pipeline_started":
            self._check(worker, event)
            if time.monotonic() > deadline:
                raise self._failed("did not start")

    def _until_kill(self, log: DemoLog, orders: DemoOrders, worker: DemoWorker) -> int:
        written = 0
        while True:
            event = worker.next_event(LOOK_S)
            if event is not None and event["event"] == "batch_written":
                written += int(event["rows"])
                if written >= KILL_AFTER * self._records:
                    # The commit of this batch comes within milliseconds, so nothing else is checked before.
                    worker.kill()
                    self._kills += 1
                    return int(event["rows"])
            self._look(log, orders, worker, event)

    def _until_done(self, log: DemoLog, orders: DemoOrders, worker: DemoWorker) -> None:
        everything = False
        while not everything:
            done = orders.done  # asked first: afterwards no more are confirmed
            everything = self._look(log, orders, worker, worker.next_event(LOOK_S)) >= orders.confirmed and done
        self._view.progress(self._progress(orders, worker, orders.confirmed), final=True)

    def _look(self, log: DemoLog, orders: DemoOrders, worker: DemoWorker, event: Event) -> int:
        """Show the numbers and return how many orders are committed; raise where there is no progress any more."""
        self._check(worker, event)
        if event is not None and event["event"] == "batch_written" and event["replayed"]:
            self._replayed += 1
            self._suppressed += int(event["suppressed"])
        if orders.error:
            raise Unreachable(f"the demo's {log.name} does not take orders any more: {orders.error}")
        now = time.monotonic()
        loaded = sum(log.committed())
        if loaded > self._durable[0] or not self._durable[1]:
            self._durable = (loaded, now)
        elif now - self._durable[1] > STALL_S:
            raise self._failed(f"has committed nothing for {STALL_S:.0f} s")
        self._view.progress(self._progress(orders, worker, loaded))
        return loaded

    def _progress(self, orders: DemoOrders, worker: DemoWorker, loaded: int) -> DemoProgress:
        return DemoProgress(
            wanted=self._records,
            produced=orders.confirmed,
            loaded=loaded,
            dead_letters=self._refused(),
            batches=self._batches + worker.batches,
            pipeline=f"pid {worker.pid} {worker.state}",
            throttled=orders.throttled and not orders.done,
        )

    def _refused(self) -> int:
        return len({(letter["partition"], letter["offset"]) for letter in read_letters(self._letters)})

    def _check(self, worker: DemoWorker, event: Event) -> None:
        if event is not None and event["event"] == "":
            code = worker.wait(DRAIN_S)
            raise self._failed(f"ended with exit code {code}: {worker.last_words}", code or 1)

    def _failed(self, what: str, exit_code: int = 1) -> PipelineFailed:
        return PipelineFailed(f"the demo's pipeline {what}; its log is {self._log}", max(exit_code, 1))

    def _tell(self, result: Result, answer: Answer, log: DemoLog) -> None:
        view, sums = self._view, result.sums
        view.step("Counted in the target itself, by partition and offset of every row")
        view.sums(sums)
        view.verdict(sums, *self._explained(sums))
        view.answer(answer)
        if result.exit_code == 0:
            view.commands(self._next(log))
        view.note(f"Kept in {self._directory}: the data, the dead letters, and what the pipeline logged (pipeline.log)")

    def _explained(self, sums: Sums) -> list[str]:
        if not self._replayed or sums.duplicated:
            return []
        again = "1 batch" if self._replayed == 1 else f"{self._replayed} batches"
        there = (
            f"asked the table first and skipped {self._suppressed:,} rows that were there."
            if isinstance(self._target, ClickHouseTarget)
            else "and wrote the same files: each takes the place of the one before it."
        )
        return [
            "The killed process had announced, with its committed offsets, which ranges it was about to write.",
            f"Its successor read exactly these again ({again}), {there}",
        ]

    def _next(self, log: DemoLog) -> list[tuple[str, list[str]]]:
        own = ["run", *log.own_flags, "--until-eof", *self._target.own_flags, "--dlq.path"]
        groups = [
            ("Ask the target again:", [self._target.look(typed("python"))]),
            ("See what was refused, and why:", [f"head -n 3 {shlex.quote(str(self._letters))}/*.ndjson"]),
            (
                f"The same with {log.own_name}:",
                [
                    *_lines(["produce", *log.own_orders, "--create", "--count", "100000", "--poison", "0.001"]),
                    *_lines([*own, str(self._directory / "own-dead-letters")]),
                ],
            ),
        ]
        root = Path(__file__).parents[2]
        if (root / "Makefile").exists():
            groups.append(
                ("Run the tests:", ["make test" if root == Path.cwd() else f"make -C {shlex.quote(str(root))} test"])
            )
        return groups


def _lines(arguments: list[str]) -> list[str]:
    """Return a command line as people type it, broken where it gets long."""
    lines, line = [], typed("batcher")
    for word in arguments:
        flag = word.startswith("-")
        if flag and len(line) > 60:
            lines.append(f"{line} \\")
            line = " "
        line = f"{line} {shlex.quote(word)}"
    return [*lines, line]
