"""Make records of lines: what of a line is the key, and which time a record gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Hold what is sent as one record."""

    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int = NOW


class SendableBatch(NamedTuple):
    """Hold records by column, and where they were read: a source, and the number of the line or row of each.

    `keys` and `times_ms` are empty where no record has one.
    """

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None] = ()
    times_ms: Sequence[int] = ()
    source: str = ""
    numbers: Sequence[int] = ()

    def part(self, start: int, end: int) -> SendableBatch:
        """Return some of the records."""
        values, keys, times_ms, source, numbers = self
        return SendableBatch(values[start:end], keys[start:end], times_ms[start:end], source, numbers[start:end])


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
        self._keyed = key_field is not None
        self._strict = strict
        self._moment = None if timestamp_field is None else _moments()
        # Only these two are looked at; others are passed over without an object for each.
        same = key_field == timestamp_field
        names = {"key": key_field, "moment": None if same else timestamp_field}
        wanted = {slot: name for slot, name in names.items() if name is not None}
        made = msgspec.defstruct("Wanted", [(slot, msgspec.Raw, None) for slot in wanted], rename=wanted)
        self._fields = msgspec.json.Decoder(made).decode
        self._slot = "key" if same else "moment"

    @property
    def plain(self) -> bool:
        """Return whether a line is its record as it is."""
        return self._separator is None and not self._keyed and self._moment is None

    def __call__(self, line: bytes) -> SendableEvent | SkipReason:
        """Return the record of a line, or why there is none."""
        if self._separator is None:
            return self._with_fields(line, None)
        key, found, value = line.partition(self._separator)
        if not found:
            return SkipReason.NO_SEPARATOR if self._strict else self._with_fields(line, None)
        if not value and self._tombstones:  # it has no fields
            return SendableEvent(None, key)
        return SendableEvent(value, key) if self._moment is None else self._with_fields(value, key)

    def _with_fields(self, value: bytes, key: bytes | None) -> SendableEvent | SkipReason:
        moment = NOW
        try:
            # As text: what is not asked for is passed over without a look at its bytes.
            fields = self._fields(str(value, "utf-8"))
            if self._keyed:
                key = _key(getattr(fields, "key"))  # noqa: B009 - made from the names above
            if self._moment is not None:
                moment = self._moment(getattr(fields, self._slot))
        except _Lacking as lacking:
            if self._strict:
                return lacking.reason
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if self._strict:
                return SkipReason.NOT_JSON
        return SendableEvent(value, key, moment)


class _Lacking(Exception):
    def __init__(self, reason: SkipReason) -> None:
        super().__init__(reason)
        self.reason = reason


_text: Final = msgspec.json.Decoder().decode


def _key(found: msgspec.Raw | None) -> bytes | None:
    if found is None:
        raise _Lacking(SkipReason.NO_KEY_FIELD)
    raw = bytes(found)
    if raw == b"null":
        return None
    # A number keeps its digits: 1.50 is no 1.5 here.
    return str(_text(raw)).encode() if raw.startswith(b'"') else raw


def _moments() -> Callable[[msgspec.Raw | None], int]:
    """Return what reads a time as columns of the product do: ISO 8601, or a number whose size tells its unit."""
    from batcher.formats.json import timestamps  # noqa: PLC0415 - loads columns, which few need

    def moment(given: msgspec.Raw | None) -> int:
        raw = b"null" if given is None else bytes(given)
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
    return (Chunk(events, range(len(events)), "", whole=True) for events in chunks)


def shaped(
    chunks: Iterable[Chunk],
    shape: Shaper,
    *,
    count: int | None = None,
    poison: Poison | None = None,
    skipped: Skipped | None = None,
) -> Iterator[SendableBatch]:
    """Yield records, `count` in all, None for no limit, with poison put in, and count what is skipped."""
    left = count
    poison, skipped = poison or Poison(0), skipped or Skipped()
    for chunk in chunks:
        start = 0
        while start < len(chunk.items):
            end = len(chunk.items) if left is None else start + left
            lines, numbers = _lines(chunk, start, end, skipped)
            poison.spoil(lines)
            batch = SendableBatch(lines, (), (), chunk.source, numbers)
            if not shape.plain:
                batch = _shaped(batch, shape, skipped)
            yield batch
            start = end
            if left is not None:
                left -= len(batch.values)
                if not left:
                    return


def _lines(chunk: Chunk, start: int, end: int, skipped: Skipped) -> tuple[list[bytes], Sequence[int]]:
    """Return the lines of a part of a chunk with their numbers, and count the others."""
    items, numbers = chunk.items[start:end], chunk.numbers[start:end]
    if chunk.whole:
        return list(items), numbers  # type: ignore[arg-type]  # that is what it says
    lines: list[bytes] = []
    kept: list[int] = []
    for item, number in zip(items, numbers, strict=True):
        if isinstance(item, SkipReason):
            skipped.add(item, chunk.source, number)
        else:
            lines.append(item)
            kept.append(number)
    return lines, kept


def _shaped(batch: SendableBatch, shape: Shaper, skipped: Skipped) -> SendableBatch:
    events: list[SendableEvent] = []
    kept: list[int] = []
    for line, number in zip(batch.values, batch.numbers, strict=True):
        event = shape(line or b"")
        if isinstance(event, SkipReason):
            skipped.add(event, batch.source, number)
        else:
            events.append(event)
            kept.append(number)
    values, keys, times_ms = zip(*events, strict=True) if events else ((), (), ())
    return SendableBatch(values, keys, times_ms if any(times_ms) else (), batch.source, kept)
