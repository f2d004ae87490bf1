"""What every benchmark shares: the stopwatch, a contender's figures, the table, the chart and the files.

A benchmark gives each contender its turns in rounds, never all turns of one after the other: the machine drifts, and
within one round it drifts least. What may be quoted is the ratio to another contender of the same run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from batcher.bench.memory import peak_memory_bytes

RESULTS: Final = Path(__file__).parent / "results"

PACKAGES: Final = ("kafka-batcher", "confluent-kafka", "pyarrow", "clickhouse-connect", "chdb")


@dataclass(frozen=True, slots=True)
class Measured:
    """Hold one contender's turn. Rates are a second, CPU is microseconds a record, memory is the peak.

    `path` says what decoded and what fetched, where that is a choice: natively or Python.
    """

    contender: str
    records: int
    seconds: float
    rows_per_second: float
    cpu_us_per_row: float
    peak_rss_mb: float
    path: str = ""


class TurnFailed(RuntimeError):
    """Say in one line why a contender's turn gave no figure."""


def reason_of(output: str) -> str:
    """Return the last line of what a process that failed wrote: Python ends with the reason."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


class Stopwatch:
    """Take time and CPU from the first record to the last sign of progress."""

    def __init__(self) -> None:
        self._began: tuple[float, float] | None = None
        self._ended = (0.0, 0.0)

    def first(self, *, again: bool = False) -> None:
        """Start, unless it runs and is not to start again."""
        if self._began is None or again:
            self._began = (time.perf_counter(), time.process_time())

    def last(self) -> None:
        """Move the end to now."""
        self._ended = (time.perf_counter(), time.process_time())

    def measured(self, contender: str, records: int) -> Measured:
        """Return the result for so many records."""
        began = self._began or self._ended
        seconds, cpu = self._ended[0] - began[0], self._ended[1] - began[1]
        peak_mb = peak_memory_bytes() / (1 << 20)
        return Measured(contender, records, seconds, records / seconds, cpu / records * 1e6, peak_mb)


def in_rounds(
    names: Sequence[str], rounds: int, measure: Callable[[str], Measured], failed: dict[str, str] | None = None
) -> list[Measured]:
    """Give each contender a turn, and all of them so many times, and return the results as they came.

    With `failed`, a contender whose turn raises TurnFailed is noted there with the reason and has no further turn; what
    the others gave stays. Without, the error is the caller's.
    """
    results = []
    for round_ in range(rounds):
        for name in names:
            if failed and name in failed:
                continue
            try:
                result = measure(name)
            except TurnFailed as error:
                if failed is None:
                    raise
                failed[name] = str(error)
                print(f"round {round_ + 1}: {name:<28}failed: {error}", flush=True)
                continue
            results.append(result)
            print(f"round {round_ + 1}: {name:<28}{result.rows_per_second:>12,.0f} rows/s", flush=True)
    return results


def by_contender(results: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the turns of each contender, in the order of their first ones."""
    found: dict[str, list[Measured]] = {}
    for one in results:
        found.setdefault(one.contender, []).append(one)
    return found


def ratios(results: Sequence[Measured], baseline: str) -> dict[str, float]:
    """Return the median rate of each contender over that of the baseline; empty where that had no turn."""
    rates = {
        name: statistics.median(one.rows_per_second for one in found) for name, found in by_contender(results).items()
    }
    return {name: rate / rates[baseline] for name, rate in rates.items()} if baseline in rates else {}


def best_ratios(results: Sequence[Measured], baseline: str) -> dict[str, float]:
    """Return, for each contender, the best ratio to the baseline's turn of the same round."""
    found = by_contender(results)
    return {
        name: max(
            one.rows_per_second / other.rows_per_second for one, other in zip(turns, found[baseline], strict=False)
        )
        for name, turns in found.items()
        if baseline in found
    }


def table(
    results: Sequence[Measured],
    baseline: str,
    called: str | None = None,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a Markdown table: medians, the spread of the rate, the ratios to the baseline in this run, and the path.

    A contender in `failed` has a row that says why.
    """
    medians, best = ratios(results, baseline), best_ratios(results, baseline)
    lines = [
        f"| contender | rows/s | lowest to highest | of {called or baseline} | best round | µs CPU | peak MB | path |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, found in by_contender(results).items():
        rates = sorted(one.rows_per_second for one in found)
        ratio = f"{medians[name]:.2f} | {best[name]:.2f}" if name in medians else "- | -"
        cpu = statistics.median(one.cpu_us_per_row for one in found)
        peak = max(one.peak_rss_mb for one in found)
        lines.append(
            f"| {name} | {statistics.median(rates):,.0f} | {rates[0]:,.0f} to {rates[-1]:,.0f} | {ratio} "
            f"| {cpu:.2f} | {peak:,.0f} | {found[0].path} |"
        )
    lines += [f"| {name} | failed: {reason} |  |  |  |  |  |  |" for name, reason in failed.items()]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Say what the numbers were taken on."""
    return {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def write(
    to: Path,
    results: Sequence[Measured],
    parameters: Mapping[str, Any],
    *,
    baseline: str,
    title: str,
    remarks: Sequence[str] = (),
    also: Mapping[str, Any] | None = None,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write `NAME.json`, and beside it the table (`.md`) and the chart (`.svg`); return the table with the remarks.

    `to` is the JSON file; `also` holds more facts for it, `failed` why contenders have no figure. Without matplotlib
    there is no chart.
    """
    text = "\n".join([table(results, baseline, failed=failed), *(f"\n{remark}" for remark in remarks)])
    if failed:
        also = {**(also or {}), "failed": dict(failed)}
    facts = {"machine": machine(), "parameters": dict(parameters), **(also or {})}
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps({**facts, "results": [asdict(one) for one in results]}, indent=1) + "\n")
    to.with_suffix(".md").write_text(f"# {title}\n\n{text}\n")
    if results:
        chart(to.with_suffix(".svg"), results, title)
    return text


def chart(to: Path, results: Sequence[Measured], title: str) -> None:
    """Draw the median rates as bars, with whiskers from the lowest to the highest; nothing without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("svg")
    # Text stays text, and the same figures make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "batcher"})
    from matplotlib import pyplot as plt

    found = sorted(
        by_contender(results).items(), key=lambda one: statistics.median(turn.rows_per_second for turn in one[1])
    )
    rates = [[turn.rows_per_second / 1000 for turn in turns] for _, turns in found]
    middles = [statistics.median(one) for one in rates]
    whiskers = [
        [middle - min(one) for middle, one in zip(middles, rates, strict=True)],
        [max(one) - middle for middle, one in zip(middles, rates, strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(9, 0.38 * len(found) + 1.2), layout="constrained")
    axes.barh([name for name, _ in found], middles, xerr=whiskers, color="#4c78a8", ecolor="#333333", capsize=2)
    axes.set_xlabel("thousand rows a second")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(to, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
