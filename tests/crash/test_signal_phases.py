"""A signal in every phase of a batch: in good order at once with the first, at once with the second, always exact.

Many workers of one group hang, each in a phase of its own, and get their signals there, while one stays and takes what
they leave. `BATCHER_TEST_LONG=1` takes more phases and both targets.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from batcher.testing.clickhouse import ClickHouseServer
from tests.harness import crash_score
from tests.harness.attack import Worker
from tests.harness.disturbance import GroupScene, unannounced
from tests.harness.patience import LONG, wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600), pytest.mark.long]

SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
PARTITIONS = 12 if LONG else 8
"""Enough for every worker to have one."""

RATE = 2_000 if LONG else 600
HANG_S = 1.5
HANGS = "crash_point"
"""What a worker logs where it is about to hang."""

LATE_S = 20.0
"""Below the 25 s that --stop-timeout has by default, above what a busy machine needs for a stop."""

HURRY_S = 10.0
"""Within this a second signal ends it, though a thread hangs for an hour."""

STEADY_RETRY = ("--retry.strategy", "linear", "--retry.wait", "1s", "--retry.max-wait", "1s")

PHASES = {
    "consume": "in_fetch:30",
    "decode": "in_decode:3",
    "intent": "before_intent:3",
    "insert": "mid_write:3",
    "dead letters": "in_dead_letters:1",
    "commit": "before_commit:3",
}
MORE_PHASES = {
    "after the intent": "after_intent:3",
    "before the insert": "before_write:3",
    "after the insert": "after_write:3",
    "after the dead letters": "after_dead_letters:1",
    "after the commit": "after_commit:3",
}
REVOKE = {"rebalance callback": "in_revoke:1"}
HURRIED = ("consume", "decode", "intent", "insert", "dead letters", "commit") if LONG else ("insert",)


@contextmanager
def hanging(scene: GroupScene, phases: Mapping[str, str], seconds: float) -> Iterator[dict[str, Worker]]:
    """Start a worker for each phase that will hang there once, for so long."""
    with ExitStack() as ending:
        workers = {phase: scene.worker(phase.replace(" ", "-")) for phase in phases}
        for phase, worker in workers.items():
            ending.callback(worker.end)
            worker.start(HANG_AT=f"{phases[phase]}:{seconds}")
        yield workers


def signalled_there(workers: Mapping[str, Worker], *events: str) -> None:
    """Send each worker a SIGTERM as soon as it has logged an event, and another one for each further event.

    Whatever the others do: the time that a worker has for its stop begins with the first.
    """
    left = {phase: list(events) for phase in workers}

    def done() -> bool:
        for phase, events_left in list(left.items()):
            if workers[phase].running.named(events_left[0]):
                workers[phase].running.signal(signal.SIGTERM)
                del events_left[0]
                if not events_left:
                    del left[phase]
        return not left

    try:
        wait_for(done, " and ".join(events))
    except TimeoutError as error:
        logs = "\n".join(workers[phase].running.stderr[-1000:] for phase in left)
        raise TimeoutError(f"{error}: {', '.join(left)}\n{logs}") from None


@pytest.mark.parametrize("kind", ["ClickHouse", "Parquet"] if LONG else ["ClickHouse"])
def test_a_signal_in_any_phase_leaves_everything_once(
    kind: str, disturbed: Callable[..., GroupScene], clickhouse_server: ClickHouseServer
) -> None:
    phases = {**PHASES, **(MORE_PHASES if LONG else {})}
    with disturbed(
        "cooperative-sticky",
        kind,
        partitions=PARTITIONS,
        workers=1,
        session_s=3.0,
        rate=RATE,
        seed=SEED,
        flags=STEADY_RETRY,
    ) as scene:
        scene.start()
        with hanging(scene, REVOKE, HANG_S) as revoked:
            revoked["rebalance callback"].running.wait_for("batch_written")
            with hanging(scene, phases, HANG_S) as others:
                workers = {**revoked, **others}
                signalled_there(workers, HANGS)
                codes = {phase: worker.running.wait(LATE_S) for phase, worker in workers.items()}
        assert set(codes.values()) == {0}, codes

        with hanging(scene, {phase: phases[phase] for phase in HURRIED}, 3600.0) as workers:
            signalled_there(workers, HANGS, "stopping")
            began = time.monotonic()
            codes = {phase: worker.running.wait(LATE_S) for phase, worker in workers.items()}
            took_s = time.monotonic() - began
        assert set(codes.values()) == {130}, codes
        assert took_s < HURRY_S

        if kind == "ClickHouse":
            clickhouse_server.inject("status", times=2, code=503)
            signalled_there({"retry wait": scene.workers[0]}, "sink_unavailable")
            assert scene.workers[0].running.wait(LATE_S) == 0
        verdict = scene.settle()

    crash_score.add(f"{kind}, signals in every phase", verdict)
    assert verdict.exact, verdict
    log = scene.commit_log()
    assert not log.went_back, log.went_back
    assert not unannounced(log), unannounced(log)
