"""A share group of a real Kafka through the whole pipeline."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker, produce
from tests.harness.processes import BatcherProcess, run

pytestmark = [pytest.mark.broker, pytest.mark.long]


@pytest.fixture
def flags(broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str]) -> tuple[str, ...]:
    topic = new_topic(2)
    for first in range(0, 2000, 500):
        produce(broker.bootstrap, topic, [json.dumps({"id": n}).encode() for n in range(first, first + 500)])
    return ("--source", "share", "-b", broker.bootstrap, "-t", topic, "-g", new_group())


def test_a_topic_is_loaded_by_two_workers_and_nothing_is_lost(flags: tuple[str, ...], tmp_path: Path) -> None:
    to = ("--sink", "parquet", "--parquet.path", str(tmp_path / "out"), "--parquet.coordinates", "message_id")
    done = run(*flags, *to, "--workers", "2", "--until-eof", "--json")
    assert done.code == 0, done.stderr
    rows = ds.dataset(sorted((tmp_path / "out").rglob("*.parquet"))).to_table().to_pylist()

    assert sorted(row["id"] for row in rows) == list(range(2000))
    assert len({row["_message_id"] for row in rows}) == 2000
    assert "share_group_preview" in done.stderr


def test_a_record_that_was_not_acknowledged_comes_again_and_is_recognised(
    flags: tuple[str, ...], clickhouse_server: ClickHouseServer, new_table: Callable[[], str]
) -> None:
    table = new_table()
    clickhouse_server.query(f"CREATE TABLE {table} (id UInt64, _message_id String) ENGINE = MergeTree ORDER BY id")
    to = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", table)
    with BatcherProcess(
        *flags, *to, environment={"CRASH_AT": "before_commit"}, module="tests.harness.crash_points"
    ) as process:
        assert process.wait() == -signal.SIGKILL, process.stderr
    # Until the locks of the dead one end nothing comes, so this one is stopped from outside.
    with BatcherProcess(*flags, *to) as process:
        while sum(copies(clickhouse_server, table).values()) < 2000 or not suppressed(process):
            process.wait_for("batch_written", after=len(process.events))
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr
    found = copies(clickhouse_server, table)

    assert set(found) == set(range(2000))
    assert set(found.values()) == {1}


def suppressed(process: BatcherProcess) -> int:
    return sum(int(one["suppressed"]) for one in process.named("batch_written"))


def copies(server: ClickHouseServer, table: str) -> Counter[int]:
    return Counter(
        {int(id_): int(count) for id_, count in server.query(f"SELECT id, count() FROM {table} GROUP BY id")}
    )
