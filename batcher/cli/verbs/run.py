"""`batcher run`: build the pipeline that the settings describe, run it, and report."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.loudness import add_loudness, log_level
from batcher.cli.support.outcome import INTERRUPTED, exit_code, explained, is_bug
from batcher.cli.support.refused import all_refused
from batcher.cli.support.signals import heard_by
from batcher.cli.support.terminal import RefusedFields, closing, say, watching
from batcher.cli.support.tuning import tune_collector, tune_memory
from batcher.cli.verbs import VERBS
from batcher.settings import ENV_PREFIX, Parser, Settings, add_config_flag, load, secrets

if TYPE_CHECKING:
    from batcher.cli.support.worker import ParentLink
    from batcher.engine.pipeline import Pipeline
    from batcher.engine.report import Summary

BEGIN: Final = """\
batcher loads Kafka topics into ClickHouse tables and Parquet files. To begin:

  batcher demo                                            see it work, with nothing else running
  batcher --sink parquet --parquet.path data/events \\
    -b localhost:9092 -t events -g events-to-parquet      load a topic into files
  batcher --help                                          all verbs and flags\
"""
"""The answer to an empty command line."""

USAGE: Final = """\
batcher [run] --sink clickhouse|parquet|NAME -b BROKERS -t TOPIC[,TOPIC…] -g GROUP [flags]
       batcher VERB [flags]\
"""

NOTES: Final = """\
Every flag is also a variable ($NAME, in brackets after the default) and a key of the TOML file of -c: --kafka.start is
[kafka] start. Flags win over variables, variables over the file. Secrets can be read from files:
BATCHER_CLICKHOUSE_PASSWORD_FILE, BATCHER_KAFKA_OPTIONS_FILE. Sizes and times have units: 64MiB, 500ms, 2m.

Exit codes: 0 drained and committed · 1 bug · 2 bad command line · 69 unreachable at start · 75 stopped, nothing lost,
start me again · 78 configuration or poison limit · 130 second Ctrl-C.\
"""


def main(argv: Sequence[str]) -> int:
    """Load topics into a target until stopped; return the exit code."""
    words, question = without_property_question(argv)
    if not argv and not any(name.startswith(ENV_PREFIX) for name in os.environ):
        print(BEGIN, file=sys.stderr)
        return 2
    loaded = load(parser(), words, runnable=question is None)
    from batcher.telemetry import logs

    settings, arguments = loaded.settings, loaded.arguments
    logs.hide(tuple(secrets(settings)))
    if question is not None:
        from batcher.cli.support.properties import show

        return show(question, settings)
    shown = logs.setup(settings.log.format, log_level(settings, arguments), arguments.as_worker)
    if arguments.as_worker is not None:
        from batcher.cli.support.worker import ParentLink, own

        tether = ParentLink(tells=settings.workers.least < settings.workers)
        settings = own(settings, arguments.as_worker)
        return run(settings, for_people=False, told=shown == "console", tether=tether, worker=arguments.as_worker)
    for warning in loaded.warnings:
        logs.get(__name__).warning("setting_ignored", reason=warning)
    from batcher.cli.support.places import lost_with_the_container

    for flag, path in lost_with_the_container(settings):
        logs.get(__name__).warning(
            "gone_with_the_container", setting=flag, path=str(path), hint="mount a volume there: this is its own layer"
        )
    if settings.workers > 1:
        from batcher.cli.support.workers import supervise

        return supervise(settings, argv, as_json=arguments.json)
    for_people = shown == "console"
    told = for_people and not arguments.quiet
    return run(settings, as_json=arguments.json, for_people=for_people, told=told, live=told and sys.stderr.isatty())


def parser() -> Parser:
    """Return the parser of the verb; its help is the help of the whole program, with the verbs in front."""
    verbs = "\n".join(f"  {verb:<12}{what}" for verb, what in VERBS.items())
    made = Parser(
        "batcher",
        usage=USAGE,
        description=f"Load Kafka into ClickHouse and Parquet in micro-batches.\n\nverbs:\n{verbs}",
        epilog=NOTES,
    )
    add_config_flag(made)
    made.add_argument(
        "--version", action="store_true", help="print the versions of batcher and of the libraries it uses"
    )
    made.add_argument("--json", action="store_true", help="print the final summary on stdout as one JSON object")
    made.add_argument("--as-worker", type=int, help=argparse.SUPPRESS)  # see `worker.py`
    add_loudness(made)
    made.add_settings()
    return made


def without_property_question(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """Remove `-X list` or `-X dump` from a command line and return which of them was there."""
    words = list(argv)
    for index, (flag, word) in enumerate(zip(words, [*words[1:], ""], strict=False)):
        if flag in ("-X", "--kafka.options") and word in ("list", "dump"):
            return words[:index] + words[index + 2 :], word
        if flag in ("-Xlist", "-Xdump"):
            return words[:index] + words[index + 1 :], flag.removeprefix("-X")
    return words, None


def run(
    settings: Settings,
    *,
    as_json: bool = False,
    for_people: bool = True,
    told: bool = False,
    live: bool = False,
    tether: ParentLink | None = None,
    worker: int | None = None,
) -> int:
    """Run the pipeline of the settings to its end and return the exit code.

    With `as_json` the summary goes to stdout, after a failure too. `for_people` explains a failure in plain words;
    otherwise it is one more event in the log. `told` says now and then how it goes, and in a sentence at the end what
    was done; `live` shows it as well, on a terminal. A worker is stopped through its `tether`, and reports there;
    `worker` is its number.
    """
    from batcher.telemetry import logs

    log = logs.get(__name__)
    pipeline: Pipeline | None = None
    signals = tether or Signals()
    fields = RefusedFields()
    code = 0
    try:
        from batcher.cli.support import wiring

        settings = wiring.as_run(settings)
        export = wiring.export_request()
        metrics = wiring.metrics_of(settings, export)
        exporter = wiring.exporter_of(settings, export, metrics, worker)
        page = wiring.page_of(settings)
        pipeline = wiring.pipeline_of(settings, metrics, page, exporter)
        tune_collector()
        tune_memory()
        view = watching(pipeline, settings, fields, live=live) if told else nullcontext()
        tell = None if tether is None else tether.tell
        exports = nullcontext() if exporter is None else exporter.running()
        with signals.sent_to(pipeline), exports, wiring.answering(settings, metrics, pipeline, page, tell), view:
            pipeline.run()
        if tether is None:  # for workers the sum decides: one may have had only a bad record
            _require_something_loaded(pipeline.summary())
    except BaseException as error:  # whatever it is, the summary still comes
        code = INTERRUPTED if signals.seen > 1 and not is_bug(error) else exit_code(error)
        if for_people:
            explained(error)
        else:
            log.error("pipeline_failed", error=type(error).__name__, reason=str(error), exc_info=is_bug(error))
    facts = summary_facts(pipeline.summary() if pipeline is not None else None, code)
    if pipeline is not None:
        log.info("pipeline_ended", **facts)
    if pipeline is not None and told and tether is None and (code == 0 or facts["consumed"]):
        say(closing(facts, settings, fields))
    if tether is not None:
        tether.report(facts)
    if as_json:
        _print_summary(facts)
    return code


def _print_summary(facts: dict[str, Any]) -> None:
    try:
        print(json.dumps(facts), flush=True)
    except OSError as error:
        # What was loaded is loaded, even if the summary cannot be written.
        from batcher.telemetry import logs

        logs.get(__name__).warning("summary_not_printed", reason=error.strerror)


def _require_something_loaded(summary: Summary) -> None:
    from batcher.errors import DeadLetterLimitExceeded

    if message := all_refused(asdict(summary)):
        raise DeadLetterLimitExceeded(message)
    if summary.filtered and not (summary.written or summary.duplicates_suppressed):
        from batcher.telemetry import logs

        logs.get(__name__).warning(
            "all_filtered",
            records=summary.filtered,
            hint="nothing was loaded: is the condition what was meant?",
        )


def summary_facts(summary: Summary | None, code: int) -> dict[str, Any]:
    """Return what `--json` prints: what was done, and the exit code."""
    if summary is None:
        return {"exit": code}
    facts = asdict(summary)
    facts["seconds"] = round(summary.seconds, 3)
    facts["rows_per_second"] = round(summary.rows_per_second)
    if not summary.targets:
        del facts["targets"]
    return {**facts, "exit": code}


class Signals:
    """Turn the first SIGTERM or SIGINT into a stop and the second into an abort; only flags are set."""

    def __init__(self) -> None:
        self.seen = 0

    @contextmanager
    def sent_to(self, pipeline: Pipeline) -> Iterator[None]:
        """Listen while the context is open, then restore the old handlers."""

        def listen(number: int, _frame: FrameType | None) -> None:
            self.seen += 1
            if self.seen == 1:
                pipeline.stop()
                return
            pipeline.abort()
            # If even that does not help, because the main thread is inside a driver, the third one kills.
            signal.signal(number, signal.SIG_DFL)

        with heard_by(listen):
            yield
