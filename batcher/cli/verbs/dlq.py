"""`batcher dlq`: list dead letters, load them again, export them, remove them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from batcher.options.units import parse_duration
from batcher.plugins import registry_of
from batcher.settings import Loaded, Parser, Settings, UsageError, add_config_flag, load, secrets, suggestion
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.dead_letters.kit.read import Directory, Topic
    from batcher.dead_letters.kit.select import Where

USAGE: Final = "batcher dlq ls|show|stats|replay|export|purge (--dlq.path DIR | -b BROKERS --dlq.topic TOPIC) [flags]"

PLACES: Final = ("kafka.brokers", "kafka.options", "kafka.allow_insecure", "dlq.topic", "dlq.path", "log.format")
"""The settings that say where dead letters are."""

NOTES: Final = """\
commands:
  ls                a line for each: when, stage, reason, TOPIC:PARTITION:OFFSET of the record, message
  show ID           one dead letter whole, by the TOPIC:PARTITION:OFFSET of its record
  stats             count them by topic, stage and reason
  replay            load them into the target again, or send them to their topic (--to sink|topic [sink]);
                    --dry-run, --rate N, --max-attempts N, and the target's flags as for run
  export FILE|-     write them as NDJSON, as a directory has them
  purge             remove those older than --before TIME; nothing happens without --yes

which dead letters:
  --where reason=R,stage=S,topic=T,partition=P    values of one name are alternatives, all names have to match
  --since TIME, --before TIME                     when they failed: ISO 8601 (UTC unless it says otherwise),
                                                  epoch milliseconds, or how long ago, such as 2h
  --max N                                         at most N of them
  --json                                          one JSON object a line

`batcher dlq COMMAND --help` shows all flags of a command.\
"""


def main(argv: Sequence[str]) -> int:
    """Run one of the commands and return its exit code."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "ls": _ls,
        "show": _show,
        "stats": _stats,
        "replay": _replay,
        "export": _export,
        "purge": _purge,
    }
    if argv and argv[0] in commands:
        return commands[argv[0]](list(argv[1:]))
    if argv and not argv[0].startswith("-"):
        raise UsageError([f"dlq {argv[0]}: no such command{suggestion(argv[0], list(commands))}; {USAGE}"])
    Parser("batcher dlq", usage=USAGE, description="Handle dead letters.", epilog=NOTES).parse(argv)
    raise UsageError([f"dlq: what? {USAGE}"])


def parser_of(command: str, what: str, *, filtered: bool = True) -> Parser:
    """Return the parser of a command with the flags that all of them share."""
    parser = Parser(f"batcher dlq {command}", description=what)
    add_config_flag(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    if filtered:
        parser.add_argument("--where", type=_where, metavar="NAME=VALUE[,…]", help="reason, stage, topic, partition")
        parser.add_argument("--since", type=_moment, metavar="TIME", help="failed then or later")
        parser.add_argument("--before", type=_moment, metavar="TIME", help="failed earlier")
        parser.add_argument("--max", type=_whole, metavar="N", help="at most N dead letters")
    return parser


def loaded(parser: Parser, argv: list[str], settings: Sequence[str] = PLACES) -> Loaded:
    """Parse the command line, with the flags of these settings, and set the logs up."""
    parser.add_settings(only=settings)
    found = load(parser, argv)
    from batcher.telemetry import logs

    logs.hide(tuple(secrets(found.settings)))
    logs.setup(found.settings.log.format, "warning")
    return found


def letters_of(settings: Settings, stopped: Callable[[], bool] = lambda: False) -> Directory | Topic:
    """Return the reader of the dead letters; raise UsageError where the settings do not say which.

    `stopped` says whether to stop waiting for brokers, for a verb in which a signal does not raise by itself.
    """
    if settings.dlq.queue not in (None, *registry_of("dead-letter queue").built_in):
        raise UsageError([f"dlq: reads topics and directories, and --dlq.queue is {settings.dlq.queue}"])
    if settings.dlq.path:
        from batcher.dead_letters.kit.read import Directory

        return Directory(settings.dlq.path)
    if not settings.dlq.topic:
        raise UsageError(["--dlq.path: which dead letters? --dlq.path DIR, or --dlq.topic TOPIC with -b BROKERS"])
    kafka = settings.section(Kafka)
    if not kafka.brokers:
        raise UsageError(["--kafka.brokers: which brokers have --dlq.topic? -b HOST:PORT"])
    from batcher.dead_letters.kit.read import Topic
    from batcher.sources.kafka.options import KafkaOptions

    # We choose which partitions are read: how a group would share them out does not matter.
    given = {name: value for name, value in kafka.options.items() if not name.startswith("group.")}
    options = KafkaOptions(
        kafka.brokers or "", (settings.dlq.topic,), "batcher-dlq", properties=given, allow_insecure=kafka.allow_insecure
    )
    properties = {**options.librdkafka(), "statistics.interval.ms": "0", "log_level": "2"}
    return Topic(settings.dlq.topic, properties, stopped=stopped)


def filter_of(arguments: argparse.Namespace) -> Where:
    """Return the filter that the flags describe."""
    from batcher.dead_letters.kit.select import Where

    chosen: Where = arguments.where or Where()
    return chosen.during(arguments.since, arguments.before)


def tell_passed_over(letters: Directory | Topic) -> None:
    """Say on stderr what was found and is no dead letter."""
    if letters.passed_over:
        print(f"batcher: {letters.passed_over} records that are no dead letters were passed over", file=sys.stderr)


def tell_nothing(letters: Directory | Topic) -> None:
    """Say on stderr why there was no dead letter to work on: an empty place looks the same as a filter with a typo."""
    if letters.found:
        print(f"batcher: none of the {letters.found} dead letters was asked for", file=sys.stderr)
    else:
        print(f"batcher: no dead letter was found in {letters.label}", file=sys.stderr)


def require_letters(letters: Directory | Topic) -> None:
    """Raise ConfigurationError where everything was read and none of it is a dead letter: that is the wrong place."""
    from batcher.errors import ConfigurationError

    if letters.foreign:
        raise ConfigurationError(
            f"{letters.label}: {letters.foreign}, and not one dead letter; name the place that the pipeline names"
        )


def _ls(argv: list[str]) -> int:
    found = loaded(parser_of("ls", "Show a line for each dead letter."), argv)
    from batcher.cli.support.dead_letter_view import facts, line

    letters = letters_of(found.settings)
    count = 0
    for stored in islice(filter(filter_of(found.arguments), letters), found.arguments.max):
        count += 1
        print(json.dumps(facts(stored)) if found.arguments.json else line(stored))
    require_letters(letters)
    if not count:
        tell_nothing(letters)
    tell_passed_over(letters)
    return 0


def _show(argv: list[str]) -> int:
    parser = parser_of("show", "Show a dead letter whole, its record included.", filtered=False)
    parser.add_argument("id", type=_id, metavar="ID", help="TOPIC:PARTITION:OFFSET of the record")
    found = loaded(parser, argv)
    from batcher.cli.support.dead_letter_view import facts, whole
    from batcher.dead_letters.kit.select import Where

    letters, count = letters_of(found.settings), 0
    for stored in filter(Where(coordinate=found.arguments.id), letters):
        count += 1
        if found.arguments.json:
            print(json.dumps({**stored.fields(), **facts(stored)}))
        else:
            print("\n".join(whole(stored)))
    require_letters(letters)
    if not count:
        partition, offset = found.arguments.id
        raise UsageError(
            [f"{partition} offset {offset}: there is no dead letter of it; `batcher dlq ls` shows which are"]
        )
    return 0


def _stats(argv: list[str]) -> int:
    found = loaded(parser_of("stats", "Count dead letters by topic, stage and reason."), argv)
    from batcher.cli.support.record_view import shown_time
    from batcher.dead_letters.kit.select import counted
    from batcher.telemetry.logs import one_line

    letters = letters_of(found.settings)
    chosen = islice(filter(filter_of(found.arguments), letters), found.arguments.max)
    rows = counted(chosen)
    require_letters(letters)
    for row in rows:
        if found.arguments.json:
            print(json.dumps(row.facts()))
            continue
        first, last = shown_time(row.first), shown_time(row.last)
        kind = f"{row.stage:<6}  {row.reason:<14}  {row.topic}"
        print(f"{row.letters:>10} dead letters of {row.records:>10} records  {kind}")
        print(f"{'':>10} from {first} to {last}")
        print(f"{'':>10} such as {row.example}: {one_line(row.message)}")
    if not rows:
        tell_nothing(letters)
    if not found.arguments.json:
        print(f"{sum(row.letters for row in rows):>10} dead letters in all")
    tell_passed_over(letters)
    return 0


def _replay(argv: list[str]) -> int:
    from batcher.cli.verbs.dlq_replay import main as replay

    return replay(argv)


def _export(argv: list[str]) -> int:
    parser = parser_of("export", "Write dead letters to a file as NDJSON, one a line.")
    parser.add_argument("file", metavar="FILE|-", help="a file that is not there yet, or stdout")
    found = loaded(parser, argv)
    name = found.arguments.file
    letters = letters_of(found.settings)
    chosen = islice(filter(filter_of(found.arguments), letters), found.arguments.max)
    lines = (json.dumps(stored.fields()) for stored in chosen)
    count = 0
    with nullcontext(sys.stdout) if name == "-" else _new_file(name) as file:
        for line in lines:
            file.write(f"{line}\n")
            count += 1
        require_letters(letters)
    if not count:
        tell_nothing(letters)
    tell_passed_over(letters)
    if name != "-":
        print(json.dumps({"exported": count}) if found.arguments.json else f"{count} dead letters in {name}")
    return 0


@contextmanager
def _new_file(name: str) -> Iterator[TextIO]:
    """Yield a file that exists only once everything was written to it."""
    from batcher.errors import ConfigurationError

    try:
        # Dead letters are other people's data: only their owner may read them.
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError([f"{name}: {error.strerror}"]) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise ConfigurationError(f"{name}: {error.strerror}; nothing was exported") from error
        raise


def _purge(argv: list[str]) -> int:
    parser = parser_of("purge", "Remove old dead letters for good.", filtered=False)
    parser.add_argument("--before", type=_moment, required=True, metavar="TIME", help="remove what failed earlier")
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say what would be removed")
    found = loaded(parser, argv)
    from batcher.dead_letters.kit import purge
    from batcher.dead_letters.kit.read import Directory

    letters, settings, arguments = letters_of(found.settings), found.settings, found.arguments
    if isinstance(letters, Directory):
        plan, kept = purge.old_files(letters, arguments.before, datetime.now(UTC))
    else:
        plan, kept = purge.old_records(letters, arguments.before), []
    require_letters(letters)
    if arguments.yes and plan:
        if isinstance(letters, Directory):
            purge.remove(plan)
        else:
            kafka, topic = settings.section(Kafka), settings.dlq.topic or ""
            purge.delete_records(kafka.brokers or "", kafka.options, topic, plan)
    if not plan and not arguments.json:
        print("nothing to purge")
    for part in plan:
        facts: dict[str, Any] = {"place": part.place, "letters": part.letters, "purged": arguments.yes}
        if part.before_offset:
            facts["before_offset"] = part.before_offset
        below = f" below offset {part.before_offset}" if part.before_offset else ""
        done = "purged" if arguments.yes else "to be purged"
        print(json.dumps(facts) if arguments.json else f"{done}: {part.place}{below}, {part.letters} dead letters")
    if kept:
        print(
            f"batcher: {len(kept)} old files are kept, with lines that are no dead letters or have no time, the first "
            f"{kept[0]}; look into them, and remove them yourself",
            file=sys.stderr,
        )
    if plan and not arguments.yes:
        raise UsageError(["--yes: nothing was purged; give it to have this done"])
    return 0


def _where(text: str) -> Where:
    from batcher.dead_letters.kit.select import where

    chosen: Where = _checked(where, text)
    return chosen


def _id(text: str) -> Any:
    from batcher.dead_letters.kit.select import coordinate

    return _checked(coordinate, text)


def _checked(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _moment(text: str) -> datetime:
    with suppress(ValueError):
        return datetime.now(UTC) - parse_duration(text)
    with suppress(ValueError, OverflowError, OSError):
        if text.isdecimal():
            return datetime.fromtimestamp(int(text) / 1000, UTC)
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    raise argparse.ArgumentTypeError("is a time such as 2026-01-31T12:00:00Z, epoch milliseconds, or how long ago: 2h")


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("is a whole number from 1 on")
    return int(text)
