"""Parquet in a real S3 server, whose workers are killed and frozen: nothing lost, nothing duplicated, one schema.

The workers start at once on a root that is not there yet, and no schema is given.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from batcher.testing.kafka import Broker
from sinks.parquet.schemas import PIN
from tests.harness import crash_score
from tests.harness.attack import Scene
from tests.harness.disturbance import GroupScene
from tests.harness.kill_loop import WITH_INTENTS, WITHOUT_INTENTS, kill_loop, named
from tests.harness.patience import LONG
from tests.harness.stores import S3Server
from tests.harness.targets import ParquetBucket
from tests.harness.verdict import Verdict

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

KILLS = 20 if LONG else 3
CONTROL_KILLS = 12
FREEZES = 4
SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
PARTITIONS = 3

BY_TIME = ("--batch.max-rows", "1000000")
"""A successor, which has more to read at first, never cuts as the one before it did."""


def assert_tidy(target: ParquetBucket) -> None:
    """Check that all files have one schema, and that nothing else was left behind."""
    keys = target.server.objects(target.bucket)
    assert [key for key in keys if not key.endswith(".parquet")] == [f"orders/{PIN}"]
    assert target.server.uploads(target.bucket) == []
    assert len({table.schema.remove_metadata() for table in target.tables()}) == 1


@pytest.mark.parametrize(
    ("by", "name"),
    [((), "Parquet on S3")] + ([(("country",), "Parquet on S3, hive directories")] if LONG else []),
    ids=["flat", "hive"] if LONG else ["flat"],
)
def test_kills_lose_nothing_and_duplicate_nothing_in_an_object_store(
    by: tuple[str, ...], name: str, attack: Callable[..., tuple[ParquetBucket, Verdict]]
) -> None:
    target, verdict = attack("exactly-once", KILLS, WITH_INTENTS, partition_by=by)

    crash_score.add(name, verdict)
    assert verdict.exact, verdict
    assert verdict.kills >= KILLS
    assert verdict.replays, verdict
    assert_tidy(target)
    if LONG:
        assert set(named(WITH_INTENTS)) <= verdict.hit.keys(), verdict


@pytest.mark.long
def test_without_intents_the_same_kills_duplicate_records_in_an_object_store(
    attack: Callable[..., tuple[ParquetBucket, Verdict]],
) -> None:
    _, verdict = attack("at-least-once", CONTROL_KILLS, WITHOUT_INTENTS, flags=BY_TIME)

    crash_score.add("Parquet on S3", verdict, control=True)
    assert verdict.complete, verdict
    assert verdict.duplicated > 0, verdict


@pytest.mark.long
def test_workers_frozen_beside_an_object_store_duplicate_nothing_when_they_go_on(
    disturbed: Callable[..., GroupScene],
) -> None:
    with disturbed("consumer", "Parquet on S3", workers=2, session_s=6.0, seed=SEED, rate=1_200) as scene:
        scene.start()
        scene.gather()
        for number in range(FREEZES):
            zombie = scene.workers[number % 2]
            scene.freeze(zombie)
            scene.thaw(zombie)
        verdict = scene.settle()
        crash_score.add("Parquet on S3, frozen workers, consumer", verdict)
        assert verdict.exact, verdict
        assert verdict.stops == FREEZES
        assert isinstance(scene.target, ParquetBucket)
        assert_tidy(scene.target)


@pytest.fixture
def attack(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path, gateway: S3Server
) -> Callable[..., tuple[ParquetBucket, Verdict]]:
    """Return what runs a kill loop: with a guarantee, so many kills, at these moments."""

    def run(
        delivery: str,
        kills: int,
        moments: tuple[str, ...],
        *,
        partition_by: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
    ) -> tuple[ParquetBucket, Verdict]:
        target = ParquetBucket(gateway, f"orders-{uuid4().hex[:8]}", partition_by=partition_by)
        with Scene(
            broker,
            target,
            tmp_path,
            topic=new_topic(PARTITIONS),
            group=new_group(),
            delivery=delivery,
            partitions=PARTITIONS,
            workers=2,
            rate=1_200,
            seed=SEED,
            flags=flags,
        ) as scene:
            scene.start()
            kill_loop(scene, kills, moments)
            return target, scene.settle()

    return run
