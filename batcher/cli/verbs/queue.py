"""`batcher queue`: an embedded queue from the shell.

It is long because its seven verbs share flags, and each is a few lines.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.numbers import whole
from batcher.cli.support.signals import setting
from batcher.options.units import parse_duration, show_duration, show_size
from batcher.settings import Loaded, Parser, UsageError, add_config_flag, load, suggestion
from batcher.sources.queue.settings import EmbeddedQueue
from batcher.sources.starts import start_of, start_text

if TYPE_CHECKING:
    from batcher.protocols import Outgoing
    from batcher.sources.queue.file import QueueFile
    from batcher.sources.queue.publisher import QueuePublisher

USAGE: Final = "batcher queue create|publish|pull|ack|stats|replay|purge --queue.path FILE [flags]"

NOTES: Final = """\
commands:
  create            make the file: --lanes N, --priorities N, --retain TIME, --max-bytes SIZE
  publish TEXT…|-   append messages, each argument one, or each line of stdin; print their ids
                    --type T, --priority N, --delay TIME, --key K, --id ID; --envelopes reads JSON objects
  pull              print messages as JSON objects, one a line: -n N, --lease TIME, --wait TIME
  ack ID…|-         say that messages are done; --give-back says that they are not
  stats             count messages, and say how far each group is
  replay            set a group back: --from ID|TIME|earliest|latest
  purge             remove messages: --read, --before TIME, --all; or a group: --forget; nothing happens without --yes

`batcher queue COMMAND --help` shows all flags of a command. To load a queue into a table or files: batcher run
--source queue --queue.path FILE --queue.group NAME --sink …

Exit codes: 0 done · 1 an id was not in hand · 2 bad command line · 75 busy, or full: nothing was stored, try again ·
78 no such queue or id.\
"""

LEASE: Final = timedelta(seconds=30)

RETAIN: Final = timedelta(days=7)


def main(argv: Sequence[str]) -> int:
    """Run one of the commands and return its exit code."""
    commands: dict[str, Callable[[list[str]], int]] = {
        "create": _create,
        "publish": _publish,
        "pull": _pull,
        "ack": _ack,
        "stats": _stats,
        "replay": _replay,
        "purge": _purge,
    }
    if argv and argv[0] in commands:
        return commands[argv[0]](list(argv[1:]))
    if argv and not argv[0].startswith("-"):
        raise UsageError([f"queue {argv[0]}: no such command{suggestion(argv[0], list(commands))}; {USAGE}"])
    Parser("batcher queue", usage=USAGE, description="An embedded queue from the shell.", epilog=NOTES).parse(argv)
    raise UsageError([f"queue: what? {USAGE}"])


def _create(argv: list[str]) -> int:
    made = _parser("create", "Make the file of a queue.")
    made.add_argument("--name", metavar="NAME", help="what the queue is called in tables and logs [the file's name]")
    made.add_argument("--lanes", type=whole, default=4, metavar="N", help="for each priority; workers share them [4]")
    made.add_argument("--priorities", type=whole, default=1, metavar="N", help="from 0; higher ones come first [1]")
    made.add_argument(
        "--retain",
        type=_retain,
        default=RETAIN,
        metavar="TIME|forever",
        help="keep what every group has read for this long [7d]",
    )
    made.add_argument("--max-bytes", type=_size, metavar="SIZE", help="the most room it takes [that of the disk]")
    path, arguments = _loaded(made, argv)
    from batcher.sources.queue.file import QueueShape, create

    shape = QueueShape(
        arguments.name or path.stem,
        arguments.lanes,
        arguments.priorities,
        None if arguments.retain is None else int(arguments.retain.total_seconds() * 1000),
        arguments.max_bytes,
    )
    create(path, shape).close()
    kept = "for ever" if arguments.retain is None else f"for {show_duration(arguments.retain)}"
    print(
        f"queue {shape.name} in {path}: {shape.lanes} lanes, {shape.priorities} "
        f"{'priority' if shape.priorities == 1 else 'priorities'}, keeps what was read {kept}",
        file=sys.stderr,
    )
    return 0


def _publish(argv: list[str]) -> int:
    made = _parser("publish", "Append messages and print their ids.")
    made.add_argument("payloads", nargs="*", metavar="TEXT", help="one message each; without any, or -, lines of stdin")
    made.add_argument("--type", metavar="T", help="the message_type of each")
    made.add_argument("--priority", type=int, default=0, metavar="N", help="from 0; higher ones come first [0]")
    made.add_argument("--delay", type=_duration, default=timedelta(0), metavar="TIME", help="visible after this time")
    made.add_argument("--key", metavar="K", help="messages of one key keep their order")
    made.add_argument("--id", metavar="ID", help="of the one message: published twice, it is there once")
    made.add_argument("--envelopes", action="store_true", help="each is a JSON object with payload, priority, id, …")
    made.add_argument("--quiet", action="store_true", help="print no ids")
    path, arguments = _loaded(made, argv)
    if arguments.id is not None and len(arguments.payloads) != 1:
        raise UsageError(["--id: names one message, which is an argument"])
    if arguments.envelopes and any((arguments.type, arguments.priority, arguments.delay, arguments.key, arguments.id)):
        raise UsageError(["--envelopes: each says itself what its type, priority, delay, key and id are"])
    from batcher.sources.queue.file import opened
    from batcher.sources.queue.publisher import BATCH, QueuePublisher

    stop = threading.Event()
    stored = 0
    with setting(stop), closing(QueuePublisher(opened(path))) as publisher:
        try:
            for texts in _texts(arguments.payloads, stop, BATCH):
                ids = _sent(publisher, texts, arguments)
                stored += len(ids)
                if not arguments.quiet:
                    print("\n".join(ids), flush=True)
        except Exception:
            if stored:
                print(f"batcher: {stored:,} messages were stored before that", file=sys.stderr)
            raise
    return 0


def _sent(publisher: QueuePublisher, texts: Sequence[bytes], arguments: argparse.Namespace) -> Sequence[str]:
    from batcher.errors import ConfigurationError
    from batcher.protocols import Outgoing
    from batcher.sources.queue.envelope import draft, typed_headers

    ids: Sequence[str | None]
    if arguments.envelopes:
        try:
            drafts = [draft(text) for text in texts]
        except ValueError as error:
            raise UsageError([f"--envelopes: one of them {error}; nothing of it was stored"]) from None
        messages: Sequence[Outgoing] = [one.message for one in drafts]
        ids = [one.id for one in drafts]
    else:
        headers, key = typed_headers(arguments.type), None if arguments.key is None else arguments.key.encode()
        delay_s = arguments.delay.total_seconds()
        messages = [Outgoing(text, key, headers, delay_s, arguments.priority) for text in texts]
        ids = [arguments.id] * len(messages)
    done = publisher.store(messages, ids if any(ids) else None)
    if done.refused:
        raise ConfigurationError(f"{len(done.refused)} of {len(messages)} messages were refused: {done.refused[0]}")
    return done.ids


def _texts(payloads: Sequence[str], stop: threading.Event, most: int) -> Iterator[Sequence[bytes]]:
    if payloads and list(payloads) != ["-"]:
        yield [text.encode(errors="surrogateescape") for text in payloads]
        return
    from batcher.generate.lines import lines

    for found in lines(sys.stdin.fileno(), stop):
        for start in range(0, len(found), most):
            yield found[start : start + most]


def _pull(argv: list[str]) -> int:
    made = _parser("pull", "Print messages as JSON objects, one a line.", "queue.group")
    made.add_argument("-n", "--messages", type=whole, default=1, metavar="N", help="at most so many [1]")
    made.add_argument(
        "--lease",
        type=_duration,
        default=LEASE,
        metavar="TIME",
        help="pulled again if not acknowledged by then [30s]",
    )
    made.add_argument("--wait", type=_duration, default=timedelta(0), metavar="TIME", help="wait for the first one")
    path, arguments = _loaded(made, argv)
    group = _group(arguments)
    with _opened(path) as file:
        from batcher.sources.queue.consumer import QueueConsumer

        consumer = QueueConsumer(file, group)
        found = consumer.pull(arguments.messages, arguments.lease.total_seconds(), arguments.wait.total_seconds())
    for one in found:
        print(json.dumps(one, ensure_ascii=False), flush=True)
    return 0


def _ack(argv: list[str]) -> int:
    made = _parser("ack", "Say that messages are done.", "queue.group")
    made.add_argument("ids", nargs="*", metavar="ID", help="of messages; without any, or -, those in stdin")
    made.add_argument("--give-back", action="store_true", help="they are not done: let them be pulled again at once")
    path, arguments = _loaded(made, argv)
    group = _group(arguments)
    ids = arguments.ids if arguments.ids and arguments.ids != ["-"] else list(_ids_of_stdin())
    with _opened(path) as file:
        from batcher.sources.queue.consumer import QueueConsumer

        consumer = QueueConsumer(file, group)
        foreign = (consumer.give_back if arguments.give_back else consumer.acknowledge)(ids)
    for id_ in foreign:
        print(f"batcher: {id_}: group {group} does not have it in hand", file=sys.stderr)
    return 1 if foreign else 0


def _ids_of_stdin() -> Iterator[str]:
    for line in filter(None, map(str.strip, sys.stdin)):
        if not line.startswith("{"):
            yield line
            continue
        try:
            yield str(json.loads(line)["id"])
        except (ValueError, KeyError):
            raise UsageError(["ack: a line of stdin is neither an id nor an envelope"]) from None


def _stats(argv: list[str]) -> int:
    made = _parser("stats", "Count messages, and say how far each group is.")
    made.add_argument("--json", action="store_true", help="one JSON object")
    path, arguments = _loaded(made, argv)
    with _opened(path) as file:
        from batcher.sources.queue.admin import stats

        found = stats(file)
    if arguments.json:
        print(json.dumps(found))
        return 0
    bound = "" if found["max_bytes"] is None else f" of {show_size(found['max_bytes'])}"
    print(
        f"queue {found['queue']}: {found['messages']:,} messages of {found['published']:,} published, "
        f"{found['delayed']:,} more delayed, {show_size(found['bytes'])}{bound}"
    )
    for group in found["groups"]:
        print(
            f"group {group['group']}: {group['behind']:,} to read, {group['in_flight']:,} in flight, "
            f"{group['members']} members"
        )
    return 0


def _replay(argv: list[str]) -> int:
    made = _parser("replay", "Set a group back, so that it reads messages again.", "queue.group")
    made.add_argument("--from", dest="start", metavar="ID|TIME|earliest|latest", help="read from here on")
    path, arguments = _loaded(made, argv)
    if arguments.start is None:
        raise UsageError(["--from: from where? the id of a message, a time, earliest or latest"])
    group = _group(arguments)
    start, id_ = _start(arguments.start)
    with _opened(path) as file:
        from batcher.sources.queue.admin import replay

        left = replay(file, group, start, id_)
    print(f"group {group} has {left:,} messages to read", file=sys.stderr)
    return 0


def _start(text: str) -> tuple[Any, str | None]:
    """Return the place of a text that is one, else the text as an id."""
    try:
        return start_of(start_text(text)), None
    except ValueError:
        return None, text


def _purge(argv: list[str]) -> int:
    made = _parser("purge", "Remove messages, or forget a group.", "queue.group")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--read", action="store_true", help="what every group has read")
    which.add_argument("--before", type=_moment, metavar="TIME", help="what is older than that, read or not")
    which.add_argument("--all", action="store_true", help="everything, read or not, delayed messages too")
    which.add_argument("--forget", action="store_true", help="the group of --queue.group: nothing is kept for it")
    made.add_argument("--yes", action="store_true", help="do it")
    path, arguments = _loaded(made, argv)
    if not (arguments.read or arguments.before is not None or arguments.all or arguments.forget):
        raise UsageError(["purge: what? --read, --before TIME, --all or --forget"])
    group = _group(arguments) if arguments.forget else ""
    if not arguments.yes:
        raise UsageError(["purge: nothing was removed; --yes does it"])
    with _opened(path) as file:
        from batcher.sources.queue import admin

        if arguments.forget:
            known = admin.forget(file, group)
            print(f"group {group} {'is forgotten' if known else 'was not known'}", file=sys.stderr)
            return 0
        removed = admin.purge_read(file) if arguments.read else admin.purge(file, arguments.before)
    print(f"{removed:,} messages removed", file=sys.stderr)
    return 0


def _parser(command: str, what: str, *settings: str) -> Parser:
    made = Parser(f"batcher queue {command}", description=what)
    add_config_flag(made)
    made.add_settings(only=("queue.path", "log.format", *settings))
    return made


def _loaded(made: Parser, argv: list[str]) -> tuple[Path, argparse.Namespace]:
    """Return the file of the queue and the flags, with the log set up."""
    found: Loaded = load(made, argv)
    from batcher.telemetry import logs

    logs.setup(found.settings.log.format, "warning")
    section = found.settings.section(EmbeddedQueue)
    if not section.path:
        raise UsageError(["--queue.path: which queue? --queue.path FILE"])
    found.arguments.group = section.group
    return Path(section.path), found.arguments


def _group(arguments: argparse.Namespace) -> str:
    if not arguments.group:
        raise UsageError(["--queue.group: which group? --queue.group NAME"])
    return str(arguments.group)


def _opened(path: Path) -> closing[QueueFile]:
    from batcher.sources.queue.file import opened

    return closing(opened(path))


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _retain(text: str) -> timedelta | None:
    return None if text == "forever" else _duration(text)


def _size(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise argparse.ArgumentTypeError("needs a size such as 64MiB or 2GiB") from None


def _moment(text: str) -> int:
    try:
        found = start_of(start_text(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(found, int):
        raise argparse.ArgumentTypeError("is a time such as 2026-01-31T12:00:00Z, or epoch milliseconds")
    return found
