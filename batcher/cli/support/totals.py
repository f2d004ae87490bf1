"""Add up what several workers did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

Facts = Mapping[str, Any]
"""What `--json` prints, of one worker or of all."""

_SUMS: Final = (
    "consumed",
    "written",
    "dead_lettered",
    "skipped",
    "filtered",
    "paused",
    "released",
    "duplicates_suppressed",
    "batches",
    "bytes",
)

_COUNTS: Final = ("dead_letter_reasons", "unknown_fields")


def total(reports: Sequence[Facts], seconds: float, code: int) -> Facts:
    """Return the summary of all from those of each worker, `seconds` being the time that all of them took.

    A worker that was killed has left no summary: what it did is not counted.
    """
    told = [report for report in reports if "consumed" in report]
    if not told:
        return {"exit": code}
    sums = {name: sum(report[name] for report in told) for name in _SUMS}
    loaded = sums["written"] + sums["dead_lettered"]
    return {
        **sums,
        "seconds": round(seconds, 3),
        "rows_per_second": round(loaded / seconds) if seconds > 0 else 0,
        # In sorted order the weaker one comes first.
        "delivery": min(filter(None, (report["delivery"] for report in told)), default=None),
        **{name: _added_up([report[name] for report in told]) for name in _COUNTS},
        "unknown_fields_estimated": any(report["unknown_fields_estimated"] for report in told),
        "columns_without_value": _in_all([report["columns_without_value"] for report in told if report["batches"]]),
        **_targets([report["targets"] for report in told if "targets" in report]),
        "exit": code,
    }


def _targets(several: Sequence[Mapping[str, Facts]]) -> dict[str, Any]:
    """Return what the workers did to each of several targets, as the summary has it; nothing where there is one."""
    found: dict[str, dict[str, Any]] = {}
    for one in several:
        for name, facts in one.items():
            held = found.setdefault(name, dict.fromkeys(facts, 0) | {"failed": ""})
            for key, value in facts.items():
                held[key] = held[key] or value if key == "failed" else held[key] + value
    return {"targets": found} if found else {}


def _added_up(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums by name, the largest first."""
    return dict(sum(map(Counter, counts), Counter[str]()).most_common())


def _in_all(lists: Sequence[Sequence[str]]) -> list[str]:
    """Return what every list has, in the order of the first."""
    return [name for name in lists[0] if all(name in one for one in lists)] if lists else []
