"""What `batcher produce` says at its end: what was delivered, skipped and refused, and why; and the exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from batcher.generate.inputs import Reading
    from batcher.generate.load import EventLoad

UNDELIVERED: Final = 75
"""The exit code when a record was not confirmed, or not sent because of a signal."""

REFUSED: Final = 78
"""The exit code when a person has to look: at skipped lines, a broken file, or what would be refused again."""

NOTHING: Final = 2
"""The exit code when there was nothing to send: a mistyped file, or a command before the pipe that failed."""


@dataclass(frozen=True)
class SendingReport:
    """Hold what became of the events. `label` names their source, `wanted` is how many were asked for."""

    load: EventLoad
    target: str
    label: str
    unknown: int
    poison: int
    seconds: float
    wanted: int | None
    stopped: bool
    reading: Reading | None

    @property
    def undelivered(self) -> int:
        """Return how many events were refused, or have no report."""
        return self.load.failed + self.unknown

    @property
    def code(self) -> int:
        """Return the exit code: a stop before the end of a count or a file is no success, that of an endless run is."""
        if (self.reading is not None and self.reading.failure is not None) or self.load.lasting:
            return REFUSED
        if self.undelivered or self._cut:
            return UNDELIVERED
        if self.load.skipped.faulty:
            return REFUSED
        return 0 if self.load.delivered or self.stopped else NOTHING

    @property
    def _cut(self) -> bool:
        """Return whether something that was to be sent was not, because of a stop."""
        if self.wanted is not None and self.stopped and self.load.delivered < self.wanted:
            return True
        return self.reading is not None and (self.load.unsent > 0 or (self.stopped and self.reading.cut))

    def facts(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        load, skipped = self.load, self.load.skipped
        facts: dict[str, Any] = {
            "topic": self.target,
            "delivered": load.delivered,
            "undelivered": self.undelivered,
            "failures": [
                {"name": one.name, "message": one.message, "count": one.count} for one in load.failures.values()
            ],
            "skipped": {reason.value: count for reason, count in skipped.counts.items()},
            "skipped_first": {reason.value: place for reason, place in skipped.first.items()},
            "poison": self.poison,
            "bytes": load.nbytes,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(load.delivered / self.seconds) if self.seconds else 0,
            "exit": self.code,
        }
        return facts

    def tell(self, *, as_json: bool) -> None:
        """Print it: as one JSON object on stdout, or as sentences on stderr."""
        if as_json:
            print(json.dumps(self.facts()))
        else:
            for line in self._sentences():
                _say(line)
        if self.reading is not None and self.reading.failure is not None:
            _say(f"batcher: {self.reading.failure}; {self.load.delivered:,} events were delivered before it")
        elif not self.undelivered:
            for line in self._fewer():
                _say(line)

    def _sentences(self) -> list[str]:
        load, skipped = self.load, self.load.skipped
        speed = round(load.delivered / self.seconds) if self.seconds else 0
        done = f"{load.delivered:,} events delivered to {self.target}, {self.poison:,} of them poison"
        lines = [f"{done}, in {self.seconds:.1f} s ({speed:,}/s)"]
        if skipped.counts:
            parts = [
                f"{count:,} {reason.words} (the first: {skipped.first[reason]})"
                for reason, count in skipped.counts.most_common()
            ]
            lines.append(f"batcher: skipped {skipped.counts.total():,}: {', '.join(parts)}")
        if self.undelivered:
            reasons = [f"{one.count:,} {one.message}" for one in load.failures.values()]
            if load.failed + self.unknown > sum(one.count for one in load.failures.values()):
                reasons.append(f"{self.unknown:,} no report came in time")
            lines.append(f"batcher: {self.undelivered:,} events were not delivered: {', '.join(reasons)}")
        return lines

    def _fewer(self) -> list[str]:
        """Say why there were fewer events than asked for."""
        delivered, wanted = self.load.delivered, self.wanted
        if self.stopped and wanted is not None and delivered < wanted:
            return [f"batcher: stopped after {delivered:,} of {wanted:,} events"]
        if self._cut:
            return [f"batcher: stopped after {delivered:,} events, before the end of {self.label}"]
        if self.stopped or self.reading is None:
            return []
        if not delivered and not self.load.skipped.faulty:
            return [f"batcher: {self.label}: there is no line in it, so nothing was sent"]
        if wanted is not None and delivered < wanted:
            return [f"batcher: {self.label} ended after {delivered:,} lines, --count asks for {wanted:,}"]
        return []


def _say(line: str) -> None:
    from batcher.telemetry.logs import one_line

    print(one_line(line), file=sys.stderr)
