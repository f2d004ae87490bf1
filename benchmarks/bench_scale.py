"""How speed changes with partitions, sizes and waits of batches, processes, and shapes of records.

    python -m benchmarks.bench_scale
    python -m benchmarks.bench_scale --only batch --records 500000 --rounds 1

`partitions`: the same records in 1 to 256 of them, also with one writer, and in ClickHouse without merging. `batch`:
`--batch.max-rows` swept, then `--batch.max-wait`; the knee is the smallest setting within 5 % of the best. `workers`:
processes of one group, started together, into one Parquet directory. `shapes`: tiny, usual and wide records, as ratios
to bare `consume()` of the same topic. Each case has a turn in every round; ratios are those of medians within one run.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from batcher.testing.brokers import available_broker
from batcher.testing.kafka import Broker
from benchmarks.crews import crew
from benchmarks.harness import RESULTS, Measured, by_contender, in_rounds
from benchmarks.report import Panel, Spread, Table, chosen, numbers, publish
from benchmarks.shapes import SHAPES
from benchmarks.steady import fill
from benchmarks.turn import CONSUME, SINKS, Turn

PARTS: Final = ("partitions", "batch", "workers", "shapes")
PARTITIONS: Final = 4
WORKER_PARTITIONS: Final = 16
KNEE: Final = 0.95
PATIENT: Final = ("--batch.max-wait", "10s", "--batch.max-bytes", "512MiB", "--batch.memory", "1GiB")
"""Lets the rows alone decide, up to half a million of the usual size in each of the partitions."""
VARIANTS: Final[Mapping[str, Sequence[tuple[str, Sequence[str]]]]] = {
    "clickhouse": [("apart", ("--no-batch.merge-partitions",))],
    "parquet": [("one writer", ("--batch.writers", "1"))],
}
"""What is measured beside the settings that a sink has without a word."""

Cases = Mapping[str, Callable[[], Measured]]
Found = Mapping[str, Spread]
"""Records a second, by case."""


def topic_of(broker: Broker, records: int, partitions: int, shape: str = "standard") -> tuple[str, int]:
    """Make a topic with so many records in equal shares, and return its name and the bytes of the values."""
    topic = f"bench-{uuid.uuid4().hex[:12]}"
    broker.create_topic(topic, partitions)
    return topic, fill(broker, topic, SHAPES[shape].records(records), partitions)


def measured(cases: Cases, rounds: int) -> list[Measured]:
    """Give every case its turns."""
    return in_rounds(list(cases), rounds, lambda name: cases[name]())


def rates(results: Sequence[Measured]) -> Found:
    """Return the rates of each case."""
    return {name: Spread.of([one.rows_per_second for one in same]) for name, same in by_contender(results).items()}


def partition_part(broker: Broker, given: argparse.Namespace) -> tuple[list[Measured], list[Table], list[Panel]]:
    """Load the same records from topics with ever more partitions."""
    cases: dict[str, Callable[[], Measured]] = {}
    flags: dict[str, Sequence[str]] = dict.fromkeys(given.sinks, ())
    flags |= {f"{sink}, {name}": told for sink in given.sinks for name, told in VARIANTS.get(sink, ())}
    names = list(flags)
    for partitions in given.partitions:
        topic, _ = topic_of(broker, given.records, partitions)
        for name in names:
            sink = name.partition(", ")[0]
            label = f"{name} @ {partitions}"
            turn = Turn(label, sink, broker.bootstrap, topic, partitions, given.records, flags=flags[name])
            cases[label] = turn.take
    results = measured(cases, given.rounds)
    found = rates(results)
    usual = PARTITIONS if PARTITIONS in given.partitions else given.partitions[0]
    rows = []
    for name in names:
        base = found[f"{name} @ {usual}"].median
        for partitions in given.partitions:
            rate = found[f"{name} @ {partitions}"]
            rows.append((name, str(partitions), rate.text(), f"{rate.median / base:.2f}"))
    columns = ("target", "partitions", "rows/s", f"of {usual} partitions")
    lines = {name: {str(one): found[f"{name} @ {one}"].scaled(1e-3) for one in given.partitions} for name in names}
    return (
        results,
        [Table(f"{given.records:,} records in all, by partitions", columns, rows)],
        [Panel("By partitions, the same records in all", "thousand rows a second", lines)],
    )


def batch_part(broker: Broker, given: argparse.Namespace) -> tuple[list[Measured], list[Table], list[Panel]]:
    """Sweep the rows of a batch, then its wait."""
    topic, _ = topic_of(broker, given.records, PARTITIONS)
    sinks = [sink for sink in given.sinks if sink != CONSUME]
    sweeps: Mapping[str, Mapping[str, Sequence[str]]] = {
        "max-rows": {f"{rows:,}": ("--batch.max-rows", str(rows), *PATIENT) for rows in given.max_rows},
        "max-wait": {f"{wait} ms": ("--batch.max-wait", f"{wait}ms") for wait in given.waits_ms},
    }
    cases: dict[str, Callable[[], Measured]] = {}
    for name, sweep in sweeps.items():
        for label, flags in sweep.items():
            for sink in sinks:
                called = f"{sink}, {name} {label}"
                turn = Turn(called, sink, broker.bootstrap, topic, PARTITIONS, given.records, flags=flags)
                cases[called] = turn.take
    results = measured(cases, given.rounds)
    found = rates(results)
    tables, panels = [], []
    for name, sweep in sweeps.items():
        lines = {sink: {label: found[f"{sink}, {name} {label}"] for label in sweep} for sink in sinks}
        rows = []
        for sink, line in lines.items():
            at = knee(line)
            best = max(one.median for one in line.values())
            for label, rate in line.items():
                mark = "knee" if label == at else ""
                rows.append((sink, label, rate.text(), f"{rate.median / best:.2f}", mark))
        tables.append(Table(f"By --batch.{name}", ("target", name, "rows/s", "of the best", ""), rows))
        scaled = {sink: {label: rate.scaled(1e-3) for label, rate in line.items()} for sink, line in lines.items()}
        panels.append(Panel(f"By --batch.{name}", "thousand rows a second", scaled))
    return results, tables, panels


def knee(line: Found) -> str:
    """Return the first of ascending settings that is within 5 % of the best of them."""
    best = max(rate.median for rate in line.values())
    return next(label for label, rate in line.items() if rate.median >= KNEE * best)


def worker_part(broker: Broker, given: argparse.Namespace) -> tuple[list[Measured], list[Table], list[Panel]]:
    """Load one topic with ever more processes."""
    topic, _ = topic_of(broker, given.records, WORKER_PARTITIONS)
    topic_at = (broker, topic, WORKER_PARTITIONS)

    def turn(workers: int) -> Measured:
        with tempfile.TemporaryDirectory(prefix="bench-scale-") as directory:
            return crew(topic_at, given.records, workers, Path(directory))

    cases = {("1 process" if n == 1 else f"{n} processes"): partial(turn, n) for n in given.workers}
    results = measured(cases, given.rounds)
    rows = []
    for name, same in by_contender(results).items():
        rate = Spread.of([one.rows_per_second for one in same])
        base = rates(results)[next(iter(cases))].median
        cpu = Spread.of([one.cpu_us_per_row for one in same])
        peak = max(one.peak_rss_mb for one in same)
        rows.append((name, rate.text(), f"{rate.median / base:.2f}", cpu.text(2), f"{peak:,.0f}"))
    columns = ("", "rows/s", f"of {next(iter(cases))}", "CPU µs a row, starts included", "peak MB, all")
    line = {str(n): rate.scaled(1e-3) for n, rate in zip(given.workers, rates(results).values(), strict=True)}
    return (
        results,
        [Table(f"Processes of one group, {WORKER_PARTITIONS} partitions, into Parquet", columns, rows)],
        [Panel("By processes, into Parquet", "thousand rows a second", {"parquet": line})],
    )


def shape_part(broker: Broker, given: argparse.Namespace) -> tuple[list[Measured], list[Table], list[Panel]]:
    """Load records of several shapes, beside bare `consume()` of the same topic."""
    cases: dict[str, Callable[[], Measured]] = {}
    sizes: dict[str, float] = {}
    sinks = [CONSUME, *(sink for sink in given.sinks if sink != CONSUME)]
    for name, shape in SHAPES.items():
        records = max(1, int(given.records * shape.share))
        topic, nbytes = topic_of(broker, records, PARTITIONS, name)
        sizes[name] = nbytes / records
        for sink in sinks:
            turn = Turn(f"{name}, {sink}", sink, broker.bootstrap, topic, PARTITIONS, records, name)
            cases[turn.name] = turn.take
    results = measured(cases, given.rounds)
    found = rates(results)
    rows = []
    for name, size in sizes.items():
        for sink in sinks:
            rate = found[f"{name}, {sink}"]
            ratio = rate.median / found[f"{name}, {CONSUME}"].median
            rows.append((f"{name}, {size:,.0f} B", sink, rate.text(), rate.scaled(size / 1e6).text(), f"{ratio:.2f}"))
    lines = {
        sink: {name: found[f"{name}, {sink}"].scaled(size / 1e6) for name, size in sizes.items()} for sink in sinks
    }
    return (
        results,
        [Table("By shape of the records", ("record", "target", "rows/s", "MB/s", f"of {CONSUME}"), rows)],
        [Panel("By shape of the records", "MB of JSON a second", lines)],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: chosen(text, PARTS), default=list(PARTS), metavar="PART,…")
    parser.add_argument("--records", type=int, default=1_000_000, help="of a topic; wide ones are a tenth of it")
    parser.add_argument("--rounds", type=int, default=3)
    known = [sink for sink in SINKS if sink != CONSUME]
    parser.add_argument("--sinks", type=lambda text: chosen(text, SINKS), default=known, metavar="SINK,…")
    parser.add_argument("--partitions", type=numbers, default=[1, 4, 16, 64, 256], metavar="N,…")
    rows = [1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 500_000]
    parser.add_argument("--max-rows", type=numbers, default=rows, metavar="N,…")
    parser.add_argument("--waits-ms", type=numbers, default=[50, 200, 500, 1_000, 2_000, 5_000], metavar="N,…")
    parser.add_argument("--workers", type=numbers, default=[1, 2, 3, 4], metavar="N,…")
    parser.add_argument("--json", type=Path, default=RESULTS / "scale.json", help="where to write")
    given = parser.parse_args(argv)
    parts = {"partitions": partition_part, "batch": batch_part, "workers": worker_part, "shapes": shape_part}
    results: dict[str, Any] = {}
    tables: list[Table] = []
    panels: list[Panel] = []
    with available_broker() as broker:
        for name in given.only:
            found, more_tables, more_panels = parts[name](broker, given)
            results[name] = [asdict(one) for one in found]
            tables += more_tables
            panels += more_panels
    parameters = {name: value for name, value in vars(given).items() if name != "json"}
    text = publish(given.json, "How speed scales", tables, panels, {"parameters": parameters, "results": results})
    print(f"\n{text}\n\nwritten to {given.json}")


if __name__ == "__main__":
    main()
