"""Say which stage limits the pipeline and which setting to change: rules on figures, nothing is measured here.

The stages overlap, each on a thread of its own. So the others wait for the one that is busy most of the time: reading
waits when the buffer is full, decoding and writing when no batch is due.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from batcher.bench.figures import Figures, Run, Setup
from batcher.options import Advice

Limit = Literal["broker", "fetch", "decode", "write"]
"""`broker`: reading, and most of that is waiting for records."""

SMALL_ROWS: Final = 20_000
"""Below it the fixed cost of a batch begins to show: a commit, an insert or the syncs of a file."""

LARGE_ROWS: Final = 100_000
"""The default of --batch.max-rows; above it nothing more is gained, except for parts and files of a better size."""

WAITING: Final = 0.5
"""The share of the time in `fetch`, in the pipeline and alone, from which on waiting in it is caused by the broker:
some of the time is for the interpreter's lock, which the other threads hold."""

STARVED: Final = 0.75
"""Decoding alone only computes. With less CPU than this share of its time it had to wait for a core."""

LONGEST_WAIT_S: Final = 30.0
MOST_MEMORY: Final = 2 << 30
REFUSED_A_BATCH: Final = 0.5
"""Bad records for each batch from which on most batches have one, and are read a second time because of it."""
REFUSED_MOST: Final = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """Hold what limits the pipeline, in one word and in plain words, and what to do, the most useful first."""

    limit: Limit
    text: str
    advice: Sequence[Advice]

    @property
    def to_try(self) -> Advice | None:
        """Return the first advice that is a change of settings."""
        return next((one for one in self.advice if one.flags), None)


def judged(figures: Figures) -> Verdict:
    """Return the verdict on figures with at least one run that has records."""
    run, setup = figures.typical, figures.setup
    limit = limit_of(figures)
    return Verdict(limit, explained(limit, figures), (*_about_machine(figures), *advised(limit, run, setup)))


def limit_of(figures: Figures) -> Limit:
    """Return the stage that is busy most of the time. Generated records are never waited for."""
    run, setup = figures.typical, figures.setup
    busy: dict[Limit, float] = {"write": run.write_s, "decode": run.decode_s}
    if setup.topics:
        busy["fetch"] = run.fetch_s
    limit = max(busy, key=lambda name: busy[name])
    if limit != "fetch":
        return limit
    alone = figures.stages.get("fetch")
    waits = alone is None or alone.cpu_s < (1 - WAITING) * alone.seconds
    return "broker" if waits and run.fetch_s - run.fetch_cpu_s > WAITING * run.fetch_s else "fetch"


def explained(limit: Limit, figures: Figures) -> str:
    """Return the verdict in plain words, with the figures that it rests on."""
    run, room = figures.typical, figures.typical.share(figures.typical.room_s)
    waited = f"; reading waited for room {room:.0%} of the time" if figures.setup.topics else ""
    match limit:
        case "broker":
            idle = run.share(run.fetch_s - run.fetch_cpu_s)
            what = "what comes in" if figures.setup.live else "the broker or the way to it"
            return f"{what}: reading waited for records {idle:.0%} of the time, and for room {room:.0%}"
        case "fetch":
            ratio = figures.of_consume
            ceiling = f"; the whole pipeline makes {ratio:.2f} of what consume() alone does" if ratio else ""
            return f"fetch: the Kafka client was busy {run.share(run.fetch_s):.0%} of the time{ceiling}"
        case _:
            seconds = run.decode_s if limit == "decode" else run.write_s
            alone = figures.stages.get(limit)
            cost = f" {alone.us_per_row:.2f} us a row alone," if alone is not None and alone.rows else ""
            of_it = ""
            if limit == "decode" and run.transform_s:
                cost_us = run.transform_s / run.rows * 1e6
                of_it = f", the transform for {run.share(run.transform_s):.0%} ({cost_us:.2f} us a row)"
            return f"{limit}:{cost} busy {run.share(seconds):.0%} of the time{of_it}{waited}"


def advised(limit: Limit, run: Run, setup: Setup) -> Iterator[Advice]:
    """Yield advice, the most useful first; at least one."""
    found = [*_about_refusals(limit, run), *_about(limit, run, setup)]
    changed = {flag for one in found for flag in one.flags}
    found += [one for one in _about_batches(run, setup) if changed.isdisjoint(one.flags)]
    if not any(one.flags for one in found):
        found += _about_processes(limit, setup)
    yield from found or [Advice("nothing to change: no setting stands in the way")]


def _about_machine(figures: Figures) -> Iterator[Advice]:
    alone = figures.stages.get("decode")
    if alone is not None and 0 < alone.cpu_s < STARVED * alone.seconds:
        share = alone.cpu_s / alone.seconds
        yield Advice(f"measure again: something else uses this machine, decoding alone got {share:.0%} of a core")


def _about_refusals(limit: Limit, run: Run) -> Iterator[Advice]:
    refused = sum(run.refused.values())
    if not refused:
        return
    words = ", ".join(f"{reason} {count:,}" for reason, count in sorted(run.refused.items(), key=lambda one: -one[1]))
    if refused > REFUSED_MOST * run.rows:
        yield Advice(f"most records do not fit the target ({words}): is it the right topic and table?")
    elif limit == "decode" and refused > REFUSED_A_BATCH * len(run.cuts):
        yield Advice(f"bad records in most batches ({words}): decoding reads such a batch twice; see why they are bad")


def _about(limit: Limit, run: Run, setup: Setup) -> Iterator[Advice]:
    match limit:
        case "broker":
            yield from _about_broker(setup)
        case "decode":
            if setup.slow_columns:
                names = ", ".join(setup.slow_columns[:5])
                yield Advice(
                    f"columns that take several times as long to decode: {names} (maps, and JSON kept as text); "
                    "columns of their own for the fields that matter are faster"
                )
        case "write" if not setup.scratch:
            return
        case "write":
            if setup.for_large_batches:
                yield from _about_batches(run, setup, enough=LARGE_ROWS)
            yield from setup.faster
        case _:
            return


def _about_broker(setup: Setup) -> Iterator[Advice]:
    if setup.live:
        yield Advice("nothing to change: the pipeline keeps up with what comes in")
        return
    if not setup.given & {"queued.max.messages.kbytes", "fetch.max.bytes", "max.partition.fetch.bytes"}:
        sizes = {"queued.max.messages.kbytes": 65536, "fetch.max.bytes": 52428800, "max.partition.fetch.bytes": 4194304}
        more = tuple(word for name, size in sizes.items() for word in ("-X", f"{name}={size}"))
        yield Advice("more read ahead, for a link with a long way", more)
    yield Advice("compress in the producers (lz4 or zstd) and see what the brokers are busy with")


def _about_batches(run: Run, setup: Setup, enough: int = SMALL_ROWS) -> Iterator[Advice]:
    """Yield what makes batches larger, where they have less than `enough` rows and are small in bytes as well."""
    rows = run.median_rows
    if not 0 < rows < enough or not setup.keeps or run.median_bytes >= 32 << 20:
        return
    several = setup.partitions > 1 and setup.may_merge and not setup.merges
    small = f"batches have {rows:,} rows"
    merging = Advice(f"{small}, each of one partition: let partitions share a batch", ("--batch.merge-partitions",))
    match run.trigger:
        case "rows":
            yield Advice(f"{small}: larger ones", ("--batch.max-rows", str(max(LARGE_ROWS, enough))))
        case "bytes":
            size = _sizes(setup, 64 << 20)
            yield Advice(f"{small}, for they are cut by their bytes: larger ones", size)
        case "age" if several:
            yield merging
        case "age":
            # Live records do not come faster because of it: the price is freshness.
            wait_s = min(LONGEST_WAIT_S, math.ceil(setup.max_wait_s * enough / rows))
            if wait_s > setup.max_wait_s:
                longer = ("--batch.max-wait", f"{wait_s:.0f}s")
                yield Advice(f"{small} when their time is up: a longer wait, and records come later by it", longer)
        case "memory" if several:
            yield merging
        case "memory" if setup.memory_bytes < MOST_MEMORY:
            memory = min(MOST_MEMORY, setup.memory_bytes * 4)
            text = f"{small}: the memory is full before any of {setup.partitions} partitions has enough"
            yield Advice(text, ("--batch.memory", f"{memory >> 20}MiB"))
        case _:
            return


def _sizes(setup: Setup, nbytes: int) -> tuple[str, ...]:
    more = () if setup.memory_bytes >= 2 * nbytes else ("--batch.memory", f"{(2 * nbytes) >> 20}MiB")
    return ("--batch.max-bytes", f"{nbytes >> 20}MiB", *more)


def _about_processes(limit: Limit, setup: Setup) -> Iterator[Advice]:
    if limit == "broker" or not setup.topics:
        return
    if setup.partitions < 2:
        yield Advice("one partition is read by one process: more partitions are what more processes need")
    elif setup.cores > 2:
        most = min(setup.partitions, setup.cores // 2)
        yield Advice(f"no setting makes one process much faster: start up to {most} with the same -g")
    else:
        yield Advice(
            f"no setting makes one process much faster, and {setup.cores} cores are what one uses: more cores, and as "
            "many processes with the same -g as partitions at most"
        )
