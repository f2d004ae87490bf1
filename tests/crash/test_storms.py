"""Workers that come and go every second, some of them killed, while records keep coming.

`BATCHER_TEST_LONG=1` storms for a minute in each membership and target; in the ordinary suite some seconds of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.harness import crash_score
from tests.harness.disturbance import GroupScene, Membership, Storm, unannounced
from tests.harness.patience import LONG

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
STORM_S = 60.0 if LONG else 8.0
SESSION_S = 6.0 if LONG else 3.0
RATE = 1_000 if LONG else 400

STILL_S = 2 * SESSION_S + 15.0
"""How long a partition may stand still: until the dead are noticed, twice in a row, and those who start have started.
Measured: 4 to 7 s with sessions of 3 s."""

CASES: list[tuple[Membership, str]] = [
    ("range", "Parquet"),
    ("cooperative-sticky", "ClickHouse"),
    ("consumer", "ClickHouse"),
    ("range", "ClickHouse"),
    ("cooperative-sticky", "Parquet"),
    ("consumer", "Parquet"),
]


@pytest.mark.parametrize(("membership", "kind"), CASES if LONG else CASES[:1])
def test_workers_that_come_and_go_all_the_time_lose_nothing_and_duplicate_nothing(
    membership: Membership, kind: str, disturbed: Callable[..., GroupScene]
) -> None:
    with disturbed(membership, kind, workers=4 if LONG else 3, session_s=SESSION_S, seed=SEED, rate=RATE) as scene:
        scene.workers[0].start().wait_for("batch_written")
        storm = Storm(scene)
        storm.rage(STORM_S)
        verdict = scene.settle()

    log = scene.commit_log()
    # A log of a worker shows only those that changed what it has.
    verdict = replace(verdict, rebalances=log.generations - 1)
    crash_score.add(f"{kind}, storm of rebalances, {membership}", verdict)
    assert verdict.exact, verdict
    assert set(storm.exits) == {0}
    assert log.generations > len(storm.exits) + verdict.kills, log.generations
    assert not log.went_back, log.went_back
    assert not unannounced(log), unannounced(log)
    assert max(log.longest_rest_s.values()) < STILL_S, log.longest_rest_s
