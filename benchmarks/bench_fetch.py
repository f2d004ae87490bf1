"""Compare `KafkaSource.fetch`, in Python and native, with the bare `consume()` of confluent-kafka, in one run.

    python -m benchmarks.bench_fetch --records 1000000 --rounds 3 --partitions 4 256

All read the same topic on a real broker from its start, in turns; the medians are compared. The bare loop drops the
messages unread, so it is the ceiling for anything that is built on `consume()`.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import structlog
from confluent_kafka import Consumer, TopicPartition

from batcher import native
from batcher.native import Choice
from batcher.records import Partition, Position
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.brokers import available_broker
from batcher.testing.kafka import Broker
from benchmarks.harness import RESULTS
from benchmarks.report import Spread, Table, publish

FETCH_RECORDS = 10_000
TIMEOUT_S = 0.2
PATHS: dict[str, Choice] = {"Python": "off", "native": "require"}


class NullListener:
    """Take what comes."""

    def on_assigned(self, positions: Mapping[Partition, Position]) -> Collection[Partition]:
        """Take all."""
        del positions
        return ()

    def on_revoked(self, partitions: Collection[Partition]) -> None:
        """Do nothing."""

    def on_lost(self, partitions: Collection[Partition]) -> None:
        """Do nothing."""


def load(broker: Broker, topic: str, records: int, partitions: int) -> None:
    """Fill the topic with records of about 180 bytes of JSON."""
    broker.create_topic(topic, partitions)
    rows = (
        {"id": i, "user": f"user-{i % 1000}", "ts": f"2026-01-01T00:00:00.{i % 1000:03d}Z", "note": "x" * 100}
        for i in range(records)
    )
    numbers = [i % partitions for i in range(records)]
    broker.produce(topic, (json.dumps(row) for row in rows), partition=numbers, compression="lz4")


def timed(read: Callable[[], int], records: int) -> tuple[float, float]:
    """Return records a second from the first that arrived, and CPU microseconds a record (librdkafka's included)."""
    seen = 0
    while not seen:
        seen = read()
    started, cpu = time.perf_counter(), time.process_time()
    first = seen
    while seen < records:
        seen += read()
    counted = records - first
    return counted / (time.perf_counter() - started), (time.process_time() - cpu) / counted * 1e6


def bare(broker: Broker, topic: str, records: int, partitions: int) -> tuple[float, float]:
    """Measure `consume()` with the settings the source uses."""
    options = KafkaOptions(broker.bootstrap, (topic,), f"bare-{uuid.uuid4().hex}")
    consumer = Consumer(dict(options.librdkafka()))
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    try:
        return timed(lambda: len(consumer.consume(FETCH_RECORDS, TIMEOUT_S)), records)
    finally:
        consumer.close()


def fetched(broker: Broker, topic: str, records: int, path: Choice) -> tuple[float, float]:
    """Measure `fetch()`."""
    source = KafkaSource(KafkaOptions(broker.bootstrap, (topic,), f"fetch-{uuid.uuid4().hex}", native=path))
    source.open(NullListener())
    try:
        return timed(lambda: sum(map(len, source.fetch(FETCH_RECORDS, 1 << 24, TIMEOUT_S))), records)
    finally:
        source.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 256])
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "fetch.json", help="where to write")
    arguments = parser.parse_args(argv)
    paths = {name: path for name, path in PATHS.items() if path == "off" or native.version()}
    # What the pipeline does at its start: the collector otherwise walks every message object.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    results: dict[str, list[tuple[float, float]]] = {}
    lines = []
    with available_broker() as broker:
        for partitions in arguments.partitions:
            topic = f"bench-{uuid.uuid4().hex[:8]}"
            load(broker, topic, arguments.records, partitions)
            measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ("consume", *paths)}
            for _ in range(arguments.rounds):
                measured["consume"].append(bare(broker, topic, arguments.records, partitions))
                for name, path in paths.items():
                    measured[name].append(fetched(broker, topic, arguments.records, path))
            ceiling = Spread.of([rate for rate, _ in measured["consume"]]).median
            for name, runs in measured.items():
                results[f"{name}, {partitions} partitions"] = runs
                rate = Spread.of([one for one, _ in runs])
                cpu = Spread.of([one for _, one in runs]).text(2)
                lines.append((str(partitions), name, rate.text(), f"{rate.median / ceiling:.2f}", cpu))
    table = Table("Columns beside messages", ("partitions", "", "records/s", "of consume", "CPU µs a record"), lines)
    facts = {
        "parameters": {
            "records": arguments.records,
            "rounds": arguments.rounds,
            "partitions": arguments.partitions,
            "native": native.version(),
        },
        "results": {
            name: [{"records_per_second": rate, "cpu_us_per_record": cpu} for rate, cpu in runs]
            for name, runs in results.items()
        },
    }
    print(publish(arguments.json, "What columns cost, with consume() and without", [table], [], facts))


if __name__ == "__main__":
    main()
