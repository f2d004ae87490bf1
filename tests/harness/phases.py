"""Run batcher with more points than `crash_points` has, so that a signal can meet it in every phase: for tests only.

    HANG_AT=in_decode:5:1.5 python -m tests.harness.phases --sink parquet …

The points are those of `crash_points` and the ones below.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from tests.harness import crash_points
from tests.harness.crash_points import Points, Trap, Wrapper, traps_of, wrap

MORE_POINTS: Final[Mapping[str, str]] = {
    "in_fetch": "the fetch loop is about to wait for records",
    "in_decode": "a batch is about to be decoded",
    "in_dead_letters": "the letters of a batch are about to be stored",
}
"""The points that are only here, with what is passed there."""


STOPPING_S: Final = 0.2
"""How long a stop may take to reach every thread: the one that asked for it runs on until then."""


class ExactPoints(Points):
    """Freeze where the point is, not some microseconds behind it."""

    def _act(self, trap: Trap, delay_s: float = 0.0) -> None:
        super()._act(trap, delay_s)
        if trap.action == "stop":
            time.sleep(STOPPING_S)


def install(points: Points) -> None:
    """Wrap what the further points are in."""
    from batcher.dead_letters.directory import DirectoryDeadLetterQueue  # only when there is a trap
    from batcher.dead_letters.kafka import KafkaDeadLetterQueue
    from batcher.engine.writer import Writer
    from batcher.sources.kafka.source import KafkaSource

    def passing(point: str) -> Wrapper:
        def around(original: Wrapper, *arguments: Any, **options: Any) -> Any:
            points.at(point)
            return original(*arguments, **options)

        return around

    wrap(KafkaSource, "fetch", passing("in_fetch"))
    wrap(Writer, "prepare", passing("in_decode"))
    wrap(DirectoryDeadLetterQueue, "send", passing("in_dead_letters"))
    wrap(KafkaDeadLetterQueue, "send", passing("in_dead_letters"))


def main() -> None:
    """Set the traps that the variables describe, then run the command line."""
    # What is missing there is put in from outside, as everything is there.
    setattr(crash_points, "POINTS", {**crash_points.POINTS, **MORE_POINTS})  # noqa: B010  # it is Final to all others
    try:
        traps = traps_of(os.environ)
    except ValueError as error:
        sys.exit(f"phases: {error}")
    if traps:
        points = ExactPoints(traps)
        crash_points.install(points)
        install(points)
    from batcher.__main__ import main as run  # after the wrapping

    run()


if __name__ == "__main__":
    main()
