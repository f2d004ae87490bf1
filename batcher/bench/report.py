"""The figures and the verdict, as lines for people and as facts for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from batcher.bench.figures import Figures, Run, Setup
from batcher.bench.verdict import Verdict
from batcher.options import Advice

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Tried:
    """Hold the outcome of an advice: one run with it, beside the runs without."""

    advice: Advice
    run: Run
    spread: tuple[float, float]
    median: float

    @property
    def ratio(self) -> float:
        """Return the rate with the change over the median without."""
        return self.run.rows_per_second / self.median if self.median else 0.0

    @property
    def outcome(self) -> str:
        """Return `faster` or `slower`, or `no difference` where the runs without it differ as much."""
        lowest, highest = self.spread
        if lowest <= self.run.rows_per_second <= highest:
            return "no difference"
        return "faster" if self.ratio > 1 else "slower"


def lines(figures: Figures, verdict: Verdict, tried: Tried | None) -> Iterator[str]:
    """Yield the lines that say everything to people."""
    setup, run = figures.setup, figures.typical
    yield heading(setup, run)
    yield ""
    yield f"{'':<10}{'rows/s':>12}{'MB/s':>9}{'us a row':>11}{'CPU us a row':>14}"
    for name, stage in figures.stages.items():
        rate = f"{stage.nbytes / stage.seconds / 1e6:,.0f}" if stage.nbytes and stage.seconds else "-"
        cost = f"{stage.us_per_row:>11.2f}{stage.cpu_us_per_row:>14.2f}"
        yield f"{name:<10}{stage.rows_per_second:>12,.0f}{rate:>9}{cost}{_note(name)}"
    if not setup.scratch:
        yield f"{'write':<10}{'-':>12}{'-':>9}{'-':>11}{'-':>14}   rows are thrown away; --target scratch measures it"
    cost = f"{run.seconds / run.rows * 1e6:>11.2f}{run.cpu_s / run.rows * 1e6:>14.2f}"
    yield f"{'pipeline':<10}{run.rows_per_second:>12,.0f}{run.bytes_per_second / 1e6:>9,.0f}{cost}{_runs(figures)}"
    yield ""
    yield f"threads    {threads(run, setup)}"
    yield f"batches    {batches(run)}"
    yield f"commits    {run.commits} were asked for, none was made"
    included = "" if setup.topics else ", the records included"
    yield f"memory     {figures.peak_rss_bytes / MIB:,.0f} MiB at most{included}"
    if run.refused:
        words = ", ".join(f"{reason} {count:,}" for reason, count in sorted(run.refused.items()))
        yield f"bad        {sum(run.refused.values()):,} records, counted and thrown away: {words}"
    yield ""
    yield f"bottleneck {verdict.text}"
    for one in verdict.advice:
        yield f"advice     {one.text}{': ' if one.flags else ''}{' '.join(one.flags)}"
    if tried is not None:
        yield (
            f"tried      {' '.join(tried.advice.flags)}: {tried.run.rows_per_second:,.0f} rows/s, "
            f"{tried.ratio:.2f} of the median: {tried.outcome}"
        )


def heading(setup: Setup, run: Run) -> str:
    """Return what was read and where it went."""
    what = f"records of {','.join(setup.topics)}" if setup.topics else "generated records"
    size = f"{run.nbytes / run.rows:.0f} bytes each" if run.rows else ""
    kept = "written to a copy that is gone again" if setup.scratch else "rows thrown away"
    partitions = f"{setup.partitions} partition{'' if setup.partitions == 1 else 's'}"
    return f"{run.rows:,} {what}, {partitions}, {size}; {setup.target}: {kept}, {setup.delivery}"


def threads(run: Run, setup: Setup) -> str:
    """Return what each thread did, and for which part of the time."""
    decode, write = run.share(run.decode_s), run.share(run.write_s)
    transform = f" (transform {run.share(run.transform_s):.0%})" if run.transform_s else ""
    busy = f"decode busy {decode:.0%}{transform}, write busy {write:.0%}"
    if not setup.topics:
        return f"{busy}; fetching is not measured, the records were in memory"
    waited = run.share(run.fetch_s - run.fetch_cpu_s)
    computed = run.share(run.fetch_cpu_s)
    return f"fetch busy {computed:.0%}, waiting {waited:.0%}, out of room {run.share(run.room_s):.0%}; {busy}"


def batches(run: Run) -> str:
    """Return how many batches there were, how large, and why they were cut."""
    why = ", ".join(f"{trigger} {count}" for trigger, count in Counter(cut.trigger for cut in run.cuts).most_common())
    size = f"{run.median_rows:,} rows and {run.median_bytes / MIB:.1f} MiB"
    return f"{len(run.cuts)}, {size} in the middle one; cut by {why or 'nothing'}"


def facts(figures: Figures, verdict: Verdict, tried: Tried | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything as values for JSON, with `more` in front."""
    lowest, highest = figures.spread
    return {
        **more,
        "setup": {
            name: sorted(value) if isinstance(value, frozenset) else value
            for name, value in asdict(figures.setup).items()
        },
        "stages": {
            name: {
                "rows": stage.rows,
                "bytes": stage.nbytes,
                "seconds": round(stage.seconds, 4),
                "rows_per_second": round(stage.rows_per_second),
                "us_per_row": round(stage.us_per_row, 3),
                "cpu_us_per_row": round(stage.cpu_us_per_row, 3),
            }
            for name, stage in figures.stages.items()
        },
        "pipeline": {
            "rows_per_second": round(figures.typical.rows_per_second),
            "lowest": round(lowest),
            "highest": round(highest),
            "of_consume": None if figures.of_consume is None else round(figures.of_consume, 3),
            "runs": [_run(run) for run in figures.runs],
        },
        "peak_rss_bytes": figures.peak_rss_bytes,
        "bottleneck": {"stage": verdict.limit, "text": verdict.text},
        "advice": [{"text": one.text, "flags": list(one.flags)} for one in verdict.advice],
        "tried": None
        if tried is None
        else {
            "flags": list(tried.advice.flags),
            "run": _run(tried.run),
            "ratio": round(tried.ratio, 3),
            "outcome": tried.outcome,
        },
        "exit": figures.exit_code,
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "rows": run.rows,
        "bytes": run.nbytes,
        "seconds": round(run.seconds, 4),
        "rows_per_second": round(run.rows_per_second),
        "cpu_us_per_row": round(run.cpu_s / run.rows * 1e6, 3) if run.rows else None,
        "shares": {
            "fetch": round(run.share(run.fetch_cpu_s), 3),
            "waiting": round(run.share(run.fetch_s - run.fetch_cpu_s), 3),
            "out_of_room": round(run.share(run.room_s), 3),
            "decode": round(run.share(run.decode_s), 3),
            "transform": round(run.share(run.transform_s), 3),
            "write": round(run.share(run.write_s), 3),
        },
        "batches": len(run.cuts),
        "median_batch_rows": run.median_rows,
        "median_batch_bytes": run.median_bytes,
        "triggers": dict(Counter(cut.trigger for cut in run.cuts)),
        "commits_asked_for": run.commits,
        "refused": dict(run.refused),
    }


def _note(name: str) -> str:
    notes = {
        "consume": "   the client's own call, messages dropped",
        "fetch": "   from the brokers into columns",
    }
    return notes.get(name, "")


def _runs(figures: Figures) -> str:
    lowest, highest = figures.spread
    ratio = "" if figures.of_consume is None else f", {figures.of_consume:.2f} of consume"
    return f"   {len(figures.runs)} runs, {lowest:,.0f} to {highest:,.0f}{ratio}"
