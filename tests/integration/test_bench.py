"""`batcher bench` on a real topic: measured, and nothing of it is left anywhere."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient

from batcher.cli import main as cli
from batcher.cli.verbs import bench
from batcher.generate.events import POISON
from batcher.records import Partition
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.census import Filling, dead_letters_in, fill
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess
from tests.harness.targets import ClickHouseTable, ParquetDirectory, TableKind, Target

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

RECORDS = 8000
BAD = 2 * len(POISON)
PARTITIONS = 4


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave alone what the verb tunes for a whole process: it runs in this one."""
    monkeypatch.setattr(bench, "tune_collector", lambda: None)
    monkeypatch.setattr(bench, "tune_memory", lambda: None)


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic, PARTITIONS)
    return fill(broker, topic, PARTITIONS, RECORDS, poison=BAD)


def tree(root: Path) -> Mapping[str, bytes | None]:
    return {str(one.relative_to(root)): one.read_bytes() if one.is_file() else None for one in root.rglob("*")}


def groups(broker: Broker) -> set[str]:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    return {one.group_id for one in admin.list_consumer_groups().result(30).valid}


def tables(server: ClickHouseServer) -> list[str]:
    return [row[0] for row in server.query("SELECT name FROM system.tables WHERE name LIKE 'batcher_bench%'")]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path, new_table: Callable[[], str]) -> Target:
    if request.param == "parquet":
        return ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
    server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
    return ClickHouseTable(server, new_table(), TableKind(window=100))


class Place(NamedTuple):
    """Say where a real run would commit and put bad records, and where all files of the test are."""

    group: str
    letters: str
    files: Path


@pytest.fixture
def place(new_group: Callable[[], str], new_topic: Callable[..., str], tmp_path: Path) -> Place:
    return Place(new_group(), new_topic(), tmp_path)


@pytest.mark.parametrize("where", ["null", "scratch"])
@pytest.mark.parametrize("target", ["parquet", "clickhouse"], indirect=True)
def test_a_topic_is_measured_and_nothing_is_committed_written_or_put_aside(
    request: pytest.FixtureRequest, where: str, target: Target, orders: Filling, place: Place
) -> None:
    capsys: pytest.CaptureFixture[str] = request.getfixturevalue("capsys")
    broker: Broker = request.getfixturevalue("broker")
    before, known = tree(place.files), groups(broker)
    flags = (*target.arguments, "-b", broker.bootstrap, "-t", orders.topic, "-g", place.group)
    flags = (*flags, "--dlq.topic", place.letters, "--target", where, "--batch.max-rows", "500", "--try")
    assert cli.main(["bench", *flags, "--json", "--quiet"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    for run in [*found["pipeline"]["runs"], found["tried"]["run"]]:
        assert run["rows"] == RECORDS
        assert sum(run["refused"].values()) == BAD
        assert run["commits_asked_for"] > 0
    measured = ("consume", "fetch", "decode", *(["write"] if where == "scratch" else []))
    assert {name: stage["rows"] for name, stage in found["stages"].items()} == dict.fromkeys(measured, RECORDS)
    assert found["setup"]["partitions"] == PARTITIONS
    assert found["pipeline"]["of_consume"] > 0
    assert broker.committed(place.group, orders.ends) == {}
    assert groups(broker) - known == set()
    assert dead_letters_in(broker.bootstrap, place.letters) == []
    assert tree(place.files) == before
    if isinstance(target, ClickHouseTable):
        assert target.loaded().coordinates == []
        assert tables(target.server) == []


def test_a_root_that_is_loaded_already_keeps_every_byte_and_the_group_its_offsets(
    orders: Filling,
    broker: Broker,
    new_group: Callable[[], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = new_group()
    target = ("--sink", "parquet", "--parquet.path", str(tmp_path / "out"), "--dlq.path", str(tmp_path / "dead"))
    flags = (*target, "-b", broker.bootstrap, "-t", orders.topic, "-g", group)
    with BatcherProcess(*flags, "--until-eof") as running:
        assert running.wait(120) == 0, running.stderr
    before, committed = tree(tmp_path), broker.committed(group, orders.ends)
    assert cli.main(["bench", *flags, "--target", "scratch", "--records", "3000", "--quiet"]) == 0
    assert "3,000 records of" in capsys.readouterr().out
    assert tree(tmp_path) == before
    assert broker.committed(group, orders.ends) == committed


def test_reading_starts_at_a_time_and_ends_at_the_end(
    broker: Broker, new_topic: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = new_topic(2)
    broker.produce(topic, ["{}"] * 5, partition=0, timestamps_ms=[1_700_000_000_000] * 5)
    broker.produce(topic, ['{"n":1}'] * 3, partition=0, timestamps_ms=[1_700_000_100_000] * 3)
    argv = ["bench", "-b", broker.bootstrap, "-t", topic, "--kafka.start", "2023-11-14T22:14:00Z", "--json", "-q"]
    assert cli.main(argv) == 0
    assert [run["rows"] for run in json.loads(capsys.readouterr().out)["pipeline"]["runs"]] == [3, 3, 3]


def test_a_topic_without_records_and_one_that_is_not_there_are_78(
    broker: Broker, new_topic: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    topic = new_topic()
    assert cli.main(["bench", "-b", broker.bootstrap, "-t", topic]) == 78
    assert f"-t {topic}: there is no record from earliest on" in capsys.readouterr().err
    assert cli.main(["bench", "-b", broker.bootstrap, "-t", f"{topic}-not"]) == 78
    assert "does not exist" in capsys.readouterr().err
    assert cli.main(["bench", "-b", broker.bootstrap, "-t", f"^{topic}-not"]) == 78
    assert "there is no such topic" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_table_behind(
    number: signal.Signals,
    broker: Broker,
    new_topic: Callable[..., str],
    clickhouse_server: ClickHouseServer,
    new_table: Callable[[], str],
) -> None:
    table, topic = ClickHouseTable(clickhouse_server, new_table()), new_topic(1)
    broker.produce(topic, ['{"id":1}'])
    # Only what comes in is read, so that a pass takes as long as it may: nothing comes.
    flags = (*table.arguments, "-b", broker.bootstrap, "-t", topic, "--kafka.start", "latest")
    with BatcherProcess("bench", *flags, "--target", "scratch", "--for", "10m") as running:
        wait_for(lambda: tables(clickhouse_server), "a table to write to")
        running.signal(number)
        assert running.wait(60) == 130, running.stderr
    assert tables(clickhouse_server) == []
    assert broker.ends(topic) == {Partition(topic, 0): 1}
