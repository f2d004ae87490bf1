"""Where reading starts or ends, as people write it. Light: the command line is made from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from batcher.options.units import parse_duration

StartPlace: TypeAlias = Literal["earliest", "latest"] | int
"""A number is a time in epoch milliseconds."""

_OFFSET: Final = re.compile(r"(?:([A-Za-z0-9._-]+):)?(\d{1,9})=(\d{1,18})")
_AGO: Final = re.compile(r"[\d.]+[a-z][\da-z.]*")


@dataclass(frozen=True, slots=True)
class GivenOffsets:
    """Hold an offset for each partition that was named; `topic` is empty where it is the only one."""

    given: tuple[tuple[str, int, int], ...]

    def of(self, topic: str, number: int) -> int | None:
        """Return the offset of a partition; None where it is not named."""
        found = {(name, one): offset for name, one, offset in self.given}
        return found.get((topic, number), found.get(("", number)))


LogPlace: TypeAlias = StartPlace | GivenOffsets
"""A place in a log, for all of its partitions."""


def start_text(value: str) -> str:
    """Return the text with its time in full; raise ValueError for what is neither a place nor a time."""
    if value in ("earliest", "latest"):
        return value
    try:
        if value.isdecimal():
            moment = datetime.fromtimestamp(int(value) / 1000, UTC)
        elif _AGO.fullmatch(value):
            moment = datetime.now(UTC) - parse_duration(value)
        else:
            moment = datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        before_the_epoch = moment.timestamp() < 0
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            "is earliest, latest, a time such as 2026-01-31T12:00:00Z, epoch milliseconds, or how long ago, such as 2h"
        ) from None
    if before_the_epoch:
        raise ValueError("is a time before 1970; write earliest")
    return value if value.isdecimal() else moment.isoformat()


def start_of(text: str) -> StartPlace:
    """Return where to start: a time as epoch milliseconds."""
    match text:
        case "earliest" | "latest":
            return text
        case _ if text.isdecimal():
            return int(text)
        case _:
            return int(datetime.fromisoformat(text).timestamp() * 1000)


def place_text(value: str) -> str:
    """Return the text of a place or of offsets, `[TOPIC:]PARTITION=OFFSET[,…]`; raise ValueError for anything else."""
    if "=" not in value:
        return start_text(value)
    parts = [part.strip() for part in value.split(",")]
    found = [_OFFSET.fullmatch(part) for part in parts]
    if not all(found):
        raise ValueError("has offsets of the form PARTITION=OFFSET or TOPIC:PARTITION=OFFSET, separated by commas")
    names = [part.partition("=")[0] for part in parts]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ValueError(f"names partition {twice} twice")
    return ",".join(parts)


def place_of(text: str) -> LogPlace:
    """Return the place that a text of `place_text` stands for."""
    if "=" not in text:
        return start_of(text)
    return GivenOffsets(tuple(_pairs(text.split(","))))


def _pairs(parts: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    for part in parts:
        if found := _OFFSET.fullmatch(part):
            yield found[1] or "", int(found[2]), int(found[3])


def nothing_between(start: str, end: str) -> bool:
    """Return whether it can be told from the texts of two places alone that nothing is between them."""
    first, last = place_of(start), place_of(end)
    if first == "latest" or last == "earliest":
        return True
    if isinstance(first, int) and isinstance(last, int):
        return last <= first
    if not isinstance(first, GivenOffsets) or not isinstance(last, GivenOffsets):
        return False
    ends = {(topic, number): offset for topic, number, offset in last.given}
    spans = [(offset, ends.get((topic, number), -1)) for topic, number, offset in first.given]
    return not any(below < above for below, above in spans)
