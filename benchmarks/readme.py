"""The tables of the README and of docs/performance.md, from the results of `bench_compare`.

`python tests/test_docs.py --update` puts them there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import RESULTS, Measured, by_contender, ratios

WORDS: Final = {
    "consume": "bare `consume()` of confluent-kafka, messages dropped",
    "null": "**batcher**, decoded and thrown away",
    "parquet": "**batcher** to Parquet, exactly-once",
    "clickhouse": "**batcher** to embedded ClickHouse, exactly-once",
    "clickhouse-http": "**batcher** to ClickHouse over HTTP, exactly-once",
    "null-python": "**batcher** without the extension, decoded and thrown away",
    "parquet-python": "**batcher** without the extension, to Parquet",
    "clickhouse-python": "**batcher** without the extension, to embedded ClickHouse",
    "kafka-engine-best": "ClickHouse's Kafka engine, its best shape",
    "kafka-engine-usual": "ClickHouse's Kafka engine, its usual shape",
    "spark": "Spark Structured Streaming, `local[2]`, to Parquet",
    "bytewax": "Bytewax to Parquet",
    "arroyo": "sentry-arroyo to Parquet",
    "quix": "Quix Streams to Parquet",
    "naive-parquet": "a loop: `poll`, `json.loads`, `write_table`",
    "naive": "a loop: `poll`, `json.loads`, `client.insert` of rows",
    "naive-columns": "a loop: `poll`, `json.loads`, `client.insert` of columns",
    "naive-msgspec": "a loop: `poll`, msgspec, `client.insert` of columns",
}
"""What the pages call the contenders."""

IN_README: Final = ("consume", "parquet", "clickhouse", "kafka-engine-best", "naive-msgspec")
"""The five rows of the README: the ceiling, both targets, and the fastest rivals of a server's and of a loop's kind."""


def table(only: Collection[str] = tuple(WORDS), results: Path = RESULTS / "compare.json") -> str:
    """Return the sentence that says what was run, and the table of some contenders, the fastest first."""
    facts: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
    turns = [Measured(**one) for one in facts["results"]]
    found, of_consume = by_contender(turns), ratios(turns, "consume")
    given, machine = facts["parameters"], facts["machine"]
    lines = [
        f"{given['records']:,} records of about 180 bytes of JSON, 9 columns, {given['partitions']} partitions, lz4;",
        f"one run of `make bench-compare`, medians of {given['rounds']} rounds, on {machine['cores']} cores shared",
        "with the broker.",
        "",
        "| | rows/s | of `consume()` | CPU µs a row | peak memory |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in sorted((name for name in found if name in only), key=lambda one: -of_consume[one]):
        rate = statistics.median(one.rows_per_second for one in found[name])
        cpu = statistics.median(one.cpu_us_per_row for one in found[name])
        peak = max(one.peak_rss_mb for one in found[name])
        lines.append(f"| {WORDS[name]} | {rate:,.0f} | {of_consume[name]:.2f} | {cpu:.1f} | {peak:,.0f} MB |")
    return "\n".join(lines) + "\n"
