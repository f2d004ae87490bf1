"""Many topics into many targets in one process: exact under kills, and a broken table holds up its own topics only."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.patience import wait_for
from tests.harness.processes import SHORT_SESSION, BatcherProcess, run

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

COORDINATES = "_topic LowCardinality(String), _partition Int32, _offset Int64"
KINDS = ("orders", "users", "clicks", "stock", "bills")


def column(kind: str) -> str:
    return f"{kind}_id"


def create(server: ClickHouseServer, kind: str, *, database: str) -> None:
    server.query(
        f"CREATE TABLE {database}.{kind} ({column(kind)} Int64, {COORDINATES}) ENGINE = MergeTree ORDER BY tuple()"
    )


class Shop:
    """Hold five topics of a name of their own, and the database with a table for each."""

    def __init__(self, broker: Broker, server: ClickHouseServer) -> None:
        self.broker = broker
        self.server = server
        self.name = f"s{uuid.uuid4().hex[:10]}"
        server.query(f"CREATE DATABASE {self.name}")
        for kind in KINDS:
            broker.create_topic(self.topic(kind), 2)
            create(server, kind, database=self.name)
        self.sent = dict.fromkeys(KINDS, 0)

    def topic(self, kind: str) -> str:
        return f"{self.name}-{kind}"

    def produce(self, count: int, kinds: Sequence[str] = KINDS) -> None:
        for kind in kinds:
            first = self.sent[kind]
            for part in (0, 1):
                values = [
                    json.dumps({column(kind): number}) for number in range(first, first + count) if number % 2 == part
                ]
                self.broker.produce(self.topic(kind), values, partition=part)
            self.sent[kind] = first + count

    def rows(self, kind: str) -> int:
        return int(self.server.query(f"SELECT count() FROM {self.name}.{kind}")[0][0])

    def exact(self, kind: str) -> bool:
        count, unique, last = self.server.query(
            f"SELECT count(), uniqExact({column(kind)}), max({column(kind)}) FROM {self.name}.{kind}"
        )[0]
        sent = self.sent[kind]
        return [int(count), int(unique), int(last)] == [sent, sent, sent - 1]

    def flags(self, *more: str, topics: str | None = None) -> tuple[str, ...]:
        named = ",".join(map(self.topic, KINDS))
        return (
            *(
                "--sink",
                "clickhouse",
                "--clickhouse.dsn",
                self.server.dsn,
                "--route",
                f"{self.name}-(.*)={self.name}.$1",
            ),
            *("-b", self.broker.bootstrap, "-t", topics or named, "-g", self.name, "--batch.max-wait", "200ms"),
            *(*SHORT_SESSION, *more),
        )


@pytest.fixture
def shop(broker: Broker, clickhouse_server: ClickHouseServer) -> Shop:
    return Shop(broker, clickhouse_server)


def test_five_topics_are_in_five_tables_exactly_once_after_kills(shop: Shop) -> None:
    flags = shop.flags("--batch.max-rows", "500", "--until-eof")
    shop.produce(5000)
    for kill in range(2):
        with BatcherProcess(*flags) as process:
            process.wait_for("batch_written", count=4 + 5 * kill)
            process.kill()
    with BatcherProcess(*flags) as process:
        assert process.wait() == 0, process.stderr[-3000:]
        summary = process.summary
    assert {kind: shop.exact(kind) for kind in KINDS} == dict.fromkeys(KINDS, True)
    assert summary["delivery"] == "exactly-once"
    assert set(summary["targets"]) == {f"{shop.name}.{kind}" for kind in KINDS}
    assert sum(one["written"] for one in summary["targets"].values()) == summary["written"]


def test_a_table_that_is_dropped_and_made_anew_holds_up_its_own_topic_and_no_other(shop: Shop) -> None:
    with BatcherProcess(*shop.flags()) as process:
        shop.produce(1000)
        wait_for(lambda: all(shop.rows(kind) == 1000 for kind in KINDS), "the first thousand everywhere")
        shop.server.query(f"DROP TABLE {shop.name}.orders SYNC")
        shop.produce(1000)
        refused = process.wait_for("sink_refused")
        others = [kind for kind in KINDS if kind != "orders"]
        wait_for(lambda: all(shop.rows(kind) == 2000 for kind in others), "the others to go on")
        create(shop.server, "orders", database=shop.name)
        wait_for(lambda: shop.rows("orders") == 1000, "what was held up")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr[-3000:]
    assert "orders" in refused["target"]
    assert shop.server.query(f"SELECT min(orders_id), max(orders_id) FROM {shop.name}.orders") == [(1000, 1999)]


def test_a_target_that_fails_for_good_is_given_up_and_the_others_come_to_their_end(shop: Shop) -> None:
    shop.produce(3000)
    bad = ["{"] * 2000
    shop.broker.produce(shop.topic("users"), bad, partition=0)
    # Without a place for dead letters the first bad record is the end of its target.
    with BatcherProcess(*shop.flags("--until-eof")) as process:
        assert process.wait() == 78, process.stderr[-3000:]
        failed = process.wait_for("target_failed")
        summary = process.summary
    assert failed["target"] == f"{shop.name}.users"
    others = [kind for kind in KINDS if kind != "users"]
    assert {kind: shop.exact(kind) for kind in others} == dict.fromkeys(others, True)
    assert summary["targets"][f"{shop.name}.users"]["failed"]


def test_a_topic_that_comes_later_gets_its_target_once_there_is_one(shop: Shop) -> None:
    flags = shop.flags("-X", "topic.metadata.refresh.interval.ms=1000", topics=f"^{shop.name}-.*")
    with BatcherProcess(*flags) as process:
        shop.produce(100)
        wait_for(lambda: all(shop.rows(kind) == 100 for kind in KINDS), "what was there")
        shop.broker.create_topic(shop.topic("late"), 1)
        shop.broker.produce(shop.topic("late"), ['{"late_id":1}', '{"late_id":2}'])
        process.wait_for("partition_waits")
        process.wait_for("target_not_open")
        shop.produce(100)
        wait_for(lambda: all(shop.rows(kind) == 200 for kind in KINDS), "the others to go on")
        create(shop.server, "late", database=shop.name)
        wait_for(lambda: shop.rows("late") == 2, "the records of the topic that came later")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr[-3000:]


def test_a_topic_without_a_route_is_refused_at_the_start(shop: Shop) -> None:
    flags = [*shop.flags("--until-eof")]
    flags[flags.index("--route") + 1] = f"{shop.name}-(orders|users)={shop.name}.$1"
    with BatcherProcess(*flags) as process:
        assert process.wait() == 78
        assert shop.topic("bills") in process.stderr


def test_directories_named_by_topic_have_the_files_of_that_topic(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> None:
    topics = [new_topic(), new_topic()]
    for number, topic in enumerate(topics):
        broker.produce(topic, [json.dumps({f"field{number}": one}) for one in range(50)])
    flags = ("--sink", "parquet", "--parquet.path", f"{tmp_path}/lake/{{topic}}", "--until-eof")
    with BatcherProcess(*flags, "-b", broker.bootstrap, "-t", ",".join(topics), "-g", new_group()) as process:
        assert process.wait() == 0, process.stderr[-3000:]
    found: dict[str, Any] = {
        topic: ds.dataset([str(file) for file in (tmp_path / "lake" / topic).glob("*.parquet")]).to_table()
        for topic in topics
    }
    assert [found[topics[0]].num_rows, found[topics[1]].num_rows] == [50, 50]
    assert "field0" in found[topics[0]].column_names
    assert "field1" in found[topics[1]].column_names


def test_each_target_grows_by_its_own_new_fields_and_verify_examines_them_all(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> None:
    topics, group = [new_topic(), new_topic()], new_group()
    for number, topic in enumerate(topics):
        broker.produce(topic, [json.dumps({"id": one}) for one in range(20)])
        broker.produce(topic, [json.dumps({"id": one, f"new{number}": "x"}) for one in range(20, 40)])
    source = ("-b", broker.bootstrap, "-t", ",".join(topics), "-g", group)
    target = ("--sink", "parquet", "--route", f"(.*)={tmp_path}/lake/$1")
    flags = (*source, *target, "--decode.on-unknown", "evolve", "--batch.max-rows", "20")
    with BatcherProcess(*flags, "--until-eof") as process:
        assert process.wait() == 0, process.stderr[-3000:]
    columns = [
        set(pq.read_schema(max((tmp_path / "lake" / topic).glob("*.parquet"))).names)
        - {"_partition", "_offset", "_timestamp"}
        for topic in topics
    ]
    assert columns == [{"id", "new0"}, {"id", "new1"}]
    verified = run("verify", *source, *target, "--json")
    assert verified.code == 0, verified.stderr
    assert [sum(one["written"] for one in facts["partitions"]) for facts in verified.lines] == [40, 40]


def test_what_a_transform_filters_is_counted_for_each_target(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> None:
    pytest.importorskip("duckdb", reason="needs the extra [sql]")
    topics = [new_topic(), new_topic()]
    for topic, count in zip(topics, (10, 30), strict=True):
        broker.produce(topic, [json.dumps({"id": one}) for one in range(count)])
    flags = ("-b", broker.bootstrap, "-t", ",".join(topics), "-g", new_group(), "--until-eof")
    target = ("--sink", "parquet", "--parquet.path", f"{tmp_path}/{{topic}}", "--transform.where", "id % 2 = 0")
    with BatcherProcess(*flags, *target) as process:
        assert process.wait() == 0, process.stderr[-3000:]
        summary = process.summary
    found = {name.rpartition("/")[2]: (one["written"], one["filtered"]) for name, one in summary["targets"].items()}
    assert found == {topics[0]: (5, 5), topics[1]: (15, 15)}
