"""Read and show sizes and durations, lists and mappings as people write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, ByteSize, PlainValidator

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
# Waits in the operating system overflow at some centuries; no one means more than years.
_LONGEST: Final = timedelta(days=10_000)
# The "=" of `(?=…)` and `(?<=…)` in a regular expression separates nothing.
_RULE: Final = re.compile(r"((?:\(\?<?=|[^=])+)=(.+)", re.DOTALL)
_WORKERS: Final = re.compile(r"(\d{1,9})(?:\.\.(\d{1,9}))?")
# A comma separates two pairs only where a name and "=" follow: passwords may have commas.
_PAIR_SEPARATOR: Final = re.compile(r"\s*,(?=\s*[A-Za-z][\w.\-]*=)")


def parse_duration(value: object) -> timedelta:
    """Read `500ms`, `1s`, `2m` or `1h30m`; raise ValueError for anything else.

    A plain number is refused: seconds and milliseconds are a factor of a thousand apart and both are usual.
    """
    if isinstance(value, timedelta):
        return value
    text = "".join(str(value).split())
    if _DURATION.fullmatch(text) is None:
        raise ValueError("needs a number and a unit, such as 500ms, 1s, 2m or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"is at most {_LONGEST.days}d")
    return timedelta(seconds=seconds)


def parse_optional_duration(value: object) -> timedelta | None:
    """Read a duration, or None from `none`."""
    return None if value is None or str(value).lower() == "none" else parse_duration(value)


def show_duration(value: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it back."""
    left_ms = round(value.total_seconds() * 1000)
    parts = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left_ms = divmod(left_ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def show_size(value: int) -> str:
    """Write a number of bytes in the largest binary unit that needs no fraction."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return f"{value}B"


def parse_list(value: object) -> object:
    """Split text at commas; what starts with `^` is a regular expression and keeps the rest, commas included."""
    if isinstance(value, list | tuple):
        return tuple(item for one in value for item in (_split(one) if isinstance(one, str) else (one,)))
    return tuple(_split(value)) if isinstance(value, str) else value


def _split(text: str) -> list[str]:
    items: list[str] = []
    while text := text.strip():
        if text.startswith("^"):
            return [*items, text]
        head, _, text = text.partition(",")
        if head.strip():
            items.append(head.strip())
    return items


def parse_pair(text: str) -> tuple[str, str]:
    """Split `name=value` at the first `=`; raise ValueError, without the text, if there is none."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise ValueError("needs the form name=value")
    return name.strip(), value.strip()


def parse_mapping(value: object) -> object:
    """Read `a=1,b=2`, or one pair a line with `#` comments; values become text as configuration files write it."""
    if isinstance(value, str):
        lines = (line.strip() for line in value.splitlines())
        given = [line for line in lines if line and not line.startswith("#")]
        # Several lines are a properties file, where a comma belongs to the value.
        pairs = given if len(given) > 1 else [pair for line in given for pair in _PAIR_SEPARATOR.split(line)]
        return dict(parse_pair(pair) for pair in pairs)
    if isinstance(value, Mapping):
        return {str(name): _text(item) for name, item in value.items()}
    return value


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def parse_rules(value: object) -> object:
    """Read rules `PATTERN=TARGET`, one a line or separated by semicolons: a pattern may have commas."""
    if isinstance(value, Mapping):
        return tuple(f"{pattern}={target}" for pattern, target in value.items())
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        lines = (line.strip() for one in value for line in re.split(r"[;\n]", str(one)))
        return tuple(line for line in lines if line and not line.startswith("#"))
    return value


def parse_rule(text: str) -> tuple[str, str]:
    """Split `PATTERN=TARGET` at the first `=` that does not belong to a group such as `(?=…)`. Raise ValueError."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} needs the form PATTERN=TARGET")
    return found[1].strip(), found[2].strip()


class WorkerCount(int):
    """A number of processes, the most there may be; `least` says how few."""

    least: int

    def __new__(cls, most: int, least: int | None = None) -> Self:
        made = super().__new__(cls, most)
        made.least = most if least is None else least
        return made

    def __str__(self) -> str:
        return str(int(self)) if self.least == self else f"{self.least}..{int(self)}"


MAX_WORKERS: Final = 1024


def parse_workers(value: object) -> WorkerCount:
    """Read `4` or `1..4`; raise ValueError for anything else."""
    if isinstance(value, WorkerCount):
        return value
    found = _WORKERS.fullmatch("".join(str(value).split()))
    if found is None or isinstance(value, bool):
        raise ValueError("is a number, or two with .. between them, such as 4 or 1..4")
    most = int(found[2] or found[1])
    if not 1 <= int(found[1]) <= most <= MAX_WORKERS:
        raise ValueError(f"is from 1 to {MAX_WORKERS}, the smaller number first")
    return WorkerCount(most, int(found[1]))


Workers = Annotated[WorkerCount, PlainValidator(parse_workers)]
"""A number of processes, or the least and the most."""

Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A span of time; text needs a unit."""

OptionalDuration = Annotated[timedelta | None, BeforeValidator(parse_optional_duration)]
"""A span of time, or `none`."""

Size = ByteSize
"""A number of bytes: `64MiB`, `1.5GiB`, `1048576`."""

Names = Annotated[tuple[str, ...], BeforeValidator(parse_list)]
"""A list of names, comma separated in text."""

Rules = Annotated[tuple[str, ...], BeforeValidator(parse_rules)]
"""Rules of the form PATTERN=TARGET, see `parse_rules`."""

Pairs = Annotated[dict[str, str], BeforeValidator(parse_mapping)]
"""Names with values."""
