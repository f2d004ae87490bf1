"""`batcher doctor`: everything that a run needs, looked at one by one, with what to do about it. It changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from batcher.cli.support.doctor.finding import HealthFinding, code_of, guarded
from batcher.cli.support.loudness import add_loudness, level_for_people, set_up_log
from batcher.settings import Parser, Settings, add_config_flag, load

USAGE: Final = "batcher doctor [--json] [flags of run]"

NOTES: Final = """\
Give the flags that the pipeline will run with. Nothing is changed: no group is joined, nothing is committed or written.

Exit codes: 0 nothing has to be done · 2 bad command line · 69 something does not answer · 78 something has to be
repaired.\
"""

_MARKS: Final = {True: "✓", False: "✗", None: "?"}
_PLAIN: Final = {True: "ok", False: "!!", None: "??"}


def main(argv: Sequence[str]) -> int:
    """Print what was found, a line each, and return 0 where nothing has to be done."""
    made = Parser("batcher doctor", usage=USAGE, description="Check everything that a run needs.", epilog=NOTES)
    add_config_flag(made)
    made.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    add_loudness(made)
    made.add_settings()
    loaded = load(made, list(argv), runnable=True)
    set_up_log(loaded, "error" if level_for_people(loaded.arguments) == "warning" else "debug")
    found: list[HealthFinding] = []
    show = None if loaded.arguments.json else _printer()
    for finding in findings(loaded.settings):
        found.append(finding)
        if show is not None:
            show(finding)
    code = code_of(found)
    if loaded.arguments.json:
        print(json.dumps({"findings": [one.facts() for one in found], "exit": code}), flush=True)
    elif not loaded.arguments.quiet:
        bad = sum(one.good is False for one in found)
        print(f"\n{bad} of {len(found)} checks ask for something to be done" if bad else "\nnothing has to be done")
    return code


def findings(settings: Settings) -> Iterator[HealthFinding]:
    """Yield what is found, what is quick first. A part that cannot be made is not asked anything."""
    from batcher.cli.support.doctor import brokers, machine, servers, target

    installed = list(guarded("parts", lambda: machine.installed(settings)))
    yield from installed
    checks: list[tuple[str, Callable[[Settings], Iterable[HealthFinding]]]] = [
        ("limits", machine.limits),
        ("disk", machine.disks),
        ("dead letters", target.dead_letters),
    ]
    # What was refused before it was made would be refused again.
    if code_of(installed) == 0:
        checks += [("tls", servers.tls), ("source", brokers.source), ("target", target.targets)]
    checks.append(("clock", servers.clocks))
    for name, check in checks:
        yield from guarded(name, partial(check, settings))


def _printer() -> Callable[[HealthFinding], None]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    try:
        "".join(mark or "" for mark in _MARKS.values()).encode(sys.stdout.encoding or "ascii")
        marks = _MARKS
    except UnicodeEncodeError:
        marks = _PLAIN
    styles = {True: "green", False: "bold red", None: "yellow"}

    def show(finding: HealthFinding) -> None:
        if not console.is_terminal:
            print(f"{marks[finding.good]} {finding.name:<12} {finding.said}", flush=True)
            return
        row = Table.grid(padding=(0, 1))
        row.add_column(width=len(marks[True]))
        row.add_column(width=12)
        row.add_column(overflow="fold")
        row.add_row(Text(marks[finding.good], styles[finding.good]), finding.name, Text(finding.said))
        console.print(row)

    return show
