"""`batcher demo`: the whole program on this machine, with a crash in the middle and the count afterwards."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from batcher.settings import Parser, UsageError

NOTES: Final = """\
Nothing else has to run: Kafka is librdkafka's own small one inside this process, or with --source queue an embedded
queue takes its place; ClickHouse is the embedded engine.
The pipeline is a process of its own. It is killed once with SIGKILL and started again. Then the rows are counted in
the target itself.

Exit codes: 0 every order is in the target or a dead letter · 1 the sums do not fit · 2 bad command line · 69 the
small Kafka cannot start · 78 embedded ClickHouse not installed or not working · 130 Ctrl-C.\
"""

RECORDS: Final = 200_000
"""Some 20 seconds on two slow cores."""

MIN_RECORDS: Final = 1000
"""With fewer there is no poisoned record, and nothing to see."""


def main(argv: Sequence[str]) -> int:
    """Play the demo and return 0 if nothing was lost."""
    parser = Parser("batcher demo", description="Show the whole thing on this machine.", epilog=NOTES)
    parser.add_argument("--source", choices=("kafka", "queue"), default="kafka", help="where from [kafka]")
    parser.add_argument("--sink", choices=("clickhouse", "parquet"), default="clickhouse", help="target [clickhouse]")
    parser.add_argument("--records", type=_count, default=RECORDS, metavar="N", help=f"orders to send [{RECORDS}]")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put everything here [a new temporary directory]")
    parser.add_argument("--json", action="store_true", help="print the sums on stdout as one JSON object")
    arguments = parser.parse(argv)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may know ASCII only
    from rich.console import Console

    from batcher.demo.show import Show
    from batcher.demo.view import DemoView

    # A path or command that is broken in the middle cannot be copied, so lines are not wrapped.
    view = DemoView(Console(stderr=arguments.json, highlight=False, soft_wrap=True))
    with _directory(arguments.keep) as directory, _signals():
        result = Show(arguments.sink, arguments.records, directory, view, arguments.source).play()
    if arguments.json:
        print(json.dumps(result.facts()))
    return result.exit_code


def _count(text: str) -> int:
    digits = text.replace("_", "")
    if not digits.isdecimal() or int(digits) < MIN_RECORDS:
        raise argparse.ArgumentTypeError(f"is a whole number from {MIN_RECORDS} on")
    return int(digits)


@contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    """Return a directory that is empty; one of our own is removed again when the demo does not reach its end."""
    if wanted is None:
        made = Path(tempfile.mkdtemp(prefix="batcher-demo-")).resolve()
        try:
            yield made
        except BaseException:
            if sys.exc_info()[0] is KeyboardInterrupt or not (made / "pipeline.log").exists():
                shutil.rmtree(made, ignore_errors=True)
            raise
        return
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        used = any(wanted.iterdir())
    except OSError as error:
        raise UsageError([f"--keep {wanted}: {error.strerror}"]) from None
    if used:
        raise UsageError([f"--keep {wanted}: is not empty, and the rows in it would be counted; name a new directory"])
    yield wanted.resolve()


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that its processes end with it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
