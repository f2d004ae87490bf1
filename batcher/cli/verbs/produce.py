"""`batcher produce`: fill a topic or another queue with made-up events, or with the lines of a file or a pipe."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from batcher.cli.support.kafka_topic import TIMEOUT_S, producer_of, require_topic
from batcher.cli.support.publishing import publisher_of, publishing, queues, sections
from batcher.cli.support.signals import setting
from batcher.generate.events import CHUNK, ORDERS, EventGenerator, Poison
from batcher.generate.load import EventLoad, Keys, Load, PublisherLoad, limited, lines, per_tick
from batcher.settings import Parser, Settings, UsageError, add_config_flag, load, secrets
from batcher.sources.kafka.settings import Kafka

USAGE: Final = """\
batcher produce -b BROKERS -t TOPIC [--count N] [--rate N] [--from FILE|- | --template TEXT] [flags]
       batcher produce --to queue --queue.path FILE [flags]\
"""

NOTES: Final = """\
A template is text with fields in double braces: {{seq}} {{int 1 100}} {{float 0 1 2}} {{choice a b c}} {{bool 0.9}}
{{now}} {{now ms}} {{uuid}} {{hex 8}}. Without one, events are orders of about 180 bytes. Without --count they go on
until Ctrl-C. Exit code 0 means that every event was confirmed, 2 that there was nothing to send, 75 that events were
not confirmed, or not stored because the queue is full.\
"""

UNDELIVERED: Final = 75
"""The exit code when a record was not confirmed, or not sent because of a signal."""

NOTHING: Final = 2
"""The exit code when there was nothing to send: a mistyped file, or a command before the pipe that failed."""


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
    stop = threading.Event()
    poison = Poison(arguments.poison)
    chunks = limited(_chunks(arguments, stop), arguments.count, poison)
    sending: EventLoad
    with ExitStack() as stack:
        if found is None:
            from batcher.sources.kafka.asking import Complaints

            complaints = Complaints()
            producer = producer_of(settings, arguments, complaints)
            require_topic(topic, producer, complaints, settings, arguments)
            sending = Load(producer, topic, keys=_keys(arguments.key), rate=arguments.rate, stop=stop)
        else:
            publisher = publisher_of(found, create=arguments.create)
            stack.callback(publisher.close)
            topic = publisher.target
            sending = PublisherLoad(publisher, keys=_keys(arguments.key), rate=arguments.rate, stop=stop)
        return _sent(sending, topic, arguments, chunks=chunks, stop=stop, poison=poison)


def _sent(
    sending: EventLoad,
    topic: str,
    arguments: argparse.Namespace,
    *,
    chunks: Iterator[list[bytes]],
    stop: threading.Event,
    poison: Poison,
) -> int:
    """Send the events, tell what became of them, and return the exit code."""
    started = time.monotonic()
    with setting(stop), _progress(sending, arguments.count, shown=not arguments.json):
        unknown = sending.send(chunks, TIMEOUT_S)
    seconds = time.monotonic() - started
    undelivered = sending.failed + unknown
    code = _code(sending.delivered, undelivered, arguments.count, stopped=stop.is_set())
    facts = {
        "topic": topic,
        "delivered": sending.delivered,
        "undelivered": undelivered,
        "poison": poison.spoiled,
        "bytes": sending.nbytes,
        "seconds": round(seconds, 3),
        "rows_per_second": round(sending.delivered / seconds) if seconds else 0,
        "exit": code,
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        _tell(facts, sending.first_error)
    if not undelivered:
        _tell_fewer(sending.delivered, arguments, stopped=stop.is_set())
    return code


def _code(delivered: int, undelivered: int, wanted: int | None, *, stopped: bool) -> int:
    """Return the exit code: a stop before the end of a count is no success, the stop of an endless run is."""
    if undelivered or (stopped and wanted is not None and delivered < wanted):
        return UNDELIVERED
    return 0 if delivered or stopped else NOTHING


def _parser() -> Parser:
    parser = Parser(
        "batcher produce",
        usage=USAGE,
        description="Fill a topic or another queue with made-up events, or with the lines of a file.",
        epilog=NOTES,
    )
    add_config_flag(parser)
    parser.add_argument("--to", metavar="|".join(queues()), help="where to, with its flags [--source, or kafka]")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--template", metavar="TEXT|@FILE", help="make events from this template instead of orders")
    what.add_argument("--from", dest="source", metavar="FILE|-", help="send the lines of a file, or of stdin")
    parser.add_argument("--count", type=_whole, metavar="N", help="stop after this many events")
    parser.add_argument("--rate", type=_rate, metavar="N", help="events a second [as fast as the brokers take them]")
    parser.add_argument("--key", metavar="FIELD", help="use this field of the JSON object as the record's key")
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


def _topic(settings: Settings) -> str:
    kafka = settings.section(Kafka)
    if not kafka.brokers:
        raise UsageError(["--kafka.brokers: which brokers? -b HOST:PORT"])
    if len(kafka.topics) != 1 or kafka.topics[0].startswith("^"):
        raise UsageError(["--kafka.topics: which topic? exactly one, by name: -t TOPIC"])
    return kafka.topics[0]


def _chunks(arguments: argparse.Namespace, stop: threading.Event) -> Iterator[list[bytes]]:
    """Return the events to come; raise UsageError for a template or file that cannot be read."""
    if arguments.source is None:
        return _made(arguments)
    if arguments.source == "-":
        return lines(sys.stdin.fileno(), stop)
    try:
        return lines(os.open(arguments.source, os.O_RDONLY), stop)
    except OSError as error:
        raise UsageError([f"--from {arguments.source}: {error.strerror}"]) from None


def _made(arguments: argparse.Namespace) -> Iterator[list[bytes]]:
    text: str = arguments.template or ORDERS
    try:
        template = Path(text[1:]).read_text(encoding="utf-8").strip() if text.startswith("@") else text
        generator = EventGenerator(template, seed=arguments.seed)
    except OSError as error:
        raise UsageError([f"--template {text}: {error.strerror}"]) from None
    except ValueError as error:
        raise UsageError([f"--template: {error}"]) from None
    # At a low rate events are made when they are sent; otherwise their time would be long past.
    size = min(CHUNK, per_tick(arguments.rate)) if arguments.rate else CHUNK
    return iter(lambda: generator.take(size), [])


def _keys(field: str | None) -> Keys | None:
    if field is None:
        return None
    import msgspec

    decode = msgspec.json.Decoder().decode

    def key(event: bytes) -> bytes | None:
        try:
            found = decode(event)[field]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
            return None  # poison has no key
        return None if found is None else found.encode() if isinstance(found, str) else msgspec.json.encode(found)

    return key


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


def _tell_fewer(delivered: int, arguments: argparse.Namespace, *, stopped: bool) -> None:
    """Say on stderr why there were fewer events than asked for."""
    wanted: int | None = arguments.count
    if stopped and wanted is not None and delivered < wanted:
        print(f"batcher: stopped after {delivered:,} of {wanted:,} events", file=sys.stderr)
    elif not stopped and not delivered:
        print(f"batcher: --from {arguments.source}: there is no line in it, so nothing was sent", file=sys.stderr)
    elif not stopped and wanted is not None and delivered < wanted:
        print(
            f"batcher: --from {arguments.source} ended after {delivered:,} lines, --count asks for {wanted:,}",
            file=sys.stderr,
        )


def _tell(facts: dict[str, Any], first_error: str) -> None:
    from batcher.telemetry.logs import one_line

    print(
        f"{facts['delivered']:,} events delivered to {facts['topic']}, {facts['poison']:,} of them poison, "
        f"in {facts['seconds']:.1f} s ({facts['rows_per_second']:,}/s)",
        file=sys.stderr,
    )
    if facts["undelivered"]:
        reason = one_line(first_error) or "no report came in time"
        print(f"batcher: {facts['undelivered']:,} events were not delivered: {reason}", file=sys.stderr)
