"""Lake tables under kills and freezes: the commit that has the rows has the positions, so nothing is there twice.

The controls are the same sinks with the check taken out, so that a loop which could not find a duplicate is noticed.
Without intents a lake table still has no duplicate: it knows by itself what it has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher.testing.kafka import Broker
from tests.harness import crash_score
from tests.harness.attack import Scene, Worker
from tests.harness.disturbance import GroupScene
from tests.harness.kill_loop import WITH_INTENTS, WITHOUT_INTENTS, kill_loop
from tests.harness.lakes import DeltaOrders, options_for, s3_bucket
from tests.harness.patience import LONG
from tests.harness.stores import S3Server

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

KILLS = 20 if LONG else 3
FREEZES = 4 if LONG else 1
SEED = int(os.environ.get("BATCHER_TEST_SEED", "1"))
PARTITIONS = 3
BY_TIME = ("--batch.max-rows", "1000000")
UNCHECKED = "tests.harness.lakes:unchecked_delta"
STORES = ("S3 (moto)", "VersityGW")
HERE_AND_THERE = ("", pytest.param("VersityGW", marks=pytest.mark.long))
"""A directory, and a real S3 server."""


class TableAt:
    """Make a Delta table in a directory, or in a bucket where there are options for one."""

    def __init__(self, name: str, directory: Path, storage: dict[str, str] | None = None) -> None:
        self.name = name
        self._directory = directory
        self._storage = storage

    @property
    def label(self) -> str:
        return f"Delta on {self.name}" if self.name else "Delta"

    def __call__(self, **options: Any) -> DeltaOrders:
        path = "s3://orders/table" if self._storage else str(self._directory / "table")
        return DeltaOrders(path, self._directory / "orders.arrow", storage=self._storage, **options)


@pytest.fixture
def table_at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TableAt]:
    """Return what makes a table, where the parameter says."""
    if request.param == "VersityGW":
        server: S3Server = request.getfixturevalue("gateway")
        server.bucket("orders")
        yield TableAt(request.param, tmp_path, options_for(server))
    elif request.param:
        with s3_bucket("orders") as storage:
            yield TableAt(request.param, tmp_path, storage)
    else:
        yield TableAt("", tmp_path)


@pytest.fixture
def new_scene(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> Callable[..., Scene]:
    """Return what makes a scene with a topic and a group that nobody has used."""

    def create(target: DeltaOrders, **options: Any) -> Scene:
        return Scene(
            broker,
            target,
            tmp_path,
            topic=new_topic(PARTITIONS),
            group=new_group(),
            partitions=PARTITIONS,
            rate=1_200,
            seed=SEED,
            workers=2,
            **options,
        )

    return create


def test_a_kill_at_any_moment_leaves_every_record_once_in_a_delta_table(
    new_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    target = DeltaOrders(str(tmp_path / "table"), tmp_path / "orders.arrow")
    with new_scene(target, delivery="exactly-once") as scene:
        scene.start()
        kill_loop(scene, KILLS, WITH_INTENTS)
        verdict = scene.settle()
    crash_score.add("Delta, merged partitions", verdict)
    assert verdict.exact, verdict
    assert verdict.kills >= KILLS
    assert verdict.replays, verdict


@pytest.mark.long
def test_a_delta_table_has_every_record_once_even_without_intents(
    new_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    target = DeltaOrders(str(tmp_path / "table"), tmp_path / "orders.arrow", partition_by=("country", "day(ts)"))
    with new_scene(target, delivery="at-least-once") as scene:
        scene.start()
        kill_loop(scene, KILLS, WITHOUT_INTENTS)
        verdict = scene.settle()
    crash_score.add("Delta, partitioned, without intents", verdict)
    assert verdict.exact, verdict


@pytest.mark.long
@pytest.mark.parametrize("table_at", STORES, indirect=True)
def test_a_kill_at_any_moment_leaves_every_record_once_in_a_delta_table_in_an_object_store(
    table_at: TableAt, new_scene: Callable[..., Scene]
) -> None:
    with new_scene(table_at(), delivery="exactly-once") as scene:
        scene.start()
        kill_loop(scene, KILLS, WITH_INTENTS)
        verdict = scene.settle()
    crash_score.add(f"Delta on {table_at.name}, merged partitions", verdict)
    assert verdict.exact, verdict
    assert verdict.kills >= KILLS
    assert verdict.replays, verdict


@pytest.mark.parametrize("table_at", HERE_AND_THERE, indirect=True)
def test_with_the_check_taken_out_the_same_kills_duplicate_records_and_this_test_sees_it(
    table_at: TableAt, new_scene: Callable[..., Scene]
) -> None:
    with new_scene(table_at(sink=UNCHECKED), delivery="at-least-once", flags=BY_TIME) as scene:
        scene.start()
        kill_loop(scene, KILLS, WITHOUT_INTENTS)
        verdict = scene.settle()
    crash_score.add(f"{table_at.label}, without the check", verdict, control=True)
    assert verdict.complete, verdict
    assert verdict.duplicated > 0, verdict


@pytest.mark.long
@pytest.mark.parametrize("table_at", HERE_AND_THERE, indirect=True)
def test_workers_frozen_between_check_and_commit_duplicate_nothing_when_they_go_on(
    table_at: TableAt, disturbed: Callable[..., GroupScene]
) -> None:
    scene_of = {"workers": 2, "session_s": 6.0 if LONG else 3.0, "seed": SEED, "rate": 600}
    with disturbed("consumer", table_at(), **scene_of) as scene:
        first, second = scene.workers
        first.start(STOP_AT="mid_write:4")
        second.start()
        _play_dead(scene, first)
        for _ in range(FREEZES - 1):
            first.drain()
            first.start(STOP_AT="mid_write:4")
            _play_dead(scene, first)
        verdict = scene.settle()
    crash_score.add(f"{table_at.label}, workers frozen between check and commit, consumer", verdict)
    assert verdict.exact, verdict
    assert verdict.stops == FREEZES


def _play_dead(scene: GroupScene, zombie: Worker) -> None:
    zombie.stops += 1
    zombie.running.wait_for("crash_point")
    scene.taken_over(zombie)
    scene.thaw(zombie)
