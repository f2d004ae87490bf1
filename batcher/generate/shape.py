"""Make records of lines: what of a line is the key, and which time a record gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from batcher.generate.events import Poison
from batcher.generate.lines import Chunk
from batcher.generate.skipped import Skipped, SkipReason

NOW: Final = 0
"""The time that the client takes for the time of sending. So 1970-01-01T00:00:00Z cannot be sent."""

NO_TIME: Final = -1
"""What Kafka stores where a record has no time."""


class SendableEvent(NamedTuple):
    """Hold what is sent, and where it was read: a source, and the number of a line or row in it."""

    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int = NOW
    source: str = ""
    number: int = 0


class Shaper:
    """Take key and time out of a line.

    `separator` ends a key in front of the value; with `tombstones` an empty value behind it is a null. `key_field` and
    `timestamp_field` are fields of the JSON object that the value is. A line that lacks what is asked for is skipped
    where `strict` says so; otherwise it is sent without. So made-up poison reaches the topic.
    """

    def __init__(
        self,
        *,
        separator: bytes | None = None,
        tombstones: bool = False,
        key_field: str | None = None,
        timestamp_field: str | None = None,
        strict: bool = False,
    ) -> None:
        self._separator = separator
        self._tombstones = tombstones
        self._key_field = key_field
        self._timestamp_field = timestamp_field
        self._strict = strict
        self._fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        self._moment = None if timestamp_field is None else _moments()

    def __call__(self, line: bytes, source: str, number: int) -> SendableEvent | SkipReason:
        """Return the record of a line, or why there is none."""
        if self._separator is None:
            event = SendableEvent(line, None, NOW, source, number)
        else:
            key, found, value = line.partition(self._separator)
            if found:
                if not value and self._tombstones:  # it has no fields
                    return SendableEvent(None, key, NOW, source, number)
                event = SendableEvent(value, key, NOW, source, number)
            elif self._strict:
                return SkipReason.NO_SEPARATOR
            else:
                event = SendableEvent(line, None, NOW, source, number)
        return event if self._key_field is None and self._moment is None else self._with_fields(event)

    def _with_fields(self, event: SendableEvent) -> SendableEvent | SkipReason:
        key, moment = event.key, event.timestamp_ms
        try:
            # As text: the fields that are not asked for are passed over without a look at their bytes.
            fields = self._fields(str(event.value or b"", "utf-8"))
            if self._key_field is not None:
                key = _key(fields, self._key_field)
            if self._moment is not None:
                moment = self._moment(fields, self._timestamp_field or "")
        except _Lacking as lacking:
            if self._strict:
                return lacking.reason
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if self._strict:
                return SkipReason.NOT_JSON
        return SendableEvent(event.value, key, moment, event.source, event.number)


class _Lacking(Exception):
    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason)
        self.reason = reason


_Fields = dict[str, msgspec.Raw]

_text: Final = msgspec.json.Decoder().decode


def _key(fields: _Fields, name: str) -> bytes | None:
    if name not in fields:
        raise _Lacking(SkipReason.NO_KEY_FIELD)
    raw = bytes(fields[name])
    if raw == b"null":
        return None
    # A number keeps its digits: 1.50 is no 1.5 here.
    return str(_text(raw)).encode() if raw.startswith(b'"') else raw


def _moments() -> Callable[[_Fields, str], int]:
    """Return what reads a time as columns of the product do: ISO 8601, or a number whose size tells its unit."""
    from batcher.formats.json import timestamps  # noqa: PLC0415 - loads columns, which few need

    def moment(fields: _Fields, name: str) -> int:
        raw = bytes(fields.get(name, b"null"))
        if raw == b"null":
            raise _Lacking(SkipReason.NO_TIMESTAMP)
        found = None
        if raw.startswith(b'"'):
            found = timestamps.of_text(_text(raw), "ms")
        elif (number := timestamps.decimal(raw.decode("ascii", "replace"))) is not None:
            found = timestamps.of_number(number, "ms")
        if found is None or found in (NOW, NO_TIME):
            raise _Lacking(SkipReason.BAD_TIMESTAMP)
        return found

    return moment


def made_up(chunks: Iterable[list[bytes]]) -> Iterator[Chunk]:
    """Yield made-up events as if they were read."""
    return (Chunk(list(events), range(len(events)), "") for events in chunks)


def shaped(
    chunks: Iterable[Chunk],
    shape: Shaper,
    *,
    count: int | None = None,
    poison: Poison | None = None,
    skipped: Skipped | None = None,
) -> Iterator[list[SendableEvent]]:
    """Yield records, `count` in all, None for no limit, with poison put in, and count what is skipped."""
    left = count
    poison, skipped = poison or Poison(0), skipped or Skipped()
    for chunk in chunks:
        start = 0
        while start < len(chunk.items):
            end = len(chunk.items) if left is None else start + left
            lines: list[bytes] = []
            numbers: list[int] = []
            for item, number in zip(chunk.items[start:end], chunk.numbers[start:end], strict=True):
                if isinstance(item, SkipReason):
                    skipped.add(item, chunk.source, number)
                else:
                    lines.append(item)
                    numbers.append(number)
            poison.spoil(lines)
            made = []
            for line, number in zip(lines, numbers, strict=True):
                event = shape(line, chunk.source, number)
                if isinstance(event, SkipReason):
                    skipped.add(event, chunk.source, number)
                else:
                    made.append(event)
            yield made
            start = end
            if left is not None:
                left -= len(made)
                if not left:
                    return
