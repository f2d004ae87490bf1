"""New fields in a topic that is being loaded, through kills: each record once, and each value where it belongs."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from batcher.records import Partition, Position
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.kills import run_to_crash
from tests.harness.processes import BatcherProcess, run

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

RECORDS: Final = 600
COORDINATES: Final = "_topic LowCardinality(String), _partition Int32, _offset Int64"


def record(number: int) -> dict[str, Any]:
    """Return an order: from 200 on some have a colour, from 330 on all have a size, one in the middle has a note."""
    made: dict[str, Any] = {"id": number}
    if number >= 200 and number % 3 == 0:
        made["colour"] = f"c{number}"
    if number >= 330:
        made["size"] = number
    if number == 250:
        made["note"] = {"by": "ann", "stars": 1.5}
    return made


class Target(ABC):
    """Own a fresh target."""

    arguments: tuple[str, ...]

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return all rows, with those of the columns that records have."""

    @abstractmethod
    def columns(self) -> list[str]:
        """Return the columns there are now."""


class Table(Target):
    def __init__(self, server: ClickHouseServer, name: str, columns: str, window: int) -> None:
        self.server, self.name = server, name
        server.query(
            f"CREATE TABLE {name} (id Int64{columns}) ENGINE = MergeTree ORDER BY id "
            f"SETTINGS non_replicated_deduplication_window = {window}"
        )
        self.arguments = ("--sink", "clickhouse", "--clickhouse.dsn", server.dsn, "--clickhouse.table", name)

    def columns(self) -> list[str]:
        found = self.server.query(f"SELECT name FROM system.columns WHERE table = '{self.name}' ORDER BY position")
        return [name for (name,) in found]

    def rows(self) -> list[dict[str, Any]]:
        names = [name for name in self.columns() if name in NAMES]
        shown = ["toJSONString(note)" if name == "note" else name for name in names]
        found = self.server.query(f"SELECT {', '.join(shown)} FROM {self.name} ORDER BY id")
        return [dict(zip(names, row, strict=True)) for row in found]


class Root(Target):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.arguments = ("--sink", "parquet", "--parquet.path", str(path))

    def columns(self) -> list[str]:
        names: list[str] = pa.ipc.open_file(str(self.path / "_schema.arrow")).schema.names
        return names

    def rows(self) -> list[dict[str, Any]]:
        # Every file on its own, whole: what a dataset says of files of several schemas is tested elsewhere.
        found = [row for file in self.path.rglob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]
        kept = [{name: value for name, value in row.items() if name in NAMES} for row in found]
        return sorted(kept, key=lambda row: int(row["id"]))


NAMES: Final = ("id", "colour", "size", "note", "_rescued")


@pytest.fixture(params=["tokens", "coordinates", "parquet"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param == "parquet":
        return Root(tmp_path / "root")
    server, name = request.getfixturevalue("clickhouse_server"), request.getfixturevalue("new_table")()
    rescued = ", _rescued Nullable(String)" if "rescue" in request.node.name else ""
    if request.param == "tokens":
        return Table(server, name, rescued, 1000)
    return Table(server, name, f"{rescued}, {COORDINATES}", 0)


class Job:
    """Load one topic into one target under one group, by processes that come one after the other."""

    def __init__(self, broker: Broker, target: Target, topic: str, group: str, letters: Path) -> None:
        self.broker, self.target, self.topic, self.group = broker, target, topic, group
        self.letters = letters

    def run(self, *arguments: str, crash_at: str = "", mode: str = "evolve", rows: int = 100) -> BatcherProcess:
        """Run one process to its end, which is a kill where `crash_at` names a point."""
        return run_to_crash(
            *self.target.arguments,
            *("-b", self.broker.bootstrap, "-t", self.topic, "-g", self.group, "--until-eof"),
            *("--kafka.instance", f"{self.group}-0", "--delivery", "exactly-once", "--dlq.path", str(self.letters)),
            *("--batch.max-rows", str(rows), "--decode.on-unknown", mode, "--json", *arguments),
            crash_at=crash_at,
        )

    def committed(self) -> Position:
        partition = Partition(self.topic, 0)
        return self.broker.committed(self.group, [partition])[partition]


@pytest.fixture
def job(
    broker: Broker, target: Target, new_topic: Callable[..., str], new_group: Callable[[], str], tmp_path: Path
) -> Job:
    topic = new_topic()
    broker.produce(topic, (json.dumps(record(number)) for number in range(RECORDS)))
    return Job(broker, target, topic, new_group(), tmp_path / "letters")


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the columns that its record had no value for."""
    kept = {name: value for name, value in row.items() if value is not None and value != "{}"}
    note = kept.get("note")
    return kept | ({"note": json.loads(note)} if isinstance(note, str) else {})


KILLS = [
    (target, point)
    for point in ("before_columns", "after_columns", "before_write:3", "mid_write:3", "after_write:3", "before_commit")
    for target in ("tokens", "coordinates", "parquet")
]
OFTEN = {
    ("coordinates", "after_columns"),
    ("coordinates", "mid_write:3"),
    ("tokens", "after_write:3"),
    ("parquet", "mid_write:3"),
}
"""What the short form runs: a kill on either side of the new columns, and each kind of target."""


@pytest.mark.parametrize(
    ("target", "point"),
    [pytest.param(*one, marks=() if one in OFTEN else pytest.mark.long) for one in KILLS],
    indirect=["target"],
)
def test_a_kill_around_new_columns_leaves_each_record_once_with_all_its_values(job: Job, point: str) -> None:
    job.run(crash_at=point)
    assert job.committed().intents
    done = job.run(rows=170)
    assert done.wait() == 0, done.stderr
    assert [without_nulls(row) for row in job.target.rows()] == [record(number) for number in range(RECORDS)]
    assert job.committed() == Position(RECORDS)
    assert done.summary["unknown_fields"] == {}


@pytest.mark.parametrize("point", ["after_write:3", pytest.param("after_intent:3", marks=pytest.mark.long)])
def test_rescue_keeps_what_has_no_column_through_kills(job: Job, point: str) -> None:
    mode = "rescue"
    job.run(crash_at=point, mode=mode)
    done = job.run(mode=mode)
    assert done.wait() == 0, done.stderr
    found = [{"id": row["id"], **json.loads(row["_rescued"] or "{}")} for row in job.target.rows()]
    assert found == [record(number) for number in range(RECORDS)]


@pytest.mark.parametrize("target", ["tokens"], indirect=True)
def test_a_table_without_the_column_for_the_rest_stops_the_start_with_the_statement_that_adds_it(job: Job) -> None:
    assert isinstance(job.target, Table)
    job.target.server.query(f"ALTER TABLE {job.target.name} DROP COLUMN IF EXISTS _rescued")
    stopped = job.run(mode="rescue")
    assert stopped.wait() == 78
    assert f"ALTER TABLE default.{job.target.name} ADD COLUMN _rescued Nullable(String)" in stopped.stderr
    assert job.target.rows() == []


@pytest.mark.parametrize(
    "target", ["coordinates", "parquet", pytest.param("tokens", marks=pytest.mark.long)], indirect=True
)
def test_columns_that_another_process_added_in_between_are_used(job: Job, new_topic: Callable[..., str]) -> None:
    job.run(crash_at="before_columns")
    topic = new_topic()
    job.broker.produce(topic, ['{"id": 10000, "colour": "other", "size": 5}'])
    other = Job(job.broker, job.target, topic, f"{job.group}-other", job.letters)
    assert other.run().wait() == 0
    assert {"colour", "size"} <= set(job.target.columns())
    done = job.run()
    assert done.wait() == 0, done.stderr
    expected = [*map(record, range(RECORDS)), {"id": 10_000, "colour": "other", "size": 5}]
    assert [without_nulls(row) for row in job.target.rows()] == expected


@pytest.mark.parametrize("target", ["coordinates", "parquet"], indirect=True)
def test_verbs_that_only_look_add_no_column(job: Job) -> None:
    # The first 200 records have no new field, so that the target is there and narrow.
    assert job.run("--max-records", "100").wait() == 0
    before = job.target.columns()
    flags = ("-b", job.broker.bootstrap, "-t", job.topic, *job.target.arguments, "--decode.on-unknown", "evolve")
    checked = run("check", *flags, "--json")
    assert checked.code == 0, checked.stderr
    assert {one.partition(" ")[0] for one in checked.facts["new_columns"]} == {"colour", "size", "note"}
    assert run("peek", *flags).code == 0
    assert run("bench", *flags, "--records", "500", "--json").code == 0
    assert run("verify", *flags, "-g", job.group).code in (0, 1)
    assert job.target.columns() == before


@pytest.mark.parametrize("target", ["coordinates", "parquet"], indirect=True)
def test_two_workers_that_meet_a_field_at_the_same_time_make_one_column(
    broker: Broker, target: Target, new_topic: Callable[..., str], new_group: Callable[[], str]
) -> None:
    topic, group = new_topic(2), new_group()
    for number in range(2):
        values = [json.dumps({**record(row), "id": row * 2 + number, f"only{number}": 1}) for row in range(RECORDS)]
        broker.produce(topic, values, partition=number)
    flags: Sequence[str] = ("-b", broker.bootstrap, "-t", topic, "-g", group, "--until-eof", "--workers", "2")
    done = run(*target.arguments, *flags, "--decode.on-unknown", "evolve", "--batch.max-rows", "100")
    assert done.code == 0, done.stderr
    rows = target.rows()
    assert [row["id"] for row in rows] == list(range(2 * RECORDS))
    assert {"colour", "size", "note", "only0", "only1"} <= set(target.columns())
    for row in rows:
        expected = record(int(row["id"]) // 2) | {"id": row["id"]}
        assert without_nulls(row) == expected


def test_a_column_that_cannot_be_written_stays_and_its_field_is_counted(
    broker: Broker, clickhouse_server: ClickHouseServer, new_topic: Callable[..., str], new_table: Callable[[], str]
) -> None:
    table = Table(clickhouse_server, new_table(), "", 1000)
    topic = new_topic()
    broker.produce(topic, ['{"id": 1, "x": 2}'])
    clickhouse_server.query(f"ALTER TABLE {table.name} ADD COLUMN x String ALIAS 'taken'")
    done = run(
        *table.arguments,
        *("-b", broker.bootstrap, "-t", topic, "-g", f"{topic}-g", "--until-eof", "--decode.on-unknown", "evolve"),
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.facts["unknown_fields"] == {"x": 1}
    assert table.rows() == [{"id": 1}]


@pytest.mark.parametrize("target", ["parquet"], indirect=True)
def test_a_root_with_files_of_several_shapes_is_read_whole(job: Job) -> None:
    assert isinstance(job.target, Root)
    assert job.run().wait() == 0
    schema = pa.ipc.open_file(str(job.target.path / "_schema.arrow")).schema
    table = ds.dataset(job.target.path, schema=schema).to_table().sort_by("id")
    assert table["size"].null_count == 330
    assert table["colour"].drop_null().to_pylist() == [f"c{number}" for number in range(201, RECORDS, 3)]
