"""Say which target each topic goes to: rules from a topic's name to the name of a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from batcher.errors import ConfigurationError
from batcher.protocols import Format, Sink

_REFERENCE: Final = re.compile(r"\$(?:(\d+)|\{(\w+)\}|(.)|\Z)|\{topic\}", re.DOTALL)
"""`$1`, `${1}` or `${name}` for a group of the expression, `$$` for a dollar, `{topic}` for the whole name."""


@dataclass(frozen=True, slots=True)
class Target:
    """Hold what one target is made of; nothing of it is open."""

    sink: Sink
    format: Format


class Routes:
    """Send topics to targets. `Pipeline` takes it in place of a sink.

    `rules` are pairs of a regular expression and the name of a target. The first rule whose expression is the whole
    name of a topic holds for it; the name may refer to groups of the expression (`$1`, `${name}`) and to `{topic}`.
    Topics that lead to the same name share a target. `make` returns a new target, not open yet, for a name and the
    topics that are known to lead there; it is called once for each name, by the main thread or the fetch loop. Raise
    ConfigurationError for a rule that cannot work.
    """

    def __init__(self, rules: Iterable[tuple[str, str]], make: Callable[[str, Sequence[str]], Target]) -> None:
        self._rules = [(_compiled(pattern, name), name) for pattern, name in rules]
        if not self._rules:
            raise ConfigurationError("--route: there is no rule; give PATTERN=TARGET")
        self.make = make

    def target_of(self, topic: str) -> str | None:
        """Return the name of the target of a topic; None where no rule is for it."""
        for pattern, name in self._rules:
            found = pattern.fullmatch(topic)
            if found is not None:
                return _filled(name, found)
        return None


def _compiled(pattern: str, name: str) -> re.Pattern[str]:
    rule = f"--route {pattern}={name}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"{rule}: {pattern!r} is no regular expression: {error}") from error
    if not name:
        raise ConfigurationError(f"{rule}: names no target; give PATTERN=TARGET")
    for found in _REFERENCE.finditer(name):
        number, group, other = found.groups()
        if found.group() in ("{topic}", "$$"):
            continue
        if other is not None or found.group() == "$":
            raise ConfigurationError(f"{rule}: a $ is followed by the number of a group, or by another $")
        asked = number or group
        known = int(asked) <= compiled.groups if asked.isdecimal() else asked in compiled.groupindex
        if not known:
            raise ConfigurationError(f"{rule}: the expression has no group {asked}")
    return compiled


def _filled(name: str, found: re.Match[str]) -> str:
    def value(reference: re.Match[str]) -> str:
        if reference.group() == "{topic}":
            return found.string
        if reference.group() == "$$":
            return "$"
        asked = reference[1] or reference[2]
        return found[int(asked) if asked.isdecimal() else asked] or ""

    return _REFERENCE.sub(value, name)
