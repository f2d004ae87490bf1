"""`batcher lag`: how far a group is behind. The log is asked, so that no process needs to run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from batcher.cli.support.loudness import add_loudness, level_for_people, set_up_log
from batcher.cli.support.numbers import whole
from batcher.cli.support.readable import require_readable
from batcher.options.units import parse_duration
from batcher.settings import Parser, Settings, UsageError, add_config_flag, load, section_of
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.cli.support.lag import LagLook
    from batcher.records import Partition

USAGE: Final = "batcher lag -b BROKERS -t TOPIC -g GROUP [--watch] [--json] [flags of run]"

NOTES: Final = """\
Give the flags that the pipeline runs with; no process needs to run. Rate and ETA come from two looks, --every apart.
A partition without a commit is behind from where --kafka.start would begin. A group joins nothing and commits nothing
here.

Exit codes: 0 done · 1 more is left than --max-behind · 2 bad command line · 69 unreachable · 78 no such topic, or a
right is missing.\
"""

EVERY: Final = timedelta(seconds=2)


def main(argv: Sequence[str]) -> int:
    """Print how far the group is behind and return 0, or 1 where that is more than is allowed."""
    made = Parser("batcher lag", usage=USAGE, description="Show how far a group is behind.", epilog=NOTES)
    add_config_flag(made)
    made.add_argument("--watch", action="store_true", help="look again and again, until Ctrl-C")
    made.add_argument(
        "--every", type=_every, default=EVERY, metavar="TIME", help="between two looks; 0s: one look, no rate [2s]"
    )
    made.add_argument("--max-behind", type=whole, metavar="N", help="exit with 1 where more than N records are left")
    made.add_argument("--json", action="store_true", help="print one JSON object, with --watch one for each look")
    add_loudness(made)
    made.add_settings()
    found = load(made, list(argv))
    settings, arguments = found.settings, found.arguments
    require_readable(settings, "lag")
    name, section = section_of(settings, "source")
    if problems := [f"--{name}.{one.field}: {one.message}" for one in (() if section is None else section.lacking())]:
        raise UsageError(problems)
    set_up_log(found, level_for_people(arguments))
    every_s = arguments.every.total_seconds()
    if arguments.watch and not every_s:
        raise UsageError(["--every: is more than 0s with --watch"])
    with _looking(settings) as (group, look):
        before, now = None, look()
        try:
            if every_s:
                time.sleep(every_s)
                before, now = now, look()
            with _shown(group, arguments) as show:
                show(now, before)
                while arguments.watch:
                    time.sleep(every_s)
                    before, now = now, look()
                    show(now, before)
        except KeyboardInterrupt:
            # This is how a watch ends.
            if not arguments.watch:
                raise
    return 1 if arguments.max_behind is not None and now.behind > arguments.max_behind else 0


@contextmanager
def _looking(settings: Settings) -> Iterator[tuple[str, Callable[[], LagLook]]]:
    """Return the name of the group and what looks at it, for as long as the context is open. Raise Unreachable."""
    from batcher.cli.support import lag, wiring
    from batcher.errors import SourceLost, Unreachable

    settings = wiring.as_run(settings)
    section = section_of(settings, "source")[1]
    bounded = isinstance(section, Kafka) and section.end is not None
    begin = lag.begin_at(str(getattr(section, "start", "earliest")), bounded=bounded)
    reader = wiring.reader_of(settings)
    try:
        partitions = reader.open()
        ends = _ends(settings, section.beside) if bounded and isinstance(section, Kafka) else None
        yield wiring.name_of(settings), lambda: lag.look(reader, partitions, begin, ends)
    except SourceLost as error:
        raise Unreachable(str(error)) from error
    finally:
        reader.close()


def _ends(settings: Settings, beside: str) -> Mapping[Partition, int]:
    from batcher.cli.support import wiring
    from batcher.sources.kafka.bounded import ends_of

    return ends_of(wiring.kafka_options_of(settings), beside)


Show = Callable[["LagLook", "LagLook | None"], None]


def _shown(group: str, arguments: argparse.Namespace) -> AbstractContextManager[Show]:
    from batcher.cli.support import lag

    if arguments.json:
        return _printing(lambda now, before: json.dumps(lag.facts(group, now, before)))
    if arguments.watch and sys.stdout.isatty():
        return _redrawing(group)
    if arguments.watch:
        return _printing(lag.said)
    return _printing(lambda now, before: "\n".join(lag.lines(group, now, before)))


@contextmanager
def _printing(text: Callable[[LagLook, LagLook | None], str]) -> Iterator[Show]:
    yield lambda now, before: print(text(now, before), flush=True)


@contextmanager
def _redrawing(group: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from batcher.cli.support import lag

    with Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="visible") as live:
        yield lambda now, before: live.update(Text("\n".join(lag.lines(group, now, before))), refresh=True)


def _every(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
