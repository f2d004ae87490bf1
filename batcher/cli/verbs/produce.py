"""`batcher produce`: fill a topic or another queue with made-up events, or with the lines of a file or a pipe.

It is long because of its flags: what each is for, and which do not go together.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.kafka_topic import (
    BATCH_BYTES,
    TIMEOUT_S,
    limits_of,
    producer_of,
    require_partition,
    require_topic,
)
from batcher.cli.support.publishing import PublishingPlugin, publisher_of, publishing, queues, sections
from batcher.cli.support.sending_report import SendingReport
from batcher.cli.support.signals import setting
from batcher.generate.events import CHUNK, ORDERS, EventGenerator, Poison
from batcher.generate.inputs import FORMATS, MAX_LINE_BYTES, Input, Reading, input_of
from batcher.settings import Parser, Settings, UsageError, add_config_flag, load, secrets
from batcher.sources.kafka.settings import Kafka

if TYPE_CHECKING:
    from batcher.generate.load import EventLoad
    from batcher.generate.shape import Shaper

USAGE: Final = """\
batcher produce -b BROKERS -t TOPIC [--count N] [--rate N] [--from FILE … | --template TEXT] [flags]
       batcher produce --to queue --queue.path FILE [flags]\
"""

NOTES: Final = """\
A template is text with fields in double braces: {{seq}} {{int 1 100}} {{float 0 1 2}} {{choice a b c}} {{bool 0.9}}
{{now}} {{now ms}} {{uuid}} {{hex 8}}. Without one, events are orders of about 180 bytes. Without --count they go on
until Ctrl-C.

Of a file each line is an event, or of .csv and .parquet each row, as a JSON object; .gz and .zst are unpacked. Lines
that cannot be sent are skipped, and counted with the reason.

Exit code 0 means that every event was confirmed, 2 that there was nothing to send, 75 that events were not confirmed,
not stored because the queue is full, or not sent because of a signal, 78 that lines with something in them were
skipped, that a file is broken, or that events were refused for good.\
"""


def main(argv: Sequence[str]) -> int:
    """Send events and return 0 if every one was delivered."""
    loaded = load(_parser(), list(argv))
    arguments, settings = loaded.arguments, loaded.settings
    from batcher.telemetry import logs

    logs.hide(tuple(secrets(settings)))
    logs.setup(settings.log.format, "warning")
    to = arguments.to or settings.source
    topic = _topic(settings) if to == "kafka" else ""
    found = None if to == "kafka" else publishing(settings, to)
    _check(arguments, to)
    inputs = [input_of(name, arguments.format) for name in arguments.source or ()]
    _check_inputs(arguments, inputs)
    made = None if inputs else _made(arguments)
    from batcher.generate.shape import made_up, shaped
    from batcher.generate.skipped import Skipped

    stop, skipped, poison = threading.Event(), Skipped(), Poison(arguments.poison)
    reading = None
    if made is None:
        reading = Reading(inputs, stop, most=_most(settings), numbers=frozenset(arguments.numbers))
    events = shaped(
        reading if made is None else made_up(made),  # type: ignore[arg-type]  # one of the two is there
        _shaper(arguments),
        count=arguments.count,
        poison=poison,
        skipped=skipped,
    )
    how = {"headers": tuple(arguments.header), "rate": arguments.rate, "stop": stop, "skipped": skipped}
    with ExitStack() as stack:
        sending, target = (
            _filled(settings, arguments, topic, how) if found is None else _queued(stack, found, arguments, how)
        )
        started = time.monotonic()
        with setting(stop), _progress(sending, arguments.count, shown=not arguments.json):
            unknown = sending.send(events, TIMEOUT_S)
        report = SendingReport(
            sending,
            target,
            _label(arguments),
            unknown,
            poison.spoiled,
            time.monotonic() - started,
            arguments.count,
            stop.is_set(),
            reading,
        )
        report.tell(as_json=arguments.json)
        return report.code


def _filled(
    settings: Settings, arguments: argparse.Namespace, topic: str, how: Mapping[str, Any]
) -> tuple[EventLoad, str]:
    """Return what sends to a topic that is there, and its name."""
    from batcher.errors import ConfigurationError
    from batcher.generate.load import Load
    from batcher.sources.kafka.asking import Complaints

    complaints = Complaints()
    producer = producer_of(settings, arguments, complaints)
    require_topic(topic, producer, complaints, settings, arguments)
    if arguments.partition is not None:
        require_partition(topic, arguments.partition, producer)
    limits = limits_of(topic, settings)
    if arguments.timestamp_field is not None and limits.own_times:
        raise ConfigurationError(
            f"--timestamp-field: topic {topic} puts its own time on every record (message.timestamp.type=LogAppendTime)"
        )
    if limits.max_bytes is not None and limits.max_bytes < BATCH_BYTES:
        producer = producer_of(settings, arguments, complaints, limits)
    return Load(producer, topic, partition=arguments.partition, limits=limits, **how), topic


def _queued(
    stack: ExitStack, found: PublishingPlugin, arguments: argparse.Namespace, how: Mapping[str, Any]
) -> tuple[EventLoad, str]:
    """Return what sends to another queue, and its name."""
    from batcher.generate.load import PublisherLoad

    publisher = publisher_of(found, create=arguments.create)
    stack.callback(publisher.close)
    return PublisherLoad(publisher, **how), publisher.target


def _parser() -> Parser:
    parser = Parser(
        "batcher produce",
        usage=USAGE,
        description="Fill a topic or another queue with made-up events, or with files.",
        epilog=NOTES,
    )
    add_config_flag(parser)
    parser.add_argument("--to", metavar="|".join(queues()), help="where to, with its flags [--source, or kafka]")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--template", metavar="TEXT|@FILE", help="make events from this template instead of orders")
    what.add_argument(
        "--from", dest="source", nargs="+", action="extend", metavar="FILE|-", help="send files, or the lines of stdin"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="what the files of --from are, whatever the ends of their names"
    )
    parser.add_argument(
        "--numbers",
        type=_names,
        default=(),
        metavar="NAME,…",
        help="columns of CSV that hold numbers; all others are text",
    )
    parser.add_argument("--count", type=_whole, metavar="N", help="stop after this many events")
    parser.add_argument("--rate", type=_rate, metavar="N", help="events a second [as fast as the brokers take them]")
    keys = parser.add_mutually_exclusive_group()
    keys.add_argument("--key", metavar="FIELD", help="use this field of the JSON object as the record's key")
    keys.add_argument(
        "--key-separator",
        type=_separator,
        metavar="TEXT",
        help="what ends the key in front of each line, such as : or \\t",
    )
    parser.add_argument("--tombstones", action="store_true", help="an empty value behind the key is a null")
    parser.add_argument(
        "--header", type=_header, action="append", default=[], metavar="NAME=VALUE", help="a header of each record"
    )
    parser.add_argument("--partition", type=_number, metavar="N", help="send to this partition [the key decides]")
    parser.add_argument(
        "--timestamp-field", metavar="FIELD", help="use this field of the JSON object as the record's time"
    )
    parser.add_argument("--poison", type=_share, default=0.0, metavar="SHARE", help="make this share unreadable [0]")
    parser.add_argument("--seed", type=int, metavar="N", help="make the same events each time")
    parser.add_argument("--create", action="store_true", help="create the topic or queue if it is not there")
    parser.add_argument("--partitions", type=_whole, default=4, metavar="N", help="partitions of a new topic [4]")
    parser.add_argument(
        "--replication", type=_whole, metavar="N", help="replicas of a new topic [the brokers' default]"
    )
    parser.add_argument(
        "--compression", choices=("none", "lz4", "zstd", "snappy", "gzip"), default="lz4", help="codec [lz4]"
    )
    parser.add_argument("--json", action="store_true", help="print the summary on stdout as one JSON object")
    kafka = ("kafka.brokers", "kafka.topics", "kafka.options", "kafka.allow_insecure")
    parser.add_settings(only=(*kafka, *sections(), "log.format"))
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("is a whole number from 1 on")
    return int(text)


def _number(text: str) -> int:
    # Kafka's numbers of partitions have 32 bits.
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError("is the number of a partition, from 0 on")
    return int(text)


def _rate(text: str) -> float:
    with suppress(ValueError):
        if (rate := float(text.removesuffix("/s"))) > 0:
            return rate
    raise argparse.ArgumentTypeError("is a number of events a second above 0, such as 1000")


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (share := float(text)) <= 1:
            return share
    raise argparse.ArgumentTypeError("is a share from 0 to 1, such as 0.001")


def _names(text: str) -> Sequence[str]:
    return text.split(",")


def _separator(text: str) -> bytes:
    if not text:
        raise argparse.ArgumentTypeError("is a text of one character or more")
    # A tab is hard to type in a shell.
    return text.replace("\\t", "\t").encode(errors="surrogateescape")


def _header(text: str) -> tuple[str, bytes]:
    name, found, value = text.partition("=")
    try:
        name.encode()
    except UnicodeEncodeError:
        found = ""
    if not found or not name:
        raise argparse.ArgumentTypeError("is NAME=VALUE, such as source=import")
    return name, value.encode(errors="surrogateescape")


def _topic(settings: Settings) -> str:
    kafka = settings.section(Kafka)
    if not kafka.brokers:
        raise UsageError(["--kafka.brokers: which brokers? -b HOST:PORT"])
    if len(kafka.topics) != 1 or kafka.topics[0].startswith("^"):
        raise UsageError(["--kafka.topics: which topic? exactly one, by name: -t TOPIC"])
    return kafka.topics[0]


def _check(arguments: argparse.Namespace, to: str) -> None:
    """Raise UsageError for flags that do not go together."""
    faults = []
    if not arguments.source:
        faults += [
            f"{flag}: is for files; name them with --from"
            for flag, given in (
                ("--format", arguments.format),
                ("--numbers", arguments.numbers),
                ("--key-separator", arguments.key_separator),
            )
            if given
        ]
    if arguments.tombstones and arguments.key_separator is None:
        faults.append("--tombstones: needs a key in front of the value; say what ends it with --key-separator")
    if to != "kafka":
        faults += [
            f"{flag}: only Kafka has that; leave it out, or send to a topic"
            for flag, given in (
                ("--partition", arguments.partition is not None),
                ("--timestamp-field", arguments.timestamp_field is not None),
                ("--tombstones", arguments.tombstones),
            )
            if given
        ]
    if (arguments.source or []).count("-") > 1:
        faults.append("--from -: stdin can be read once")
    if faults:
        raise UsageError(faults)


def _check_inputs(arguments: argparse.Namespace, inputs: Sequence[Input]) -> None:
    """Raise UsageError for flags that do not fit what is read."""
    kinds = {one.kind for one in inputs}
    if arguments.key_separator is not None and kinds - {"lines"}:
        raise UsageError(["--key-separator: rows of a table have no key in front; name the column with --key"])
    if arguments.numbers and "csv" not in kinds:
        raise UsageError(["--numbers: none of the files is CSV; --format csv says that it is"])


def _most(settings: Settings) -> int:
    """Return the length beyond which a line is no message that could be sent."""
    text = settings.section(Kafka).options.get("message.max.bytes", "")
    return max(MAX_LINE_BYTES, int(text) if text.isdecimal() else 0)


def _shaper(arguments: argparse.Namespace) -> Shaper:
    from batcher.generate.shape import Shaper

    return Shaper(
        separator=arguments.key_separator,
        tombstones=arguments.tombstones,
        key_field=arguments.key,
        timestamp_field=arguments.timestamp_field,
        # Poison has neither key nor time, and is sent all the same.
        strict=bool(arguments.source) and not arguments.poison,
    )


def _label(arguments: argparse.Namespace) -> str:
    names = arguments.source or []
    return f"--from {' '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


def _made(arguments: argparse.Namespace) -> Iterator[list[bytes]]:
    text: str = arguments.template or ORDERS
    try:
        template = Path(text[1:]).read_text(encoding="utf-8").strip() if text.startswith("@") else text
        generator = EventGenerator(template, seed=arguments.seed)
    except OSError as error:
        raise UsageError([f"--template {text}: {error.strerror}"]) from None
    except ValueError as error:
        raise UsageError([f"--template: {error}"]) from None
    from batcher.generate.load import per_tick

    # At a low rate events are made when they are sent; otherwise their time would be long past.
    size = min(CHUNK, per_tick(arguments.rate)) if arguments.rate else CHUNK
    return iter(lambda: generator.take(size), [])


def _progress(load: EventLoad, count: int | None, *, shown: bool) -> AbstractContextManager[object]:
    if not (shown and sys.stderr.isatty()):
        return nullcontext()
    from rich.console import Console
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]:,.0f}/s"), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task("", total=count, speed=0.0)
    started = time.monotonic()

    def render() -> Progress:
        speed = load.delivered / max(time.monotonic() - started, 1e-9)
        progress.update(task, completed=load.delivered, speed=speed)
        return progress

    return Live(
        get_renderable=render, console=progress.console, refresh_per_second=8, transient=True, redirect_stdout=False
    )
