"""How much memory a process takes: with a backlog, while the target stands still, and over minutes of a steady load.

    python -m benchmarks.bench_memory                               # a quarter of an hour
    python -m benchmarks.bench_memory --only backlog,stall --stall 10

Real processes at the default settings, without the embedded ClickHouse; memory is the resident set, from `/proc`
(Linux). `backlog` loads a full topic into Parquet. `packed` does so with records that came in batches of a megabyte and
shrink to a thirtieth, so that what a broker sends is much more once it is unpacked. `stall` reads a topic into a target
that answers nothing for a while. `steady` loads what a producer sends at a steady rate into Parquet; the slope is that
of a line through the samples of the second half (least squares).
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from batcher.generate.events import EventGenerator
from batcher.records import Block
from batcher.testing.brokers import available_broker
from batcher.testing.kafka import Broker
from benchmarks.freshness import Bench
from benchmarks.harness import RESULTS
from benchmarks.report import Panel, Spread, Table, chosen, publish
from benchmarks.steady import Steady, fill

PARTS: Final = ("backlog", "packed", "stall", "steady")
PARTITIONS: Final = 4
LOOK_EVERY_S: Final = 0.1
PAGE_MB: Final = 4096 / 1e6

PACKED_BYTES: Final = 2_000
"""Of a record of `packed`, nearly all of it the same in each."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Say what a process took: MB at the peak and at the end, and by how much it grew a minute where that was asked."""

    part: str
    seconds: float
    peak_mb: float
    last_mb: float
    slope_mb_per_minute: float | None = None


Samples = list[tuple[float, float]]
"""Seconds since the start, and MB."""


def resident_mb(pid: int) -> float | None:
    """Return the memory of a process, or None when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def watched(pid: int, until: Callable[[], bool]) -> Samples:
    """Sample the memory of a process until it is gone or enough."""
    began = time.monotonic()
    found: Samples = []
    while not until() and (taken := resident_mb(pid)) is not None:
        if taken:
            found.append((time.monotonic() - began, taken))
        time.sleep(LOOK_EVERY_S)
    return found


def slope_mb_per_minute(samples: Samples) -> float:
    """Return the slope of a line through the samples of the second half."""
    half = [one for one in samples if one[0] >= samples[-1][0] / 2]
    return statistics.linear_regression(*zip(*half, strict=True)).slope * 60


def loaded(part: str, command: Sequence[str]) -> tuple[Taken, Samples]:
    """Watch a process that comes to its end by itself; raise RuntimeError when that is a bad one."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        samples = watched(process.pid, lambda: process.poll() is not None)
        if process.wait():
            raise RuntimeError(f"{part} ended with exit code {process.returncode}")
    return Taken(part, samples[-1][0], max(taken for _, taken in samples), samples[-1][1]), samples


def pack(broker: Broker, topic: str, records: int) -> None:
    """Fill a topic as producers do that send large batches."""
    broker.create_topic(topic, PARTITIONS)
    note = "the quick brown fox jumps over the lazy dog; " * (PACKED_BYTES // 45)
    dice = random.Random(1)  # noqa: S311 - the same records in every run
    properties = {"batch.size": "1000000", "linger.ms": "1000", "message.max.bytes": "1000000"}
    # The digits are what does not shrink: 55 bytes of two thousand.
    values = (f'{{"id":{number},"trace":"{dice.randbytes(50).hex()}","note":"{note}"}}' for number in range(records))
    numbers = [number % PARTITIONS for number in range(records)]
    broker.produce(topic, values, partition=numbers, compression="zstd", properties=properties)


def backlog(part: str, broker: Broker, topic: str, scratch: Path) -> tuple[Taken, Samples]:
    """Load a topic to its end into Parquet."""
    flags = ["-b", broker.bootstrap, "-t", topic, "-g", f"bench-{uuid.uuid4().hex[:12]}", "--until-eof"]
    target = ["--sink", "parquet", "--parquet.path", str(scratch / "backlog")]
    return loaded(part, [sys.executable, "-m", "batcher", *flags, *target])


def stall(broker: Broker, topic: str, seconds: float) -> tuple[Taken, Samples]:
    """Load it into a target that stands still once, for so long."""
    return loaded(
        "stall", [sys.executable, "-m", "benchmarks.bench_memory", "--turn", broker.bootstrap, topic, str(seconds)]
    )


def stalled_turn(bootstrap: str, topic: str, seconds: float) -> None:
    """Be the process whose target stands still."""
    from batcher.cli.support.tuning import tune_collector, tune_memory
    from batcher.cli.support.wiring import pipeline_of
    from batcher.cli.verbs.run import parser
    from batcher.settings import load
    from sinks.null import NullSink

    stalls = [seconds]
    written = NullSink.write

    def write(self: NullSink, block: Block) -> None:
        if stalls:
            time.sleep(stalls.pop())
        written(self, block)

    NullSink.write = write  # type: ignore[method-assign]
    words = ["-b", bootstrap, "-t", topic, "-g", f"bench-{uuid.uuid4().hex[:12]}", "--until-eof", "--sink", "null"]
    made = pipeline_of(load(parser(), words, {}, runnable=True).settings)
    tune_collector()
    tune_memory()
    made.run()


def steady(broker: Broker, scratch: Path, seconds: float, rate: float) -> tuple[Taken, Samples]:
    """Load what comes at a steady rate, for so long."""
    bench = Bench(broker, scratch, PARTITIONS)
    with Steady(broker, bench.topic, PARTITIONS, rate), bench.watched("parquet", 1.0) as (process, _):
        began = time.monotonic()
        samples = watched(process.pid, lambda: time.monotonic() - began >= seconds)
    peak, last = max(taken for _, taken in samples), samples[-1][1]
    return Taken("steady", seconds, peak, last, slope_mb_per_minute(samples)), samples


def table(results: Sequence[Taken]) -> Table:
    """Return what each part took."""
    rows = []
    for one in results:
        slope = "-" if one.slope_mb_per_minute is None else f"{one.slope_mb_per_minute:+.2f}"
        rows.append((one.part, f"{one.seconds:,.0f}", f"{one.peak_mb:,.0f}", f"{one.last_mb:,.0f}", slope))
    return Table("Resident memory", ("part", "seconds", "peak MB", "at the end MB", "MB a minute, second half"), rows)


def panel(samples: Mapping[str, Samples]) -> Panel:
    """Return the lines of memory over time, in a twentieth of a part each."""
    lines = {}
    for part, found in samples.items():
        step = max(1, len(found) // 20)
        pieces = [found[start : start + step] for start in range(0, len(found), step)][:20]
        lines[part] = {
            f"{5 * (number + 1)} %": Spread.of([mb for _, mb in piece]) for number, piece in enumerate(pieces)
        }
    return Panel("Over the time of each part", "MB", lines, level=400)


def main() -> None:
    """Watch the processes of the chosen parts, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: chosen(text, PARTS), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--records", type=int, default=2_000_000, help="of the backlog (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the backlog (default %(default)s)")
    parser.add_argument("--stall", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the steady load (default %(default)s)")
    parser.add_argument("--rate", type=float, default=50_000.0, help="records a second of the steady load")
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json", help="where to write")
    parser.add_argument("--turn", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.turn:
        stalled_turn(given.turn[0], given.turn[1], float(given.turn[2]))
        return
    results: list[Taken] = []
    samples: dict[str, Samples] = {}

    def keep(found: tuple[Taken, Samples]) -> None:
        results.append(found[0])
        samples[found[0].part] = found[1]
        print(f"{found[0].part}: {found[0].peak_mb:,.0f} MB at the peak", flush=True)

    with available_broker() as broker, tempfile.TemporaryDirectory(prefix="batcher-bench-") as scratch:
        topic = f"bench-{uuid.uuid4().hex[:12]}"
        if {"backlog", "stall"} & set(given.only):
            broker.create_topic(topic, PARTITIONS)
            fill(broker, topic, EventGenerator(seed=1).take(given.records), PARTITIONS)
        if "packed" in given.only:
            pack(broker, f"{topic}-packed", given.records // 4)
        for part in given.only:
            for round_ in range(given.rounds if part in ("backlog", "packed") else 1):
                if part == "backlog":
                    keep(backlog(part, broker, topic, Path(scratch, str(round_))))
                elif part == "packed":
                    keep(backlog(part, broker, f"{topic}-packed", Path(scratch, f"packed-{round_}")))
                elif part == "stall":
                    keep(stall(broker, topic, given.stall))
                else:
                    keep(steady(broker, Path(scratch), given.seconds, given.rate))
    parameters = {"records": given.records, "rate": given.rate, "stall": given.stall, "seconds": given.seconds}
    facts = {"parameters": parameters, "results": [asdict(one) for one in results]}
    text = publish(given.json, "How much memory a process takes", [table(results)], [panel(samples)], facts)
    print(f"\n{text}\n\nwritten to {given.json}")


if __name__ == "__main__":
    main()
