"""What calling a handler costs, and how many calls go on at once: messages a second and CPU a message.

    python -m benchmarks.bench_handler
    python -m benchmarks.bench_handler --records 2000 --sleeps 500 --repeats 1

The whole worker is measured: source in memory, batches of 1,000, calls, commits. `nothing` does nothing with a message
of 183 bytes; there are 10 workers, or 2 processes. `sleep` sleeps for 10 ms, 100 at once. The loop beside it is the one
that most people write: `ThreadPoolExecutor.map` over each batch, of values that are in memory. The CPU of worker
processes is counted, with their start.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from batcher import Message, Partition, Worker
from batcher.testing.sources import MemoryLog, MemorySource
from benchmarks.harness import RESULTS
from benchmarks.report import Spread, Table, publish

RECORD: Final = b"x" * 183
BATCH: Final = 1000
SLEEP_S: Final = 0.01


def nothing(_message: object) -> None:
    """Do nothing."""


async def nothing_async(_message: Message) -> None:
    """Do nothing, and be awaited."""


def sleep(_message: object) -> None:
    """Wait as for an answer."""
    time.sleep(SLEEP_S)


async def sleep_async(_message: Message) -> None:
    """Wait as for an answer, and let others go on."""
    await asyncio.sleep(SLEEP_S)


@dataclass(frozen=True, slots=True)
class CallCost:
    """Hold one repeat of one case."""

    work: str
    way: str
    records: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class CallCase:
    """Name one way of calling; without a handler of ours it is the loop."""

    work: str
    way: str
    handler: Callable[[Any], object]
    options: dict[str, Any]
    loop: bool = False


CASES: Final = (
    CallCase("nothing", "a loop: ThreadPoolExecutor.map", nothing, {"workers": 10}, loop=True),
    CallCase("nothing", "threads", nothing, {}),
    CallCase("nothing", "threads, order by partition", nothing, {"order": "partition"}),
    CallCase("nothing", "threads, lists of 100", nothing, {"batch": 100}),
    CallCase("nothing", "async", nothing_async, {}),
    CallCase("nothing", "processes", nothing, {"pool": "process", "workers": 2}),
    CallCase("sleep", "a loop: ThreadPoolExecutor.map", sleep, {"workers": 100}, loop=True),
    CallCase("sleep", "threads", sleep, {"workers": 100}),
    CallCase("sleep", "async", sleep_async, {"workers": 100}),
)


def measured(case: CallCase, records: int) -> CallCost:
    """Return the cost of one case."""
    run = _loop if case.loop else _worker
    began, cpu = time.perf_counter(), _cpu_seconds()
    run(case, records)
    return CallCost(case.work, case.way, records, time.perf_counter() - began, _cpu_seconds() - cpu)


def _loop(case: CallCase, records: int) -> None:
    with ThreadPoolExecutor(case.options["workers"]) as pool:
        for _ in range(records // BATCH or 1):
            list(pool.map(case.handler, [RECORD] * min(BATCH, records)))


def _worker(case: CallCase, records: int) -> None:
    partitions = [Partition("bench", number) for number in range(4)]
    log = MemoryLog(partitions)
    for number in range(records // BATCH or 1):
        log.produce(partitions[number % 4], [RECORD] * min(BATCH, records))
    summary = Worker(MemorySource(log, until_eof=True), case.handler, **case.options).run()
    if summary.written < records // BATCH * BATCH:
        raise RuntimeError(f"{case.way}: {summary.written} of {records} were handled; please report this")


def _cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def table_of(work: str, costs: Sequence[CallCost]) -> Table:
    """Return a row for each way of one work: medians, with their spread."""
    rows = []
    for way in dict.fromkeys(one.way for one in costs if one.work == work):
        those = [one for one in costs if (one.work, one.way) == (work, way)]
        rates = Spread.of([one.records / one.seconds for one in those])
        cpu = Spread.of([one.cpu_seconds / one.records * 1e6 for one in those])
        rows.append((way, rates.text(), cpu.text(1)))
    return Table(work, ("", "messages/s", "CPU µs a message"), rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000, help="messages with which nothing is done")
    parser.add_argument("--sleeps", type=int, default=20_000, help="messages that are slept for")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "handler.json", help="where to write")
    arguments = parser.parse_args(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("error"))
    counts = {"nothing": arguments.records, "sleep": arguments.sleeps}
    costs = [measured(case, counts[case.work]) for _ in range(arguments.repeats) for case in CASES]
    text = publish(
        arguments.json,
        "What calling a handler costs",
        [table_of(work, costs) for work in counts],
        [],
        {
            "parameters": {**counts, "repeats": arguments.repeats, "record_bytes": len(RECORD), "sleep_s": SLEEP_S},
            "results": [asdict(one) for one in costs],
        },
    )
    print(f"{text}\n\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
