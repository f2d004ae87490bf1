"""Run batcher so that it dies, hangs or freezes at a named point: for tests only.

    CRASH_AT=after_write:3 python -m tests.harness.crash_points --sink parquet …

The arguments are those of `python -m batcher`. Classes are wrapped from outside when the process starts; what is
delivered to users has no such points and does not look at these variables. Each takes entries separated by commas:

    CRASH_AT=POINT[:N]          SIGKILL to itself at the N-th passing of the point (1 without N)
    STOP_AT=POINT[:N]           SIGSTOP to itself: the whole process freezes until somebody sends SIGCONT
    HANG_AT=POINT[:N]:SECONDS   only the thread that passes waits, the others go on
    SLOW_WRITES=SECONDS         each write takes up to so much longer, by chance, so that several are under way at once

Just before it acts the process logs an event `crash_point` with `point`, `action`, `passing` and, where one is being
written, the `ranges` of the batch; so `BatcherProcess.wait_for("crash_point")` works.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, NamedTuple

POINTS: Final[Mapping[str, str]] = {
    "before_intent": "a commit that carries intents, before it is sent",
    "after_intent": "the same, once it is stored",
    "before_columns": "the target is about to be given columns for new fields",
    "after_columns": "the target has them, and nothing with a value for them is written yet",
    "before_write": "the sink is about to write a block",
    "mid_write": "inside a write: between two files, half a request sent, or some milliseconds into an embedded insert",
    "before_answer": "a request over HTTP is sent whole, its answer not read; other sinks never pass here",
    "after_write": "the sink has written a block",
    "after_dead_letters": "the letters of a batch are stored",
    "before_commit": "a commit after a write, before it is sent",
    "after_commit": "the same, once it is stored",
    "in_revoke": "partitions are being taken away, nothing of them is finished yet",
    "during_replay": "an announced batch is about to be delivered again",
    "after_replay_write": "an announced batch was delivered again, its commit is still to come",
}
"""Every point, with what is passed there."""

MAX_EMBEDDED_DELAY_S: Final = 0.012
"""An insert of some hundred rows into chDB takes 5 to 15 ms; the kill comes from another thread meanwhile."""

Action = Literal["kill", "stop", "hang"]

_VARIABLES: Final[Mapping[str, Action]] = {"CRASH_AT": "kill", "STOP_AT": "stop", "HANG_AT": "hang"}


class Trap(NamedTuple):
    """Say what happens at which passing of a point; `seconds` is for a hang."""

    point: str
    action: Action
    passing: int = 1
    seconds: float = 0.0


def traps_of(environment: Mapping[str, str]) -> list[Trap]:
    """Return the traps that the variables describe; raise ValueError for what is none."""
    return [
        _trap(entry, action)
        for variable, action in _VARIABLES.items()
        for entry in environment.get(variable, "").split(",")
        if entry
    ]


def _trap(entry: str, action: Action) -> Trap:
    point, *numbers = entry.split(":")
    if point not in POINTS:
        raise ValueError(f"{point!r} is no crash point; known are {', '.join(POINTS)}")
    seconds = float(numbers.pop()) if action == "hang" else 0.0
    return Trap(point, action, int(numbers[0]) if numbers else 1, seconds)


class Points:
    """Count the passings of each point and act where a trap is set. For any thread."""

    def __init__(self, traps: Iterable[Trap], slow_writes_s: float = 0.0) -> None:
        self._traps = list(traps)
        self._slow_writes_s = slow_writes_s
        self._passed = dict.fromkeys(POINTS, 0)
        self._lock = threading.Lock()
        self._random = Random(f"{os.getpid()}")  # nothing here is secret
        self.written = False
        """Whether something was delivered since the last commit began."""
        self.ranges: list[str] = []
        """What is being delivered."""

    def at(self, point: str, delay_s: float = 0.0) -> None:
        """Pass a point; with a delay, the kill comes from another thread that much later."""
        with self._lock:
            self._passed[point] += 1
            passing = self._passed[point]
        for trap in self._traps:
            if trap.point == point and trap.passing == passing:
                if delay_s and trap.action == "kill":
                    threading.Thread(target=self._act, args=(trap, delay_s), daemon=True).start()
                else:
                    self._act(trap)

    def take_long(self) -> None:
        """Wait as long as a slow target would."""
        if self._slow_writes_s:
            time.sleep(self._random.uniform(0.0, self._slow_writes_s))

    def some_ms(self) -> float:
        """Return a delay, in seconds, that ends inside an embedded insert most of the time."""
        return self._random.uniform(0.0, MAX_EMBEDDED_DELAY_S)

    def _act(self, trap: Trap, delay_s: float = 0.0) -> None:
        time.sleep(delay_s)
        event = {"event": "crash_point", "point": trap.point, "action": trap.action, "passing": trap.passing}
        # One call, past all buffers: nothing comes after it.
        os.write(2, json.dumps({**event, "ranges": self.ranges}).encode() + b"\n")
        if trap.action == "hang":
            time.sleep(trap.seconds)
        else:
            os.kill(os.getpid(), signal.SIGKILL if trap.action == "kill" else signal.SIGSTOP)


Wrapper = Callable[..., Any]
"""A method that gets the one it stands for as its first argument."""


def wrap(owner: Any, name: str, around: Wrapper) -> None:
    """Put `around` in the place of a method or function; it is called with what was there, then the arguments."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(original, *arguments, **options)

    setattr(owner, name, wrapped)


def install(points: Points) -> None:
    """Wrap everything that has a point. The parts of a sink follow when it is made."""
    import sinks  # only when there is something to wrap
    from batcher.dead_letters.directory import DirectoryDeadLetterQueue
    from batcher.dead_letters.kafka import KafkaDeadLetterQueue
    from batcher.engine.fetch_loop import FetchLoop
    from batcher.engine.writer import Writer
    from batcher.sources.kafka.source import KafkaSource
    from batcher.sources.queue.source import QueueSource
    from batcher.sources.receipts.source import ReceiptSource

    pipeline = _Pipeline(points)
    wrap(KafkaSource, "commit", pipeline.commit)
    wrap(QueueSource, "commit", pipeline.commit)
    wrap(ReceiptSource, "commit", pipeline.commit)
    wrap(Writer, "write", pipeline.deliver)
    wrap(DirectoryDeadLetterQueue, "send", pipeline.send)
    wrap(KafkaDeadLetterQueue, "send", pipeline.send)
    wrap(FetchLoop, "on_revoked", pipeline.revoke)
    wrap(sinks.registry, "make", pipeline.make)


class _Pipeline:
    """Stand in for methods of the pipeline and pass the points around them."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def commit(self, original: Wrapper, source: Any, positions: Mapping[Any, Any], *rest: Any) -> Any:
        after, self._points.written = self._points.written, False
        announces = any(position.mark for position in positions.values())
        passed = [name for name, due in (("intent", announces), ("commit", after)) if due]
        for name in passed:
            self._points.at(f"before_{name}")
        answer = original(source, positions, *rest)
        for name in passed:
            self._points.at(f"after_{name}")
        return answer

    def deliver(self, original: Wrapper, delivery: Any, prepared: Any, *rest: Any) -> Any:
        self._points.ranges = [str(span) for span in prepared.batch.ranges]
        if prepared.batch.replayed:
            self._points.at("during_replay")
        delivered = original(delivery, prepared, *rest)
        self._points.written = True
        if prepared.batch.replayed:
            self._points.at("after_replay_write")
        return delivered

    def send(self, original: Wrapper, queue: Any, letters: Any) -> Any:
        answer = original(queue, letters)
        self._points.at("after_dead_letters")
        return answer

    def revoke(self, original: Wrapper, consumer: Any, partitions: Any) -> Any:
        self._points.at("in_revoke")
        return original(consumer, partitions)

    def make(self, original: Wrapper, *arguments: Any) -> Any:
        return _trapped_sink(self._points, original(*arguments))


def _trapped_sink(points: Points, sink: Any) -> Any:
    def write(original: Wrapper, block: Any) -> Any:
        points.at("before_write")
        points.take_long()
        answer = original(block)
        points.take_long()
        points.at("after_write")
        return answer

    def evolve(original: Wrapper, *arguments: Any) -> Any:
        points.at("before_columns")
        answer = original(*arguments)
        points.at("after_columns")
        return answer

    wrap(sink, "write", write)
    if hasattr(sink, "evolve"):
        wrap(sink, "evolve", evolve)
    if type(sink).__module__.startswith("sinks.parquet"):
        _trap_files(points)
    elif type(sink).__module__.startswith("sinks.clickhouse"):
        _trap_inserts(points)
    elif type(sink).__module__.startswith("sinks.lake"):
        _trap_commits(points, sink)
    return sink


def _trap_commits(points: Points, sink: Any) -> None:
    """Pass `mid_write` between the look for positions and the commit; a kill comes at some moment of the commit."""

    def append(original: Wrapper, *arguments: Any) -> Any:
        points.at("mid_write", points.some_ms())
        return original(*arguments)

    wrap(sink._table, "append", append)


def _trap_files(points: Points) -> None:
    """Pass `mid_write` after the first of several files, or between the writing and the naming of a single one.

    In an object store it comes some milliseconds after the first request began.
    """
    from sinks.parquet.local import LocalStore
    from sinks.parquet.objects import ObjectStore

    left = threading.local()

    def publish(original: Wrapper, store: Any, files: Iterable[Any]) -> Any:
        content = list(files)
        left.before = min(len(content) - 1, 1)
        return original(store, content)

    def replace(original: Wrapper, path: Path, target: Path) -> Any:
        before = getattr(left, "before", -1)
        left.before = before - 1
        if before == 0:
            points.at("mid_write")
        return original(path, target)

    def upload(original: Wrapper, store: Any, files: Iterable[Any]) -> Any:
        points.at("mid_write", points.some_ms())
        return original(store, files)

    wrap(LocalStore, "publish", publish)
    wrap(ObjectStore, "publish", upload)
    wrap(Path, "replace", replace)


def _trap_inserts(points: Points) -> None:
    """Pass `mid_write` with half a request sent or inside the embedded engine, `before_answer` with all of it sent."""
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.httpclient import HttpClient
    from urllib3.connection import HTTPConnection

    inserting = threading.local()

    @contextmanager
    def marked() -> Iterator[None]:
        inserting.sent = 0
        try:
            yield
        finally:
            del inserting.sent

    def insert(original: Wrapper, client: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(client, HttpClient):
            points.at("mid_write", points.some_ms())
            return original(client, *arguments, **options)
        with marked():
            return original(client, *arguments, **options)

    def send(original: Wrapper, connection: Any, data: Any) -> Any:
        # The head of a request is sent on its own, then the body.
        head = getattr(inserting, "sent", None) == 0
        if head or not hasattr(inserting, "sent"):
            if head:
                inserting.sent = 1
            return original(connection, data)
        body = memoryview(data).cast("B")
        middle = len(body) // 2
        original(connection, body[:middle])
        points.at("mid_write")
        answer = original(connection, body[middle:])
        points.at("before_answer")
        return answer

    wrap(Client, "insert_arrow", insert)
    wrap(HTTPConnection, "send", send)


def main() -> None:
    """Set the traps that the variables describe, then run the command line."""
    try:
        traps = traps_of(os.environ)
    except ValueError as error:
        sys.exit(f"crash_points: {error}")
    slow_writes_s = float(os.environ.get("SLOW_WRITES", "0"))
    if traps or slow_writes_s:
        install(Points(traps, slow_writes_s))
    from batcher.__main__ import main as run  # after the wrapping

    run()


if __name__ == "__main__":
    main()
