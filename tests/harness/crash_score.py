"""Keep what the crash tests found: rows added by each test, a file with all of them, a table in docs/testing.md.

A test calls `add("Parquet, 2 workers", verdict)`; where `BATCHER_TEST_SCORE` names a file the row goes there, else
nowhere. `make test-crash` sets it, runs the tests, and then this module:

    python -m tests.harness.crash_score ROWS [--write SCORE.json docs/testing.md]

prints the table and, with `--write`, keeps it. `control` marks rows of a pipeline that promises less on purpose.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from batcher.embedded.jars import KAFKA_VERSION
from tests.harness.verdict import Verdict

VARIABLE: Final = "BATCHER_TEST_SCORE"

BLOCK: Final = re.compile(r"(?<=<!-- score:begin -->\n).*?(?=<!-- score:end -->)", re.DOTALL)

PACKAGES: Final = ("confluent-kafka", "clickhouse-connect", "pyarrow", "chdb")

HEADINGS: Final = ("kills", "stops", "rebalances", "rows", "lost", "duplicated", "replays", "present", "suppressed")

SHOWN: Final = {"duplicated": "duplicates"}
"""What the page calls a count where that is not its name in the file."""


@dataclass(frozen=True, slots=True)
class Row:
    """Hold what one attack came to; the counts are those of `verdict.Verdict`."""

    name: str
    control: bool
    seed: int
    kills: int
    stops: int
    rebalances: int
    rows: int
    lost: int
    duplicated: int
    replays: int
    present: int
    suppressed: int


def add(name: str, verdict: Verdict, *, control: bool = False) -> None:
    """Add a row to the score, where one is kept. A test calls this before it judges the verdict."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    counts = {heading: getattr(verdict, heading) for heading in HEADINGS}
    row = Row(name, control, verdict.seed, **counts)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def score_of(lines: Sequence[str]) -> Mapping[str, Any]:
    """Return the score that rows make, with what they were found on."""
    rows = [json.loads(line) for line in lines]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        "clickhouse_engine": _engine(),
        "packages": {name: version(name) for name in PACKAGES},
        "rows": sorted(rows, key=lambda row: (row["control"], row["name"])),
    }


def table(score: Mapping[str, Any]) -> str:
    """Return the block of the page for a score."""
    lines = [
        f"| Attack | {' | '.join(SHOWN.get(heading, heading) for heading in HEADINGS)} |",
        f"|---|{'---|' * len(HEADINGS)}",
        *(_line(row, row["name"]) for row in score["rows"] if not row["control"]),
        *(_line(row, f"*control, at-least-once:* {row['name']}") for row in score["rows"] if row["control"]),
    ]
    packages = ", ".join(f"{name} {number}" for name, number in score["packages"].items())
    kafka, engine = f"Apache Kafka {score['kafka']}", f"ClickHouse's engine {score['clickhouse_engine']}"
    seen = f"On {score['date']} with {kafka}, {engine}, Python {score['python']}, {packages}."
    return "\n".join([*lines, "", seen, ""])


def into_page(text: str, score: Mapping[str, Any]) -> str:
    """Return a page with the block of this score; raise ValueError where it has no place for one."""
    if BLOCK.search(text) is None:
        raise ValueError("there is no <!-- score:begin --> … <!-- score:end --> in the page")
    return BLOCK.sub(lambda _: table(score), text)


def _line(row: Mapping[str, Any], name: str) -> str:
    return f"| {name} | {' | '.join(f'{row[heading]:,}' for heading in HEADINGS)} |"


def _engine() -> str:
    try:
        from chdb import engine_version  # an extra
    except ImportError:
        return "none"
    return str(engine_version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of a file of rows; with `--write`, keep the score and put it into the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.crash_score")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--write", nargs=2, type=Path, metavar=("SCORE", "PAGE"))
    options = parser.parse_args(arguments)
    lines = options.rows.read_text(encoding="utf-8").splitlines() if options.rows.exists() else []
    score = score_of(lines)
    sys.stdout.write(table(score))
    if options.write is not None:
        kept, page = options.write
        kept.write_text(json.dumps(score, indent=1) + "\n", encoding="utf-8")
        page.write_text(into_page(page.read_text(encoding="utf-8"), score), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
