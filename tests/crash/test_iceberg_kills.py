"""Tables of Iceberg under kills and freezes, in a catalog of SQLite and in a REST catalog: every record is there once.

The controls are the same sinks with the check taken out, so that a loop which could not find a duplicate is noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batcher.testing.kafka import Broker
from tests.harness import crash_score
from tests.harness.attack import Scene, Worker
from tests.harness.disturbance import GroupScene
from tests.harness.iceberg import IcebergOrders, Lake
from tests.harness.kill_loop import WITH_INTENTS, WITHOUT_INTENTS, kill_loop
from tests.harness.patience import LONG

pytest_plugins = ["tests.harness.iceberg_plugin"]

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

KILLS = 16 if LONG else 3
FREEZES = 4 if LONG else 1
SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
PARTITIONS = 3
BY_TIME = ("--batch.max-rows", "1000000")
UNCHECKED = "tests.harness.iceberg:unchecked_iceberg"

# A commit takes a tenth of a second and more, so that a hundred small batches a second would only wait for each other.
SLOWER = ("--batch.max-wait", "500ms")

# A few snapshots are kept, so that old ones are expired while processes are killed.
FEW = {"snapshots": 10}

PLACES = ("REST", "SQLite") if LONG else ("REST",)


@pytest.fixture
def lake_at(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Lake]:
    """Return what finds a place for a table: in a REST catalog, or in one of SQLite."""

    def at(place: str) -> Lake:
        if place == "SQLite":
            return Lake.in_directory(tmp_path / "lake", **FEW)
        lake: Lake = request.getfixturevalue("rest_lake")
        return Lake(lake.catalog, lake.table, FEW)

    return at


@pytest.fixture
def new_scene(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> Callable[..., Scene]:
    """Return what makes a scene with a topic and a group that nobody has used."""

    def create(target: IcebergOrders, *flags: str, **options: Any) -> Scene:
        return Scene(
            broker,
            target,
            tmp_path,
            topic=new_topic(PARTITIONS),
            group=new_group(),
            partitions=PARTITIONS,
            rate=600,
            seed=SEED,
            workers=2,
            flags=(*SLOWER, *flags),
            **options,
        )

    return create


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_any_moment_leaves_every_record_once_in_an_iceberg_table(
    place: str, lake_at: Callable[[str], Lake], new_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    target = IcebergOrders(lake_at(place), tmp_path / "orders.arrow")
    with new_scene(target, delivery="exactly-once") as scene:
        scene.start()
        kill_loop(scene, KILLS, WITH_INTENTS)
        verdict = scene.settle()
    crash_score.add(f"Iceberg, {place}, merged partitions", verdict)
    assert verdict.exact, verdict
    assert verdict.kills >= KILLS
    assert verdict.replays, verdict


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
def test_with_the_check_taken_out_the_same_kills_duplicate_records_and_this_test_sees_it(
    place: str, lake_at: Callable[[str], Lake], new_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    target = IcebergOrders(lake_at(place), tmp_path / "orders.arrow", sink=UNCHECKED)
    with new_scene(target, *BY_TIME, delivery="at-least-once") as scene:
        scene.start()
        kill_loop(scene, KILLS, WITHOUT_INTENTS)
        verdict = scene.settle()
    crash_score.add(f"Iceberg, {place}, without the check", verdict, control=True)
    assert verdict.complete, verdict
    assert verdict.duplicated > 0, verdict


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
def test_workers_frozen_between_check_and_commit_duplicate_nothing_when_they_go_on(
    place: str, lake_at: Callable[[str], Lake], disturbed: Callable[..., GroupScene], tmp_path: Path
) -> None:
    target = IcebergOrders(lake_at(place), tmp_path / "orders.arrow")
    options = {"workers": 2, "session_s": 6.0 if LONG else 3.0, "seed": SEED, "rate": 600, "flags": SLOWER}
    with disturbed("consumer", target, **options) as scene:
        first, second = scene.workers
        first.start(STOP_AT="mid_write:4")
        second.start()
        _play_dead(scene, first)
        for _ in range(FREEZES - 1):
            first.drain()
            first.start(STOP_AT="mid_write:4")
            _play_dead(scene, first)
        verdict = scene.settle()
    crash_score.add(f"Iceberg, {place}, workers frozen between check and commit, consumer", verdict)
    assert verdict.exact, verdict
    assert verdict.stops == FREEZES


def _play_dead(scene: GroupScene, zombie: Worker) -> None:
    zombie.stops += 1
    zombie.running.wait_for("crash_point")
    scene.taken_over(zombie)
    scene.thaw(zombie)
