"""Real processes on real topics, and how long records take through them: under load, alone, and right after a start."""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Final

from confluent_kafka import Producer

from batcher.generate.events import EventGenerator
from batcher.testing.kafka import Broker
from benchmarks.contenders import COORDINATES, engine
from benchmarks.steady import Ages, CommitWatch, Steady, ages, fill, percentile
from tests.harness.processes import BatcherProcess, Event

SETTLE_S: Final = 2.0
"""Left out at the start of a load: the first batch infers a schema and writes the first file."""

PATIENCE_S: Final = 120.0

START_WAIT_S: Final = 0.01
"""The wait of the process whose start is timed: what it adds to the first commit."""

IMPORT_LINE: Final = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Freshness:
    """Say how old records were when their commit was seen, in one window of one load. Times in seconds."""

    sink: str
    load: str
    max_wait_s: float
    asked_rate: float
    rate: float
    """Records a second that were produced."""
    records: int
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float
    left: int
    """Records not committed when the load ended: far more than come in a wait, and the rate was too high."""


@dataclass(frozen=True, slots=True)
class Lone:
    """Say how long one record took that came after a while without any."""

    sink: str
    max_wait_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Idle:
    """Say what a process with nothing to do costs; shares of one core, in all and by name of thread."""

    partitions: int
    share: float
    threads: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Start:
    """Say when, in seconds after its start, a process had its target open, its partitions, a batch, a commit."""

    sink: str
    opened_s: float
    assigned_s: float
    written_s: float
    committed_s: float


class Bench:
    """Hold a topic, a target of its own for each process, and the flags for both."""

    def __init__(self, broker: Broker, scratch: Path, partitions: int) -> None:
        self.broker = broker
        self.partitions = partitions
        self.topic = f"bench-{uuid.uuid4().hex[:12]}"
        self._scratch = scratch
        broker.create_topic(self.topic, partitions)

    @contextmanager
    def watched(
        self, sink: str, max_wait_s: float, environment: Mapping[str, str] | None = None
    ) -> Iterator[tuple[BatcherProcess, CommitWatch]]:
        """Run a process of a new group, and watch its commits; at the end it is stopped in good order."""
        group = f"bench-{uuid.uuid4().hex[:12]}"
        target = self._scratch / group
        target.mkdir()
        if sink == "clickhouse":
            dsn = engine(target, "events", COORDINATES)
            flags = ["--sink", sink, "--clickhouse.dsn", dsn, "--clickhouse.table", "events"]
        else:
            flags = ["--sink", sink, "--parquet.path", str(target / "out")]
        flags += ["-b", self.broker.bootstrap, "-t", self.topic, "-g", group, "--delivery", "exactly-once"]
        flags += ["--batch.max-wait", f"{round(max_wait_s * 1000)}ms"]
        with (
            CommitWatch(self.broker, group, self.topic, self.partitions) as watch,
            BatcherProcess(*flags, environment=environment) as process,
        ):
            # What is stopped before it has begun ends with another code.
            process.wait_for("partitions_assigned")
            yield process, watch
            process.signal(signal.SIGTERM)
            if process.wait() != 0:
                raise RuntimeError(f"batcher ended with {process.exit_code}\n{process.stderr[-2000:]}")


def under_load(
    bench: Bench, sink: str, max_wait_s: float, *, load: str, rate: float, seconds: float, windows: int
) -> list[Freshness]:
    """Return the freshness at a steady rate, called `load`, in as many windows of so many seconds."""
    with bench.watched(sink, max_wait_s) as (process, watch):
        process.wait_for("partitions_assigned")
        with Steady(bench.broker, bench.topic, bench.partitions, rate) as steady:
            watch.wait(1, PATIENCE_S)
            time.sleep(SETTLE_S)
            began = time.time()
            time.sleep(seconds * windows)
            left = steady.sent - watch.committed
            steady.stop()
            watch.wait(steady.sent, PATIENCE_S)
        found: list[Ages] = [
            ages(steady.stamps, watch.seen, began + seconds * number, began + seconds * (number + 1))
            for number in range(windows)
        ]
    return [
        Freshness(
            sink,
            load,
            max_wait_s,
            rate,
            steady.sent / steady.seconds,
            sum(count for _, count in window),
            percentile(window, 0.5),
            percentile(window, 0.95),
            percentile(window, 0.99),
            window[-1][0],
            left,
        )
        for window in found
    ]


def alone(bench: Bench, sink: str, max_wait_s: float, times: int, idle_s: float) -> list[Lone]:
    """Return how long each of so many single records took, each after at least `idle_s` without any."""
    dice = Random(1)  # noqa: S311  # not in step with anything in the process
    # The same one throughout: a new one takes half a second until it sends.
    producer = Producer({"bootstrap.servers": bench.broker.bootstrap, "linger.ms": 0})
    found = []
    with bench.watched(sink, max_wait_s) as (process, watch):
        process.wait_for("partitions_assigned")
        # The first infers a schema, and is not counted.
        for number in range(times + 1):
            time.sleep(idle_s * dice.uniform(1.0, 1.5))
            [value] = EventGenerator(seed=number).take(1)
            stamp_ms = time.time_ns() // 1_000_000
            producer.produce(bench.topic, value, partition=0, timestamp=stamp_ms)
            producer.flush()
            seconds = watch.wait(number + 1, PATIENCE_S) - stamp_ms / 1000
            found.append(Lone(sink, max_wait_s, seconds))
    return found[1:]


def idle(bench: Bench, seconds: float, windows: int) -> list[Idle]:
    """Return what a process costs that has its partitions and gets nothing, in as many windows of so many seconds."""
    records = 10 * bench.partitions
    fill(bench.broker, bench.topic, EventGenerator(seed=1).take(records), bench.partitions, block=1)
    with bench.watched("parquet", 0.2) as (process, watch):
        watch.wait(records, PATIENCE_S)
        time.sleep(SETTLE_S)
        found = []
        for _ in range(windows):
            before, began = spent_by_thread(process.pid), time.monotonic()
            time.sleep(seconds)
            after, passed = spent_by_thread(process.pid), time.monotonic() - began
            shares = {name: (spent - before.get(name, 0.0)) / passed for name, spent in after.items()}
            threads = {name: share for name, share in sorted(shares.items()) if share > 0}
            found.append(Idle(bench.partitions, sum(shares.values()), threads))
        return found


def spent_by_thread(pid: int) -> dict[str, float]:
    """Return the CPU seconds of a process so far, by name of thread. Linux."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    spent: dict[str, float] = {}
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            text = stat.read_text(encoding="ascii")
        except OSError:  # the thread has ended
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        user, system = text[text.rindex(")") + 2 :].split()[11:13]
        spent[name] = spent.get(name, 0.0) + (int(user) + int(system)) * tick_s
    return spent


def start(bench: Bench, sink: str) -> Start:
    """Return how long a process took from its start to its first commit; the topic is not empty."""
    # As a new group, on a topic with records: from the start of the process on everything is its own time.
    began = time.time()
    with bench.watched(sink, START_WAIT_S) as (process, watch):
        began = max(began, _born(process.pid))
        committed = watch.wait(1, PATIENCE_S)
        moments = [_at(process.wait_for(name)) for name in ("pipeline_started", "partitions_assigned", "batch_written")]
    opened, assigned, written = (moment - began for moment in moments)
    return Start(sink, opened, assigned, written, committed - began)


def imports(bench: Bench, sink: str) -> dict[str, float]:
    """Return the seconds that imports take until the first batch, by package, the most first; somewhat inflated."""
    with bench.watched(sink, START_WAIT_S, {"PYTHONPROFILEIMPORTTIME": "1"}) as (process, _):
        process.wait_for("batch_written")
        text = process.stderr
    spent: dict[str, float] = {}
    for own_us, module in IMPORT_LINE.findall(text):
        package = module.split(".")[0]
        spent[package] = spent.get(package, 0.0) + int(own_us) / 1e6
    return dict(sorted(spent.items(), key=lambda one: one[1], reverse=True))


def _at(event: Event) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def _born(pid: int) -> float:
    """Return the epoch second at which a process was started. Linux."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    ticks = int(stat[stat.rindex(")") + 2 :].split()[19])
    since_boot = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")
