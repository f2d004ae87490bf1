"""What watching costs: the same run without a server, and with a scraper and ten open pages.

    python -m benchmarks.bench_page
    python -m benchmarks.bench_page --records 50000 --rounds 1

The log is in memory, records are JSON orders, and the target keeps nothing, so that nothing hides the cost. The ten
pages and the scraper, which asks for `/metrics` and `/status` each second, are a process of their own. Their CPU is not
counted, but they share the machine, which browsers of other people would not do.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from batcher.cli.support import wiring
from batcher.core.buffer import FlushPolicy
from batcher.engine.pipeline import Pipeline
from batcher.formats.json.format import JsonFormat
from batcher.records import Partition
from batcher.settings import Settings
from batcher.telemetry.events import BatchWritten, Event, RecordsFetched
from batcher.testing.sources import MemoryLog, MemorySource
from benchmarks.harness import RESULTS, Measured, Stopwatch, in_rounds, write
from sinks.null import NullSink

PARTITIONS: Final = 4
RUN: Final = 2000
PAGES: Final = 10

WATCHERS: Final = """
import sys, threading, time, urllib.request
url, pages = sys.argv[1], int(sys.argv[2])
def page():
    with urllib.request.urlopen(url + "events", timeout=60) as stream:
        while stream.read1(1 << 16):
            pass
def scrape():
    while True:
        for path in ("metrics", "status"):
            urllib.request.urlopen(url + path, timeout=60).read()
        time.sleep(1)
for each in [page] * pages + [scrape]:
    threading.Thread(target=each, daemon=True).start()
print("watching", flush=True)
sys.stdin.read()
"""


def filled(records: int) -> MemoryLog:
    """Return a log with orders."""
    chance = random.Random(1)  # noqa: S311 - made-up orders
    bodies = [
        json.dumps({"id": n, "user_id": chance.randrange(50_000), "amount": chance.random() * 200, "note": "x" * 60})
        for n in range(RUN)
    ]
    parts = [Partition("bench", number) for number in range(PARTITIONS)]
    log = MemoryLog(parts)
    for number in range(max(1, records // RUN)):
        log.produce(parts[number % PARTITIONS], bodies)
    return log


def measured(contender: str, records: int) -> Measured:
    """Return one turn, with or without those who watch."""
    watch = Stopwatch()

    def heard(event: Event) -> None:
        match event:
            case RecordsFetched():
                watch.first()
            case BatchWritten():
                watch.last()

    watched = contender == "watched"
    settings = Settings(sink="null", http={"addr": "127.0.0.1:0"} if watched else {})
    metrics, page = wiring.metrics_of(settings), wiring.page_of(settings)
    pipeline = Pipeline(
        MemorySource(filled(records), until_eof=True),
        NullSink(),
        JsonFormat(),
        name="bench",
        flush=FlushPolicy(max_rows=20_000),
        subscribers=[heard, *([] if metrics is None else [metrics]), *([] if page is None else [page.subscriber])],
    )
    if metrics is not None:
        metrics.watch(pipeline.status)
    addr: list[str] = []
    told = addr.append
    with (
        wiring.answering(
            settings, metrics, pipeline, page, lambda facts: told(facts["addr"]) if "addr" in facts else None
        ),
        _watchers(f"http://{addr[0]}/" if addr else ""),
    ):
        summary = pipeline.run()
    return watch.measured(contender, summary.written)


@contextmanager
def _watchers(url: str) -> Iterator[None]:
    if not url:
        yield
        return
    command = [sys.executable, "-c", WATCHERS, url, str(PAGES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        running.stdout.readline()
        try:
            yield
        finally:
            running.kill()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "page.json", help="where to write")
    arguments = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    results = in_rounds(["alone", "watched"], arguments.rounds, lambda name: measured(name, arguments.records))
    parameters = {"records": arguments.records, "rounds": arguments.rounds, "pages": PAGES}
    title = "What a scraper and ten open pages cost"
    print(write(arguments.json, results, parameters, baseline="alone", title=title))


if __name__ == "__main__":
    main()
