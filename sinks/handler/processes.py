"""A pool of processes, each driven by a thread: it hands over calls, and replaces a process that died.

A record that kills its process costs no neighbour. Which call it was and which had come to their end is in memory that
both share (`batcher.handler.child`), so nothing is called a second time for the sake of another.
"""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

import structlog

from batcher.handler.call import CallOutcome, Result, timed_out
from batcher.handler.child import MAX_JOB, MEMORY_BYTES, RUNNING, STOP, ChildJob, ChildTask
from batcher.handler.function import HandlerFault
from sinks.handler.threads import WorkerThreads
from sinks.handler.timers import CallTimer
from sinks.handler.work import BlockWork, RowUnit

log = structlog.get_logger(__name__)

START_S: Final = 60.0
"""How long a process may take to import the handler."""

LEAVE_S: Final = 1.0
"""How long a process gets to end by itself when the pool is closed."""


MAX_UNSETTLED: Final = 3
"""How often in a row a process may die before it has begun a call: then the rest of the block is left for later."""


class HandlerProcess:
    """Own one process. Raise HandlerFault where it cannot call the handler. Used by one thread, except for `kill`."""

    def __init__(self, task: ChildTask) -> None:
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as file:
            file.truncate(MEMORY_BYTES)
            self._memory = mmap.mmap(file.fileno(), MEMORY_BYTES)
            command = [sys.executable, "-P", "-m", "batcher.handler.child", str(theirs.fileno()), str(file.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                command,
                pass_fds=(theirs.fileno(), file.fileno()),
                stdin=subprocess.DEVNULL,
                # A checkout that is not installed is found by the child as it was by us.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in task.paths if path)},
            )
        self._cells = memoryview(self._memory).cast("f")
        self._connection = Connection(ours.detach())
        self._task = task
        self._ready = False
        self._gone = False

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Return when the process has imported the handler. Raise HandlerFault where it cannot."""
        if self._ready:
            return
        fault = "its process died while importing it"
        with suppress(EOFError, OSError):
            self._connection.send(self._task)
            fault = self._connection.recv() if self._connection.poll(START_S) else f"was not imported in {START_S:g} s"
        if fault:
            raise HandlerFault(fault)
        self._ready = True

    def call(
        self, units: Sequence[Sequence[tuple[object, ...]]], *, ordered: bool, timeout_s: float | None
    ) -> list[tuple[list[Result], float]]:
        """Make some calls and return what became of each, with its seconds, for those that were begun.

        They end early behind a message that comes again, where they are `ordered`, and at a stop. Where the last one is
        a crash or a timeout the process is gone.
        """
        self._cells[1:] = _NOTHING
        sent: dict[int, list[Result]] = {}
        began = time.monotonic()
        late = died = False
        try:
            self._connection.send(ChildJob([list(unit) for unit in units], ordered))
            while not (late := not self._connection.poll(timeout_s)):
                answer = self._connection.recv()
                if answer is None:
                    break
                sent[answer[0]] = answer[1]
        except (EOFError, OSError):
            died = True
        if late:
            self.kill()
        self._gone = late or died
        found: list[tuple[list[Result], float]] = []
        for number, unit in enumerate(units):
            seconds = self._cells[1 + number]
            if seconds == 0.0 and not (late and number == 0):
                break
            if seconds in (0.0, RUNNING) and number not in sent:
                seconds = time.monotonic() - began
                outcome = timed_out(timeout_s) if late else CallOutcome("crash", self._death())
                found.append(([outcome] * len(unit), seconds))
                break
            found.append((sent.get(number, [None] * len(unit)), abs(seconds)))
        return found

    def stop(self) -> None:
        """Have no further call of a job begin. Any thread."""
        self._cells[STOP] = 1.0

    def kill(self) -> None:
        """End the process at once. Any thread."""
        self._process.kill()

    @property
    def dead(self) -> bool:
        """Return whether the process has ended, or is about to."""
        return self._gone or self._process.poll() is not None

    def close(self) -> None:
        """End the process: after its present call where that takes less than a second.

        The memory goes with this object: where calls were given up, a thread may still look into it.
        """
        self._connection.close()
        self._ended()

    def _ended(self) -> int:
        """Return the exit code, of a process that is about to end."""
        try:
            return self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def _death(self) -> str:
        code = self._ended()
        return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"


_NOTHING: Final = memoryview(bytes(MEMORY_BYTES)).cast("f")[1:]


class ProcessPool:
    """Call a handler in processes (`pool.CallPool`)."""

    def __init__(self, task: ChildTask, workers: int, *, timeout_s: float | None) -> None:
        self._task = task
        self._timeout_s = timeout_s
        self._workers = workers
        self._timers = [CallTimer() for _ in range(workers)]
        self._threads = WorkerThreads(workers, self._drive)
        self._processes: list[HandlerProcess | None] = [None] * workers
        self._changing = threading.Lock()
        self._closed = False

    @property
    def timers(self) -> Sequence[CallTimer]:
        return self._timers

    def start(self) -> None:
        for number in range(self._workers):
            try:
                self._processes[number] = HandlerProcess(self._task)
            except OSError as error:
                raise HandlerFault(f"cannot have {self._workers} processes: {error.strerror}") from error
        for process in self._processes:
            assert process is not None
            process.wait_ready()
        self._threads.start()

    def run(self, work: BlockWork) -> None:
        self._threads.run(work)

    def stop(self, work: BlockWork) -> None:
        work.stop()
        with self._changing:
            for process in filter(None, self._processes):
                process.stop()

    def give_up(self, work: BlockWork) -> None:
        work.stop(at_once=True)
        with self._changing:
            self._closed = True
            for process in filter(None, self._processes):
                process.kill()

    def close(self) -> None:
        with self._changing:
            self._closed = True
        self._threads.close()
        for number, process in enumerate(self._processes):
            self._processes[number] = None
            if process is not None:
                process.close()

    def _drive(self, number: int, work: BlockWork) -> None:
        unsettled = 0
        while (units := self._next(work)) is not None:
            while units:
                process = self._living(number)
                if process is None or work.stopping or unsettled == MAX_UNSETTLED:
                    return
                settled = self._call(number, process, work, units)
                if not settled:
                    unsettled += 1
                    continue
                unsettled = 0
                last, units = units[settled - 1], units[settled:]
                if work.holds_up(last):
                    break

    def _call(self, number: int, process: HandlerProcess, work: BlockWork, units: Sequence[RowUnit]) -> int:
        """Have some calls made and return how many were settled."""
        most = 1 if self._timeout_s is not None else MAX_JOB
        job = units[:most]
        rows = [[work.rows[row] for row in unit] for unit in job]
        found = process.call(rows, ordered=work.ordered, timeout_s=self._timeout_s)
        for unit, (results, seconds) in zip(job, found, strict=False):
            self._timers[number].observe(results, seconds)
            work.settle(unit, results)
        return len(found)

    def _next(self, work: BlockWork) -> Sequence[RowUnit] | None:
        """Return the units of one lane, or where there is no order of as many as make the way worth while."""
        lane = work.take()
        if lane is None or work.ordered or self._timeout_s is not None:
            return lane
        wanted = min(MAX_JOB, len(work.lanes) // (work.workers * 4))
        units = list(lane)
        while len(units) < wanted and (more := work.take()) is not None:
            units += more
        return units

    def _living(self, number: int) -> HandlerProcess | None:
        """Return the process of a worker, a new one where the last has died; None where there can be none."""
        process = self._processes[number]
        if process is not None and not process.dead:
            return process
        with self._changing:
            if self._closed:
                return None
            self._processes[number] = None
            if process is not None:
                process.close()
            try:
                process = self._processes[number] = HandlerProcess(self._task)
            except OSError as error:
                self._not_started(number, str(error.strerror))
                return None
        log.warning("handler_process_replaced", worker=number, pid=process.pid)
        try:
            process.wait_ready()
        except HandlerFault as fault:
            process.kill()
            self._not_started(number, str(fault))
            return None
        return process

    def _not_started(self, number: int, reason: str) -> None:
        # It is tried again with the next block.
        log.error("handler_process_not_started", worker=number, reason=reason)
