"""Figures that are no contender's rate: their spread, their tables and charts, and the files they are written to."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.harness import machine


@dataclass(frozen=True, slots=True)
class Spread:
    """Hold the median of repeats, with the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """Return it in other units."""
        return Spread(self.median * factor, self.lowest * factor, self.highest * factor)

    def figure(self, digits: int = 0) -> str:
        """Return the median as text."""
        return f"{self.median:,.{digits}f}"

    def text(self, digits: int = 0) -> str:
        """Return the median with the range behind it, or alone where there is none."""
        shown = self.figure(digits)
        if self.lowest == self.highest:
            return shown
        return f"{shown} ({self.lowest:,.{digits}f} to {self.highest:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Table:
    """Hold a Markdown table; the first column is text, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Return it, with its title above."""
        lines = [
            f"**{self.title}**\n",
            f"| {' | '.join(self.columns)} |",
            f"|---|{'---:|' * (len(self.columns) - 1)}",
            *(f"| {' | '.join(row)} |" for row in self.rows),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Panel:
    """Hold one drawing: lines of spreads, by name, over the same labels; `level` is a line to stay below or above."""

    title: str
    y_label: str
    lines: Mapping[str, Mapping[str, Spread]]
    level: float | None = None


def publish(
    to: Path,
    title: str,
    tables: Sequence[Table],
    panels: Sequence[Panel],
    facts: Mapping[str, Any],
    *,
    remarks: Sequence[str] = (),
) -> str:
    """Write `NAME.json`, and beside it the tables (`.md`) and the drawings (`.svg`); return the tables as text.

    `facts` go into the JSON file beside the machine. Without matplotlib there are no drawings.
    """
    text = "\n\n".join([*(table.text() for table in tables), *remarks])
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps({"machine": machine(), **facts}, indent=1) + "\n", encoding="utf-8")
    to.with_suffix(".md").write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
    draw(to.with_suffix(".svg"), title, panels)
    return text


def draw(to: Path, title: str, panels: Sequence[Panel]) -> None:
    """Draw the panels below one another; nothing without matplotlib or without a panel."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    if not panels:
        return
    mpl.use("svg")
    # Text stays text, and the same figures make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "batcher"})
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(len(panels), squeeze=False, figsize=(9, 3.2 * len(panels)), layout="constrained")
    for panel, axes in zip(panels, grid[:, 0], strict=True):
        labels = list(dict.fromkeys(label for line in panel.lines.values() for label in line))
        for name, line in panel.lines.items():
            # By number, and the label below it: what is swept grows by factors, and a gap is no missing label.
            places = [labels.index(label) for label in line]
            middles = [one.median for one in line.values()]
            whiskers = [
                [one.median - one.lowest for one in line.values()],
                [one.highest - one.median for one in line.values()],
            ]
            axes.errorbar(places, middles, yerr=whiskers, marker="o", markersize=3, capsize=2, label=name)
        if panel.level is not None:
            axes.axhline(panel.level, color="#999999", linestyle=":")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(panel.y_label)
        axes.set_title(panel.title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(to, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def chosen(text: str, known: Collection[str]) -> list[str]:
    """Return the names in a comma-separated list; raise ArgumentTypeError for one that is not known."""
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return names


def numbers(text: str) -> list[int]:
    """Return the whole numbers in a comma-separated list."""
    return [int(word) for word in text.split(",")]
