"""`batcher verify`: prove that every record that was read is in the target, a dead letter, or skipped by policy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.inspection import inspecting, loaded, parser
from batcher.cli.support.routed import all_targets
from batcher.settings import Settings

if TYPE_CHECKING:
    from batcher.audit.report import AuditReport

USAGE: Final = "batcher verify --sink … -b … -t … -g … [--from OFFSET|TIME] [--to OFFSET|TIME] [flags of run]"

NOTES: Final = """\
Give the flags that the pipeline runs with, those for dead letters too. The pipeline may go on running: verify examines
what it has committed, and changes nothing. With --route each target is examined in turn.

Exit codes: 0 everything adds up · 1 records are missing or duplicated · 69 unreachable at start · 75 no answer ·
78 the target cannot be asked, or a setting is wrong.\
"""


def main(argv: Sequence[str]) -> int:
    """Print what became of the records and return 0 when everything adds up, else 1."""
    made = parser("verify", USAGE, "Prove that everything read is in the target or a dead letter.", NOTES)
    found = loaded(made, argv)
    return max(_verified(settings, found.arguments) for settings in all_targets(found.settings))


def _verified(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what became of the records of one target and return the exit code."""
    with inspecting(settings, arguments) as inspection:
        report = inspection.report()
    missing = any(one.missing.offsets for one in report.accounts)
    show(report, as_json=arguments.json, text=_hints(settings) if missing else [])
    return report.exit_code


def _hints(settings: Settings) -> list[str]:
    """Return reasons why dead letters may be among what is missing."""
    if not (settings.dlq.topic or settings.dlq.path):
        return ["no --dlq.topic or --dlq.path was given: dead letters count as missing"]
    if settings.dlq.path and not Path(settings.dlq.path).exists():
        return [f"--dlq.path {settings.dlq.path}: there is no such directory: dead letters count as missing"]
    return []


def show(
    report: AuditReport, *, as_json: bool, more: Mapping[str, Any] | None = None, text: Sequence[str] = ()
) -> None:
    """Print a report on stdout: as one object with `more` in it, or for people, followed by the lines of `text`."""
    from batcher.audit.report import facts, lines

    if as_json:
        print(json.dumps({**facts(report), **(more or {})}), flush=True)
        return
    for line in (*lines(report), *text):
        print(line, flush=True)
