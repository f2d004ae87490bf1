"""`batcher top`: running processes in one table that refreshes, from their `/status`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.running import ProcessLine, ProcessView, ask_all, line_of, normal, totals
from batcher.cli.support.spans import span
from batcher.options.units import parse_duration
from batcher.settings import Parser, UsageError

if TYPE_CHECKING:
    from rich.table import Table

USAGE: Final = "batcher top [HOST:PORT …] [--every TIME] [--once] [--json]"

NOTES: Final = """\
The addresses are those of --http.addr; with --workers each worker has a port of its own, the next one up. Without an
address it is 127.0.0.1:9100, which has to answer. Ctrl-C ends it.

Exit codes: 0 each process answered in the last look · 2 bad command line · 69 one did not.\
"""

ADDRESS: Final = "127.0.0.1:9100"

EVERY: Final = timedelta(seconds=1)

FIRST_S: Final = 1.0
"""Between the two looks of --once: a rate needs two."""

WIDE: Final = 100
MEDIUM: Final = 76
"""Columns of a terminal from which the group and what is buffered are shown."""


def main(argv: Sequence[str]) -> int:
    """Show the processes until Ctrl-C and return 0 where all answered."""
    made = Parser("batcher top", usage=USAGE, description="Watch running processes.", epilog=NOTES)
    made.add_argument("addresses", nargs="*", type=_address, metavar="HOST:PORT", help=f"where they answer [{ADDRESS}]")
    made.add_argument("--every", type=_every, default=EVERY, metavar="TIME", help="between two looks [1s]")
    made.add_argument("--once", action="store_true", help="look twice, a second apart, print the table, and end")
    made.add_argument("--json", action="store_true", help="print one JSON object, without --once one for each look")
    arguments = made.parse(argv)
    addresses = list(dict.fromkeys(arguments.addresses or [ADDRESS]))
    now = _look(addresses)
    if not arguments.addresses and now[ADDRESS].status is None:
        # Without this a table of nothing would refresh for ever before somebody who has not named anything yet.
        raise UsageError([f"which process? {ADDRESS} {now[ADDRESS].error}; name the HOST:PORT of its --http.addr"])
    try:
        if arguments.once or arguments.json or not sys.stdout.isatty():
            now = _plain(addresses, now, arguments)
        else:
            now = _live(addresses, now, arguments.every.total_seconds())
    except KeyboardInterrupt:
        pass
    return 0 if all(view.status is not None for view in now.values()) else 69


Views = dict[str, ProcessView]


def _look(addresses: Sequence[str]) -> Views:
    return {view.address: view for view in ask_all(addresses)}


def _plain(addresses: Sequence[str], now: Views, arguments: argparse.Namespace) -> Views:
    """Print a table or an object for each look."""
    from rich.console import Console

    console = Console(highlight=False)
    while True:
        time.sleep(FIRST_S if arguments.once else arguments.every.total_seconds())
        before, now = now, _look(addresses)
        lines = _lines(now, before)
        if arguments.json:
            print(json.dumps({"processes": [asdict(one) for one in lines], "all": asdict(totals(lines))}), flush=True)
        else:
            console.print(table(lines, console.width))
        if arguments.once:
            return now


def _live(addresses: Sequence[str], now: Views, every_s: float) -> Views:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    before: Views = {}
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        try:
            while True:
                live.update(table(_lines(now, before), console.width), refresh=True)
                time.sleep(every_s)
                before, now = now, _look(addresses)
        except KeyboardInterrupt:
            return now


def _lines(now: Views, before: Views) -> list[ProcessLine]:
    return [line_of(view, before.get(address)) for address, view in now.items()]


def table(lines: Sequence[ProcessLine], width: int) -> Table:
    """Return the processes as a table that fits a terminal; narrow ones have fewer columns, and no word is cut."""
    from rich.table import Table
    from rich.text import Text

    columns: dict[str, Any] = {"process": lambda one: one.address, "state": lambda one: one.state}
    if width >= WIDE:
        columns["group"] = lambda one: one.group
    columns["rows/s"] = lambda one: _number(one.rows_per_second)
    columns["lag"] = lambda one: _number(one.lag)
    columns["ETA"] = lambda one: "" if one.eta_s is None else "-" if not one.lag else span(one.eta_s)
    if width >= MEDIUM:
        columns["buffered"] = lambda one: _number(one.buffered)
    columns["dead"] = lambda one: _number(one.dead_letters)
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name, justify="left" if name in ("process", "state", "group") else "right", overflow="fold")
    if width >= WIDE:
        made.add_column("now", overflow="fold", ratio=1)
    for one in [*lines, *([totals(lines)] if len(lines) > 1 else [])]:
        cells = [Text(say(one), _style(one)) for say in columns.values()]
        made.add_row(*cells, *([Text(one.said)] if width >= WIDE else []))
    if width >= WIDE:
        return made
    # What is waited for has a line of its own, where it is not cut.
    grid = Table.grid()
    grid.add_row(made)
    for one in lines:
        grid.add_row(Text(f"{one.address} {one.said}", "dim", overflow="fold"))
    return grid


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _style(one: ProcessLine) -> str:
    return "red" if one.state in ("away", "failed") else "yellow" if one.state in ("starting", "draining") else ""


def _address(text: str) -> str:
    try:
        normal(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _every(text: str) -> timedelta:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not found:
        raise argparse.ArgumentTypeError("is more than 0s")
    return found
