"""The content of a dead letter, in the two forms in which it is stored: Kafka headers and one JSON object.

Both forms can be read back into the `DeadLetter` they were made from, except that `message` and `path` were cleaned and
cut (see `one_line`).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from batcher import __version__
from batcher.records import DeadLetter, Headers, Partition, Record, Stage

MAX_TEXT: Final = 1024
"""Characters kept of a message: a header is read by people, and brokers limit the whole record."""

CONNECT: Final = "__connect.errors."
"""The beginning of the names of the headers that Kafka Connect adds to a record it gives up."""

CONNECT_STAGES: Final[Mapping[Stage, str]] = {"decode": "VALUE_CONVERTER", "sink": "TASK_PUT"}
"""Kafka Connect's words for our stages: tools that read its dead letters select by them."""


def one_line(text: str) -> str:
    """Return the text without control characters or lone surrogates, at most `MAX_TEXT` characters long.

    Parts of a message come from the record (the name of a field), so it may hold line ends and terminal codes.
    """
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_TEXT])
    return clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 1] + "…"


def coordinates(letter: DeadLetter) -> str:
    """Return topic, partition and offset for a message to people."""
    return one_line(f"{letter.record.partition} offset {letter.record.offset}")


def added_headers(letter: DeadLetter, group: str, failed_at: datetime) -> list[tuple[str, bytes | None]]:
    """Return the headers that say why a record is a dead letter; they go behind the record's own.

    The first ten minus one are named and encoded (text in UTF-8) as Kafka Connect's
    `errors.deadletterqueue.context.headers.enable` does (KIP-298), so that tools made for it work. Where there is no
    counterpart here: the connector is the consumer group, the task is 0, the class is the stage, and the exception
    class is `batcher.<stage>.<reason>`. There is no stacktrace: it would show our code, not the record.
    """
    record = letter.record
    texts = {
        f"{CONNECT}topic": record.partition.topic,
        f"{CONNECT}partition": str(record.partition.number),
        f"{CONNECT}offset": str(record.offset),
        f"{CONNECT}connector.name": group,
        f"{CONNECT}task.id": "0",
        f"{CONNECT}stage": CONNECT_STAGES[letter.stage],
        f"{CONNECT}class.name": f"batcher.{letter.stage}",
        f"{CONNECT}exception.class.name": f"batcher.{letter.stage}.{letter.reason}",
        f"{CONNECT}exception.message": one_line(letter.message),
        "batcher.stage": letter.stage,
        "batcher.reason": letter.reason,
        "batcher.path": None if letter.path is None else one_line(letter.path),
        "batcher.timestamp_ms": None if record.timestamp_ms is None else str(record.timestamp_ms),
        "batcher.failed_at": failed_at.isoformat(timespec="milliseconds"),
        "batcher.version": __version__,
    }
    return [(name, None if text is None else text.encode(errors="backslashreplace")) for name, text in texts.items()]


def from_headers(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] | None
) -> DeadLetter:
    """Return the dead letter stored as a Kafka record; raise ValueError if the record is none of ours."""
    return from_parts(key, value, *parted(headers))


def parted(headers: Sequence[tuple[str, bytes | None]] | None) -> tuple[Headers, Mapping[str, str | None]]:
    """Return a record's own headers, and the texts of those that were added to them; raise ValueError without these.

    A record that was dead-lettered twice has the headers twice. The last ones count, and the first are then its own.
    """
    names = [name for name, _ in headers or ()]
    first = f"{CONNECT}topic"
    if headers is None or first not in names or "batcher.stage" not in names:
        raise ValueError("the record has no dead-letter headers")
    start = len(names) - 1 - names[::-1].index(first)
    added = {name: None if text is None else text.decode(errors="replace") for name, text in headers[start:]}
    return tuple((name, text) for name, text in headers[:start]), added


def from_parts(key: bytes | None, value: bytes | None, own: Headers, added: Mapping[str, str | None]) -> DeadLetter:
    """Return the dead letter stored as a Kafka record whose headers are `parted`; raise ValueError if it is none."""
    try:
        partition = Partition(added[f"{CONNECT}topic"] or "", int(added[f"{CONNECT}partition"] or ""))
        offset = int(added[f"{CONNECT}offset"] or "")
        timestamp = added["batcher.timestamp_ms"]
        return DeadLetter(
            Record(
                partition,
                offset,
                None if timestamp is None else int(timestamp),
                key,
                value,
                own,
            ),
            _stage(added["batcher.stage"]),
            added["batcher.reason"] or "",
            added[f"{CONNECT}exception.message"] or "",
            added["batcher.path"],
        )
    except KeyError as missing:
        raise ValueError(f"the record has no header {missing}") from missing


def to_fields(letter: DeadLetter, group: str, failed_at: datetime) -> dict[str, Any]:
    """Return the dead letter as values that JSON can hold.

    `key`, `value` and each header's `value` are null, or text with the encoding `text` beside them, or with the
    encoding `base64` when the bytes are no UTF-8.
    """
    record = letter.record
    key, key_encoding = _packed(record.key)
    value, value_encoding = _packed(record.value)
    headers = []
    for name, content in record.headers:
        text, encoding = _packed(content)
        headers.append({"key": name, "value": text, "encoding": encoding})
    return {
        "topic": record.partition.topic,
        "partition": record.partition.number,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": key,
        "key_encoding": key_encoding,
        "value": value,
        "value_encoding": value_encoding,
        "headers": headers,
        "stage": letter.stage,
        "reason": letter.reason,
        "message": one_line(letter.message),
        "path": None if letter.path is None else one_line(letter.path),
        "group": group,
        "failed_at": failed_at.isoformat(timespec="milliseconds"),
        "version": __version__,
    }


def from_fields(fields: Mapping[str, Any]) -> DeadLetter:
    """Return the dead letter that `to_fields` described; raise ValueError if it is none."""
    try:
        headers: Headers = tuple(
            (header["key"], _unpacked(header["value"], header["encoding"])) for header in fields["headers"]
        )
        return DeadLetter(
            Record(
                Partition(fields["topic"], fields["partition"]),
                fields["offset"],
                fields["timestamp_ms"],
                _unpacked(fields["key"], fields["key_encoding"]),
                _unpacked(fields["value"], fields["value_encoding"]),
                headers,
            ),
            _stage(fields["stage"]),
            fields["reason"],
            fields["message"],
            fields["path"],
        )
    except KeyError as missing:
        raise ValueError(f"the letter has no field {missing}") from missing


def now() -> datetime:
    """Return the time, in UTC, that is written beside a dead letter."""
    return datetime.now(UTC)


def _packed(content: bytes | None) -> tuple[str | None, str | None]:
    if content is None:
        return None, None
    try:
        return content.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode(), "base64"


def _unpacked(text: str | None, encoding: str | None) -> bytes | None:
    if text is None:
        return None
    return base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()


def _stage(text: object) -> Stage:
    if text not in get_args(Stage):
        raise ValueError("the letter names a stage that is not known")
    return cast("Stage", text)
