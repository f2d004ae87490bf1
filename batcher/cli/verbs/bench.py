"""`batcher bench`: what this machine makes of the user's own records and target, and what limits it."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.kafka_only import kafka_of
from batcher.cli.support.loudness import add_loudness, level_for_people, set_up_log
from batcher.cli.support.measurement import FROM_TOPIC, GENERATED, Subject
from batcher.cli.support.numbers import whole
from batcher.cli.support.outcome import explained
from batcher.cli.support.routed import one_target
from batcher.cli.support.signals import heard_by
from batcher.cli.support.tuning import tune_collector, tune_memory
from batcher.generate.events import ORDERS, EventGenerator
from batcher.options.units import parse_duration
from batcher.settings import Parser, Settings, UsageError, add_config_flag, load
from batcher.settings.reference import flag_of
from batcher.settings.rules import lacking
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.bench.figures import Figures
    from batcher.bench.interrupts import Interrupts
    from batcher.bench.report import Tried
    from batcher.bench.verdict import Verdict

USAGE: Final = """\
batcher bench -b BROKERS -t TOPIC --sink … [--target scratch] [--try] [flags of run]
       batcher bench [--template TEXT|@FILE] [--sink … [--target scratch]] [flags of run]\
"""

NOTES: Final = """\
Give the flags that the pipeline runs with. Nothing of it is changed: no group is joined and no offset is committed. The
table or directory is asked for its schema and not written to. Bad records are counted and thrown away. With --target
scratch rows go into a table or directory like the real one, made beside it and removed at the end. Without -t records
are made up, and fetching is not measured.

Exit codes: 0 measured · 2 bad command line · 69 unreachable at start · 75 the target stopped answering · 78 a setting
or a right is wrong, there is no record, or none fits the target · 130 Ctrl-C.\
"""

PASS_S: Final = 10.0


def main(argv: Sequence[str]) -> int:
    """Measure, print figures and a verdict, and return 0; 78 where no record fitted the target."""
    made = _parser()
    loaded = load(made, list(argv))
    arguments, settings = loaded.arguments, _checked(loaded.settings, loaded.arguments)
    set_up_log(loaded, level_for_people(arguments))
    from batcher.bench.interrupts import Interrupts
    from batcher.errors import DrainTimeout

    interrupts = Interrupts()
    with heard_by(interrupts.listen):
        try:
            figures, verdict, tried = _measured(made, list(argv), settings, arguments, interrupts)
        except Exception as error:
            if not interrupts.wanted():
                raise
            # A run that a second signal broke off is not worth a message. Something that could not be removed is.
            if not isinstance(error, DrainTimeout):
                explained(error)
            raise KeyboardInterrupt from error
    from batcher.bench.report import facts, lines

    if arguments.json:
        print(json.dumps(facts(figures, verdict, tried, _surroundings(arguments))), flush=True)
    else:
        for line in lines(figures, verdict, tried):
            print(line, flush=True)
    return figures.exit_code


def _parser() -> Parser:
    made = Parser("batcher bench", usage=USAGE, description="Measure your own records and target.", epilog=NOTES)
    add_config_flag(made)
    made.add_argument(
        "--target", choices=("null", "scratch"), default="null", help="throw rows away, or write them to a copy [null]"
    )
    made.add_argument(
        "--records", type=whole, metavar="N", help=f"records of a pass [{FROM_TOPIC} of a topic, {GENERATED} made up]"
    )
    made.add_argument(
        "--for", dest="seconds", type=_seconds, default=PASS_S, metavar="TIME", help="the longest a pass takes [10s]"
    )
    made.add_argument("--try", dest="tries", action="store_true", help="run once more with the first setting advised")
    made.add_argument("--template", metavar="TEXT|@FILE", help="make records from it, see `batcher produce --help`")
    made.add_argument("--json", action="store_true", help="print everything on stdout as one JSON object")
    add_loudness(made)
    made.add_settings()
    return made


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError("is a time above 0, such as 10s")
    return seconds


def _checked(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """Return the settings with the null sink where none is named; raise UsageError for what is missing."""
    kafka = kafka_of(settings, "bench")
    problems = []
    if kafka.brokers and not kafka.topics:
        problems.append("--kafka.topics: which topic? -t TOPIC, or no -b for records that are made up")
    if kafka.topics and not kafka.brokers:
        problems.append("--kafka.brokers: which brokers? -b HOST:PORT")
    if kafka.topics and arguments.template:
        problems.append("--template: makes records up, and -t reads them; which one?")
    problems += [f"{flag_of(one.paths[0])}: {one.message}" for one in lacking(settings, "sink")]
    if problems:
        raise UsageError(problems)
    return one_target(settings) if settings.sink else settings.model_copy(update={"sink": "null", "route": ()})


def _measured(
    made: Parser, argv: list[str], settings: Settings, arguments: argparse.Namespace, interrupts: Interrupts
) -> tuple[Figures, Verdict, Tried | None]:
    from batcher.bench.report import Tried
    from batcher.bench.verdict import judged

    template = None if settings.section(Kafka).topics else _template(arguments.template)
    subject = Subject.of(settings, arguments, template, interrupts)
    # Before the collector is tuned: the client's own call is measured as it is.
    reading, partitions = subject.reading()
    tune_collector()
    tune_memory()
    subject = subject.settled()
    figures = subject.figures(reading, partitions)
    verdict, tried = judged(figures), None
    advice = verdict.to_try
    if arguments.tries and advice is not None:
        subject.say(f"trying {' '.join(advice.flags)}")
        changed = _checked(load(made, [*argv, *advice.flags]).settings, arguments)
        run = subject.changed(changed).run("tried")
        tried = Tried(advice, run, figures.spread, figures.typical.rows_per_second)
    return figures, verdict, tried


def _template(given: str | None) -> str:
    text = given or ORDERS
    try:
        template = Path(text[1:]).read_text(encoding="utf-8").strip() if text.startswith("@") else text
        EventGenerator(template)
    except OSError as error:
        raise UsageError([f"--template {text}: {error.strerror}"]) from None
    except ValueError as error:
        raise UsageError([f"--template: {error}"]) from None
    return template


def _surroundings(arguments: argparse.Namespace) -> dict[str, Any]:
    from batcher.engine.assembly import cores
    from batcher.telemetry.metrics import versions

    return {
        "machine": {
            "cores": cores(),
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": versions(),
        "parameters": {
            "records": arguments.records,
            "seconds": arguments.seconds,
            "target": arguments.target,
            "template": arguments.template is not None,
        },
    }
