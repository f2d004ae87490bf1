"""What a check has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batcher.errors import BatcherError


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """Say how it is with one thing. `good` is None where it could not be told, or is worth a look.

    `code` is the exit code that it asks for: 0 where nothing has to be done.
    """

    name: str
    good: bool | None
    said: str
    code: int = 0

    def facts(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"check": self.name, "good": self.good, "said": self.said}


def fine(name: str, said: str) -> HealthFinding:
    """Return that all is well."""
    return HealthFinding(name, True, said)


def doubtful(name: str, said: str) -> HealthFinding:
    """Return what is worth a look and stops nothing."""
    return HealthFinding(name, None, said)


def wrong(name: str, said: str, code: int = 78) -> HealthFinding:
    """Return what has to be repaired; `said` ends with what to do."""
    return HealthFinding(name, False, said, code)


def guarded(name: str, check: Callable[[], Iterable[HealthFinding]]) -> Iterator[HealthFinding]:
    """Yield what a check finds; what it raises is a finding too, if it was foreseen."""
    try:
        yield from check()
    except BatcherError as error:
        yield wrong(name, str(error), 69 if error.exit_code == 75 else error.exit_code)


def code_of(findings: Iterable[HealthFinding]) -> int:
    """Return the exit code for all: what a person has to repair comes before what may answer later."""
    codes = {one.code for one in findings}
    return next((code for code in (78, 2, 69) if code in codes), max(codes, default=0))
