"""The whole program from a real Kafka into each target: sums by coordinates, stops in the middle, several workers.

`BATCHER_TEST_LONG=1` loads a million records instead of a fifth of that.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from batcher.generate.events import EventGenerator
from batcher.records import Partition
from batcher.testing.clickhouse import ClickHouseServer
from batcher.testing.kafka import Broker
from tests.harness.census import (
    Census,
    Coordinate,
    Filling,
    committed_offsets,
    dead_letters_in,
    fill,
    letter_coordinates,
    offsets_below,
)
from tests.harness.patience import LONG, wait_for
from tests.harness.processes import BatcherProcess
from tests.harness.targets import ClickHouseTable, EmbeddedTable, ParquetDirectory, Target

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900)]

RECORDS = 1_000_000 if LONG else 200_000
POISON = 1_000 if LONG else 200
PARTITIONS = 4
DONE_S = 600.0 if LONG else 120.0

# Little enough that most of the topic is still unread when the first batches are written.
SMALL_BATCHES = ("--batch.max-rows", "10000", "--batch.max-bytes", "2MiB", "--batch.memory", "8MiB")


@pytest.fixture(scope="module")
def orders(broker: Broker) -> Filling:
    """Return one topic that all tests of this module read, each with a group of its own."""
    topic = f"orders-{os.urandom(4).hex()}"
    broker.create_topic(topic, PARTITIONS)
    return fill(broker, topic, PARTITIONS, RECORDS, poison=POISON)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path, new_table: Callable[[], str]) -> Target:
    """Return a target of the kind that the test is parametrized with."""
    match request.param:
        case "parquet":
            return ParquetDirectory(tmp_path / "out", tmp_path / "orders.arrow")
        case "parquet-inferred":
            return ParquetDirectory(tmp_path / "out")
        case "clickhouse":
            server: ClickHouseServer = request.getfixturevalue("clickhouse_server")
            return ClickHouseTable(server, new_table())
        case _:
            request.getfixturevalue("clickhouse_server")  # skips where there is no chDB
            return EmbeddedTable(tmp_path / "db", new_table())


class Job(NamedTuple):
    """Name a consumer group and a dead-letter topic that nobody has used, with the flags that say so."""

    broker: Broker
    group: str
    letters_topic: str

    @property
    def flags(self) -> tuple[str, ...]:
        return ("-b", self.broker.bootstrap, "-g", self.group, "--dlq.topic", self.letters_topic)

    def committed(self, partitions: Iterable[Partition]) -> Mapping[Partition, range]:
        return committed_offsets(self.broker, self.group, partitions)

    def letters(self) -> list[Coordinate]:
        return letter_coordinates(dead_letters_in(self.broker.bootstrap, self.letters_topic))


@pytest.fixture
def job(broker: Broker, new_topic: Callable[..., str], new_group: Callable[[], str]) -> Job:
    return Job(broker, new_group(), new_topic())


def in_all_targets(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("target", kinds, indirect=True)


@in_all_targets("parquet", "parquet-inferred", "clickhouse", "chdb")
def test_a_topic_with_poison_arrives_whole_and_its_poison_in_the_dead_letter_topic(
    orders: Filling, target: Target, job: Job
) -> None:
    with BatcherProcess(*target.arguments, *job.flags, "-t", orders.topic, "--until-eof") as running:
        assert running.wait(DONE_S) == 0

    summary, loaded = running.summary, target.loaded()
    counts = {name: summary[name] for name in ("consumed", "written", "dead_lettered", "skipped", "exit")}
    assert counts == {
        "consumed": RECORDS,
        "written": RECORDS - POISON,
        "dead_lettered": POISON,
        "skipped": 0,
        "exit": 0,
    }
    census = Census.of(orders.offsets, loaded.coordinates, job.letters())
    assert census.exact, census
    assert loaded.id_sum == orders.id_sum
    assert set(job.letters()) == orders.poison
    assert job.committed(orders.ends) == orders.offsets


@in_all_targets("parquet", "clickhouse")
def test_a_sigterm_in_the_middle_and_a_new_start_lose_nothing_and_duplicate_nothing(
    orders: Filling, target: Target, job: Job
) -> None:
    flags = (*target.arguments, *job.flags, "-t", orders.topic)

    with BatcherProcess(*flags, *SMALL_BATCHES) as first:
        first.wait_for("batch_written", count=3)
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
    # What is committed is what is stored, no more and no less; and it is not everything.
    committed = job.committed(orders.ends)
    assert 0 < sum(map(len, committed.values())) == first.summary["consumed"] < RECORDS
    census = Census.of(committed, target.loaded().coordinates, job.letters())
    assert census.exact, census

    with BatcherProcess(*flags, "--until-eof") as second:
        assert second.wait(DONE_S) == 0
    assert second.summary["consumed"] == RECORDS - first.summary["consumed"]
    loaded = target.loaded()
    census = Census.of(orders.offsets, loaded.coordinates, job.letters())
    assert census.exact, census
    assert loaded.id_sum == orders.id_sum


class Stream:
    """Produce orders, a little poison among them, on a thread of its own until it is told to stop."""

    def __init__(self, broker: Broker, topic: str, partitions: int) -> None:
        self._broker = broker
        self.topic = topic
        self._partitions = partitions
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        generator = EventGenerator(seed=1, poison=0.001)
        for number in count():
            self.sent += self._broker.produce(
                self.topic, generator.take(500), partition=number % self._partitions, compression="lz4"
            )
            if self._stop.wait(0.1):
                return


@pytest.fixture
def stream(broker: Broker, new_topic: Callable[..., str]) -> Iterator[Stream]:
    with Stream(broker, new_topic(PARTITIONS), PARTITIONS) as running:
        yield running


@pytest.mark.parametrize(
    ("target", "protocol"),
    [("parquet", "classic"), ("clickhouse", "classic"), ("clickhouse", "consumer")],
    indirect=["target"],
)
def test_workers_that_come_and_go_in_good_order_lose_nothing_and_duplicate_nothing(
    target: Target, protocol: str, stream: Stream, job: Job
) -> None:
    if isinstance(target, ClickHouseTable):
        # So slow that nearly always a batch is being written: partitions are taken, and a process is stopped, in one.
        target.server.inject("delay", times=10_000, delay_s=0.3)
    # Members hear of a rebalance with a heartbeat, every 3 s by default; with KIP-848 that is the broker's business.
    membership = ("-X", "heartbeat.interval.ms=300" if protocol == "classic" else "group.protocol=consumer")
    flags = (*target.arguments, *job.flags, *membership, "--batch.max-wait", "300ms", "-t", stream.topic)

    with BatcherProcess(*flags) as first, ExitStack() as later:
        # Started together, both may join at once, and nothing is taken from either.
        first.wait_for("batch_written")
        second = later.enter_context(BatcherProcess(*flags))
        second.wait_for("batch_written")
        assert first.wait_for("partitions_revoked")["partitions"]
        for one in (first, second):
            one.wait_for("batch_written", count=2, after=len(one.events))
        before = len(first.events)
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        left = set(second.named("partitions_revoked")[-1]["partitions"])
        first.wait_for("partitions_assigned", after=before, where=lambda event: bool(left & set(event["positions"])))
        first.wait_for("batch_written", count=3, after=len(first.events))
        stream.stop()
        ends = job.broker.ends(stream.topic)
        wait_for(lambda: job.committed(ends) == offsets_below(ends), "everything committed", DONE_S)
        first.signal(signal.SIGTERM)
        assert first.wait() == 0

    assert sum(ends.values()) == stream.sent
    letters = job.letters()
    census = Census.of(offsets_below(ends), target.loaded().coordinates, letters)
    assert census.exact, census
    assert letters
    assert not first.named("partitions_lost")
    assert not second.named("partitions_lost")
