"""A process that calls a handler for a process pool: `python -m batcher.handler.child CONNECTION MEMORY`.

Both are file descriptors. The first is a connection to the parent, and its end ends the process. First comes where the
handler is, which is answered by an empty text or by what is wrong. Then come jobs. Of the calls of a job only outcomes
that have something to say are sent, then None. What the memory says about each call survives the process: so the parent
knows which call it was that killed it, and which had come to their end.
"""

from __future__ import annotations

import mmap
import signal
import struct
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from batcher.handler.call import Results, called, holds_back
from batcher.handler.function import HandlerFault, HandlerPlace, checked, found, made
from batcher.handler.message import Message

MAX_JOB: Final = 64
"""The calls of a job at most."""

STOP: Final = 0
"""The cell that is not 0 when no further call is to begin. The cells of the calls come behind it."""

RUNNING: Final = -1.0
"""A cell is 0 before the call, this during it, and its seconds afterwards, which are more than 0."""

LEAST_S: Final = 1e-9

MEMORY_BYTES: Final = (1 + MAX_JOB) * struct.calcsize("f")


class ChildTask(NamedTuple):
    """Say what a process is for. `paths` are where its parent looks for modules."""

    place: HandlerPlace
    paths: tuple[str, ...]
    as_list: bool
    max_attempts: int


class ChildJob(NamedTuple):
    """Hold the calls of a job, each with the arguments of its messages.

    With `ordered` none follows a message that comes again.
    """

    units: list[list[tuple[Any, ...]]]
    ordered: bool


def main() -> None:
    """Serve the parent until it closes the connection."""
    # The parent decides when to end: a Ctrl-C or a stop of a whole group is no reason to kill a call.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Connection(int(sys.argv[1])) as parent, mmap.mmap(int(sys.argv[2]), MEMORY_BYTES) as memory:
        cells = memoryview(memory).cast("f")
        try:
            _serve(parent, cells)
        except (EOFError, OSError):  # the parent is gone, or has closed the pool
            pass
        finally:
            cells.release()


def _serve(parent: Connection, cells: memoryview[float]) -> None:
    task: ChildTask = parent.recv()
    sys.path[:] = [*sys.path, *(path for path in task.paths if path not in sys.path)]
    try:
        handler = found(task.place)
        checked(handler, as_list=task.as_list)
        call = made(handler)
    except HandlerFault as fault:
        parent.send(str(fault))
        return
    parent.send("")
    while True:
        job: ChildJob = parent.recv()
        _run(job, task, call, parent, cells)
        parent.send(None)


def _run(
    job: ChildJob, task: ChildTask, call: Callable[[Any], object], parent: Connection, cells: memoryview[float]
) -> None:
    for number, rows in enumerate(job.units):
        if cells[STOP]:
            return
        unit = [Message(*row) for row in rows]
        cells[1 + number] = RUNNING
        began = time.perf_counter()
        results = called(call, unit, as_list=task.as_list)
        seconds = max(time.perf_counter() - began, LEAST_S)
        if any(results):
            parent.send((number, list(results)))
        cells[1 + number] = seconds
        if job.ordered and _held(results, unit, task.max_attempts):
            return


def _held(results: Results, unit: list[Message], max_attempts: int) -> bool:
    pairs = zip(results, unit, strict=True)
    return any(holds_back(result, message.attempt, max_attempts) for result, message in pairs)


if __name__ == "__main__":
    main()
