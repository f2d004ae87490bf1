"""Tell the story: steps and numbers, a live view on a terminal, one line every two seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batcher.demo.audit import Sums
from batcher.demo.targets import Answer

REFRESH_S: Final = 0.15
PLAIN_S: Final = 2.0
BAR: Final = 40


@dataclass(frozen=True, slots=True)
class DemoProgress:
    """Say how far the demo is: orders wanted, in the topic, committed, dead-lettered; and what goes on."""

    wanted: int
    produced: int
    loaded: int
    dead_letters: int
    batches: int
    pipeline: str
    throttled: bool


class DemoView:
    """Print to a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._started = time.monotonic()
        self._shown_at = 0.0
        self._steps = 0

    def title(self, text: str) -> None:
        """Print the first line."""
        self._console.print(Text(text, "bold"))
        self._console.print()

    def step(self, text: str, *details: str, style: str = "") -> None:
        """Print what happens next, numbered, and details below it."""
        self._steps += 1
        self._console.print(Text.assemble((f"{self._steps:>2}  ", "bold cyan"), (text, style)))
        for line in details:
            self._console.print(Text(f"      {line}", "dim"))

    @contextmanager
    def following(self) -> Iterator[None]:
        """Show what `progress` is given until the end of the block."""
        self._started = self._shown_at = time.monotonic()
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def progress(self, now: DemoProgress, *, final: bool = False) -> None:
        """Show numbers; calls that come too often are harmless, unless they are `final`."""
        clock = time.monotonic()
        if not final and clock - self._shown_at < (PLAIN_S if self._live is None else REFRESH_S):
            return
        self._shown_at = clock
        if self._live is not None:
            self._live.update(_picture(now), refresh=True)
            return
        elapsed = f"{clock - self._started:5.1f} s"
        self._console.print(
            f"      {elapsed}   in the topic {now.produced:>9,}   loaded {now.loaded:>9,}   "
            f"behind {now.produced - now.loaded:>7,}   dead letters {now.dead_letters:>4,}   {now.pipeline}"
        )

    def sums(self, sums: Sums) -> None:
        """Print the count as a small table."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(style="dim")
        good, bad = "bold green", "bold red"
        right = "all broken ones, no other" if sums.dead_lettered == sums.poison else f"but {sums.poison:,} were broken"
        if sums.dead_letters_duplicated:
            right = f"{right}; {sums.dead_letters_duplicated:,} twice"
        table.add_row("produced", f"{sums.produced:,}", "confirmed by the broker")
        table.add_row("= written", f"{sums.written:,}", "in the target, each counted once")
        table.add_row("+ dead letters", f"{sums.dead_lettered:,}", right)
        table.add_row("lost", Text(f"{sums.lost:,}", bad if sums.lost else good), "")
        table.add_row(
            "duplicated",
            Text(f"{sums.duplicated:,}", bad if sums.duplicated else good),
            "further copies in the target",
        )
        self._block(table)

    def verdict(self, sums: Sums, *lines: str) -> None:
        """Print whether the sums fit, and the lines about them."""
        self._console.print()
        equation = f"{sums.produced:,} = {sums.written:,} + {sums.dead_lettered:,}, lost {sums.lost:,}, "
        ending = f"duplicated {sums.duplicated:,}" + ("" if sums.fits else ": THE SUMS DO NOT FIT")
        self._console.print(Text(f"    {equation}{ending}", "bold green" if sums.fits else "bold red"))
        for line in lines:
            self._console.print(f"    {line}", markup=False)

    def answer(self, answer: Answer) -> None:
        """Print a query and its result."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("product")
        table.add_column("orders", justify="right")
        table.add_column("revenue", justify="right")
        for product, orders, revenue in answer.rows:
            table.add_row(product, f"{orders:,}", f"{float(revenue):,.2f}")
        self._console.print()
        self._console.print(Text("    Best-selling products, asked of the target", "bold"))
        self._block(table)

    def commands(self, groups: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Print what to do next: the purpose, and the commands as they are typed."""
        self._console.print()
        self._console.print(Text("    Next", "bold"))
        for what, commands in groups:
            self._console.print(Text(f"\n    {what}"))
            for command in commands:
                self._console.print(Text(f"      {command}", "cyan"))

    def note(self, text: str) -> None:
        """Print a last line."""
        self._console.print(f"\n    {text}", markup=False)

    def _block(self, table: Table) -> None:
        grid = Table.grid()
        grid.add_row("      ", table)
        self._console.print()
        self._console.print(grid)


def _batches(count: int) -> str:
    # What was committed is counted a moment before its batch is heard of.
    return f"in {count:,} {'batch' if count == 1 else 'batches'}" if count else ""


def _picture(now: DemoProgress) -> Group:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_column(width=BAR)
    table.add_column(justify="right")
    table.add_column(style="dim")
    waits = "waits for the pipeline" if now.throttled else ""
    for name, count, color, note in (
        ("in the topic", now.produced, "cyan", waits),
        ("loaded", now.loaded, "green", _batches(now.batches)),
    ):
        bar = ProgressBar(total=now.wanted, completed=count, width=BAR, complete_style=color, finished_style=color)
        table.add_row(name, bar, f"{count:,}", note)
    table.add_row("behind", "", f"{now.produced - now.loaded:,}", "")
    table.add_row("dead letters", "", f"{now.dead_letters:,}", "")
    return Group(Text(), table, Text(f"  pipeline: {now.pipeline}"))
