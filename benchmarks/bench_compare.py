"""Measure batcher beside bare `consume()`, the loops most people write, and everyone else, in one run.

    python -m benchmarks.bench_compare                      everything: 2 million records, three rounds
    python -m benchmarks.bench_compare --quick              less of everything, some 20 minutes
    python -m benchmarks.bench_compare --records 200000 --rounds 1 --only consume,clickhouse,kafka-engine-best

Environments of rivals are made on first use. One that cannot be had is left out, and the reason is printed. One whose
turn fails has a row that says why; the exit code is 1 only where batcher itself failed. batcher runs natively where the
extension is there, and beside that in Python. After that it loads records of other shapes. The last lines say which of
the promised ratios are met.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import floor
from pathlib import Path
from typing import Any, Final

from batcher import native
from batcher.embedded.jars import Unavailable
from benchmarks import contenders
from benchmarks.compare.environments import default_directory
from benchmarks.compare.rivals import RIVALS, measure, ready, versions
from benchmarks.contenders import IN_PYTHON
from benchmarks.harness import RESULTS, Measured, best_ratios, by_contender, in_rounds, ratios, table, write
from benchmarks.report import chosen
from benchmarks.shapes import SHAPES
from benchmarks.turn import SINKS, Turn

OURS: Final = ("consume", "null", "parquet", "clickhouse", "clickhouse-http", "naive")
"""From `benchmarks.contenders`; the naive loop is there because `bench_pipeline` has it too."""

ALSO_IN_PYTHON: Final = tuple(f"{name}{IN_PYTHON}" for name in ("null", "parquet", "clickhouse"))
"""The same without the native extension, where that is what the others use."""

NOT_OURS: Final = ("consume", "naive")
OTHER_SHAPES: Final = ("tiny", "wide", "deep", "poisoned")

QUICK: Final = {"records": 400_000, "rounds": 2}
USUAL: Final = {"records": 2_000_000, "rounds": 3}
SHARE_OF_SHAPES: Final = 2
"""Records of other shapes are as many divided by this, and by what a shape says."""

OF_CONSUME: Final = {"null": 0.65, "parquet": 0.55, "clickhouse": 0.48}
"""Wanted of bare consume() in the best round: the noise of a machine only ever takes away."""

OF_CONSUME_NATIVE: Final = {"null": 1.3, "parquet": 1.0, "clickhouse": 0.9}
"""The same where the native extension decodes."""

OF_ENGINE: Final = 1.7
OF_ENGINE_NATIVE: Final = 4.0
OF_PYTHON: Final = 3.5
OF_PYTHON_NATIVE: Final = 7.0
"""Wanted of rivals by the medians of the run."""


def wanted(results: Sequence[Measured]) -> list[tuple[str, str, float]]:
    """Return the ratios to judge among the contenders: whose, to whose, and at least what on the path it ran on."""
    found = by_contender(results)
    in_python = {"naive": "clickhouse"} | {name: one.target for name, one in RIVALS.items() if one.in_python}

    def least(name: str, python: float, natively: float) -> float:
        return natively if name in found and found[name][0].path.startswith("decode native") else python

    every = [
        *((name, "consume", least(name, least_, OF_CONSUME_NATIVE[name])) for name, least_ in OF_CONSUME.items()),
        *((f"{name}{IN_PYTHON}", "consume", least_) for name, least_ in OF_CONSUME.items()),
        ("clickhouse", "kafka-engine-best", least("clickhouse", OF_ENGINE, OF_ENGINE_NATIVE)),
        *((target, name, least(target, OF_PYTHON, OF_PYTHON_NATIVE)) for name, target in in_python.items()),
    ]
    return [one for one in every if one[0] in found and one[1] in found]


def verdicts(results: Sequence[Measured]) -> list[str]:
    """Say of each promised ratio whether the run met it; nothing of those whose contenders had no turn."""
    lines = []
    for ours, other, least in wanted(results):
        by_best = other == "consume"
        ratio = (best_ratios if by_best else ratios)(results, other)[ours]
        # Rounded down, so that what is shown as enough is enough.
        shown = floor(ratio * 100 + 1e-9) / 100
        word = "met" if shown >= least else f"missed by {least - shown:.2f}"
        by = "in the best round" if by_best else "by the medians"
        lines.append(f"{ours} / {other}: {shown:.2f} {by}, at least {least:.2f} wanted: {word}")
    return lines


def by_shape(
    broker: Any, shapes: Sequence[str], records: int, rounds: int, failed: dict[str, str]
) -> tuple[list[Measured], list[str]]:
    """Load records of each shape into each target; return all turns, and a table for each shape."""
    results, tables = [], []
    for shape in shapes:
        count = max(1000, int(records * SHAPES[shape].share) // SHARE_OF_SHAPES)
        topic = f"bench-{shape}-{uuid.uuid4()}"
        print(f"loading {count:,} {shape} records", flush=True)
        broker.create_topic(topic, contenders.PARTITIONS)
        broker.produce(topic, SHAPES[shape].records(count), compression="lz4")
        turns = {
            f"{sink}, {shape}": Turn(
                f"{sink}, {shape}", sink, broker.bootstrap, topic, contenders.PARTITIONS, count, shape
            )
            for sink in SINKS
        }
        missing: dict[str, str] = {}
        found = in_rounds(list(turns), rounds, lambda name, turns=turns: turns[name].take(), missing)  # type: ignore[misc]
        results += found
        failed |= missing
        tables.append(table(found, f"consume, {shape}", f"consume, {shape}", missing))
    return results, tables


def failed_of_ours(failed: Mapping[str, str]) -> list[str]:
    """Return the contenders that failed and are batcher itself."""
    names = [name.split(",")[0].removesuffix(IN_PYTHON) for name in failed]
    return [full for full, name in zip(failed, names, strict=True) if name in OURS and name not in NOT_OURS]


def available(names: Sequence[str], environments: Path) -> tuple[dict[str, Path], list[str]]:
    """Set the rivals up; return the Python of each, and of those that cannot be had the reasons."""
    pythons, reasons = {}, []
    for name in names:
        if name in RIVALS:
            try:
                pythons[name] = ready(name, environments)
            except Unavailable as error:
                reasons.append(f"{name} is left out: {error}")
    return pythons, reasons


def main() -> None:
    """Set up, load the topics, give every contender its turns, print and write the table and the verdicts."""
    given = _arguments()
    pythons, reasons = available(given.only, given.venvs)
    for reason in reasons:
        print(reason, flush=True)
    ours = (*OURS, *ALSO_IN_PYTHON)
    names = [name for name in given.only if name in ours or name in pythons]
    share = given.records // contenders.NAIVE_SHARE
    from batcher.testing.brokers import available_broker

    failed: dict[str, str] = {}
    with available_broker() as broker:
        run = uuid.uuid4()
        topics = {f"bench-{run}": given.records, f"bench-{run}-share": share}
        for topic, records in topics.items():
            print(f"loading {records:,} records into {contenders.PARTITIONS} partitions", flush=True)
            contenders.load(broker, topic, records)
        whole, part = topics

        def take(name: str) -> Measured:
            if name in pythons:
                topic = whole if RIVALS[name].whole else part
                return measure(name, pythons[name], broker.bootstrap, topic, topics[topic])
            topic = part if name == "naive" else whole
            return contenders.measure(name, broker.bootstrap, topic, topics[topic])

        results = in_rounds(names, given.rounds, take, failed)
        of_shapes: dict[str, str] = {}
        shaped, tables = by_shape(broker, given.shapes, given.records, given.rounds, of_shapes)
    parameters: Mapping[str, Any] = {
        "records": given.records,
        "records of the slow": share,
        "rounds": given.rounds,
        "partitions": contenders.PARTITIONS,
    }
    judged = verdicts(results)
    text = write(
        given.json,
        results,
        parameters,
        baseline="consume",
        title="batcher beside everyone else",
        remarks=[*judged, *reasons, *tables],
        also={
            "environments": versions(pythons),
            "verdicts": judged,
            "left out": reasons,
            "shapes": [asdict(one) for one in shaped],
        },
        failed=failed,
    )
    print(f"\n{text}\n\nwritten to {given.json}")
    if broken := failed_of_ours(failed | of_shapes):
        sys.exit(f"failed: {', '.join(broken)}")


def _arguments() -> argparse.Namespace:
    ours = [*OURS, *ALSO_IN_PYTHON] if native.version() and os.environ.get("BATCHER_NATIVE") != "off" else [*OURS]
    every = [*ours, *RIVALS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK['records']:,} records, {QUICK['rounds']} rounds")
    parser.add_argument("--records", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", default=",".join(every), help="contenders, separated by commas")
    parser.add_argument("--shapes", default=",".join(OTHER_SHAPES), help="shapes to load besides, or none")
    parser.add_argument("--native", choices=("auto", "off", "require"), help="as the flag of batcher")
    parser.add_argument("--json", type=Path, default=RESULTS / "compare.json", help="where to write")
    parser.add_argument("--venvs", type=Path, default=default_directory(), help="where environments are kept")
    given = parser.parse_args()
    usual = QUICK if given.quick else USUAL
    given.records = given.records or usual["records"]
    given.rounds = given.rounds or usual["rounds"]
    if given.native:
        os.environ["BATCHER_NATIVE"] = given.native
    given.shapes = [] if given.shapes in ("", "none") else chosen(given.shapes, SHAPES)
    given.only = given.only.split(",")
    known = [*OURS, *ALSO_IN_PYTHON, *RIVALS]
    if unknown := set(given.only) - set(known):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if given.native == "off":
        given.only = [name for name in given.only if name not in ALSO_IN_PYTHON]
    return given


if __name__ == "__main__":
    main()
