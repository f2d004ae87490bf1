"""What names the directories of a root: columns and functions of columns, as `--parquet.partition-by` says them.

    country                       country=DE
    day(ts), hour(ts)             ts_day=2026-11-28/ts_hour=2026-11-28-13
    day(ts) as dt, hour(ts) as h  dt=2026-11-28/h=13
    bucket(user_id, 16)           user_id_bucket=7
    truncate(name, 3)             name_trunc=ann

Light: the command line is made from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from batcher.errors import ConfigurationError

SUFFIXES: Final[Mapping[str, str]] = {
    "year": "year",
    "month": "month",
    "day": "day",
    "hour": "hour",
    "bucket": "bucket",
    "truncate": "trunc",
}
"""The functions, and what each adds to the column's name: the names that Iceberg's writers give partition fields."""

COARSER: Final[Mapping[str, str]] = {"hour": "day", "day": "month", "month": "year"}
"""The next coarser unit of each unit of time."""

SIZED: Final = ("bucket", "truncate")
"""The functions that take a number."""

# A thousand buckets are a thousand files a batch already; Iceberg's own limit is that of an int.
MAX_NUMBER: Final = 2**31 - 1

# Hive readers treat a directory that starts with "_" or "." as hidden, and do not decode names.
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_CALL: Final = re.compile(r"(?P<function>\w+)\s*\(\s*(?P<column>[^(),]+?)\s*(?:,\s*(?P<number>[^(),]*?)\s*)?\)")
_AS: Final = re.compile(r"(?P<what>.*\S)\s+as\s+(?P<name>\S+)", re.IGNORECASE | re.DOTALL)
_OUTSIDE_COMMA: Final = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True, slots=True)
class DirectoryRule:
    """Say how one level of directories is named: `name=VALUE`, where the value comes from a column.

    `function` is one of `SUFFIXES`; empty for the column itself. `number` is the one that `SIZED` functions take.
    With `short` a unit of time says only what it adds to the coarser one before it. `zone` is that of its days.
    """

    column: str
    name: str
    function: str = ""
    number: int = 0
    short: bool = False
    zone: str = "UTC"
    text: str = ""
    """How it is written, in one spelling."""

    @property
    def timed(self) -> bool:
        """Return whether it is a unit of time."""
        return bool(self.function) and self.function not in SIZED


def separated(given: object) -> object:
    """Split texts at the commas outside of parentheses; what is neither text nor list is returned as it is."""
    if isinstance(given, str):
        return tuple(one.strip() for one in _OUTSIDE_COMMA.split(given) if one.strip())
    if isinstance(given, list | tuple):
        return tuple(item for one in given for item in (separated(one) if isinstance(one, str) else (one,)))  # type: ignore[attr-defined]
    return given


def rules_of(texts: Iterable[str], zone: str = "UTC") -> tuple[DirectoryRule, ...]:
    """Return the rule of each text, outermost first; raise ConfigurationError for what cannot name a directory."""
    rules: list[DirectoryRule] = []
    for text in texts:
        rules.append(_rule(text, rules, zone))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"--parquet.partition-by names the directory {name!r} twice; name one with `as`")
    return tuple(rules)


def columns_of(rules: Iterable[DirectoryRule]) -> tuple[str, ...]:
    """Return the columns that are directories themselves, and so are not in the files."""
    return tuple(rule.column for rule in rules if not rule.function)


def _rule(text: str, before: Sequence[DirectoryRule], zone: str) -> DirectoryRule:
    named = _AS.fullmatch(text)
    what, name = (named["what"], named["name"]) if named else (text, "")
    call = _CALL.fullmatch(what)
    if call is None:
        if name or "(" in text:
            raise ConfigurationError(
                f"--parquet.partition-by {text!r}: write a column, or a function such as day(COLUMN) or "
                "bucket(COLUMN, 16), and behind a function `as NAME` for another name"
            )
        return DirectoryRule(text, _checked(text, text), text=text)
    function, column = call["function"].lower(), call["column"]
    number = _number(text, function, call["number"])
    shown = f"{function}({column}, {number})" if number else f"{function}({column})"
    coarser = COARSER.get(function)
    short = bool(name) and any(one.column == column and one.function == coarser for one in before if coarser)
    # `_timestamp` would make a directory that readers do not look into.
    name = _checked(text, name or f"{column.lstrip('_')}_{SUFFIXES[function]}")
    return DirectoryRule(column, name, function, number, short, zone, f"{shown} as {name}" if named else shown)


def _number(text: str, function: str, given: str | None) -> int:
    if function not in SUFFIXES:
        raise ConfigurationError(f"--parquet.partition-by {text!r}: there are {', '.join(SUFFIXES)} as functions")
    if function not in SIZED:
        if given is not None:
            raise ConfigurationError(f"--parquet.partition-by {text!r}: {function} takes a column and nothing else")
        return 0
    if given is None or not given.isdecimal() or not 0 < int(given) <= MAX_NUMBER:
        raise ConfigurationError(
            f"--parquet.partition-by {text!r}: {function} takes a column and a number above 0, as in {function}(id, 16)"
        )
    return int(given)


def _checked(text: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"--parquet.partition-by {text!r} cannot name a directory: "
            "use letters, digits, '_', '.' and '-', the first one a letter or a digit"
        )
    return name
