"""What the world does to a loader: targets that go away, stall or fill up, and settings that cannot work.

`BATCHER_TEST_LONG=1` keeps targets away for 20 s and stalled for a minute.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from batcher.records import Partition
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.census import Census, Filling, committed_offsets, dead_letters_in, fill, offsets_below
from tests.harness.patience import LONG, PATIENCE_S
from tests.harness.processes import BatcherProcess, run
from tests.harness.small_disk import SmallDisk
from tests.harness.targets import ClickHouseTable, EmbeddedTable, ParquetDirectory

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

AWAY_S = 20 if LONG else 2
STALL_S = 60 if LONG else 6
MAX_POLL_S = 6 if LONG else 4
RECORDS = 60_000
PARTITIONS = 2
MIB = 1 << 20

SMALL_BATCHES = ("--batch.max-rows", "5000", "--batch.max-bytes", "1MiB", "--batch.memory", "2MiB")

MEMORY_BYTES = 16 * MIB

AROUND_BYTES = 300 * MIB
"""What the rest of the process may take above its size at the start: 130 to 200 MB measured (librdkafka's queue and
the fetch that overshoots it, the objects of one `consume`, one batch as text, as columns and as a request). Without a
bound this test's 170 MB of records take 550 and more."""

# Hexadecimal digits hardly compress: what compresses well makes one fetch of librdkafka as large as all of the topic.
BIG_ORDERS = (
    '{"id":{{seq}},"ts":"{{now}}","user_id":1,"country":"DE","product":"p","quantity":1,"price":1,"paid":true,'
    '"session":"{{hex 2000}}"}'
)

STEADY_RETRY = ("--retry.strategy", "linear", "--retry.wait", "500ms", "--retry.max-wait", "500ms")


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    """Return one topic that the tests of this module read, each with a group of its own."""
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic, PARTITIONS)
    return fill(broker, topic, PARTITIONS, RECORDS)


class Job(NamedTuple):
    """Name a consumer group that nobody has used, and what it is to read."""

    broker: Broker
    group: str
    orders: Filling

    @property
    def flags(self) -> tuple[str, ...]:
        return (*self.elsewhere, "-t", self.orders.topic)

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Return the flags without the topic."""
        return ("-b", self.broker.bootstrap, "-g", self.group)

    def committed(self, partitions: Iterable[Partition] = ()) -> Mapping[Partition, range]:
        return committed_offsets(self.broker, self.group, partitions or self.orders.ends)


@pytest.fixture
def job(broker: Broker, orders: Filling, new_group: Callable[[], str]) -> Job:
    return Job(broker, new_group(), orders)


@pytest.fixture
def own_server(clickhouse_server: ClickHouseServer, tmp_path: Path) -> Iterator[ClickHouseServer]:
    """Return a server that a test may kill."""
    with ClickHouseServer(tmp_path / "server") as running:
        yield running


def test_a_server_that_is_away_for_a_while_loses_nothing_and_duplicates_nothing(
    job: Job, own_server: ClickHouseServer
) -> None:
    target = ClickHouseTable(own_server, "orders")
    flags = (*target.arguments, *job.flags, *SMALL_BATCHES, *STEADY_RETRY, "--until-eof")

    with BatcherProcess(*flags) as running:
        running.wait_for("batch_written", count=2)
        own_server.kill()
        running.wait_for("sink_unavailable", count=2 * AWAY_S, timeout_s=PATIENCE_S + AWAY_S)
        own_server.start()
        assert running.wait() == 0

    census = Census.of(job.orders.offsets, target.loaded().coordinates)
    assert census.exact, census
    assert job.committed() == job.orders.offsets
    assert running.summary["written"] == RECORDS
    assert not running.named("partitions_lost")


def test_answers_that_go_missing_duplicate_nothing(
    job: Job, clickhouse_server: ClickHouseServer, new_table: Callable[[], str]
) -> None:
    target = ClickHouseTable(clickhouse_server, new_table())
    for fault, code in (("reset_after_apply", 0), ("status", 503), ("exception", 241), ("reset_before_apply", 0)):
        clickhouse_server.inject(fault, code=code)  # type: ignore[arg-type]  # a literal, in a loop

    with BatcherProcess(*target.arguments, *job.flags, *SMALL_BATCHES, *STEADY_RETRY, "--until-eof") as running:
        assert running.wait() == 0

    assert len(running.named("sink_unavailable")) == 4
    census = Census.of(job.orders.offsets, target.loaded().coordinates)
    assert census.exact, census


def test_memory_is_bounded_and_the_membership_kept_while_the_target_stalls(
    job: Job, clickhouse_server: ClickHouseServer, new_topic: Callable[..., str], new_table: Callable[[], str]
) -> None:
    big = new_topic(PARTITIONS)
    plenty = fill(job.broker, big, PARTITIONS, 80_000, template=BIG_ORDERS)
    target = ClickHouseTable(clickhouse_server, new_table())
    memory = ("--batch.max-bytes", "8MiB", "--batch.memory", f"{MEMORY_BYTES >> 20}MiB")
    polls = ("-X", f"max.poll.interval.ms={MAX_POLL_S * 1000}", "-X", f"session.timeout.ms={MAX_POLL_S * 1000}")
    flags = (*target.arguments, *job.elsewhere, "-t", big, *memory, *polls)
    clickhouse_server.inject("delay", delay_s=STALL_S)

    with BatcherProcess(*flags, "--until-eof", "-v") as running:
        running.wait_for("pipeline_started")
        idle_bytes = running.memory_bytes()
        running.wait_for("reading_paused")
        stalled = running.wait_for("batch_written", timeout_s=PATIENCE_S + STALL_S)
        grown_bytes = running.memory_bytes("VmHWM") - idle_bytes
        assert running.wait(120) == 0

    assert stalled["write_s"] >= STALL_S > MAX_POLL_S
    assert grown_bytes < MEMORY_BYTES + AROUND_BYTES
    # One assignment at the start and one end to it: the group never took the consumer for dead.
    assert len(running.named("partitions_assigned")) == len(running.named("partitions_revoked")) == 1
    assert not running.named("partitions_lost")
    census = Census.of(plenty.offsets, target.loaded().coordinates)
    assert census.exact, census


def test_a_full_disk_is_waited_for_and_no_half_file_is_ever_seen(
    job: Job, small_disk: SmallDisk, tmp_path: Path
) -> None:
    small_disk.leave_free(MIB)
    target = ParquetDirectory(small_disk.path / "out", tmp_path / "orders.arrow")
    flags = (*target.arguments, *job.flags, *SMALL_BATCHES, *STEADY_RETRY, "--until-eof")
    outside = small_disk.outside / "out"

    with BatcherProcess(*flags, "-v", prefix=small_disk.prefix) as running:
        refusal = running.wait_for("sink_unavailable", count=3)
        running.wait_for("reading_paused")
        stored = ParquetDirectory.loaded_at(outside)
        waiting = Census.of(job.committed(), stored.coordinates)
        small_disk.free()
        assert running.wait() == 0

    assert "No space left on device" in refusal["error"]
    assert 0 < len(stored.coordinates) < RECORDS
    assert not waiting.lost, waiting
    census = Census.of(job.orders.offsets, ParquetDirectory.loaded_at(outside).coordinates)
    assert census.exact, census
    assert {path.name for path in outside.iterdir() if path.suffix != ".parquet"} == {"_schema.arrow"}


def refused(*flags: str, engine_says: str | None = None) -> tuple[int, str]:
    """Run to the end and return the exit code and what it says, which has to be one line.

    `engine_says` begins a line that chDB writes to stderr by itself.
    """
    done = run(*flags, "--log.format", "console", "-q", timeout_s=PATIENCE_S)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if engine_says is None or not line.startswith(engine_says)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("batcher: ")
    return done.code, lines[0]


NULL = ("--sink", "null")


def test_brokers_that_do_not_answer_are_69() -> None:
    code, line = refused(*NULL, "-b", "127.0.0.1:1", "-t", "orders", "-g", "loaders", "--start-timeout", "0s")
    assert code == 69
    assert "127.0.0.1:1" in line
    assert "-b" in line


def test_a_topic_that_is_not_there_is_78(job: Job) -> None:
    code, line = refused(*NULL, *job.elsewhere, "-t", "nowhere")
    assert code == 78
    assert "topic nowhere does not exist" in line
    assert "-t" in line


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        (("--batch.max-rows", "0"), "--batch.max-rows"),
        (("--batch.memory", "1MiB", "--batch.max-bytes", "2MiB"), "--batch.memory"),
    ],
)
def test_impossible_settings_are_2_and_name_the_flag(job: Job, flags: tuple[str, ...], flag: str) -> None:
    code, line = refused(*NULL, *job.flags, *flags)
    assert code == 2
    assert line.startswith(f"batcher: {flag}: ")


def test_a_dead_letter_topic_inside_the_subscription_is_2(job: Job) -> None:
    code, line = refused(*NULL, *job.flags, "--dlq.topic", job.orders.topic)
    assert code == 2
    assert "--dlq.topic" in line


def test_a_dead_letter_topic_that_is_not_there_is_78(job: Job) -> None:
    code, line = refused(*NULL, *job.flags, "--dlq.topic", "nowhere")
    assert code == 78
    assert "nowhere" in line


def test_a_file_where_the_directory_should_be_is_78(job: Job, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    code, line = refused("--sink", "parquet", "--parquet.path", str(tmp_path / "out"), *job.flags)
    assert code == 78
    assert "a file is where a directory should be" in line


def test_a_schema_other_than_that_of_the_files_is_78(job: Job, tmp_path: Path) -> None:
    target = ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
    with BatcherProcess(*target.arguments, *job.flags, "--max-records", "10") as running:
        assert running.wait() == 0
    other = tmp_path / "other.arrow"
    with pa.ipc.new_file(str(other), pa.schema([pa.field("id", pa.string())])):
        pass
    code, line = refused(*target.arguments, "--decode.schema", str(other), *job.flags)
    assert code == 78
    assert "--decode.schema" in line


def test_a_column_that_the_given_schema_has_not_is_2(job: Job, tmp_path: Path) -> None:
    target = ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
    code, line = refused(*target.arguments, *job.flags, "--parquet.partition-by", "colour")
    assert code == 2
    assert "'colour'" in line


@pytest.mark.parametrize(("user", "said"), [("default", "nowhere"), ("mallory", "516")])
def test_a_table_that_is_not_there_and_a_user_who_may_not_are_78(
    job: Job, clickhouse_server: ClickHouseServer, user: str, said: str
) -> None:
    dsn = f"http://{user}:@127.0.0.1:{clickhouse_server.port}"
    code, line = refused("--sink", "clickhouse", "--clickhouse.dsn", dsn, "--clickhouse.table", "nowhere", *job.flags)
    assert code == 78
    assert said in line


def test_a_table_that_the_records_do_not_fit_is_78_with_nothing_committed_and_no_dead_letters(
    job: Job, clickhouse_server: ClickHouseServer, new_table: Callable[[], str], new_topic: Callable[..., str]
) -> None:
    table, letters_topic = new_table(), new_topic()
    clickhouse_server.query(f"CREATE TABLE {table} (id UInt64, colour String) ENGINE = MergeTree ORDER BY id")
    flags = ("--sink", "clickhouse", "--clickhouse.dsn", clickhouse_server.dsn, "--clickhouse.table", table, *job.flags)

    without_queue = refused(*flags)
    with_queue = refused(*flags, "--dlq.topic", letters_topic)

    assert (without_queue[0], with_queue[0]) == (78, 78)
    assert "colour" in without_queue[1]
    assert "colour" in with_queue[1]
    assert set(job.committed().values()) == {range(0)}
    assert dead_letters_in(job.broker.bootstrap, letters_topic) == []
    assert clickhouse_server.query(f"SELECT count() FROM {table}") == [(0,)]


def test_a_second_process_on_the_same_embedded_engine_is_78_and_the_first_goes_on(
    job: Job, clickhouse_server: ClickHouseServer, tmp_path: Path, new_group: Callable[[], str]
) -> None:
    target, others = EmbeddedTable(tmp_path / "db", "orders"), job._replace(group=new_group())
    with BatcherProcess(*target.arguments, *job.flags) as first:
        first.wait_for("pipeline_started")
        code, line = refused(*target.arguments, *others.flags, engine_says="Code: 76. DB::Exception: ")
        first.wait_for("batch_written")
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
    assert code == 78
    assert "another process has it" in line
    assert first.summary["written"] == len(target.loaded().coordinates)


def test_a_group_that_reads_another_topic_reads_this_one_as_well(job: Job, new_topic: Callable[..., str]) -> None:
    other = new_topic()
    job.broker.produce(other, ['{"id":1}'] * 10)
    with BatcherProcess(*NULL, *job.flags, "--max-records", "100") as first:
        assert first.wait() == 0
    before = job.committed()

    with BatcherProcess(*NULL, *job.elsewhere, "-t", other, "--until-eof") as second:
        assert second.wait() == 0

    assert second.summary["written"] == 10
    ends = job.broker.ends(other)
    assert job.committed(ends) == offsets_below(ends)
    assert job.committed() == before
