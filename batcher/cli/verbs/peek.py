"""`batcher peek`: show records of a topic as they are and as they are decoded."""

from __future__ import annotations

import argparse
import base64
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from batcher.cli.support.loudness import add_loudness
from batcher.cli.support.numbers import whole
from batcher.cli.support.sampling import loaded, log_of
from batcher.cli.support.signals import setting
from batcher.settings import Parser, Settings, add_config_flag

if TYPE_CHECKING:
    from batcher.preview.records import Shown
    from batcher.protocols import Format, ReadableLog
    from batcher.records import Partition, Records

USAGE: Final = "batcher peek -b BROKERS -t TOPIC [-n N] [--from OFFSET|TIME] [--follow] [--raw|--hex] [flags]"

NOTES: Final = """\
Shows the newest records, by their times. With --from the records from there on, partition after partition, each in its
order. A record that cannot be decoded is shown with the reason. Nothing is changed: no group is joined and no offset is
committed.

Exit codes: 0 shown · 2 bad command line · 69 unreachable · 75 no answer · 78 a setting is wrong or there is no record ·
130 Ctrl-C.\
"""

NEWEST: Final = 10

POLL_S: Final = 0.5
"""Between two looks at the ends of the log."""


def main(argv: Sequence[str]) -> int:
    """Print records and return 0."""
    made = _parser()
    found = loaded(made, argv)
    arguments = found.arguments
    from batcher.cli.support.inspection import numbers_of, partitions_of

    numbers = numbers_of(arguments.partition)
    stop = threading.Event()
    with setting(stop), log_of(found.settings) as (reader, partitions):
        chosen = partitions_of(partitions, numbers)
        printed = _print_all(_wanted(reader, chosen, arguments, stop), found.settings, arguments)
        if not printed and not stop.is_set():
            from batcher.errors import ConfigurationError

            raise ConfigurationError(f"{','.join(sorted({one.topic for one in partitions}))}: there is no record")
    return 130 if stop.is_set() and not arguments.follow else 0


def _parser() -> Parser:
    made = Parser("batcher peek", usage=USAGE, description="Show records of a topic.", epilog=NOTES)
    add_config_flag(made)
    made.add_argument("-n", "--records", type=whole, metavar="N", help=f"records to show [{NEWEST}; with --from all]")
    made.add_argument("--from", dest="start", metavar="OFFSET|TIME", help="begin here [the newest records]")
    made.add_argument(
        "--partition", action="append", default=[], metavar="N[,…]", help="only these partitions; may be repeated"
    )
    made.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="show values as they are, and decode nothing")
    form.add_argument("--hex", action="store_true", help="show the bytes of values, and decode nothing")
    made.add_argument("--json", action="store_true", help="print each record on stdout as one JSON object")
    add_loudness(made)
    return made


def _wanted(
    reader: ReadableLog, partitions: Sequence[Partition], arguments: argparse.Namespace, stop: threading.Event
) -> Iterator[Sequence[Records]]:
    """Yield records in pieces: those asked for, and with --follow what comes after them until `stop` is set."""
    from batcher.preview.records import newest

    places = {partition: reader.watermarks(partition) for partition in partitions}
    ends = {partition: end for partition, (_, end) in places.items()}
    nothing: Iterator[Records] = iter(())
    left: int | None
    if arguments.start is None:
        yield newest(reader, places, arguments.records or NEWEST)
        asked, left = nothing, None
    else:
        asked, left = _from(reader, places, arguments.start), arguments.records
    coming = _coming(reader, ends, stop) if arguments.follow else nothing
    for run in chain(asked, coming):
        if stop.is_set() or left == 0:
            return
        shown = run if left is None else run.slice(0, min(left, len(run)))
        left = None if left is None else left - len(shown)
        yield [shown]


def _from(reader: ReadableLog, places: Mapping[Partition, tuple[int, int]], start: str) -> Iterator[Records]:
    """Yield the records from an offset or a time on, partition after partition."""
    from batcher.audit.scope import bound_of, offset_of
    from batcher.preview.records import in_order

    bound = bound_of("--from", start)
    for partition, (low, end) in sorted(places.items()):
        yield from in_order(reader, partition, max(low, offset_of(reader, partition, bound, end)), end)


def _coming(reader: ReadableLog, ends: dict[Partition, int], stop: threading.Event) -> Iterator[Records]:
    """Yield the records that come from now on."""
    from batcher.preview.records import in_order

    while not stop.wait(POLL_S):
        for partition, known in ends.items():
            ends[partition] = max(known, reader.watermarks(partition)[1])
            yield from in_order(reader, partition, known, ends[partition])


def _print_all(pieces: Iterator[Sequence[Records]], settings: Settings, arguments: argparse.Namespace) -> int:
    from batcher.cli.support import wiring
    from batcher.preview.records import Shown, decoded

    format_: Format | None = None if arguments.raw or arguments.hex else wiring.encoding_of(settings)
    as_text = settings.decode.format == "json" and settings.decode.key_format in ("bytes", "text", "json")
    printed = 0
    for runs in pieces:
        if not runs:
            continue
        if format_ is None:
            found = [Shown(run.record(row)) for run in runs for row in range(len(run))]
        else:
            found = decoded(runs, format_)
        for one in found:
            if arguments.json:
                print(json.dumps(_facts(one, arguments), default=str), flush=True)
            else:
                for line in _lines(one, arguments, as_text=as_text):
                    print(line, flush=True)
        printed += len(found)
    return printed


def _lines(one: Shown, arguments: argparse.Namespace, *, as_text: bool) -> Iterator[str]:
    """Yield a record for people; with `as_text` a value that could be decoded is shown as it is."""
    from batcher.cli.support.record_view import dump, payload, short, shown_time
    from batcher.telemetry.logs import one_line

    record = one.record
    told = [f"{record.partition} {record.offset}", shown_time(_moment(record.timestamp_ms))]
    told += [f"key {short(record.key)}"] if record.key is not None else []
    told += [f"{name}={short(content) if content is not None else ''}" for name, content in record.headers]
    yield one_line("  ".join(told))
    if record.value is None:
        yield "  no value"
    elif arguments.hex:
        yield from (f"  {line}" for line in dump(record.value))
    elif one.row is not None and not as_text:
        yield one_line(f"  {json.dumps(one.row, default=_plain, ensure_ascii=False)}")
    else:
        message = "" if one.rejection is None else one.rejection.message
        yield from (f"  {line}" for line in payload(record.value, message))
    if one.rejection is not None:
        yield one_line(f"  would be refused: {one.rejection.reason}: {one.rejection.message}")


def _facts(one: Shown, arguments: argparse.Namespace) -> dict[str, Any]:
    record = one.record
    told: dict[str, Any] = {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": _text(record.key),
        "headers": [[name, _text(content)] for name, content in record.headers],
    }
    if arguments.hex:
        told["value"] = None if record.value is None else {"hex": record.value.hex()}
    else:
        told["value"] = _text(record.value)
    if one.row is not None:
        told["row"] = json.loads(json.dumps(one.row, default=_plain))
    if one.rejection is not None:
        told["refused"] = {"reason": one.rejection.reason, "message": one.rejection.message}
    return told


def _text(content: bytes | None) -> str | Mapping[str, str] | None:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _plain(value: Any) -> Any:
    """Return a value of a column as JSON has it; times as ISO 8601, bytes as text or hexadecimal digits."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"0x{value.hex()}"
    return str(value)


def _moment(timestamp_ms: int | None) -> datetime | None:
    return None if timestamp_ms is None else datetime.fromtimestamp(timestamp_ms / 1000, UTC)
