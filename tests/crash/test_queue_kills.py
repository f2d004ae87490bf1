"""Processes around an embedded queue that are killed: nothing that was confirmed is lost, and nothing is duplicated.

The long form kills 24 times in each row; in the ordinary suite it is a few times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from batcher.sources.queue.file import QueueShape, create, opened
from batcher.sources.queue.reader import QueueReader
from tests.harness.kill_loop import WITH_INTENTS, WITH_INTENTS_OVER_HTTP, WITHOUT_INTENTS, kill_loop
from tests.harness.patience import LONG
from tests.harness.processes import clean_environment
from tests.harness.queue_scene import NAME, QueueScene
from tests.harness.targets import ClickHouseTable, ParquetDirectory, TableKind, Target

pytestmark = pytest.mark.timeout(600)

KILLS = 24 if LONG else 2

NewTarget = Callable[[str], Target]

PUBLISHER = """
import sys
from pathlib import Path
from batcher.protocols import Outgoing
from batcher.sources.queue.file import opened
from batcher.sources.queue.publisher import QueuePublisher

path, name, first, with_ids = sys.argv[1:]
publisher, number = QueuePublisher(opened(Path(path))), int(first)
while True:
    numbers = range(number, number + 50)
    ids = [f"{name}.{one}" for one in numbers]
    publisher.store([Outgoing(one.encode()) for one in ids], ids if with_ids == "1" else None)
    number = numbers.stop
    print(number, flush=True)
"""


@pytest.fixture
def new_target(tmp_path: Path, request: pytest.FixtureRequest) -> NewTarget:
    def make(kind: str) -> Target:
        if kind == "Parquet":
            return ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
        window = 10_000 if "tokens" in kind else 0
        table = TableKind(window=window, coordinates="coordinates" in kind)
        return ClickHouseTable(request.getfixturevalue("clickhouse_server"), f"orders_{os.urandom(4).hex()}", table)

    return make


KINDS = ("Parquet", "ClickHouse, coordinates", *(["ClickHouse, tokens and coordinates"] if LONG else []))


@pytest.mark.parametrize("kind", KINDS)
def test_loaders_that_are_killed_lose_nothing_and_duplicate_nothing(
    kind: str, new_target: NewTarget, tmp_path: Path
) -> None:
    with QueueScene(new_target(kind), tmp_path) as scene:
        scene.start()
        kill_loop(scene, KILLS, WITH_INTENTS if kind == "Parquet" else WITH_INTENTS_OVER_HTTP)
        end = scene.settle()
    assert end.census.exact, end
    assert end.kills >= KILLS
    assert end.replays, end


@pytest.mark.long
def test_without_intents_the_same_kills_duplicate_and_this_test_sees_it(new_target: NewTarget, tmp_path: Path) -> None:
    flags = ("--delivery", "at-least-once", "--batch.max-rows", "1000000")
    with QueueScene(new_target("Parquet"), tmp_path, workers=1, flags=flags) as scene:
        scene.start()
        kill_loop(scene, 8, WITHOUT_INTENTS)
        end = scene.settle()
    assert end.census.complete, end
    assert end.census.duplicated, end


@pytest.mark.long
def test_loaders_that_come_go_freeze_and_die_share_the_lanes_and_stay_exact(
    new_target: NewTarget, tmp_path: Path
) -> None:
    flags = ("--queue.session", "2s")
    with QueueScene(new_target("Parquet"), tmp_path, workers=2, flags=flags) as scene:
        first, second = scene.workers
        third = scene.worker("worker-2")
        scene.workers.append(third)
        scene.orders.start()
        first.start()
        first.running.wait_for("batch_written")
        for _ in range(4):
            for joining in (second, third):
                joining.start()
                joining.running.wait_for("batch_written")
            second.suspend()
            third.kill()
            first.running.wait_for("batch_written", count=5, after=len(first.running.events))
            second.resume()
            second.running.wait_for("batch_written", after=len(second.running.events))
            second.drain()
        end = scene.settle()
    assert end.census.exact, end
    assert any(event["event"] == "partitions_revoked" for event in first.running.events)


@pytest.mark.parametrize("with_ids", [True, pytest.param(False, marks=pytest.mark.long)])
def test_publishers_that_are_killed_lose_nothing_that_was_confirmed(with_ids: bool, tmp_path: Path) -> None:
    path, random = tmp_path / "orders.db", Random(1)
    create(path, QueueShape(NAME, lanes=2)).close()
    confirmed = {"a": 0, "b": 0}
    for _ in range(KILLS):
        processes = {
            name: subprocess.Popen(
                [sys.executable, "-c", PUBLISHER, str(path), name, str(first), str(int(with_ids))],
                stdout=subprocess.PIPE,
                text=True,
                env=clean_environment(),
            )
            for name, first in confirmed.items()
        }
        for name, process in processes.items():
            with process:
                assert process.stdout is not None
                for _ in range(random.randint(1, 40)):
                    confirmed[name] = int(process.stdout.readline())
                process.send_signal(signal.SIGKILL)
                # What it had confirmed before it died is confirmed.
                confirmed[name] = max([confirmed[name], *map(int, process.stdout.read().split())])

    with closing(opened(path)) as file:
        assert file.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = [value.decode() for (value,) in file.db.execute("SELECT value FROM message")]
        ends = {lane: (at.first, at.next) for lane, at in file.ends().items()}
    expected = {f"{name}.{number}" for name, count in confirmed.items() for number in range(count)}
    assert expected <= set(found)
    if with_ids:
        # A publisher that was killed published its last ones again, under the same ids.
        assert len(found) == len(set(found))
    with closing(QueueReader(path, "g")) as reader:
        assert {lane.number: reader.watermarks(lane) for lane in reader.open()} == ends
