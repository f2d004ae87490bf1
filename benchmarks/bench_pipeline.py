"""Measure the whole pipeline beside the bare client library, and beside the loop most people write.

    python benchmarks/bench_pipeline.py                     2 million records, three rounds, some minutes
    python benchmarks/bench_pipeline.py --records 200000 --rounds 1 --only consume,parquet

One broker, one topic (4 partitions, lz4, JSON of about 180 bytes), each contender in a process of its own, in turns.
A contender's time runs from its first record to its last durable commit; CPU counts every thread of its process,
librdkafka's included; the broker is not counted but shares the cores. The figure to quote is the ratio to bare
`consume()` within one run: absolute numbers belong to one machine on one day.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from batcher.protocols import PartitionListener
from batcher.records import Partition, Position, Records

PARTITIONS = 4
NAIVE_SHARE = 8
"""The naive loop reads one record in so many, or its turn would be most of the run."""

COLUMNS = (
    "id UInt64, ts DateTime64(3, 'UTC'), user_id UInt32, country LowCardinality(String), "
    "product LowCardinality(String), quantity UInt8, price Float64, paid Bool, session String"
)
NAMES = ("id", "ts", "user_id", "country", "product", "quantity", "price", "paid", "session")
COORDINATES = "_topic LowCardinality(String), _partition UInt32, _offset UInt64, _timestamp DateTime64(3, 'UTC')"


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold one contender's turn. Rates are a second, CPU is microseconds a record, memory is the peak."""

    contender: str
    records: int
    seconds: float
    rows_per_second: float
    cpu_us_per_row: float
    peak_rss_mb: float


class Stopwatch:
    """Take time and CPU from the first record to the last sign of progress."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._ended = (0.0, 0.0)

    def first(self, *, again: bool = False) -> None:
        """Start, unless it runs and is not to start again."""
        if self._began is None or again:
            self._began = (time.perf_counter(), time.process_time())

    def last(self) -> None:
        """Move the end to now."""
        self._ended = (time.perf_counter(), time.process_time())

    def measured(self, contender: str, records: int) -> Measured:
        """Return the result for so many records."""
        began = self._began or self._ended
        seconds, cpu = self._ended[0] - began[0], self._ended[1] - began[1]
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Measured(contender, records, seconds, records / seconds, cpu / records * 1e6, peak_mb)


class TimedSource:
    """Pass everything on to a source and watch when records come and when commits are made."""

    def __init__(self, source: Any, watch: Stopwatch) -> None:
        self._source = source
        self._watch = watch
        self._seen = False

    def open(self, listener: PartitionListener) -> None:
        """Pass on."""
        self._source.open(listener)

    def fetch(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        """Pass on; the clock starts with the fetch that brings the first records."""
        self._watch.first(again=not self._seen)
        runs: Sequence[Records] = self._source.fetch(max_records, timeout_s)
        self._seen = self._seen or bool(runs)
        return runs

    def pause(self, partitions: Collection[Partition]) -> None:
        """Pass on."""
        self._source.pause(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        """Pass on."""
        self._source.resume(partitions)

    def commit(self, positions: Mapping[Partition, Position], timeout_s: float) -> None:
        """Pass on; a commit is progress."""
        self._source.commit(positions, timeout_s)
        self._watch.last()

    @property
    def reached(self) -> Mapping[Partition, int]:
        """Pass on."""
        reached: Mapping[Partition, int] = self._source.reached
        return reached

    @property
    def exhausted(self) -> bool:
        """Pass on."""
        exhausted: bool = self._source.exhausted
        return exhausted

    def close(self) -> None:
        """Pass on."""
        self._source.close()


def consume(contender: str, bootstrap: str, topic: str, records: int) -> Measured:
    """Call `consume()` and drop the messages: the ceiling of everything built on it."""
    from confluent_kafka import Consumer, TopicPartition

    from batcher.sources.kafka_options import KafkaOptions

    options = KafkaOptions(brokers=bootstrap, topics=(topic,), group=f"bench-{uuid.uuid4()}")
    consumer = Consumer({**options.librdkafka(), "enable.partition.eof": "false"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    watch = Stopwatch()
    seen = 0
    while seen < records:
        watch.first(again=not seen)
        seen += len(consumer.consume(10_000, 0.2))
    watch.last()
    consumer.close()
    return watch.measured(contender, seen)


def pipeline(contender: str, bootstrap: str, topic: str, records: int, *flags: str) -> Measured:
    """Run batcher as the command line would, with a stopwatch around its source."""
    from batcher import logs
    from batcher.commands.run import parser, tune_collector, tune_memory
    from batcher.commands.wiring import pipeline_of
    from batcher.settings import load

    words = ["-b", bootstrap, "-t", topic, "-g", f"bench-{uuid.uuid4()}", "--until-eof", *flags]
    settings = load(parser(), words, {}, runnable=True).settings
    logs.setup("json", "error")
    made = pipeline_of(settings)
    watch = Stopwatch()
    made._source = TimedSource(made._source, watch)  # noqa: SLF001  # a stopwatch is no reason for a public seam
    tune_collector()
    tune_memory()
    summary = made.run()
    if summary.written != records:
        sys.exit(f"{contender}: wrote {summary.written} of {records} records")
    return watch.measured(contender, records)


def null(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Decode and throw away."""
    del scratch
    return pipeline("null", bootstrap, topic, records, "--sink", "null")


def parquet(bootstrap: str, topic: str, records: int, scratch: Path, delivery: str = "exactly-once") -> Measured:
    """Write zstd files, fsynced, with coordinates."""
    flags = ("--sink", "parquet", "--parquet.path", str(scratch / "out"), "--delivery", delivery)
    return pipeline(_named("parquet", delivery), bootstrap, topic, records, *flags)


def parquet_once_or_more(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Do the same without intents: what exactly-once costs is the difference."""
    return parquet(bootstrap, topic, records, scratch, "at-least-once")


def clickhouse(
    bootstrap: str, topic: str, records: int, scratch: Path, delivery: str = "exactly-once", *more: str
) -> Measured:
    """Insert into a MergeTree of the embedded engine, with coordinates and a window for tokens."""
    dsn = _engine(scratch, "", COORDINATES)
    flags = ("--sink", "clickhouse", "--clickhouse.dsn", dsn, "--clickhouse.table", "events", "--delivery", delivery)
    name = "clickhouse-merged" if more else _named("clickhouse", delivery)
    return pipeline(name, bootstrap, topic, records, *flags, *more)


def clickhouse_merged(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Do the same with partitions sharing a batch, as they do without intents."""
    return clickhouse(bootstrap, topic, records, scratch, "exactly-once", "--batch.merge-partitions")


def clickhouse_once_or_more(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Do the same without intents."""
    return clickhouse(bootstrap, topic, records, scratch, "at-least-once")


def _named(sink: str, delivery: str) -> str:
    return sink if delivery == "exactly-once" else f"{sink}-{delivery}"


def naive(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Run the loop most people write: poll, json.loads, insert lists of rows, commit."""
    from datetime import datetime

    import clickhouse_connect
    from confluent_kafka import Consumer

    dsn = _engine(scratch, "naive", "")
    client: Any = clickhouse_connect.get_client(dsn=dsn)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-{uuid.uuid4()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    watch = Stopwatch()
    rows: list[list[Any]] = []
    seen = 0
    while seen < records:
        watch.first(again=not seen)
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        row = json.loads(message.value() or b"")
        row["ts"] = datetime.fromisoformat(row["ts"])
        rows.append([row[name] for name in NAMES])
        seen += 1
        if len(rows) == 10_000 or seen == records:
            client.insert("naive", rows, column_names=NAMES)
            consumer.commit(asynchronous=False)
            rows.clear()
    watch.last()
    consumer.close()
    client.close()
    return watch.measured("naive", records)


def bare(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Run the bare loop as the library comes: what the ratios refer to."""
    del scratch
    return consume("consume", bootstrap, topic, records)


def relaxed(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Run the bare loop with a garbage collector that looks less often: it spends half its time there otherwise."""
    from batcher.commands.run import tune_collector

    del scratch
    tune_collector()
    return consume("consume-gc", bootstrap, topic, records)


CONTENDERS: Mapping[str, Callable[[str, str, int, Path], Measured]] = {
    "consume": bare,
    "consume-gc": relaxed,
    "null": null,
    "parquet": parquet,
    "parquet-at-least-once": parquet_once_or_more,
    "clickhouse": clickhouse,
    "clickhouse-merged": clickhouse_merged,
    "clickhouse-at-least-once": clickhouse_once_or_more,
    "naive": naive,
}


def _engine(scratch: Path, table: str, coordinates: str) -> str:
    # In a process of its own: the engine's path is open in one process at a time, and its start is not measured.
    columns = ", ".join(part for part in (COLUMNS, coordinates) if part)
    dsn = f"chdb://{scratch / 'engine'}"
    code = (
        "import clickhouse_connect, sys\n"
        "client = clickhouse_connect.get_client(dsn=sys.argv[1])\n"
        "client.command(sys.argv[2])\n"
        "client.close()\n"
    )
    statement = (
        f"CREATE TABLE IF NOT EXISTS {table or 'events'} ({columns}) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )
    subprocess.run([sys.executable, "-c", code, dsn, statement], check=True)
    return dsn


def measure(contender: str, bootstrap: str, topic: str, records: int) -> Measured:
    """Give a contender its turn in a fresh process."""
    command = [sys.executable, __file__, "--turn", contender, bootstrap, topic, str(records)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{contender} failed with exit code {done.returncode}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def turn(contender: str, bootstrap: str, topic: str, records: int) -> None:
    """Be the fresh process."""
    with tempfile.TemporaryDirectory(prefix="batcher-bench-") as scratch:
        result = CONTENDERS[contender](bootstrap, topic, records, Path(scratch))
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        sys.stdout.flush()


def load(broker: Any, topic: str, records: int) -> None:
    """Fill the topic with made-up orders, the same for the same number."""
    from batcher.testing.events import EventGenerator

    broker.create_topic(topic, PARTITIONS)
    events = EventGenerator(seed=1)
    chunk = 50_000
    for start in range(0, records, chunk):
        broker.produce(topic, events.take(min(chunk, records - start)), compression="lz4")


def report(results: Sequence[Measured]) -> str:
    """Return the table: medians, the spread of the rate, and the ratio to bare consume() in this run."""
    by_name: dict[str, list[Measured]] = {}
    for one in results:
        by_name.setdefault(one.contender, []).append(one)
    ceiling = statistics.median(one.rows_per_second for one in by_name["consume"]) if "consume" in by_name else None
    lines = ["| contender | rows/s (median) | lowest to highest | of consume() | CPU µs a row | peak RSS MB |"]
    lines.append("|---|---|---|---|---|---|")
    for name, found in by_name.items():
        rates = sorted(one.rows_per_second for one in found)
        ratio = f"{statistics.median(rates) / ceiling:.2f}" if ceiling else "-"
        cpu = statistics.median(one.cpu_us_per_row for one in found)
        peak = max(one.peak_rss_mb for one in found)
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {rates[0]:,.0f} to {rates[-1]:,.0f} "
            f"| {ratio} | {cpu:.2f} | {peak:,.0f} |"
        )
    for sink in ("parquet", "clickhouse"):
        once, more = by_name.get(sink), by_name.get(f"{sink}-at-least-once")
        if once and more:
            ratios = [one.rows_per_second / other.rows_per_second for one, other in zip(once, more, strict=True)]
            lines.append(
                f"\n{sink}: exactly-once at {statistics.median(ratios):.2f} of the speed of at-least-once "
                f"({min(ratios):.2f} to {max(ratios):.2f}, round by round)"
            )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Say what the numbers were taken on."""
    packages = ("kafka-batcher", "confluent-kafka", "pyarrow", "clickhouse-connect", "chdb")
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def main() -> None:
    """Load the topic, give every contender its turns, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, separated by commas")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/pipeline.json"), help="where to write")
    parser.add_argument("--turn", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        contender, bootstrap, topic, records = arguments.turn
        turn(contender, bootstrap, topic, int(records))
        return
    from batcher.testing.brokers import available_broker

    names = arguments.only.split(",")
    results: list[Measured] = []
    with available_broker() as broker:
        topic = f"bench-{uuid.uuid4()}"
        print(f"loading {arguments.records:,} records into {PARTITIONS} partitions", flush=True)
        load(broker, topic, arguments.records)
        for round_ in range(arguments.rounds):
            for name in names:
                wanted = arguments.records // NAIVE_SHARE if name == "naive" else arguments.records
                result = measure(name, broker.bootstrap, topic, wanted)
                results.append(result)
                print(f"round {round_ + 1}: {name:<11}{result.rows_per_second:>10,.0f} rows/s", flush=True)
    print("\n" + report(results))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), "records": arguments.records, "results": [asdict(one) for one in results]}
    arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
