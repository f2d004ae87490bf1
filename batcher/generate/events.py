"""Make events from a template, many and fast: for `batcher produce`, the demo, benchmarks and tests.

A template is text with fields in double braces:

    {{seq}}            0, 1, 2 …; {{seq 1000}} starts there
    {{int 1 100}}      a whole number, both ends included
    {{float 0 1}}      a number; {{float 0 1 2}} with two digits after the point (three otherwise)
    {{choice a b c}}   one of the words; {{choice "in Ruhe" b}} quotes words with spaces
    {{bool}}           true or false; {{bool 0.9}} is true nine times of ten
    {{now}}            the time as 2026-01-31T12:00:00.000Z; {{now ms}} as milliseconds, {{now s}} as seconds
    {{uuid}}           a random UUID
    {{hex 8}}          eight hexadecimal digits

With a seed everything repeats, the time too: it starts at `SEEDED_START_MS` and advances a millisecond an event.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from random import Random
from typing import Final

ORDERS: Final = (
    '{"id":{{seq}},"ts":"{{now}}","user_id":{{int 1 1000000}},"country":"{{choice DE FR GB US BR IN JP ZA}}",'
    '"product":"{{choice espresso lungo ristretto doppio macchiato cortado}}","quantity":{{int 1 9}},'
    '"price":{{float 1.5 99.9 2}},"paid":{{bool 0.9}},"session":"{{hex 32}}"}'
)
"""The default template: an order of about 180 bytes and nine columns."""

SEEDED_START_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""

CHUNK: Final = 1000
"""Events drawn at a time: enough that a draw for each field costs a fifth of one for each event."""

_FIELD: Final = re.compile(r"\{\{\s*(.*?)\s*\}\}")

Column = Callable[[int], Sequence[object]]
"""Return this many values of a field."""

POISON: Final[Sequence[tuple[str, Callable[[bytes], bytes]]]] = (
    ("truncated", lambda event: event[: len(event) // 2]),
    ("not_utf8", lambda event: event[:-2] + b"\xff\xfe" + event[-2:]),
    ("empty", lambda _: b""),
    ("not_json", lambda _: b"order lost, see attachment"),
    ("two_documents", lambda event: event + event),
    ("not_an_object", lambda _: b"[1,2,3]"),
    ("wrong_type", lambda event: re.sub(rb":\s*-?\d+(?=[,}])", b':"many"', event, count=1)),
)
"""What can be wrong with an event, by name. `wrong_type` needs a field with a whole number."""


class Poison:
    """Make a share of events unreadable, evenly spread, with the kinds of `POISON` in turn.

    The share is exact over any run: a thousandth of a million is a thousand. `seen` and `spoiled` count.
    Raise ValueError for a share that is not from 0 to 1.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError("the share of poison is from 0 to 1")
        self.seen = 0
        self.spoiled = 0
        self._share = share

    def spoil(self, events: list[bytes]) -> None:
        """Replace the events of the list whose turn it is."""
        self.seen += len(events)
        # The tiny addition makes up for shares such as 0.1 that have no exact binary form.
        due = int(self.seen * self._share + 1e-9)
        for number in range(self.spoiled, due):
            turn = ceil((number + 1) / self._share - 1e-6) - 1
            index = turn - (self.seen - len(events))
            events[index] = POISON[number % len(POISON)][1](events[index])
        self.spoiled = due


class EventGenerator:
    """Make events from a template; raise ValueError for one that cannot be read.

    `poison` is the share of events made unreadable (see `Poison`); `made` and `poisoned` count. Two generators
    with the same template and seed make the same events, however many are taken at a time. Not for several threads.
    """

    def __init__(self, template: str = ORDERS, *, seed: int | None = None, poison: float = 0.0) -> None:
        self.made = 0
        self._poison = Poison(poison)
        self._seed = seed
        parts = _FIELD.split(template)
        self._columns = [self._column(number, field) for number, field in enumerate(parts[1::2])]
        self._format = "%s".join(literal.replace("%", "%%") for literal in parts[0::2])

    @property
    def poisoned(self) -> int:
        """Return how many of the events made so far are unreadable."""
        return self._poison.spoiled

    def take(self, count: int) -> list[bytes]:
        """Return the next `count` events."""
        form = self._format
        if self._columns:
            columns = [column(count) for column in self._columns]
            events = [(form % values).encode() for values in zip(*columns, strict=True)]
        else:
            events = [(form % ()).encode()] * count
        self._poison.spoil(events)
        self.made += count
        return events

    def __iter__(self) -> Iterator[bytes]:
        """Yield events without end."""
        while True:
            yield from self.take(CHUNK)

    def _column(self, number: int, field: str) -> Column:
        # A generator of its own for each field: drawn together, one more chunk would change all the values.
        random = Random(None if self._seed is None else f"{self._seed}/{number}")  # noqa: S311  # nothing here is secret
        try:
            name, *words = shlex.split(field)
            own: Mapping[str, Callable[..., Column]] = {"seq": self._sequence, "now": self._now}
            return own[name](*words) if name in own else _DRAWN[name](random, *words)
        except KeyError as error:
            known = ", ".join(sorted([*_DRAWN, "seq", "now"]))
            raise ValueError(f"{{{{{field}}}}}: no such field; known are {known}") from error
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{{{{{field}}}}}: cannot be read as a field of a template") from error

    def _sequence(self, start: str = "0") -> Column:
        first = int(start)
        return lambda count: range(first + self.made, first + self.made + count)

    def _now(self, unit: str = "iso") -> Column:
        shows: Mapping[str, Callable[[int], str]] = {"iso": _iso, "ms": str, "s": lambda ms: str(ms // 1000)}
        if unit not in shows:
            raise ValueError("the unit is ms or s")
        show = shows[unit]

        def column(count: int) -> Sequence[object]:
            if self._seed is None:
                return [show(time.time_ns() // 1_000_000)] * count
            return [show(SEEDED_START_MS + self.made + index) for index in range(count)]

        return column


def _iso(ms: int) -> str:
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=4)
def _second(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _int(random: Random, low: str, high: str) -> Column:
    first, span = int(low), int(high) - int(low) + 1
    if span < 1:
        raise ValueError("the range is empty")
    draw = random.random
    if span < 1 << 53:  # the digits that `random` has; it is three times faster than `randrange`
        return lambda count: [first + int(draw() * span) for _ in range(count)]
    return lambda count: [first + random.randrange(span) for _ in range(count)]


def _float(random: Random, low: str, high: str, digits: str = "3") -> Column:
    first, span, form = float(low), float(high) - float(low), f"%.{int(digits)}f"
    draw = random.random
    return lambda count: [form % (first + draw() * span) for _ in range(count)]


def _choice(random: Random, *words: str) -> Column:
    if not words:
        raise ValueError("nothing to choose from")
    return lambda count: random.choices(words, k=count)


def _bool(random: Random, share: str = "0.5") -> Column:
    weights = (float(share), 1 - float(share))
    return lambda count: random.choices(("true", "false"), weights, k=count)


def _hex(random: Random, digits: str) -> Column:
    bits, form = 4 * int(digits), f"%0{int(digits)}x"
    return lambda count: [form % random.getrandbits(bits) for _ in range(count)]


def _uuid(random: Random) -> Column:
    def one() -> str:
        text = f"{random.getrandbits(128):032x}"
        variant = "89ab"[int(text[16], 16) & 3]
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"

    return lambda count: [one() for _ in range(count)]


_DRAWN: Final[Mapping[str, Callable[..., Column]]] = {
    "int": _int,
    "float": _float,
    "choice": _choice,
    "bool": _bool,
    "hex": _hex,
    "uuid": _uuid,
}
