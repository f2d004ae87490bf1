"""What the bounded buffer and the state around it cost: nanoseconds a record, microseconds a run and a batch.

    python -m benchmarks.bench_buffer
    python -m benchmarks.bench_buffer --partitions 4,64 --run-rows 100 --records 50000 --repeats 1

Records of 183 bytes come in runs of one partition, up to 4,000 records a fetch, at 400,000 a second by a made-up
clock, and leave in batches at the default settings: 100,000 rows, 64 MiB, 1 s. Nothing is decoded and nothing written.
`buffer` is `extend`, `due_in_s` and `take` alone; `state` is the whole way through the offsets and the
intents, with a commit for each that is wanted. One thread: what threads lose by waiting for each other is not in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from batcher.core.buffer import Buffer, FlushPolicy
from batcher.core.offsets import Offsets
from batcher.core.state import FETCH_RECORDS, PipelineState
from batcher.records import Decoded, Partition, Position, Prepared, Records
from benchmarks.harness import RESULTS
from benchmarks.report import Panel, Spread, Table, numbers, publish

RECORD_BYTES: Final = 183
RECORDS_PER_S: Final = 400_000
MEMORY_BYTES: Final = 128 << 20
NOTHING: Final = Decoded(pa.table({}), pa.array([], pa.int64()))

Fetches = Sequence[Sequence[Records]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold one repeat of one case."""

    way: str
    partitions: int
    run_rows: int
    records: int
    runs: int
    batches: int
    seconds: float


def fetches_of(partitions: int, run_rows: int, records: int) -> Fetches:
    """Return what a source would have returned: runs of the partitions in turn, some thousand records at a time."""
    values = pa.array([b"x" * RECORD_BYTES] * run_rows, pa.binary())
    keys, times = pa.nulls(run_rows, pa.binary()), pa.array([1_767_225_600_000] * run_rows, pa.int64())
    runs_of_fetch = max(1, min(partitions, FETCH_RECORDS // run_rows))
    fetches: list[list[Records]] = []
    for number in range(max(1, records // run_rows)):
        if number % runs_of_fetch == 0:
            fetches.append([])
        turn, partition = divmod(number, partitions)
        offsets = pa.array(range(turn * run_rows, (turn + 1) * run_rows), pa.int64())
        fetches[-1].append(Records(Partition("bench", partition), offsets, times, keys, values))
    return fetches


class Ticking:
    """Be a clock that goes on as records come."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def after(self, records: int) -> float:
        """Let the time pass in which so many records come, and return it."""
        self.now += records / RECORDS_PER_S
        return self.now


def through_buffer(fetches: Fetches, *, mixed: bool = False) -> int:
    """Put everything through a buffer and return the number of batches that came out."""
    buffer = Buffer(FlushPolicy(), MEMORY_BYTES, mixes_partitions=mixed)
    clock, batches = Ticking(), 0
    for runs in fetches:
        now = clock.after(sum(map(len, runs)))
        buffer.extend(runs, now)
        if buffer.due_in_s(now) == 0.0:
            for batch in buffer.take(now):
                buffer.release(batch)
                batches += 1
    while rest := buffer.take_rest("end", clock.now):
        for batch in rest:
            buffer.release(batch)
            batches += 1
    return batches


def through_buffer_mixed(fetches: Fetches) -> int:
    """Do the same where partitions share a batch."""
    return through_buffer(fetches, mixed=True)


def through_state(fetches: Fetches, *, mixed: bool = False) -> int:
    """Put everything through a state that keeps intents and return the number of batches that came out."""
    clock = Ticking()
    buffer = Buffer(FlushPolicy(), MEMORY_BYTES, mixes_partitions=mixed)
    state = PipelineState(buffer, Offsets("bench", announces=True))
    state.assign({run.partition: Position(0) for runs in fetches for run in runs})
    batches = 0
    for runs in fetches:
        state.fetched(runs, {}, clock.after(sum(map(len, runs))))
        batches += _settled(state, clock)
    state.drain("end", clock.now)
    batches += _settled(state, clock)
    if not state.drained(clock.now):
        raise RuntimeError("the state did not drain; please report this")
    return batches


def through_state_mixed(fetches: Fetches) -> int:
    """Do the same where partitions share a batch."""
    return through_state(fetches, mixed=True)


def _settled(state: PipelineState, clock: Ticking) -> int:
    """Do what the three loops would do until there is nothing to do, and return the number of batches."""
    batches, going = 0, True
    while going:
        going = False
        while (one := state.next_decode(clock.now)) is not None:
            state.decoded(one, Prepared(one.join(), NOTHING, 0.0))
            going = True
        if positions := state.take_commit():
            state.committed(positions, clock.now)
            going = True
        while (one := state.next_write(clock.now)) is not None:
            state.finished(one, clock.now)
            batches += 1
            going = True
    return batches


WAYS: Final[dict[str, Callable[[Fetches], int]]] = {
    "buffer": through_buffer,
    "buffer, shared batches": through_buffer_mixed,
    "state": through_state,
    "state, shared batches": through_state_mixed,
}


def measured(way: str, partitions: int, run_rows: int, fetches: Fetches) -> Cost:
    """Return the cost of one way for fetches made before."""
    began = time.perf_counter()
    batches = WAYS[way](fetches)
    seconds = time.perf_counter() - began
    runs = sum(map(len, fetches))
    return Cost(way, partitions, run_rows, runs * run_rows, runs, batches, seconds)


def tables_of(costs: Sequence[Cost]) -> list[Table]:
    """Return two tables for each way, with medians: a row for each number of partitions, a column for each size of run.

    The spread is in the other files.
    """
    found: dict[tuple[str, int, int], list[Cost]] = {}
    for cost in costs:
        found.setdefault((cost.way, cost.partitions, cost.run_rows), []).append(cost)
    sizes = list(dict.fromkeys(cost.run_rows for cost in costs))
    columns = ("partitions", *(f"runs of {size:,}" for size in sizes))

    def table(way: str, unit: str, figure: Callable[[Cost], float]) -> Table:
        rows = [
            (str(partitions), *(Spread.of([*map(figure, found[way, partitions, size])]).figure() for size in sizes))
            for partitions in dict.fromkeys(cost.partitions for cost in costs)
        ]
        return Table(f"{way}: {unit}", columns, rows)

    return [
        one
        for way in dict.fromkeys(cost.way for cost in costs)
        for one in (
            table(way, "ns a record", lambda cost: cost.seconds / cost.records * 1e9),
            table(way, "µs a batch", lambda cost: cost.seconds / cost.batches * 1e6),
        )
    ]


def panels_of(costs: Sequence[Cost]) -> list[Panel]:
    """Return a drawing for each way: nanoseconds a record over the size of a run, a line for each number of lanes."""
    panels = []
    for way in dict.fromkeys(cost.way for cost in costs):
        lines: dict[str, dict[str, list[float]]] = {}
        for one in costs:
            if one.way == way:
                line = lines.setdefault(f"{one.partitions} partitions", {})
                line.setdefault(f"{one.run_rows:,}", []).append(one.seconds / one.runs * 1e6)
        spreads = {name: {at: Spread.of(of) for at, of in line.items()} for name, line in lines.items()}
        panels.append(Panel(f"{way}, by records of a run", "µs a run", spreads))
    return panels


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=numbers, default=[1, 4, 16, 64, 256], metavar="N,…")
    parser.add_argument("--run-rows", type=numbers, default=[1, 10, 100, 1000, 4000], metavar="N,…")
    parser.add_argument("--records", type=int, default=2_000_000, help="records of a case at most")
    parser.add_argument("--runs", type=int, default=20_000, help="runs of a case at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "buffer.json", help="where to write")
    arguments = parser.parse_args(argv)
    costs = []
    for partitions in arguments.partitions:
        for run_rows in arguments.run_rows:
            fetches = fetches_of(partitions, run_rows, min(arguments.records, arguments.runs * run_rows))
            for _ in range(arguments.repeats):
                costs += [measured(way, partitions, run_rows, fetches) for way in WAYS]
    text = publish(
        arguments.json,
        "What the buffer and the state around it cost",
        tables_of(costs),
        panels_of(costs),
        {
            "parameters": {
                "records": arguments.records,
                "runs": arguments.runs,
                "repeats": arguments.repeats,
                "record_bytes": RECORD_BYTES,
                "records_per_s": RECORDS_PER_S,
            },
            "results": [asdict(cost) for cost in costs],
        },
    )
    print(f"{text}\n\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
