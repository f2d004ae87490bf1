"""Measure the embedded queue: messages published a second, and rows a second from it into Parquet, exactly once.

    python -m benchmarks.bench_queue [--records 500000] [--rounds 3] [--only publish,parquet] [--dir DIR] [--json FILE]

Beside it stand a plain loop over a table of SQLite, litequeue and persist-queue, where these are installed (else that
is said). All of them write with `synchronous=FULL` or what they choose themselves, into a file in DIR. Those that put
or take one message at a time get a fiftieth of the records. Figures of a disk cache, not of a disk, where DIR is on one
that ignores fsync.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batcher.cli.support import wiring
from batcher.cli.verbs.run import parser
from batcher.generate.events import EventGenerator
from batcher.protocols import Outgoing
from batcher.records import Position
from batcher.settings import load
from batcher.sources.queue.file import QueueShape, create, opened
from batcher.sources.queue.publisher import BATCH, QueuePublisher
from batcher.sources.queue.source import QueueOptions, QueueSource
from batcher.telemetry import logs
from batcher.testing.listener import RecordingListener
from benchmarks.harness import RESULTS, Measured, Stopwatch, in_rounds, write

SINGLE_SHARE: Final = 50
"""Those that make one message durable at a time are some hundred times as slow, and get less to do."""

LOOP_ROWS: Final = 10_000
"""Rows that the plain loop writes into one file."""

PACKAGES: Final = {"litequeue": "litequeue", "persist-queue": "persistqueue"}
"""The rivals, with the modules that they come as."""


def publish(path: Path, events: Sequence[bytes], size: int, watch: Stopwatch) -> None:
    """Append events in transactions of so many."""
    with closing(QueuePublisher(create(path, QueueShape("events"), exist_ok=True))) as publisher:
        watch.first()
        for start in range(0, len(events), size):
            publisher.store([Outgoing(event) for event in events[start : start + size]])
        watch.last()


def fetch(path: Path, watch: Stopwatch) -> None:
    """Read everything into columns and commit after each fetch."""
    source = QueueSource(QueueOptions(path, "bench", until_eof=True))
    source.open(RecordingListener())
    watch.first()
    while not source.exhausted:
        runs = source.fetch(4_000, 1 << 24, 0.1)
        source.commit({run.partition: Position(run.next_offset) for run in runs}, 10.0)
    watch.last()
    source.close()


def pipeline(path: Path, out: Path, watch: Stopwatch) -> None:
    """Load everything into Parquet by a whole pipeline, exactly once."""
    flags = ["--source", "queue", "--queue.path", str(path), "--queue.group", "bench", "--until-eof"]
    made = wiring.pipeline_of(load(parser(), [*flags, "--sink", "parquet", "--parquet.path", str(out)]).settings)
    watch.first()
    made.run()
    watch.last()


class PlainLoop:
    """A table of SQLite as people write a queue by hand: insert, select the oldest, delete."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY, body BLOB)")

    def put(self, event: bytes) -> None:
        self.db.execute("INSERT INTO queue (body) VALUES (?)", (event,))

    def take(self, _count: int) -> Iterator[tuple[Any, bytes]]:
        yield from self.db.execute("SELECT id, body FROM queue ORDER BY id LIMIT ?", (LOOP_ROWS,)).fetchall()

    def done(self, taken: Sequence[Any]) -> None:
        self.db.execute("DELETE FROM queue WHERE id <= ?", (taken[-1],))


class LiteQueueLoop:
    """A litequeue: each message is locked, and marked as done after its file is written."""

    def __init__(self, path: Path) -> None:
        from litequeue import LiteQueue

        self.queue = LiteQueue(str(path))

    def put(self, event: bytes) -> None:
        self.queue.put(event.decode())

    def take(self, count: int) -> Iterator[tuple[Any, bytes]]:
        for _ in range(count):
            if (found := self.queue.pop()) is None:
                return
            yield found.message_id, found.data.encode()

    def done(self, taken: Sequence[Any]) -> None:
        for one in taken:
            self.queue.done(one)


class PersistQueueLoop:
    """A persist-queue with acknowledgements, which a message gets after its file is written."""

    def __init__(self, path: Path) -> None:
        from persistqueue import SQLiteAckQueue

        self.queue = SQLiteAckQueue(str(path), auto_commit=True)

    def put(self, event: bytes) -> None:
        self.queue.put(event)

    def take(self, count: int) -> Iterator[tuple[Any, bytes]]:
        for _ in range(min(count, self.queue.size)):
            found = self.queue.get(block=False)
            yield found, found

    def done(self, taken: Sequence[Any]) -> None:
        for one in taken:
            self.queue.ack(one)


RIVALS: Final[dict[str, Callable[[Path], Any]]] = {
    "loop": PlainLoop,
    "litequeue": LiteQueueLoop,
    "persist-queue": PersistQueueLoop,
}


def put_all(rival: Any, events: Sequence[bytes], watch: Stopwatch) -> None:
    """Put one event after the other."""
    watch.first()
    for event in events:
        rival.put(event)
    watch.last()


def load_all(rival: Any, out: Path, events: int, watch: Stopwatch) -> None:
    """Take events, decode each, write files of some rows, and only then say that they are done."""
    out.mkdir()
    left = events
    watch.first()
    while left:
        taken = list(rival.take(min(left, LOOP_ROWS)))
        table = pa.Table.from_pylist([json.loads(body) for _, body in taken])
        pq.write_table(table, out / f"{left}.parquet", compression="zstd")
        rival.done([name for name, _ in taken])
        left -= len(taken)
    watch.last()


def contenders() -> list[str]:
    """Return who can take part; say who cannot."""
    names = ["publish", "publish-1000", "publish-1", "fetch", "parquet"]
    for rival in RIVALS:
        if (module := PACKAGES.get(rival)) and importlib.util.find_spec(module) is None:
            print(f"{rival} does not take part: it is not installed", flush=True)
            continue
        names += [f"{rival}-put", f"{rival}-to-parquet"]
    return names


def measure(name: str, directory: Path, events: Sequence[bytes]) -> Measured:
    """Give one contender its turn in a directory of its own."""
    with tempfile.TemporaryDirectory(dir=directory) as made:
        path, out, watch, unseen = Path(made) / "queue.db", Path(made) / "out", Stopwatch(), Stopwatch()
        rival = name.removesuffix("-put").removesuffix("-to-parquet")
        if rival in RIVALS:
            some = events[: max(1, len(events) // SINGLE_SHARE)]
            queue = RIVALS[rival](path)
            put_all(queue, some, watch if name.endswith("-put") else unseen)
            if name.endswith("-to-parquet"):
                load_all(queue, out, len(some), watch)
            return watch.measured(name, len(some))
        if name.startswith("publish"):
            size = int(name.partition("-")[2] or BATCH)
            some = events if size > 1 else events[: max(1, len(events) // SINGLE_SHARE)]
            publish(path, some, size, watch)
            return watch.measured(name, len(some))
        publish(path, events, BATCH, unseen)
        if name == "fetch":
            fetch(path, watch)
        else:
            pipeline(path, out, watch)
        with closing(opened(path)) as file:
            ends = {lane: at.next for lane, at in file.ends().items()}
            cursors = dict(file.db.execute("SELECT lane, next FROM cursor").fetchall())
        if cursors != ends:
            raise RuntimeError(f"{name}: not everything was committed")
        return watch.measured(name, len(events))


def main() -> None:
    """Give every contender its turns, print and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--records", type=int, default=500_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", help="contenders, separated by commas [all that are installed]")
    arguments.add_argument("--dir", type=Path, help="where the files are [the system's directory for such]")
    arguments.add_argument("--json", type=Path, default=RESULTS / "queue.json", help="where to write")
    given = arguments.parse_args()
    logs.setup("console", "warning")
    events = EventGenerator(seed=1).take(given.records)
    names = given.only.split(",") if given.only else contenders()
    results = in_rounds(names, given.rounds, lambda name: measure(name, given.dir, events))
    text = write(
        given.json,
        results,
        {"records": given.records, "rounds": given.rounds, "batch": BATCH},
        baseline="fetch",
        title="The embedded queue",
    )
    print(f"\n{text}\n\nwritten to {given.json}")


if __name__ == "__main__":
    main()
