"""The contenders of the pipeline's benchmarks, each in a process of its own for its turn.

One broker, one topic, each contender in turns. A contender's time runs from its first record to its last durable
commit; CPU counts every thread of its process, librdkafka's included; the broker is not counted but shares the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from batcher.protocols import PartitionListener, SourceInfo
from batcher.records import Partition, Position, Records
from benchmarks import encodings
from benchmarks.harness import Measured, Stopwatch, TurnFailed, reason_of
from benchmarks.orders import COLUMNS, NAMES

PARTITIONS: Final = 4
NAIVE_SHARE: Final = 8
"""The naive loop reads one record in so many, or its turn would be most of the run."""

S3_START_S: Final = 60.0

COORDINATES: Final = "_topic LowCardinality(String), _partition UInt32, _offset UInt64, _timestamp DateTime64(3, 'UTC')"


class TimedSource:
    """Pass everything on to a source and watch when records come and when commits are made."""

    def __init__(self, source: Any, watch: Stopwatch) -> None:
        self._source = source
        self._watch = watch
        self._seen = False

    def open(self, listener: PartitionListener) -> SourceInfo:
        """Pass on."""
        info: SourceInfo = self._source.open(listener)
        return info

    def fetch(self, max_records: int, max_bytes: int, timeout_s: float) -> Sequence[Records]:
        """Pass on; the clock starts with the fetch that brings the first records."""
        self._watch.first(again=not self._seen)
        runs: Sequence[Records] = self._source.fetch(max_records, max_bytes, timeout_s)
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

    from batcher.sources.kafka.options import KafkaOptions

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
    from batcher.cli.support.tuning import tune_collector, tune_memory
    from batcher.cli.support.wiring import pipeline_of
    from batcher.cli.verbs.run import parser
    from batcher.settings import load
    from batcher.telemetry import logs

    choice = ("--native", os.environ.get("BATCHER_NATIVE") or "auto")
    words = ["-b", bootstrap, "-t", topic, "-g", f"bench-{uuid.uuid4()}", "--until-eof", *choice, *flags]
    settings = load(parser(), words, {}, runnable=True).settings
    logs.setup("json", "error")
    made = pipeline_of(settings)
    watch = Stopwatch()
    made._fetch._source = TimedSource(made._fetch._source, watch)  # noqa: SLF001  # a stopwatch needs no public seam
    tune_collector()
    tune_memory()
    summary = made.run()
    settled = summary.written + (summary.dead_lettered if "--dlq.path" in flags else 0)
    if settled != records:
        sys.exit(f"{contender}: wrote {summary.written} of {records} records")
    return replace(watch.measured(contender, records), path=path_taken())


def path_taken() -> str:
    """Say what this process did natively and what in Python."""
    from batcher import native

    words = [f"{job} {'native' if job in native.jobs() else 'Python'}" for job in ("decode", "fetch")]
    return ", ".join(words)


def null(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Decode and throw away."""
    del scratch
    return pipeline("null", bootstrap, topic, records, "--sink", "null")


def parquet(bootstrap: str, topic: str, records: int, scratch: Path, delivery: str = "exactly-once") -> Measured:
    """Write zstd files, fsynced, with coordinates."""
    flags = ("--sink", "parquet", "--parquet.path", str(scratch / "out"), "--delivery", delivery)
    return pipeline(_named("parquet", delivery), bootstrap, topic, records, *flags)


def parquet_on_s3(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Put the same files into a bucket of moto's server, another process whose CPU and memory are not counted."""
    del scratch
    with s3_server() as endpoint:
        flags = ("--sink", "parquet", "--parquet.path", f"s3://bench/out?endpoint={endpoint}")
        return pipeline("parquet-s3", bootstrap, topic, records, *flags, "--delivery", "exactly-once")


@contextmanager
def s3_server() -> Iterator[str]:
    """Run an S3 server with the bucket `bench` in a process of its own, and yield its address."""
    import boto3

    from batcher.embedded.tether import free_ports, tethered

    [port] = free_ports(1)
    keys = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_REGION": "us-east-1"}
    os.environ |= keys
    command = tethered([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client: Any = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")
        deadline = time.monotonic() + S3_START_S
        while True:
            try:
                client.create_bucket(Bucket="bench")
                break
            except Exception:  # whatever a server says that is not up yet
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def delta(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Commit the same rows to a Delta table on the same disk, a commit for all partitions."""
    flags = ("--sink", "delta", "--delta.path", str(scratch / "table"), "--batch.max-wait", "1s")
    return pipeline("delta", bootstrap, topic, records, *flags)


def iceberg(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Do the same with an Iceberg table in a catalog of SQLite."""
    catalog = ("type=sql", f"uri=sqlite:///{scratch}/catalog.db", f"warehouse=file://{scratch}/warehouse")
    flags = [word for one in catalog for word in ("--iceberg.catalog", one)]
    flags += ["--sink", "iceberg", "--iceberg.table", "shop.orders", "--batch.max-wait", "1s"]
    return pipeline("iceberg", bootstrap, topic, records, *flags)


def encoded(sink: str, encoding: str) -> Callable[[str, str, int, Path], Measured]:
    """Return a contender that does the same with the same orders in another encoding, from a topic of its own."""

    def contender(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
        flags = ["--sink", sink, *encodings.flags(encoding, scratch)]
        if sink == "parquet":
            flags += ["--parquet.path", str(scratch / "out"), "--delivery", "exactly-once"]
        return pipeline(f"{sink}-{encoding}", bootstrap, topic_of(topic, encoding), records, *flags)

    return contender


def topic_of(topic: str, encoding: str) -> str:
    """Return the name of the topic that has the orders of another one in an encoding."""
    return f"{topic}-{encoding}"


def parquet_once_or_more(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Do the same without intents: what exactly-once costs is the difference."""
    return parquet(bootstrap, topic, records, scratch, "at-least-once")


def clickhouse(
    bootstrap: str, topic: str, records: int, scratch: Path, delivery: str = "exactly-once", *more: str
) -> Measured:
    """Insert into a MergeTree of the embedded engine, with coordinates and a window for tokens."""
    dsn = engine(scratch, "events", COORDINATES)
    flags = (*_into(dsn), "--delivery", delivery)
    name = "clickhouse-merged" if more else _named("clickhouse", delivery)
    return pipeline(name, bootstrap, topic, records, *flags, *more)


def clickhouse_over_http(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Insert over HTTP on loopback; the engine is in another process, whose CPU and memory are not counted."""
    from batcher.testing.clickhouse import ClickHouseServer

    with ClickHouseServer(scratch / "engine") as server:
        server.query(statement("events", COORDINATES))
        flags = (*_into(server.dsn), "--delivery", "exactly-once")
        return pipeline("clickhouse-http", bootstrap, topic, records, *flags)


def _into(dsn: str) -> tuple[str, ...]:
    return ("--sink", "clickhouse", "--clickhouse.dsn", dsn, "--clickhouse.table", "events")


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

    dsn = engine(scratch, "naive", "")
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
    result = watch.measured("naive", records)
    there = client.command("SELECT uniqExact(id) FROM naive")
    if there != records:
        sys.exit(f"naive: {there} of {records} records are in the table")
    client.close()
    return result


def bare(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Run the bare loop as the library comes: what the ratios refer to."""
    del scratch
    return consume("consume", bootstrap, topic, records)


def relaxed(bootstrap: str, topic: str, records: int, scratch: Path) -> Measured:
    """Run the bare loop with a garbage collector that looks less often: it spends half its time there otherwise."""
    from batcher.cli.support.tuning import tune_collector

    del scratch
    tune_collector()
    return consume("consume-gc", bootstrap, topic, records)


CONTENDERS: Mapping[str, Callable[[str, str, int, Path], Measured]] = {
    "consume": bare,
    "consume-gc": relaxed,
    "null": null,
    "null-avro": encoded("null", "avro"),
    "null-protobuf": encoded("null", "protobuf"),
    "parquet": parquet,
    "parquet-avro": encoded("parquet", "avro"),
    "parquet-protobuf": encoded("parquet", "protobuf"),
    "parquet-at-least-once": parquet_once_or_more,
    "parquet-s3": parquet_on_s3,
    "delta": delta,
    "iceberg": iceberg,
    "clickhouse": clickhouse,
    "clickhouse-http": clickhouse_over_http,
    "clickhouse-merged": clickhouse_merged,
    "clickhouse-at-least-once": clickhouse_once_or_more,
    "naive": naive,
}


IN_PYTHON: Final = "-python"
"""Ends the name of a contender that runs without the native extension."""


def statement(table: str, coordinates: str, of: str = COLUMNS, order: str = "id") -> str:
    """Return what makes a table of these columns."""
    columns = ", ".join(part for part in (of, coordinates) if part)
    return (
        f"CREATE TABLE IF NOT EXISTS {table} ({columns}) ENGINE = MergeTree ORDER BY {order} "
        "SETTINGS non_replicated_deduplication_window = 10000"
    )


def engine(scratch: Path, table: str, coordinates: str, of: str = COLUMNS, order: str = "id") -> str:
    """Make a table in an embedded engine and return the engine's address."""
    # In a process of its own: the engine's path is open in one process at a time, and its start is not measured.
    dsn = f"chdb://{scratch / 'engine'}"
    code = (
        "import clickhouse_connect, sys\n"
        "client = clickhouse_connect.get_client(dsn=sys.argv[1])\n"
        "client.command(sys.argv[2])\n"
        "client.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, dsn, statement(table, coordinates, of, order)], check=True)
    return dsn


def measure(contender: str, bootstrap: str, topic: str, records: int) -> Measured:
    """Give a contender its turn in a fresh process; with `-python` behind its name, without the native extension.

    Raise TurnFailed where it fails or rows are missing.
    """
    name = contender.removesuffix(IN_PYTHON)
    variables = os.environ | ({"BATCHER_NATIVE": "off"} if name != contender else {})
    command = [sys.executable, "-m", "benchmarks.contenders", name, bootstrap, topic, str(records)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise TurnFailed(f"exit code {done.returncode}: {reason_of(done.stderr)}")
    return replace(Measured(**json.loads(done.stdout.splitlines()[-1])), contender=contender)


def turn(contender: str, bootstrap: str, topic: str, records: int) -> None:
    """Be the fresh process."""
    with tempfile.TemporaryDirectory(prefix="batcher-bench-") as scratch:
        result = CONTENDERS[contender](bootstrap, topic, records, Path(scratch))
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        sys.stdout.flush()


def load(broker: Any, topic: str, records: int, encoding: str | None = None) -> None:
    """Fill the topic with made-up orders, the same for the same number; as JSON, or in another encoding."""
    from batcher.generate.events import EventGenerator

    broker.create_topic(topic, PARTITIONS)
    events = EventGenerator(seed=1)
    encode = encodings.encoder(encoding) if encoding else bytes
    chunk = 50_000
    for start in range(0, records, chunk):
        orders = events.take(min(chunk, records - start))
        broker.produce(topic, [encode(order) for order in orders] if encoding else orders, compression="lz4")


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    _parser.add_argument("contender", choices=CONTENDERS)
    _parser.add_argument("bootstrap")
    _parser.add_argument("topic")
    _parser.add_argument("records", type=int)
    _given = _parser.parse_args()
    turn(_given.contender, _given.bootstrap, _given.topic, _given.records)
