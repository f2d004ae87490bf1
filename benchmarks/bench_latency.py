"""How fresh the target is: from a record's timestamp to its commit, under load, alone, when idle, after a start.

    python -m benchmarks.bench_latency
    python -m benchmarks.bench_latency --only lone,idle --sinks parquet --waits 0.2

A real process, exactly-once, into Parquet and into the embedded ClickHouse. The producer stamps the records, and the
group's committed offsets are asked for every few milliseconds: what is shown is the age of a record when its commit was
seen, on one machine and one clock. `half` is half of what the pipeline does at full speed, with producer, broker and
pipeline on the same cores. The promise is p99 within the wait and 300 ms.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Final

from batcher.generate.events import EventGenerator
from batcher.testing.brokers import available_broker
from batcher.testing.kafka import Broker
from benchmarks import contenders
from benchmarks.freshness import Bench, Freshness, Idle, Lone, Start, alone, idle, imports, start, under_load
from benchmarks.harness import RESULTS
from benchmarks.report import Panel, Spread, Table, chosen, numbers, publish
from benchmarks.steady import fill

PARTS: Final = ("load", "lone", "idle", "start")
SINKS: Final = ("parquet", "clickhouse")
PARTITIONS: Final = 4
GRACE_S: Final = 0.3
HALF: Final = "half"
START_RECORDS: Final = 1000
SHOWN_PACKAGES: Final = 12


def load_table(results: Sequence[Freshness]) -> Table:
    """Return the ages under load, in milliseconds."""
    rows = []
    for (sink, load, wait_s), found in groupby(results, key=lambda one: (one.sink, one.load, one.max_wait_s)):
        same = list(found)
        p99 = Spread.of([one.p99_s for one in same])
        over = Spread(p99.median - wait_s, p99.lowest - wait_s, p99.highest - wait_s)
        kept = "too fast" if same[0].left > _bearable(same[0]) else "yes" if over.median <= GRACE_S else "no"
        rows.append(
            (
                f"{sink}, {load}",
                f"{wait_s:g} s",
                f"{same[0].rate:,.0f}",
                *(Spread.of(of).scaled(1000).figure() for of in zip(*((o.p50_s, o.p95_s) for o in same), strict=True)),
                p99.scaled(1000).text(),
                Spread.of([one.max_s for one in same]).scaled(1000).figure(),
                over.scaled(1000).text(),
                kept,
            )
        )
    columns = ("load", "max-wait", "records/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "p99 - wait, ms", "≤ 300 ms")
    return Table("Age of a record when its commit was seen", columns, rows)


def _bearable(one: Freshness) -> float:
    """Return how many records may be under way when the load ends, if the pipeline keeps up with it."""
    return one.rate * (one.max_wait_s + 2.0)


def lone_table(results: Sequence[Lone]) -> Table:
    """Return what single records waited beyond the wait that was asked for, in milliseconds."""
    rows = []
    for (sink, wait_s), found in groupby(results, key=lambda one: (one.sink, one.max_wait_s)):
        beyond = [one.seconds - wait_s for one in found]
        rows.append((sink, f"{wait_s:g} s", str(len(beyond)), Spread.of(beyond).scaled(1000).text()))
    return Table("One record after idling: commit seen, beyond the wait", ("sink", "max-wait", "times", "ms"), rows)


def idle_table(results: Sequence[Idle]) -> Table:
    """Return the shares of a core of processes with nothing to do, in percent."""
    rows = []
    for partitions, found in groupby(results, key=lambda one: one.partitions):
        same = list(found)
        names = sorted({name for one in same for name in one.threads})
        threads = ((name, Spread.of([one.threads.get(name, 0.0) for one in same])) for name in names)
        most = sorted(threads, key=lambda one: one[1].median, reverse=True)
        by_thread = ", ".join(f"{name} {share.scaled(100).figure(2)}" for name, share in most if share.median > 0)
        rows.append((str(partitions), Spread.of([one.share for one in same]).scaled(100).text(2), by_thread))
    return Table("CPU of an idle process", ("partitions", "% of a core", "by thread"), rows)


def start_table(results: Sequence[Start]) -> Table:
    """Return when a process got how far, in seconds."""
    rows = []
    for sink, found in groupby(results, key=lambda one: one.sink):
        steps = zip(*((o.opened_s, o.assigned_s, o.written_s, o.committed_s) for o in found), strict=True)
        rows.append((sink, *(Spread.of(step).text(2) for step in steps)))
    columns = ("sink", "target open", "partitions assigned", "first batch written", "first commit seen")
    return Table("Seconds after the start of the process", columns, rows)


def import_table(sink: str, spent: dict[str, float]) -> Table:
    """Return the slowest packages, in milliseconds."""
    rows = [(name, f"{seconds * 1000:,.0f}") for name, seconds in list(spent.items())[:SHOWN_PACKAGES]]
    return Table(f"Imports, {sink}", ("package", "ms"), [*rows, ("all", f"{sum(spent.values()) * 1000:,.0f}")])


def panels_of(results: Sequence[Freshness]) -> list[Panel]:
    """Return a drawing of p99 less the wait."""
    lines: dict[str, dict[str, list[float]]] = {}
    for one in results:
        line = lines.setdefault(f"{one.sink}, {one.load}", {})
        line.setdefault(f"{one.max_wait_s:g} s", []).append((one.p99_s - one.max_wait_s) * 1000)
    spreads = {name: {at: Spread.of(of) for at, of in line.items()} for name, line in lines.items()}
    return [Panel("p99 less --batch.max-wait, by the wait", "ms", spreads, GRACE_S * 1000)] if results else []


def half_speed(broker: Broker, sink: str, records: int) -> float:
    """Return half of the records a second that the pipeline does from a full topic."""
    topic = f"bench-{uuid.uuid4().hex[:12]}"
    contenders.load(broker, topic, records)
    return contenders.measure(sink, broker.bootstrap, topic, records).rows_per_second / 2


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: chosen(text, PARTS), default=list(PARTS), metavar="PART,…")
    parser.add_argument("--sinks", type=lambda text: chosen(text, SINKS), default=list(SINKS), metavar="SINK,…")
    parser.add_argument("--rates", default=f"{HALF},100", metavar="N,…", help=f"records a second, or {HALF}")
    parser.add_argument("--waits", default="0.2,1,5", metavar="SECONDS,…", help="values of --batch.max-wait")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a window")
    parser.add_argument("--windows", type=int, default=3, help="windows of a load, and of an idle process")
    parser.add_argument("--calibrate", type=int, default=1_000_000, help="records of the run at full speed")
    parser.add_argument("--times", type=int, default=10, help="lone records for each wait, waits of up to 1 s")
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--idle-partitions", type=numbers, default=[4, 64], metavar="N,…")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "latency.json", help="where to write")
    given = parser.parse_args(argv)
    waits = [float(word) for word in given.waits.split(",")]
    loads: list[Freshness] = []
    lone: list[Lone] = []
    idling: list[Idle] = []
    starts: list[Start] = []
    packages: dict[str, dict[str, float]] = {}
    with available_broker() as broker, tempfile.TemporaryDirectory(prefix="bench-latency-") as directory:
        scratch = Path(directory)
        for sink in given.sinks:
            if "load" in given.only:
                for load in given.rates.split(","):
                    rate = half_speed(broker, sink, given.calibrate) if load == HALF else float(load)
                    for wait_s in waits:
                        bench = Bench(broker, scratch, PARTITIONS)
                        found = under_load(
                            bench, sink, wait_s, load=load, rate=rate, seconds=given.seconds, windows=given.windows
                        )
                        loads += found
                        print(f"{sink}, {load}, {wait_s:g} s: p99 {[round(one.p99_s, 3) for one in found]}", flush=True)
            if "lone" in given.only:
                for wait_s in (one for one in waits if one <= 1):
                    lone += alone(Bench(broker, scratch, PARTITIONS), sink, wait_s, given.times, 1.0)
            if "start" in given.only:
                bench = Bench(broker, scratch, PARTITIONS)
                fill(broker, bench.topic, EventGenerator(seed=1).take(START_RECORDS), PARTITIONS, block=1)
                starts += [start(bench, sink) for _ in range(given.starts)]
                packages[sink] = imports(bench, sink)
        if "idle" in given.only:
            for partitions in given.idle_partitions:
                idling += idle(Bench(broker, scratch, partitions), given.idle_seconds, given.windows)
    tables = [
        *([load_table(loads)] if loads else []),
        *([lone_table(lone)] if lone else []),
        *([idle_table(idling)] if idling else []),
        *([start_table(starts)] if starts else []),
        *(import_table(sink, spent) for sink, spent in packages.items()),
    ]
    results = {
        "load": [asdict(one) for one in loads],
        "lone": [asdict(one) for one in lone],
        "idle": [asdict(one) for one in idling],
        "start": [asdict(one) for one in starts],
        "imports": packages,
    }
    parameters = {name: value for name, value in vars(given).items() if name != "json"}
    facts = {"parameters": parameters, "results": results}
    text = publish(given.json, "How fresh the target is", tables, panels_of(loads), facts)
    print(f"\n{text}\n\nwritten to {given.json}")


if __name__ == "__main__":
    main()
