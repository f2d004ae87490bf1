"""Measure the whole pipeline beside the bare client library, and beside the loop most people write.

The same orders are loaded as JSON, as Avro and as Protobuf, each encoding from a topic of its own.

    python -m benchmarks.bench_pipeline                     2 million records, three rounds, some minutes
    python -m benchmarks.bench_pipeline --records 200000 --rounds 1 --only consume,parquet
    python -m benchmarks.bench_pipeline --only consume,parquet,parquet-python      natively, and in Python

`--native` and `BATCHER_NATIVE` are those of batcher; `-python` behind a name turns the extension off for that one.

The figure to quote is the ratio to bare `consume()` within one run: absolute numbers belong to one machine on one day.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contenders, encodings
from benchmarks.harness import RESULTS, Measured, by_contender, in_rounds, write


def cost_of_exactly_once(results: Sequence[Measured]) -> list[str]:
    """Say, for each target, how fast exactly-once is beside at-least-once, round by round."""
    found = by_contender(results)
    remarks = []
    for sink in ("parquet", "clickhouse"):
        once, more = found.get(sink), found.get(f"{sink}-at-least-once")
        if once and more:
            ratios = [one.rows_per_second / other.rows_per_second for one, other in zip(once, more, strict=True)]
            remarks.append(
                f"{sink}: exactly-once at {statistics.median(ratios):.2f} of the speed of at-least-once "
                f"({min(ratios):.2f} to {max(ratios):.2f}, round by round)"
            )
    return remarks


def speed_of_encodings(results: Sequence[Measured]) -> list[str]:
    """Say, for each target, how fast the same orders are in other encodings beside JSON, round by round."""
    found = by_contender(results)
    remarks = []
    for sink in ("null", "parquet"):
        for encoding in encodings.SCHEMAS:
            other, json = found.get(f"{sink}-{encoding}"), found.get(sink)
            if other and json:
                rates = [one.rows_per_second / two.rows_per_second for one, two in zip(other, json, strict=True)]
                cpu = [one.cpu_us_per_row / two.cpu_us_per_row for one, two in zip(other, json, strict=True)]
                remarks.append(
                    f"{sink}: {encoding} at {statistics.median(rates):.2f} of the speed of JSON "
                    f"({min(rates):.2f} to {max(rates):.2f}, by round) and {statistics.median(cpu):.2f} of its CPU"
                )
    return remarks


def main() -> None:
    """Load the topic, give every contender its turns, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(contenders.CONTENDERS), help="contenders, separated by commas")
    parser.add_argument("--native", choices=("auto", "off", "require"), help="as the flag of batcher")
    parser.add_argument("--json", type=Path, default=RESULTS / "pipeline.json", help="where to write")
    arguments = parser.parse_args()
    if arguments.native:
        os.environ["BATCHER_NATIVE"] = arguments.native
    from batcher.testing.brokers import available_broker

    with available_broker() as broker:
        topic = f"bench-{uuid.uuid4()}"
        print(f"loading {arguments.records:,} records into {contenders.PARTITIONS} partitions", flush=True)
        contenders.load(broker, topic, arguments.records)
        names = arguments.only.split(",")
        for encoding in encodings.SCHEMAS:
            if any(name.endswith(f"-{encoding}") for name in names):
                print(f"loading the same as {encoding}", flush=True)
                contenders.load(broker, contenders.topic_of(topic, encoding), arguments.records, encoding)

        def measure(name: str) -> Measured:
            share = contenders.NAIVE_SHARE if name == "naive" else 1
            return contenders.measure(name, broker.bootstrap, topic, arguments.records // share)

        failed: dict[str, str] = {}
        results = in_rounds(names, arguments.rounds, measure, failed)
    text = write(
        arguments.json,
        results,
        {"records": arguments.records, "rounds": arguments.rounds, "partitions": contenders.PARTITIONS},
        baseline="consume",
        title="The pipeline beside bare consume()",
        remarks=[*cost_of_exactly_once(results), *speed_of_encodings(results)],
        failed=failed,
    )
    print(f"\n{text}\n\nwritten to {arguments.json}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
