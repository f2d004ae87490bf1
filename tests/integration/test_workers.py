"""`--workers N`: one command, several processes of one group, and whatever happens to one of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.testing.kafka import Broker
from tests.harness.census import Census, Filling, committed_by, committed_offsets, fill
from tests.harness.patience import wait_for
from tests.harness.processes import SHORT_SESSION, BatcherProcess
from tests.harness.targets import ParquetDirectory

pytestmark = [pytest.mark.broker]

RECORDS = 60_000
PARTITIONS = 4

# A part of the topic at most is in memory, so that a stop or a crash finds most of it unread.
SMALL_BATCHES = ("--batch.max-rows", "500", "--batch.max-bytes", "512KiB", "--batch.memory", "1MiB")

# A new member waits until the broker has missed a dead one.

LATE_S = 60.0

SINKS = """
import time
import pyarrow as pa
from batcher.errors import ConfigurationError
from batcher.protocols import SinkInfo

class Hanging:
    def __init__(self, options):
        pass
    def open(self):
        return SinkInfo("hanging", pa.schema([pa.field("id", pa.int64(), nullable=False)]), ("_partition", "_offset"))
    def write(self, block):
        time.sleep(3600)
    def close(self):
        pass

class Refusing(Hanging):
    def open(self):
        raise ConfigurationError("--options: there is no such option")
"""


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    """Return one topic that the tests of this module read, each with a group of its own."""
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic, PARTITIONS)
    return fill(broker, topic, PARTITIONS, RECORDS)


@pytest.fixture
def source(broker: Broker, orders: Filling, new_group: Callable[[], str]) -> tuple[str, ...]:
    return ("-b", broker.bootstrap, "-t", orders.topic, "-g", new_group(), *SMALL_BATCHES, *SHORT_SESSION)


@pytest.fixture
def target(tmp_path: Path) -> ParquetDirectory:
    return ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")


@pytest.fixture
def sinks_of_mine(tmp_path: Path) -> Path:
    (tmp_path / "sinks_of_mine.py").write_text(SINKS)
    return tmp_path


def owned_by(running: BatcherProcess, number: int) -> set[str]:
    """Return the partitions that a worker has, as far as it has said."""
    owned: set[str] = set()
    for event in running.events:
        if event.get("worker") == number:
            owned |= set(event["positions"] if event["event"] == "partitions_assigned" else ())
            owned -= set(event["partitions"] if event["event"] == "partitions_revoked" else ())
    return owned


def started(running: BatcherProcess, count: int) -> dict[int, int]:
    """Wait until so many workers have been started in all, and return the last process of each."""
    running.wait_for("worker_started", count=count)
    return {event["worker"]: event["pid"] for event in running.named("worker_started")}


def runs(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return False
    return "State:\tZ" not in status  # nobody may be there to take its exit code


def test_workers_share_the_partitions_and_a_signal_ends_all_with_0_stored_and_committed(
    broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str], target: ParquetDirectory
) -> None:
    topic, group = new_topic(PARTITIONS), new_group()
    flags = (*target.arguments, "-b", broker.bootstrap, "-t", topic, "-g", group, "--batch.max-wait", "100ms")

    with BatcherProcess(*flags, *SHORT_SESSION, "--workers", "2") as running:
        # The first one to join has all of them for a moment.
        wait_for(lambda: [len(owned_by(running, number)) for number in range(2)] == [2, 2], "two partitions each")
        orders = fill(broker, topic, PARTITIONS, 8000)
        wait_for(lambda: sum(event["rows"] for event in running.named("batch_written")) == 8000, "all written")
        running.signal(signal.SIGTERM)
        assert running.wait(LATE_S) == 0

    census = Census.of(orders.offsets, target.loaded().coordinates)
    assert census.exact, census
    assert committed_offsets(broker, group, orders.ends) == orders.offsets
    writers: Counter[int] = Counter()
    for event in running.named("batch_written"):
        writers[event["worker"]] += event["rows"]
    assert writers == {0: 4000, 1: 4000}


@pytest.mark.parametrize("to_all", [False, True], ids=["to-the-parent", "to-all-processes"])
def test_a_signal_in_the_middle_stops_all_of_them_however_many_processes_get_it(
    broker: Broker, orders: Filling, source: tuple[str, ...], target: ParquetDirectory, *, to_all: bool
) -> None:
    with BatcherProcess(*target.arguments, *source, "--workers", "2") as running:
        pids = started(running, 2)
        running.wait_for("batch_written")
        # A service manager sends it to every process that it finds; those of the workers do not count twice.
        for pid in [*pids.values()] * to_all:
            os.kill(pid, signal.SIGTERM)
        running.signal(signal.SIGTERM)
        assert running.wait(LATE_S) == 0

    assert 0 < running.summary["written"] < RECORDS
    census = Census.of(committed_by(source, broker, orders.ends), target.loaded().coordinates)
    assert census.exact, census


@pytest.mark.parametrize(
    ("workers", "protocol"),
    [(2, ()), (5, ()), (2, ("-X", "partition.assignment.strategy=range"))],
    ids=["two", "more-than-partitions", "eager"],
)
def test_until_eof_loads_everything_once_and_is_0_with_one_summary_of_all(
    orders: Filling, source: tuple[str, ...], target: ParquetDirectory, workers: int, protocol: tuple[str, ...]
) -> None:
    with BatcherProcess(*target.arguments, *source, *protocol, "--workers", str(workers), "--until-eof") as running:
        assert running.wait() == 0

    census = Census.of(orders.offsets, target.loaded().coordinates)
    assert census.exact, census
    assert running.stdout.count("\n") == 1
    summary = running.summary
    # What a worker had read when its partition went to another one is read again there.
    assert summary["consumed"] >= summary["written"] == RECORDS
    assert summary["batches"] == len(running.named("batch_written"))
    assert (summary["delivery"], summary["exit"]) == ("exactly-once", 0)
    assert {event["exit"] for event in running.named("worker_ended")} == {0}
    assert len(running.named("worker_ended")) == workers


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_duplicated(
    orders: Filling, source: tuple[str, ...], target: ParquetDirectory
) -> None:
    with BatcherProcess(*target.arguments, *source, "--workers", "2", "--until-eof") as running:
        pids = started(running, 2)
        written = running.wait_for("batch_written")
        os.kill(pids[written["worker"]], signal.SIGKILL)
        assert running.wait() == 0

    killed = [event for event in running.named("worker_ended") if event.get("signal")]
    assert [(event["worker"], event["signal"]) for event in killed] == [(written["worker"], "SIGKILL")]
    assert len(running.named("worker_started")) == 3
    census = Census.of(orders.offsets, target.loaded().coordinates)
    assert census.exact, census


def test_a_parent_that_is_killed_leaves_no_worker_behind_and_nothing_uncommitted(
    broker: Broker, orders: Filling, source: tuple[str, ...], target: ParquetDirectory
) -> None:
    with BatcherProcess(*target.arguments, *source, "--workers", "2") as running:
        pids = started(running, 2)
        running.wait_for("batch_written")
        running.signal(signal.SIGKILL)
        wait_for(lambda: not any(runs(pid) for pid in pids.values()), "no worker left")
        running.wait()

    assert len(running.named("parent_gone")) == 2
    census = Census.of(committed_by(source, broker, orders.ends), target.loaded().coordinates)
    assert census.exact, census


def test_a_second_signal_ends_all_at_once_with_130_though_their_writes_hang(
    broker: Broker, orders: Filling, source: tuple[str, ...], sinks_of_mine: Path
) -> None:
    flags = ("--sink", "sinks_of_mine:Hanging", *source, "--stop-timeout", "1h", "--workers", "2")

    with BatcherProcess(*flags, "-v", directory=sinks_of_mine) as running:
        running.wait_for("reading_paused")
        running.signal(signal.SIGINT)
        running.wait_for("stopping", count=2)
        running.signal(signal.SIGINT)
        assert running.wait(LATE_S) == 130

    assert running.summary["exit"] == 130
    assert set(committed_by(source, broker, orders.ends).values()) <= {range(0)}


def test_a_third_signal_kills_workers_that_hear_nothing(source: tuple[str, ...], sinks_of_mine: Path) -> None:
    with BatcherProcess(
        "--sink", "sinks_of_mine:Hanging", *source, "--workers", "2", directory=sinks_of_mine
    ) as running:
        pids = started(running, 2)
        running.wait_for("partitions_assigned")
        os.kill(pids[0], signal.SIGSTOP)
        for count in range(1, 4):
            running.signal(signal.SIGTERM)
            running.wait_for("signal_passed_on", count=count)
        assert running.wait(LATE_S) in (75, 130)

    assert not any(runs(pid) for pid in pids.values())


def test_what_only_a_person_can_mend_ends_all_of_them_with_its_code(
    source: tuple[str, ...], sinks_of_mine: Path
) -> None:
    with BatcherProcess(
        "--sink", "sinks_of_mine:Refusing", *source, "--workers", "2", directory=sinks_of_mine
    ) as running:
        assert running.wait(LATE_S) == 78

    assert (running.summary["consumed"], running.summary["exit"]) == (0, 78)
    assert len(running.named("worker_started")) == 2
    assert "no such option" in running.named("pipeline_failed")[0]["reason"]
