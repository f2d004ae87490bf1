"""Workers that stop, are taken for dead, and go on as if nothing had happened: nothing lost, nothing duplicated.

`BATCHER_TEST_LONG=1` takes sessions of 6 s and every membership with every target, and freezes workers at every moment
that matters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from tests.harness import crash_score
from tests.harness.attack import Worker
from tests.harness.disturbance import GroupScene, Membership, owned_by, unannounced
from tests.harness.patience import LONG, wait_for
from tests.harness.targets import TableKind

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
SESSION_S = 6.0 if LONG else 3.0
FREEZES = 9 if LONG else 1
WORKERS = 3
RATE = 2_000 if LONG else 600
GROUP = {"workers": WORKERS, "session_s": SESSION_S, "seed": SEED, "rate": RATE}

MOMENTS = ("after_intent", "mid_write", "before_write", "after_write", "before_commit")
"""Between the intent and the insert, during the insert, and between the insert and its commit."""

MEMBERSHIPS: Sequence[Membership] = ("range", "cooperative-sticky", "consumer")


def rows(*short: tuple[Membership, str]) -> pytest.MarkDecorator:
    """Take every membership with every target, or only these."""
    chosen = [(one, kind) for one in MEMBERSHIPS for kind in ("Parquet", "ClickHouse")] if LONG else list(short)
    return pytest.mark.parametrize(("membership", "kind"), chosen, ids=[f"{kind}-{one}" for one, kind in chosen])


def play_dead(scene: GroupScene, *zombies: Worker) -> None:
    """Wait until workers have frozen themselves, and thaw them when others have taken their places."""
    for zombie in zombies:
        zombie.stops += 1
        zombie.running.wait_for("crash_point")
    scene.taken_over(*zombies)
    for zombie in zombies:
        scene.thaw(zombie)


@rows(("consumer", "Parquet"))
def test_workers_frozen_at_any_moment_duplicate_nothing_when_they_go_on(
    membership: Membership, kind: str, disturbed: Callable[..., GroupScene]
) -> None:
    with disturbed(membership, kind, **GROUP) as scene:
        scene.start()
        scene.gather()
        for number in range(FREEZES):
            zombie = scene.workers[number % WORKERS]
            scene.freeze(zombie)
            scene.thaw(zombie)
        verdict = scene.settle()

    crash_score.add(f"{kind}, frozen workers, {membership}", verdict)
    assert verdict.exact, verdict
    assert verdict.stops == FREEZES
    log = scene.commit_log()
    assert not log.went_back, log.went_back
    assert not unannounced(log), unannounced(log)


@rows(("cooperative-sticky", "ClickHouse"))
def test_workers_frozen_with_a_batch_in_hand_duplicate_nothing_when_they_go_on(
    membership: Membership, kind: str, disturbed: Callable[..., GroupScene]
) -> None:
    first, second, *others = MOMENTS if LONG else MOMENTS[:2]
    with disturbed(membership, kind, **GROUP) as scene:
        for worker, traps in zip(
            scene.workers, ({"STOP_AT": f"{first}:4"}, {"STOP_AT": f"{second}:8"}, {}), strict=True
        ):
            worker.start(**traps)
        play_dead(scene, *scene.workers[:2])
        for number, moment in enumerate(others):
            zombie = scene.workers[number % WORKERS]
            zombie.drain()
            zombie.start(STOP_AT=f"{moment}:4")
            play_dead(scene, zombie)
        verdict = scene.settle()

    crash_score.add(f"{kind}, workers frozen with a batch in hand, {membership}", verdict)
    assert verdict.exact, verdict
    # What they held was written by others meanwhile.
    assert verdict.replays >= verdict.stops == 2 + len(others), verdict
    log = scene.commit_log()
    assert not log.went_back, log.went_back
    assert not unannounced(log), unannounced(log)


@rows(("range", "ClickHouse"))
def test_without_intents_the_same_freezes_duplicate_records_and_this_test_sees_it(
    membership: Membership, kind: str, disturbed: Callable[..., GroupScene]
) -> None:
    # Cut by time alone, a successor, which has some seconds to make up for, never cuts as the one before it did.
    by_time = ("--batch.max-rows", "100000")
    # A table that remembers no tokens, so that nothing hides what was written again.
    target = TableKind() if kind == "ClickHouse" else kind
    with disturbed(membership, target, delivery="at-least-once", flags=by_time, **{**GROUP, "workers": 2}) as scene:
        zombie, successor = scene.workers
        zombie.start(STOP_AT="before_commit:15")
        successor.start()
        play_dead(scene, zombie)
        verdict = scene.settle()

    crash_score.add(f"{kind}, workers frozen with a batch in hand, {membership}", verdict, control=True)
    assert verdict.complete, verdict
    assert verdict.duplicated > 0, verdict
    assert not scene.commit_log().went_back


# Waits for a session of 20 s.
@pytest.mark.long
@pytest.mark.parametrize("membership", ["range", "cooperative-sticky", "consumer"])
def test_one_worker_that_is_dead_and_one_that_joins_do_not_end_the_others(
    membership: Membership, disturbed: Callable[..., GroupScene]
) -> None:
    with disturbed(membership, "Parquet", workers=3, session_s=20.0, seed=SEED) as scene:
        dead, living, joining = scene.workers
        for worker in (dead, living):
            worker.start()
        wait_for(lambda: owned_by(dead) and owned_by(living), "both own something")
        dead.suspend()
        joining.start()
        # The broker holds every join back until the session of the dead has ended.
        joining.running.wait_for("batch_written")
        assert living.alive, living.running.named("pipeline_failed")
        dead.kill()
        verdict = scene.settle()

    crash_score.add(f"Parquet, a dead worker and a new one, {membership}", verdict)
    assert verdict.exact, verdict
