"""How the program ends: in good order, in a hurry, with its target or its brokers away, and by a bug."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from batcher.testing.real_broker import RealBroker
from tests.harness.census import Census, Filling, committed_by, fill
from tests.harness.processes import BatcherProcess
from tests.harness.targets import ClickHouseTable, ParquetDirectory

pytestmark = [pytest.mark.broker]

RECORDS = 60_000
PARTITIONS = 2

# A tenth of the topic at most is in memory, so that a stop finds most of it unread.
SMALL_BATCHES = ("--batch.max-rows", "2000", "--batch.max-bytes", "512KiB", "--batch.memory", "1MiB")

STOP_S = 4.0

LATE_S = 20.0
"""Exits are waited for this long: well below the 25 s that --stop-timeout has by default, the 45 s that librdkafka
waits for a broker that is gone, and the hour that the sinks here hang; well above what a busy machine adds."""

SINKS = """
import pathlib, time
import pyarrow as pa
from batcher.protocols import SinkInfo

class Numbers:
    def __init__(self, options):
        self.blocks = 0
    def open(self):
        return SinkInfo("numbers", pa.schema([pa.field("id", pa.int64(), nullable=False)]), ("_partition", "_offset"))
    def write(self, block):
        self.blocks += 1
    def close(self):
        pass

class Buggy(Numbers):
    def write(self, block):
        super().write(block)
        if self.blocks == 2:
            1 / 0

class Hanging(Numbers):
    def write(self, block):
        time.sleep(3600)
"""


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    """Return one topic that all tests of this module read, each with a group of its own."""
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic, PARTITIONS)
    return fill(broker, topic, PARTITIONS, RECORDS)


@pytest.fixture
def source(broker: Broker, orders: Filling, new_group: Callable[[], str]) -> tuple[str, ...]:
    return ("-b", broker.bootstrap, "-t", orders.topic, "-g", new_group(), *SMALL_BATCHES)


@pytest.fixture
def sinks_of_mine(tmp_path: Path) -> Path:
    (tmp_path / "sinks_of_mine.py").write_text(SINKS)
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_what_was_read_stored_and_committed(
    broker: Broker, orders: Filling, source: tuple[str, ...], tmp_path: Path, number: signal.Signals
) -> None:
    target = ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")

    with BatcherProcess(*target.arguments, *source) as running:
        running.wait_for("batch_written")
        running.signal(number)
        assert running.wait(LATE_S) == 0

    assert running.named("stopping")
    assert 0 < running.summary["consumed"] == running.summary["written"] < RECORDS
    census = Census.of(committed_by(source, broker, orders.ends), target.loaded().coordinates)
    assert census.exact, census


def test_a_signal_before_the_first_partition_is_assigned_ends_it_as_well(
    source: tuple[str, ...], sinks_of_mine: Path
) -> None:
    with BatcherProcess("--sink", "sinks_of_mine:Numbers", *source, directory=sinks_of_mine) as running:
        running.wait_for("pipeline_started")
        running.signal(signal.SIGTERM)
        assert running.wait(LATE_S) == 0


def test_a_second_signal_ends_it_at_once_with_130_though_a_write_hangs(
    broker: Broker, orders: Filling, source: tuple[str, ...], sinks_of_mine: Path
) -> None:
    flags = ("--sink", "sinks_of_mine:Hanging", *source, "--stop-timeout", "1h")

    with BatcherProcess(*flags, "-v", directory=sinks_of_mine) as running:
        running.wait_for("reading_paused")
        running.signal(signal.SIGINT)
        running.wait_for("stopping")
        running.signal(signal.SIGINT)
        assert running.wait(LATE_S) == 130

    assert running.summary["exit"] == 130
    assert set(committed_by(source, broker, orders.ends).values()) == {range(0)}


def test_a_write_that_hangs_is_left_behind_at_the_deadline(
    broker: Broker, orders: Filling, source: tuple[str, ...], sinks_of_mine: Path
) -> None:
    flags = ("--sink", "sinks_of_mine:Hanging", *source, "--stop-timeout", f"{STOP_S:.0f}s")

    with BatcherProcess(*flags, "-v", directory=sinks_of_mine) as running:
        running.wait_for("reading_paused")
        running.signal(signal.SIGTERM)
        assert running.wait(LATE_S) == 75

    read = running.summary["consumed"]
    assert read > 0
    assert f"{read} records will be read again" in running.named("pipeline_failed")[0]["reason"]
    assert set(committed_by(source, broker, orders.ends).values()) == {range(0)}


def test_a_target_that_is_away_does_not_hold_up_a_stop_and_nothing_is_lost_or_duplicated(
    broker: Broker, orders: Filling, source: tuple[str, ...], tmp_path: Path, clickhouse_server: ClickHouseServer
) -> None:
    with ClickHouseServer(tmp_path / "db") as server:
        target = ClickHouseTable(server, "orders")
        flags = (*target.arguments, *source, "--stop-timeout", f"{STOP_S:.0f}s")
        with BatcherProcess(*flags, "-v") as running:
            running.wait_for("batch_written", count=2)
            server.kill()
            running.wait_for("sink_unavailable", count=2)
            running.wait_for("reading_paused")
            running.signal(signal.SIGTERM)
            assert running.wait(LATE_S) == 75
        server.start()
        stored = target.loaded().coordinates
        committed = committed_by(source, broker, orders.ends)
        with BatcherProcess(*flags, "--until-eof") as again:
            assert again.wait() == 0
        everything = target.loaded().coordinates

    census = Census.of(committed, stored)
    assert not census.lost, census
    # What was stored and not committed is announced: it is found again, and not stored twice.
    census = Census.of(orders.offsets, everything)
    assert census.exact, census
    assert 0 < running.summary["written"] < running.summary["consumed"]
    # What the message promises to read again is what was read and is not committed.
    again = running.summary["consumed"] - sum(len(offsets) for offsets in committed.values())
    assert f"{again} records will be read again" in running.named("pipeline_failed")[0]["reason"]


def test_brokers_that_are_gone_do_not_hold_up_a_stop_and_nothing_is_lost_or_duplicated(
    own_broker: RealBroker, tmp_path: Path
) -> None:
    own_broker.create_topic("orders", PARTITIONS)
    orders = fill(own_broker, "orders", PARTITIONS, RECORDS)
    target = ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
    # The broker counts the old member in until its session is over, and the new one has to wait for that.
    source = ("-b", own_broker.bootstrap, "-t", "orders", "-g", "loader", "-X", "session.timeout.ms=6000")
    flags = (*target.arguments, *source, *SMALL_BATCHES, "--stop-timeout", f"{STOP_S:.0f}s")

    with BatcherProcess(*flags) as running:
        running.wait_for("batch_written", count=2)
        own_broker.kill()
        running.signal(signal.SIGTERM)
        assert running.wait(LATE_S) == 75

    own_broker.start()
    census = Census.of(committed_by(source, own_broker, orders.ends), target.loaded().coordinates)
    assert not census.lost, census
    with BatcherProcess(*target.arguments, *source, "--until-eof") as again:
        assert again.wait() == 0
    census = Census.of(orders.offsets, target.loaded().coordinates)
    assert census.exact, census


def test_a_bug_in_a_thread_ends_the_process_with_its_traceback_and_without_a_further_commit(
    broker: Broker, orders: Filling, source: tuple[str, ...], sinks_of_mine: Path
) -> None:
    with BatcherProcess("--sink", "sinks_of_mine:Buggy", *source, directory=sinks_of_mine) as running:
        assert running.wait(LATE_S) == 1

    assert "ZeroDivisionError" in running.stderr
    assert "1 / 0" in running.stderr
    written = running.named("batch_written")
    assert len(written) == 1
    assert running.summary["exit"] == 1
    committed = sum(len(offsets) for offsets in committed_by(source, broker, orders.ends).values())
    assert committed in (0, written[0]["rows"])
