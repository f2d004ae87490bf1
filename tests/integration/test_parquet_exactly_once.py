"""Parquet files after kills: each record once, in the files that the rules in force say, nothing half, nothing left."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.dead_letters.directory import read_letters
from batcher.records import Partition, Position
from batcher.testing.kafka import Broker
from tests.harness.kills import run_to_crash
from tests.harness.processes import BatcherProcess

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

RECORDS = 600
COUNTRIES = ("DE", "FR", "US")

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("country", pa.string()),
        pa.field("at", pa.timestamp("ms", "UTC")),
    ]
)

DIRECTORIES = {
    "flat": (),
    "hive": ("country",),
    "times": ("day(at) as dt", "hour(at) as hour", "bucket(id, 2)"),
}
"""What each kind of job makes directories of."""


class Job:
    """Load one topic into one root under one group, by processes that come one after the other."""

    def __init__(self, broker: Broker, topic: str, group: str, path: Path, partition_by: Sequence[str]) -> None:
        self.broker = broker
        self.partition = Partition(topic, 0)
        self.group = group
        self.root = path / "root"
        self.letters = path / "letters"
        schema = path / "schema.arrow"
        with pa.ipc.new_file(str(schema), SCHEMA):
            pass
        self._arguments = (
            *("--sink", "parquet", "--parquet.path", str(self.root), "--decode.schema", str(schema)),
            *(("--parquet.partition-by", ",".join(partition_by)) if partition_by else ()),
            *("-b", broker.bootstrap, "-t", topic, "-g", group, "--until-eof", "--dlq.path", str(self.letters)),
            *("--dlq.max-ratio", "1", "--delivery", "exactly-once"),
        )

    def run(self, *arguments: str, rows: int = 100, crash_at: str = "", static: bool = True) -> BatcherProcess:
        """Run one process to its end, which is a kill where `crash_at` names a point.

        A static member takes the place of a dead one of its name at once, but stays in the group after its end.
        """
        instance = ("--kafka.instance", f"{self.group}-0") if static else ()
        return run_to_crash(
            *self._arguments, *("--batch.max-rows", str(rows)), *instance, *arguments, crash_at=crash_at
        )

    def offsets(self) -> Counter[int]:
        """Return how often each offset is in the files, each file read whole."""
        found: Counter[int] = Counter()
        for file in self.root.rglob("*.parquet"):
            found.update(pq.ParquetFile(file).read(["_offset"]).column(0).to_pylist())
        return found

    def refused(self) -> set[int]:
        """Return the offsets of the dead letters."""
        return {letter["offset"] for letter in read_letters(self.letters)}

    def committed(self) -> Position:
        return self.broker.committed(self.group, [self.partition])[self.partition]

    def unfinished(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob("_tmp/**/*"))


@pytest.fixture(params=["flat", "hive"])
def job(
    request: pytest.FixtureRequest,
    broker: Broker,
    new_topic: Callable[..., str],
    new_group: Callable[[], str],
    tmp_path: Path,
) -> Job:
    """Return a job over records of three countries; every tenth has a field that the schema does not have."""
    topic = new_topic()
    broker.produce(topic, (json.dumps(order(number)) for number in range(RECORDS)))
    return Job(broker, topic, new_group(), tmp_path, DIRECTORIES[request.param])


def order(number: int) -> dict[str, Any]:
    extra = {"coupon": "X"} if number % 10 == 0 else {}
    country = f"only-{number}" if extra else COUNTRIES[number % 3]
    return {"id": number, "country": country, "at": time_of(number), **extra}


def time_of(number: int) -> str:
    """Return one of five hours around midnight, and for a few records the day before: they are late."""
    return f"2026-11-{27 if number % 50 == 0 else 28}T{number * 7 % 5:02d}:59:59.999Z"


ONCE = Counter(range(RECORDS))

# The first commit after a write: a fast machine may write all batches before the second one.
POINTS = ["after_intent:2", "before_write:3", "mid_write:3", "after_write:3", "before_commit"]


@pytest.mark.parametrize(
    ("job", "point"),
    [
        *(("flat", point) for point in POINTS),
        # Where a batch is several files, the steps of the write are others; the rest is the same.
        ("hive", "mid_write:3"),
        ("hive", "after_write:3"),
        ("times", "mid_write:3"),
        ("times", "after_write:3"),
        *(pytest.param("hive", POINTS[index], marks=pytest.mark.long) for index in (0, 1, 4)),
    ],
    indirect=["job"],
)
def test_a_kill_leaves_each_record_once(job: Job, point: str) -> None:
    job.run(crash_at=point)
    assert job.committed().intents
    assert set(job.offsets().values()) <= {1}
    done = job.run(rows=170)
    assert done.wait() == 0, done.stderr
    assert job.offsets() == ONCE
    assert job.unfinished() == []
    assert job.committed() == Position(RECORDS)


@pytest.mark.parametrize("job", ["times"], indirect=True)
def test_after_a_kill_each_record_is_in_the_directory_of_its_own_hour(job: Job) -> None:
    job.run(crash_at="mid_write:2")
    assert job.run(rows=170).wait() == 0
    found: dict[int, str] = {}
    for file in job.root.rglob("*.parquet"):
        directory = str(file.parent.relative_to(job.root)).rpartition("/")[0]
        found.update(dict.fromkeys(pq.ParquetFile(file).read(["id"]).column(0).to_pylist(), directory))
    assert found == {number: f"dt={time_of(number)[:10]}/hour={time_of(number)[11:13]}" for number in range(RECORDS)}


@pytest.mark.parametrize("job", ["times"], indirect=True)
def test_other_directories_for_an_announced_range_stop_the_start_and_change_nothing(job: Job) -> None:
    job.run(crash_at="after_write:2")
    committed, before = job.committed(), job.offsets()
    stopped = job.run("--parquet.partition-zone", "Asia/Tokyo")
    assert stopped.wait() == 78
    assert "--parquet.partition-zone UTC" in stopped.stderr
    assert (job.committed(), job.offsets()) == (committed, before)
    assert job.run().wait() == 0
    assert job.offsets() == ONCE


def test_a_kill_during_the_replay_is_replayed(job: Job) -> None:
    job.run(crash_at="after_write:2")
    announced = job.committed()
    for point in ("during_replay", "mid_write", "after_replay_write"):
        job.run(rows=250, crash_at=point)
        assert set(job.offsets().values()) <= {1}
    assert job.committed().intents[0] == announced.intents[0]
    assert job.run(rows=250).wait() == 0
    assert job.offsets() == ONCE


def test_files_being_written_are_out_of_sight_and_tidied_by_the_next_process(job: Job) -> None:
    job.run(crash_at="mid_write:2")
    (left,) = [path for path in job.root.glob("_tmp/*") if path.is_dir()]
    assert re.fullmatch(r"[0-9a-f]{32}", left.name)
    assert [path.suffix for path in left.iterdir()][:1] == [".part"]
    assert set(job.offsets().values()) == {1}
    assert job.run().wait() == 0
    assert job.unfinished() == []


def test_records_that_the_rules_of_the_next_process_refuse_are_dead_letters_and_in_no_file(job: Job) -> None:
    job.run(crash_at="after_write:2")
    assert job.offsets()[100] == 1
    committed = job.committed().next_offset
    assert job.run("--decode.on-unknown", "reject").wait() == 0
    refused = {offset for offset in range(0, RECORDS, 10) if offset >= committed}
    assert job.refused() == refused
    assert job.offsets() == Counter(set(range(RECORDS)) - refused)


@pytest.mark.parametrize(("job", "position"), [("flat", 150), ("hive", 550)], indirect=["job"])
def test_offsets_that_were_set_back_stop_every_start_and_change_no_file(job: Job, position: int) -> None:
    assert job.run(static=False).wait() == 0
    before = {path: path.read_bytes() for path in job.root.rglob("*.parquet")}
    job.broker.commit(job.group, {job.partition: Position(position)})
    for _ in range(2):
        stopped = job.run(rows=70, static=False)
        assert {path: path.read_bytes() for path in job.root.rglob("*.parquet")} == before
        assert job.offsets() == ONCE
        assert stopped.wait() == 78
        assert "holds records" in stopped.stderr
