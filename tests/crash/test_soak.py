"""Everything at once and for long: broker, target, disk and workers fail at random while records keep coming.

`BATCHER_TEST_SOAK_S` says for how many seconds; 20 of them in `make test-crash`, which is each kind of trouble once.
From five minutes on Parquet has its turn as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from tests.harness import crash_score
from tests.harness.disturbance import GroupScene, unannounced
from tests.harness.soak import Soak

SECONDS = float(os.environ.get("BATCHER_TEST_SOAK_S", "20"))
SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))

pytestmark = [
    pytest.mark.broker,
    *(() if "BATCHER_TEST_SOAK_S" in os.environ else (pytest.mark.long,)),
    pytest.mark.timeout(600 + 2 * SECONDS),
    pytest.mark.skipif(sys.platform != "linux", reason="limits and measures processes as Linux does"),
]

LONG_S = 300.0
RATE = 600

GROWTH_BYTES = 48 << 20
"""By how much a worker may have grown from the second third of the time to the last; batches in memory vary by less."""

FLAGS = (
    *("--retry.strategy", "linear", "--retry.wait", "300ms", "--retry.max-wait", "300ms"),
    *("--clickhouse.insert-timeout", "2s"),
)


@pytest.mark.parametrize("kind", ["ClickHouse", "Parquet"] if SECONDS >= LONG_S else ["ClickHouse"])
def test_with_everything_failing_at_random_each_record_is_there_once_and_no_memory_is_lost(
    kind: str, disturbed: Callable[..., GroupScene], request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("clickhouse_server") if kind == "ClickHouse" else None
    with disturbed(
        "cooperative-sticky", kind, workers=2, static=True, session_s=6.0, rate=RATE, seed=SEED, flags=FLAGS
    ) as scene:
        scene.start()
        soak = Soak(scene, server)
        soak.rage(SECONDS)
        verdict = scene.settle()

    print(f"{soak}\n{verdict}")  # noqa: T201  what somebody who waited for ten minutes wants to read
    crash_score.add(f"{kind}, everything at once", verdict)
    assert verdict.exact, verdict
    assert verdict.letters, verdict
    assert soak.growth_bytes < GROWTH_BYTES, soak
    log = scene.commit_log()
    assert not log.went_back, log.went_back
    assert not unannounced(log), unannounced(log)
