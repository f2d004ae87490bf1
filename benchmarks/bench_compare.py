"""Measure batcher beside bare `consume()`, the loops most people write, and everyone else, in one run.

    python -m benchmarks.bench_compare                      everything: 2 million records, three rounds
    python -m benchmarks.bench_compare --records 200000 --rounds 1 --only consume,clickhouse,kafka-engine-best

Environments of rivals are made on first use. One that cannot be had is left out, and the reason is printed. The last
lines say which of the promised ratios are met.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Mapping, Sequence
from math import floor
from pathlib import Path
from typing import Any, Final

from batcher.embedded.jars import Unavailable
from benchmarks import contenders
from benchmarks.compare.environments import default_directory
from benchmarks.compare.rivals import RIVALS, measure, ready, versions
from benchmarks.harness import RESULTS, Measured, best_ratios, by_contender, in_rounds, ratios, write

OURS: Final = ("consume", "null", "parquet", "clickhouse", "naive")
"""From `benchmarks.contenders`; the naive loop is there because `bench_pipeline` has it too."""

OF_CONSUME: Final = {"null": 0.65, "parquet": 0.55, "clickhouse": 0.48}
"""Wanted of bare consume() in the best round: the noise of a machine only ever takes away."""

OF_ENGINE: Final = 1.7
OF_PYTHON: Final = 3.5
"""Wanted of rivals by the medians of the run."""


def wanted(names: Sequence[str]) -> list[tuple[str, str, float]]:
    """Return the ratios to judge among the contenders: whose, to whose, and at least what."""
    in_python = {"naive": "clickhouse"} | {name: one.target for name, one in RIVALS.items() if one.in_python}
    every = [
        *((name, "consume", least) for name, least in OF_CONSUME.items()),
        ("clickhouse", "kafka-engine-best", OF_ENGINE),
        *((target, name, OF_PYTHON) for name, target in in_python.items()),
    ]
    return [one for one in every if one[0] in names and one[1] in names]


def verdicts(results: Sequence[Measured]) -> list[str]:
    """Say of each promised ratio whether the run met it; nothing of those whose contenders had no turn."""
    lines = []
    for ours, other, least in wanted(list(by_contender(results))):
        by_best = other == "consume"
        ratio = (best_ratios if by_best else ratios)(results, other)[ours]
        # Rounded down, so that what is shown as enough is enough.
        shown = floor(ratio * 100 + 1e-9) / 100
        word = "met" if shown >= least else f"missed by {least - shown:.2f}"
        by = "in the best round" if by_best else "by the medians"
        lines.append(f"{ours} / {other}: {shown:.2f} {by}, at least {least:.2f} wanted: {word}")
    return lines


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
    names = [name for name in given.only if name in OURS or name in pythons]
    share = given.records // contenders.NAIVE_SHARE
    from batcher.testing.brokers import available_broker

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

        results = in_rounds(names, given.rounds, take)
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
        remarks=[*judged, *reasons],
        also={"environments": versions(pythons), "verdicts": judged, "left out": reasons},
    )
    print(f"\n{text}\n\nwritten to {given.json}")


def _arguments() -> argparse.Namespace:
    every = [*OURS, *RIVALS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(every), help="contenders, separated by commas")
    parser.add_argument("--json", type=Path, default=RESULTS / "compare.json", help="where to write")
    parser.add_argument("--venvs", type=Path, default=default_directory(), help="where environments are kept")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if unknown := set(given.only) - set(every):
        parser.error(f"no such contender: {', '.join(sorted(unknown))}; known are {', '.join(every)}")
    return given


if __name__ == "__main__":
    main()
