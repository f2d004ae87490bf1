"""A handler from the command line: all fates on a real Kafka, stops, kills, and processes that die."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from batcher.records import Partition
from batcher.testing.kafka import Broker
from tests.harness.kills import letters_in
from tests.harness.patience import LONG
from tests.harness.processes import SHORT_SESSION, BatcherProcess, run

PARTITIONS: Final = 3
RECORDS: Final = 30_000 if LONG else 1_500
KILLS: Final = 24 if LONG else 1

APP: Final = """
import os, time
from batcher import Drop, Reject, Retry

log = os.open("calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def noted(m):
    os.write(log, b"%s\\n" % m.value)
    return int(m.value)

def fates(m):
    match noted(m) % 100:
        case 1:
            raise Drop
        case 2:
            raise Reject("no twos")
        case 3 if m.attempt < 3:
            raise Retry(0.01)
        case 4 if m.attempt < 2:
            return False
        case 5:
            raise ValueError(m.value)

async def async_fates(m):
    return fates(m)

def works(m):
    noted(m)

def slowly(m):
    time.sleep(0.002)
    noted(m)

def deadly(m):
    if noted(m) % 500 == 7:
        os._exit(3)

def hangs(m):
    noted(m)
    time.sleep(600)

def hangs_once(m):
    if noted(m) == 7 and m.attempt == 1:
        time.sleep(600)

def two(m, more):
    pass
"""


class Job(NamedTuple):
    """A topic of numbers, a group that nobody has used, and a directory with the handlers in it."""

    broker: Broker
    topic: str
    group: str
    directory: Path

    def flags(self, handler: str, *more: str) -> tuple[str, ...]:
        return (
            *("--sink", "handler", "--handler.function", f"app:{handler}", "--retry.wait", "10ms"),
            *("-b", self.broker.bootstrap, "-t", self.topic, "-g", self.group, *SHORT_SESSION, *more),
        )

    def run(self, handler: str, *more: str) -> BatcherProcess:
        """Run to the end of the topic."""
        with BatcherProcess(*self.flags(handler, "--until-eof", *more), directory=self.directory) as process:
            assert process.wait(120.0) == 0, process.stderr[-3000:]
        return process

    def calls(self) -> Counter[int]:
        """Return how often the handler was called with each number."""
        found = self.directory / "calls"
        return Counter(map(int, found.read_bytes().split())) if found.exists() else Counter()

    def committed(self) -> int:
        """Return how many records the group has done with."""
        partitions = [Partition(self.topic, number) for number in range(PARTITIONS)]
        return sum(one.next_offset for one in self.broker.committed(self.group, partitions).values())


Jobs = Callable[..., Job]


@pytest.fixture
def job(broker: Broker, new_group: Callable[[], str], tmp_path: Path) -> Jobs:
    def make(records: int = RECORDS) -> Job:
        topic = f"numbers-{os.urandom(4).hex()}"
        broker.create_topic(topic, PARTITIONS)
        for partition in range(PARTITIONS):
            broker.produce(topic, [b"%d" % n for n in range(partition, records, PARTITIONS)], partition=partition)
        (tmp_path / "app.py").write_text(APP)
        return Job(broker, topic, new_group(), tmp_path)

    return make


def expected_calls(records: int) -> Counter[int]:
    times = {3: 3, 4: 2, 5: 5}
    return Counter({number: times.get(number % 100, 1) for number in range(records)})


@pytest.mark.broker
@pytest.mark.parametrize(
    ("handler", "more"),
    [
        ("fates", ()),
        ("async_fates", ()),
        ("fates", ("--handler.pool", "process", "--handler.workers", "2")),
        pytest.param("fates", ("--handler.order", "key"), marks=pytest.mark.long),
        pytest.param("fates", ("--handler.order", "partition"), marks=pytest.mark.long),
    ],
    ids=["thread", "async", "process", "key", "partition"],
)
def test_each_record_has_its_fate_and_nothing_is_called_too_often(job: Jobs, handler: str, more: Sequence[str]) -> None:
    one, of_each = job(), RECORDS // 100
    done = one.run(handler, "--dlq.path", "dead", *more)
    summary = done.summary

    assert one.calls() == expected_calls(RECORDS)
    assert (summary["consumed"], summary["written"]) == (RECORDS, RECORDS - 3 * of_each)
    assert (summary["dead_lettered"], summary["skipped"]) == (2 * of_each, of_each)
    assert summary["dead_letter_reasons"] == {"rejected": of_each, "attempts": of_each}
    assert summary["delivery"] == "at-least-once"
    assert one.committed() == RECORDS
    letters = letters_in(one.directory / "dead", "reason", "value")
    assert sorted(int(value) for reason, value in letters if reason == "rejected") == list(range(2, RECORDS, 100))
    assert sorted(int(value) for reason, value in letters if reason == "attempts") == list(range(5, RECORDS, 100))


@pytest.mark.broker
def test_dead_letters_of_a_handler_are_handed_to_one_that_was_repaired(job: Jobs) -> None:
    one = job(300)
    one.run("fates", "--dlq.path", "dead")
    (one.directory / "calls").unlink()
    flags = ("--sink", "handler", "--handler.function", "app:works", "--dlq.path", "dead", "-g", one.group)
    done = run("dlq", "replay", *flags, "--json", directory=one.directory)

    assert done.code == 0, done.stderr
    assert one.calls() == Counter(dict.fromkeys((2, 5, 102, 105, 202, 205), 1))


@pytest.mark.broker
def test_a_record_that_ends_its_process_costs_one_dead_letter_and_no_neighbour(job: Jobs) -> None:
    one = job()
    more = ("--handler.pool", "process", "--handler.workers", "2", "--handler.max-attempts", "2")
    done = one.run("deadly", "--dlq.path", "dead", *more)
    deadly = range(7, RECORDS, 500)

    assert done.summary["dead_letter_reasons"] == {"crash": len(deadly)}
    assert done.summary["written"] == RECORDS - len(deadly)
    assert sorted(int(value) for (value,) in letters_in(one.directory / "dead", "value")) == list(deadly)
    assert one.calls() == Counter({number: 2 if number in deadly else 1 for number in range(RECORDS)})


@pytest.mark.broker
def test_a_process_whose_call_takes_too_long_is_killed_and_the_record_tried_again(job: Jobs) -> None:
    one = job(60)
    more = ("--handler.pool", "process", "--handler.workers", "2", "--handler.timeout", "2s")
    done = one.run("hangs_once", *more)

    assert done.summary["written"] == 60
    assert one.calls() == Counter({number: 2 if number == 7 else 1 for number in range(60)})


@pytest.mark.broker
def test_a_stop_ends_after_the_batch_in_flight_and_gives_back_what_is_buffered(job: Jobs) -> None:
    one = job()
    small = ("--batch.max-rows", "50", "--handler.workers", "1")
    with BatcherProcess(*one.flags("slowly", *small), directory=one.directory) as process:
        process.wait_for("batch_written")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr[-3000:]
    stopped = one.calls()

    assert process.summary["consumed"] > process.summary["written"] == stopped.total() == one.committed() < RECORDS
    one.run("works")
    assert one.calls() == Counter(range(RECORDS)), "nothing was handled twice for the stop"


@pytest.mark.broker
@pytest.mark.parametrize("pool", ["thread", "process"])
def test_a_stop_that_a_call_outlasts_commits_nothing_of_its_batch(job: Jobs, pool: str) -> None:
    one = job(30)
    more = ("--stop-timeout", "2s", "--handler.pool", pool, "--handler.workers", "2")
    with BatcherProcess(*one.flags("hangs", *more), directory=one.directory) as process:
        process.wait_for("partitions_assigned")
        deadline = time.monotonic() + 60
        while one.calls().total() < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.signal(signal.SIGTERM)
        assert process.wait(30.0) == 75, process.stderr[-3000:]
    assert "still busy" not in process.stderr, "no thread was left behind"
    assert one.committed() == 0
    assert one.calls().total() == 2


@pytest.mark.crash
@pytest.mark.broker
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pool", ["thread", pytest.param("process", marks=pytest.mark.long)])
def test_each_record_is_handled_whatever_is_killed(job: Jobs, pool: str) -> None:
    one = job(RECORDS)
    moments = random.Random(1)  # nothing here is secret
    flags = one.flags("slowly", "--batch.max-rows", "200", "--handler.pool", pool, "--handler.workers", "4")
    for _ in range(KILLS):
        with BatcherProcess(*flags, directory=one.directory) as process:
            process.wait_for("batch_written")
            time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
    process = one.run("works")
    calls = one.calls()

    assert set(calls) == set(range(RECORDS))
    assert one.committed() == RECORDS
    # What is handled twice was in flight, or waited for its commit, at a kill.
    assert calls.total() - RECORDS <= KILLS * 5 * 200


@pytest.mark.parametrize(
    ("function", "code", "told"),
    [
        ("nowhere:handle", 78, "there is no module 'nowhere'"),
        ("app:missing", 78, "app has no 'missing'"),
        ("app:two", 78, "is called with one argument, the message, and takes m, more"),
        ("app", 78, "is not of the form module:function"),
    ],
)
def test_a_function_that_cannot_be_a_handler_is_one_clear_line(
    tmp_path: Path, function: str, code: int, told: str
) -> None:
    (tmp_path / "app.py").write_text(APP)
    flags = ("--sink", "handler", "--handler.function", function, "-b", "127.0.0.1:1", "-t", "t", "-g", "g")
    done = run(*flags, "--json", "--log.format", "console", "-q", directory=tmp_path)

    assert done.code == code, done.stderr
    assert f"--handler.function {function}: " in done.stderr
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_what_is_missing_or_cannot_be_kept_is_said_before_anything_is_opened(tmp_path: Path) -> None:
    flags = ("--sink", "handler", "-b", "127.0.0.1:1", "-t", "t", "-g", "g")
    done = run(*flags, directory=tmp_path)
    assert (done.code, "--handler.function: which function?" in done.stderr) == (2, True), done.stderr
    timed = ("--handler.function", "app:works", "--handler.pool", "thread", "--handler.timeout", "1s")
    done = run(*flags, *timed, directory=tmp_path)
    assert (done.code, "a thread cannot be ended" in done.stderr) == (2, True), done.stderr
