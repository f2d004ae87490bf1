"""Show dead letters to people: one line each, or one of them whole with a caret under what is wrong."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from batcher.dead_letters.kit.select import StoredLetter
from batcher.telemetry.logs import one_line

PLACE: Final = re.compile(r"\bat (character|byte) (\d+)")
"""How messages of the decoders name a place in the record."""

WIDTH: Final = 100
"""Characters of a payload in one line."""

SHOWN: Final = 4096
"""Characters, or bytes, of a payload that are shown around the place; `--json` has all of them."""

ROW: Final = 16
"""Bytes in one line of a dump."""


def line(stored: StoredLetter) -> str:
    """Return a dead letter as one line, with nothing of its record but the coordinates."""
    letter = stored.letter
    return one_line(
        f"{shown_time(stored.failed_at):<24}  {letter.stage:<6}  {letter.reason:<14}  {stored.id:<28}  {letter.message}"
    )


def facts(stored: StoredLetter) -> dict[str, Any]:
    """Return what `line` says, and more, for JSON; still nothing of the record."""
    letter, record = stored.letter, stored.letter.record
    return {
        "id": stored.id,
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "stage": letter.stage,
        "reason": letter.reason,
        "message": letter.message,
        "path": letter.path,
        "group": stored.group,
        "failed_at": None if stored.failed_at is None else stored.failed_at.isoformat(timespec="milliseconds"),
        "attempts": stored.attempts,
        "complete": stored.complete,
        "stored": stored.place,
    }


def whole(stored: StoredLetter) -> Iterator[str]:
    """Yield a dead letter and its record, line by line."""
    letter, record = stored.letter, stored.letter.record
    yield one_line(stored.id)
    times = shown_time(stored.failed_at)
    rows = [
        ("failed", f"{times} {letter.stage}/{letter.reason}, group {stored.group}, version {stored.version}"),
        ("message", letter.message),
        ("field", letter.path),
        ("stored in", stored.place),
        ("sent back", f"{stored.attempts} times" if stored.attempts else None),
        ("omitted", ", ".join(stored.omitted) or None),
        ("timestamp", None if record.timestamp_ms is None else f"{record.timestamp_ms} ms"),
        ("key", _short(record.key)),
        *((f"header {name}", _short(content)) for name, content in record.headers),
    ]
    for name, text in rows:
        if text is not None:
            yield one_line(f"  {name:<10} {text}")
    if record.value is None:
        yield "  value      none"
        return
    yield f"  value      {len(record.value)} bytes"
    for row in payload(record.value, letter.message):
        yield f"    {row}"


def payload(value: bytes, message: str) -> Iterator[str]:
    """Yield a payload as text, or as a dump where it is no UTF-8, with carets under the place the message names."""
    found = PLACE.search(message)
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        yield from _dump(value, int(found[2]) if found and found[1] == "byte" else error.start)
        return
    yield from _text(text, _place(text, int(found[2])) if found and found[1] == "character" else None)


def shown_time(moment: datetime | None) -> str:
    """Return a moment in UTC as people and `--since` read it."""
    return "-" if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _place(text: str, named: int) -> int:
    """Return where the place is in a text: decoders may have counted without the blanks in front."""
    blanks = len(text) - len(text.lstrip(" \t\r\n"))
    if blanks:
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            if error.pos == named + blanks:
                return error.pos
        except (ValueError, RecursionError):
            return named
    return named


def _text(text: str, place: int | None) -> Iterator[str]:
    start = max(0, (place or 0) - SHOWN // 2)
    end = min(len(text), start + SHOWN)
    if start:
        yield f"({start} characters before)"
    at = start
    for part in text[start:end].split("\n"):
        for index in range(0, max(len(part), 1), WIDTH):
            piece = part[index : index + WIDTH]
            yield one_line(piece)
            here = None if place is None else place - at - index
            last = index + WIDTH >= len(part)
            if here is not None and here >= 0 and (here < len(piece) or (last and here == len(piece))):
                yield " " * _columns(piece[:here]) + "^"
        at += len(part) + 1
    if end < len(text):
        yield f"({len(text) - end} characters more)"


def _columns(text: str) -> int:
    """Return how wide a text is on a terminal, once control characters are escaped."""
    shown = one_line(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else not unicodedata.combining(char) for char in shown)


def _dump(value: bytes, place: int) -> Iterator[str]:
    start = max(0, place - SHOWN // 2) // ROW * ROW
    end = min(len(value), start + SHOWN)
    if start:
        yield f"({start} bytes before)"
    for at in range(start, end, ROW):
        row = value[at : min(at + ROW, end)]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{at:08x}  {row.hex(' '):<{3 * ROW}} |{text}|"
        if at <= place < at + len(row):
            yield " " * (10 + 3 * (place - at)) + "^^"
    if end < len(value):
        yield f"({len(value) - end} bytes more)"


def _short(content: bytes | None) -> str | None:
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = f"0x{content.hex()}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ({len(text) - SHOWN} characters more)"
