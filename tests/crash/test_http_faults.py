"""Answers of a server that go missing, come late or say no, in any order, with kills between: nothing is there twice.

`BATCHER_TEST_LONG=1` takes each kind of table and many more faults.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import pytest

from batcher.testing.clickhouse import ClickHouseServer
from tests.harness import crash_score
from tests.harness.disturbance import GroupScene, unannounced
from tests.harness.patience import LONG, wait_for
from tests.harness.targets import TableKind

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
FAULTS = 40 if LONG else 3
KILLS = 6 if LONG else 1
RATE = 2_000 if LONG else 600

DELAY_S = 2.5
"""The client has given up, and has asked again, when the server stores the rows."""

HELD_S = 20.0
"""The successor of a worker that was killed has started, and asks, while the server is still at the insert."""

STEADY_RETRY = ("--retry.strategy", "linear", "--retry.wait", "300ms", "--retry.max-wait", "300ms")
IMPATIENCE = ("--clickhouse.insert-timeout", "1s")


class Case(NamedTuple):
    """Name a row of the score, with its table."""

    name: str
    table: TableKind
    flags: tuple[str, ...] = ()


CASES = [
    Case("coordinates", TableKind()),
    Case("tokens", TableKind(window=10_000, coordinates=False)),
    Case("tokens and coordinates", TableKind(window=10_000)),
    Case("coordinates, merged partitions", TableKind(), ("--batch.merge-partitions",)),
    Case("`PARTITION BY`, tokens", TableKind(window=10_000, coordinates=False, partition_by="country")),
]
SHORT = CASES[:1]


def some_fault(server: ClickHouseServer, random: Random) -> None:
    """Let the next insert, or the next few, meet something."""
    match random.choice(("reset_after_apply", "reset_before_apply", "status", "exception", "delay")):
        case "status":
            server.inject("status", code=503, times=random.randint(1, 2))
        case "exception":
            server.inject("exception", code=random.choice((241, 252, 202)))
        case "delay":
            server.inject("delay", delay_s=DELAY_S)
        case "reset_after_apply":
            server.inject("reset_after_apply")
        case _:
            server.inject("reset_before_apply")


def long_insert(server: ClickHouseServer) -> str:
    """Wait until an insert has been under way for a while and return its id."""

    def the_same_twice() -> str | None:
        before = server.query("SELECT query_id FROM system.processes")
        time.sleep(0.3)
        found = [row[0] for row in server.query("SELECT query_id FROM system.processes") if row in before]
        return found[0] if found else None

    return wait_for(the_same_twice, "an insert that takes long")


@pytest.mark.parametrize("case", CASES if LONG else SHORT, ids=lambda case: case.name)
def test_whatever_the_server_answers_each_record_is_there_once(
    case: Case, disturbed: Callable[..., GroupScene], clickhouse_server: ClickHouseServer
) -> None:
    server = clickhouse_server
    flags = (*STEADY_RETRY, *IMPATIENCE, *case.flags)
    with disturbed(
        "cooperative-sticky", case.table, workers=1, static=True, session_s=3.0, rate=RATE, seed=SEED, flags=flags
    ) as scene:
        worker = scene.workers[0]
        worker.start().wait_for("batch_written")
        for _ in range(FAULTS):
            before = len(worker.running.events)
            some_fault(server, scene.random)
            worker.running.wait_for("sink_unavailable", after=before)
            worker.running.wait_for("batch_written", after=before)
        successors = []
        for _ in range(KILLS):
            server.inject("delay", delay_s=HELD_S)
            long_insert(server)
            worker.kill()
            successors.append(worker.start())
            successors[-1].wait_for("batch_written", where=lambda event: event["replayed"])
        verdict = scene.settle()

    crash_score.add(f"ClickHouse over HTTP, {case.name}, faults of the server", verdict)
    assert verdict.exact, verdict
    assert verdict.kills == KILLS
    # Successors have found their predecessors' inserts under way, and waited for them.
    assert any(successor.named("sink_unavailable") for successor in successors), verdict
    log = scene.commit_log()
    assert not log.went_back, log.went_back
    assert not unannounced(log), unannounced(log)
