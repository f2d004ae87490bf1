"""A load to the end of a topic by a process that is killed on the way, and the dead letters that it leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.harness.processes import SHORT_SESSION, BatcherProcess


def run_through_kills(*flags: str, kills: int, directory: Path | None = None) -> BatcherProcess:
    """Run until everything is loaded, killed each time that one batch more is written; return the last process.

    `directory` is the working directory.
    """
    given = (*flags, "--until-eof", *SHORT_SESSION)
    for kill in range(kills):
        with BatcherProcess(*given, directory=directory) as process:
            process.wait_for("batch_written", count=1 + kill)
            process.kill()
    with BatcherProcess(*given, directory=directory) as process:
        assert process.wait(300.0) == 0, process.stderr[-2000:]
    return process


def run_to_crash(*flags: str, crash_at: str = "") -> BatcherProcess:
    """Run one process to its end, which is a kill where `crash_at` names a point of `crash_points`."""
    with BatcherProcess(*flags, environment={"CRASH_AT": crash_at}, module="tests.harness.crash_points") as process:
        code = process.wait()
        assert not crash_at or code == -signal.SIGKILL, process.stderr
    return process


def letters_in(directory: Path, *fields: str) -> list[tuple[Any, ...]]:
    """Return some fields of the dead letters in a directory, sorted.

    Each letter once: a process that is killed between its letters and its commit sends them again.
    """
    lines = [line for file in sorted(directory.rglob("*.ndjson")) for line in file.read_text().splitlines()]
    return sorted({tuple(one[field] for field in fields) for one in map(json.loads, lines)})
