"""Kill workers again and again, at random moments and at each named point in turn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from random import Random
from typing import Final, Protocol

from tests.harness.attack import Worker

ANY_MOMENT: Final = ""
"""Stands for a kill from outside, at a random moment."""

WITH_INTENTS: Final = (
    *(ANY_MOMENT, "after_write", "during_replay"),
    *(ANY_MOMENT, "mid_write", "after_replay_write"),
    *(ANY_MOMENT, "before_commit", "during_replay"),
    *(ANY_MOMENT, "after_intent", "after_dead_letters"),
    *(ANY_MOMENT, "before_write", "mid_write"),
    *(ANY_MOMENT, "before_intent", "after_commit"),
)
"""Points in an order that gives a replay something to replay: 18 kills are one pass."""

WITH_INTENTS_OVER_HTTP: Final = (*WITH_INTENTS, ANY_MOMENT, "before_answer", "during_replay")

WITHOUT_INTENTS: Final = (ANY_MOMENT, "after_write", ANY_MOMENT, "before_commit")

AT_FIRST_PASSING: Final = frozenset({"during_replay", "after_replay_write"})
"""The points that are passed right after a start, or not at all."""

MAX_PASSING: Final = 8
"""Kills come at one of the first so many passings of a point: with small batches within a second or two."""

POINT_PATIENCE_S: Final = 30.0
"""How long a point is waited for. A worker that does not pass it, as when nothing is replayed, is killed then."""

ASSIGNMENT_PATIENCE_S: Final = 180.0
"""How long partitions are waited for. A worker that was away for longer than its session has to wait until the others,
which are killed all the time, have given some of theirs back."""

MAX_LIFE_S: Final = 0.6
"""How long after its first batch a worker is killed at the latest, when no point is named."""


class Attackable(Protocol):
    """Have workers that run; everything random comes from `seed`."""

    workers: list[Worker]
    seed: int


def kill_loop(scene: Attackable, kills: int, moments: Sequence[str]) -> None:
    """Kill so often in all, each worker on a thread of its own, and leave them all running.

    Each worker goes through `moments` in its own order: the second begins in the middle, and so on.
    """
    count = len(scene.workers)
    with ThreadPoolExecutor(count) as pool:
        outcomes = [
            pool.submit(
                _attack,
                worker,
                list(islice(cycle(moments), start := number * len(moments) // count, start + share)),
                Random(f"{scene.seed}/{number}"),  # nothing here is secret
            )
            for number, worker in enumerate(scene.workers)
            if (share := kills // count + (number < kills % count))
        ]
        for outcome in outcomes:
            outcome.result()


def _attack(worker: Worker, moments: Sequence[str], random: Random) -> None:
    worker.kill()
    # That one was the first.
    for moment in moments[1:]:
        _strike(worker, moment, random)
    worker.start()


def _strike(worker: Worker, moment: str, random: Random) -> None:
    if moment:
        passing = 1 if moment in AT_FIRST_PASSING else random.randint(1, MAX_PASSING)
        worker.start(CRASH_AT=f"{moment}:{passing}")
        _wait_for_partitions(worker)
        if worker.died(POINT_PATIENCE_S):
            return
    else:
        worker.start()
        _wait_for_partitions(worker)
        # Some die while they replay, or before they have done anything.
        if random.random() < 0.8:
            worker.running.wait_for("batch_written")
        time.sleep(random.uniform(0.0, MAX_LIFE_S))
    worker.kill()


def _wait_for_partitions(worker: Worker) -> None:
    worker.running.wait_for(
        "partitions_assigned", where=lambda event: bool(event["positions"]), timeout_s=ASSIGNMENT_PATIENCE_S
    )


def named(moments: Sequence[str]) -> Iterator[str]:
    """Yield the points among moments, each once."""
    yield from dict.fromkeys(moment for moment in moments if moment)
