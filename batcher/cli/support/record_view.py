"""Show what a record holds to people: text as text, anything else as a dump, and nothing that a terminal obeys."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from batcher.telemetry.logs import one_line

PLACE: Final = re.compile(r"\bat (character|byte) (\d+)")
"""How messages of the decoders name a place in the record."""

WIDTH: Final = 100
"""Characters of a payload in one line."""

SHOWN: Final = 4096
"""Characters, or bytes, of a payload that are shown around the place; `--json` has all of them."""

ROW: Final = 16
"""Bytes in one line of a dump."""


def payload(value: bytes, message: str) -> Iterator[str]:
    """Yield a payload as text, or as a dump where it is no UTF-8, with carets under the place the message names."""
    found = PLACE.search(message)
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        yield from dump(value, int(found[2]) if found and found[1] == "byte" else error.start)
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


def dump(value: bytes, place: int = -1) -> Iterator[str]:
    """Yield bytes as a dump, with a mark under the byte at `place`."""
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


def short(content: bytes | None) -> str | None:
    """Return a key or a header as text, in hexadecimal digits where it is none; None for none."""
    if content is None:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = f"0x{content.hex()}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ({len(text) - SHOWN} characters more)"
