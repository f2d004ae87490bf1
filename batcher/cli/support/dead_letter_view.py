"""Show dead letters to people: one line each, or one of them whole with a caret under what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batcher.cli.support.record_view import payload, short, shown_time
from batcher.dead_letters.kit.select import StoredLetter
from batcher.telemetry.logs import one_line


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
        ("key", short(record.key)),
        *((f"header {name}", short(content)) for name, content in record.headers),
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
