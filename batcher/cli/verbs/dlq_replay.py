"""`batcher dlq replay`: bring dead letters to where their records belong."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.kafka_only import kafka_of
from batcher.cli.support.outcome import explained
from batcher.cli.support.routed import one_target
from batcher.cli.support.signals import setting
from batcher.cli.verbs.dlq import (
    PLACES,
    filter_of,
    letters_of,
    loaded,
    parser_of,
    require_letters,
    tell_nothing,
    tell_passed_over,
)
from batcher.plugins import registry_of
from batcher.settings import Settings, UsageError
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.dead_letters.kit.report import ReplayReport
    from batcher.dead_letters.kit.select import StoredLetter

SETTINGS: Final = (
    *PLACES,
    "sink",
    "options",
    "kafka.group",
    "kafka.topics",
    "route",
    "batch.max_rows",
    "batch.max_bytes",
    "decode",
    "retry",
)

MAX_ATTEMPTS: Final = 3

GIVE_UP_S: Final = 60.0
"""How long a target may refuse to answer where --retry.max-elapsed does not say: a person waits for the end."""

NOT_ALL: Final = 1

NAMED: Final = 10
"""Unknown fields that people are shown; programs get all."""

STOPPED: Final = 75


def main(argv: Sequence[str]) -> int:
    """Load dead letters again and report; 0 when all that were chosen are where they belong, else 1."""
    parser = parser_of("replay", "Load dead letters into the target again, or send them back to their topic.")
    parser.add_argument("--to", choices=("sink", "topic"), default="sink", help="where to [sink]")
    parser.add_argument("--dry-run", action="store_true", help="decode and ask the target, write nothing")
    parser.add_argument("--rate", type=_rate, metavar="N", help="at most N dead letters a second")
    parser.add_argument(
        "--max-attempts", type=_count, default=MAX_ATTEMPTS, metavar="N", help="send a record back at most N times [3]"
    )
    found = loaded(parser, list(argv), SETTINGS)
    arguments, settings = found.arguments, found.settings
    where = filter_of(arguments)
    if arguments.to == "sink":
        settings = one_target(settings, sorted(where.topics))
        if settings is not found.settings:
            # Dead letters of other topics belong to other targets.
            where = replace(where, topics=frozenset(settings.section(Kafka).topics))
    from batcher.cli.support.replay import replay
    from batcher.dead_letters.kit.report import Pace, ReplayReport, steps
    from batcher.dead_letters.kit.select import each_once
    from batcher.sources.kafka.asking import Stopped

    report, stop = ReplayReport(), threading.Event()
    letters = letters_of(settings, stop.is_set)
    chosen = islice(each_once(filter(where, letters)), arguments.max)
    code, whole = 0, False
    pace = Pace(arguments.rate, stop)
    try:
        with setting(stop), _taker(settings, arguments, report, stop) as take:
            in_steps = steps(chosen, pace.step(settings.batch.max_rows), int(settings.batch.max_bytes))
            whole = replay(in_steps, take, pace.passed, stop)
        if whole:
            require_letters(letters)
    except UsageError:
        raise
    except Stopped:
        code = STOPPED
    except (KeyboardInterrupt, Exception) as error:  # whatever it is, what was done so far is reported
        code = explained(error)
    else:
        code = (0 if report.all_there else NOT_ALL) if whole else STOPPED
    if not code and report.empty:
        tell_nothing(letters)
    _tell(report, code, as_json=arguments.json, dry=arguments.dry_run)
    tell_passed_over(letters)
    return code


@contextmanager
def _taker(
    settings: Settings, arguments: argparse.Namespace, report: ReplayReport, stop: threading.Event
) -> Iterator[Callable[[list[StoredLetter]], None]]:
    """Open the place where dead letters go, and yield a function that takes a step of them."""
    if arguments.to == "topic":
        from batcher.dead_letters.kit.resend import Resender
        from batcher.sources.kafka.options import check_properties

        kafka = kafka_of(settings, "dlq replay --to topic")
        if not kafka.brokers:
            raise UsageError(["--kafka.brokers: which brokers have the topics? -b HOST:PORT"])
        check_properties(kafka.options, allow_insecure=kafka.allow_insecure)
        with closing(
            Resender(
                kafka.brokers,
                kafka.options,
                report,
                max_attempts=arguments.max_attempts,
                dry_run=arguments.dry_run,
                stopped=stop.is_set,
            )
        ) as resender:
            resender.open()
            yield resender.take
        return
    if not settings.sink:
        known = ", ".join(registry_of("sink").with_options())
        raise UsageError([f"--sink: where to load? {known}, a name from `batcher plugins`; or --to topic"])
    from batcher.cli.support import wiring
    from batcher.cli.support.replay import Loading, quiet
    from batcher.engine import refusals, writer

    delivery_logs = [logging.getLogger(module.__name__) for module in (writer, refusals)]
    with closing(wiring.sink_of(settings)) as sink:
        info = sink.open()
        for log in delivery_logs:
            log.addFilter(quiet)
        try:
            yield Loading(
                sink,
                info,
                wiring.format_of(settings),
                report,
                retry=wiring.retry_of(settings, GIVE_UP_S),
                evolution=wiring.evolution_of(settings),
                abort=stop,
                name=wiring.name_of(settings) or "dlq",
                dry_run=arguments.dry_run,
            ).take
        finally:
            for log in delivery_logs:
                log.removeFilter(quiet)


def _tell(report: ReplayReport, code: int, *, as_json: bool, dry: bool) -> None:
    from batcher.telemetry.logs import one_line

    facts: dict[str, Any] = {**report.facts(), "dry_run": dry, "exit": code}
    if as_json:
        print(json.dumps(facts), flush=True)
        return
    for failure in report.failures:
        print(one_line(f"failed again: {failure.id}  {failure.reason}  {failure.message}"))
    parts = [f"{report.replayed} {'would be replayed' if dry else 'replayed'}", f"{report.already_there} already there"]
    parts += [f"{count} failed again ({reason})" for reason, count in facts["failed_again"].items()]
    parts += [f"{count} skipped ({why})" for why, count in facts["skipped"].items()]
    print(", ".join(parts), flush=True)
    if report.unknown:
        fields = ", ".join(f"{path} ({records})" for path, records in report.unknown.most_common(NAMED))
        more = len(report.unknown) - NAMED
        print(f"not stored, no column takes them: {fields}{f' and {more} more' if more > 0 else ''}", flush=True)
    if code == STOPPED:
        print("batcher: stopped before the end; start it again for the rest", file=sys.stderr)


def _rate(text: str) -> float:
    with suppress(ValueError):
        if (rate := float(text.removesuffix("/s"))) > 0:
            return rate
    raise argparse.ArgumentTypeError("is a number of dead letters a second above 0, such as 100/s")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("is a whole number")
    return int(text)
