"""A pool of processes: order and lists, processes that die or hang, and none that is left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batcher import Partition, RetryPolicy, Worker
from batcher.engine.report import Summary
from batcher.errors import ConfigurationError, DeadLetterLimitExceeded
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.sources import MemoryLog, MemorySource
from sinks.handler.processes import ProcessPool
from sinks.handler.sink import HandlerSink
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess

APP = """
import os, signal, time

log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def noted(m):
    os.write(log, b"%d %d %s %d\\n" % (os.getpid(), m.partition, m.value, m.attempt))

def works(m):
    noted(m)

def fates(m):
    noted(m)
    match m.value:
        case b"3" | b"4" if m.attempt < 3:
            return False
        case b"9":
            os.kill(os.getpid(), signal.SIGKILL)

def lists(messages):
    for m in messages:
        noted(m)
    if any(m.value == b"9" for m in messages):
        os._exit(1)
    return [m.value != b"4" or m.attempt > 1 for m in messages]

def hangs(m):
    noted(m)
    if m.value == b"4":
        time.sleep(600)

def slow(m):
    noted(m)
    time.sleep(0.1)

def exits(m):
    raise SystemExit(m.value)

class Counts:
    def __init__(self):
        self.calls = 0
    def __call__(self, m):
        self.calls += 1
        os.write(log, b"%d %d %s %d\\n" % (os.getpid(), m.partition, m.value, self.calls))

if os.environ.get("BROKEN_IN_CHILD") and os.getpid() != int(os.environ["BROKEN_IN_CHILD"]):
    raise RuntimeError("not here")
"""

LOG = Partition("numbers", 0), Partition("numbers", 1)


class Case:
    """The numbers from 0 to 19 in two partitions, and handlers that note their calls."""

    def __init__(self, directory: Path) -> None:
        self.calls_file = directory / "calls"
        (directory / "process_app.py").write_text(f"LOG = {str(self.calls_file)!r}\n{APP}")
        self.queue = MemoryDeadLetterQueue()

    def worker(self, handler: str, **options: Any) -> Worker:
        log = MemoryLog(LOG)
        for number, partition in enumerate(LOG):
            log.produce(partition, [b"%d" % n for n in range(number, 20, 2)])
        given: dict[str, Any] = {"pool": "process", "workers": 2, "max_attempts": 3, **options}
        quick = RetryPolicy(wait_s=0.001, max_wait_s=0.001)
        source = MemorySource(log, until_eof=True)
        return Worker(source, f"process_app:{handler}", dead_letters=self.queue, retry=quick, **given)

    def run(self, handler: str, **options: Any) -> Summary:
        return self.worker(handler, **options).run()

    @property
    def calls(self) -> list[tuple[int, int, int, int]]:
        """Return the calls in their order: process, partition, value, attempt."""
        lines = self.calls_file.read_text().splitlines()
        return [tuple(map(int, line.split())) for line in lines]  # type: ignore[misc]

    @property
    def letters(self) -> list[tuple[int, str, str]]:
        return sorted((int(one.record.value or b""), one.reason, one.message) for one in self.queue.letters)

    def attempts(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for _, _, value, _ in self.calls:
            found[value] = found.get(value, 0) + 1
        return found


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("process_app", None)
    yield Case(tmp_path)
    sys.modules.pop("process_app", None)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_message_that_kills_its_process_has_its_attempts_and_its_neighbours_one(case: Case) -> None:
    summary = case.run("fates")

    assert summary.written == 19
    assert case.attempts() == {number: 3 if number in {3, 4, 9} else 1 for number in range(20)}
    assert case.letters == [
        (9, "crash", "the handler was called 3 times, and at last its process was ended by signal 9")
    ]
    assert all(gone(pid) for pid, *_ in case.calls)


def test_order_holds_in_processes_and_behind_a_crash_too(case: Case) -> None:
    case.run("fates", order="partition")

    for partition in (0, 1):
        values = [value for _, number, value, _ in case.calls if number == partition]
        once = [value for value in range(partition, 20, 2) for _ in range(3 if value in {3, 4, 9} else 1)]
        assert values == once


def test_lists_are_called_in_processes_and_share_the_fate_of_a_crash(case: Case) -> None:
    summary = case.run("lists", batch=5, order="partition")

    assert summary.written == 15
    assert [value for value, *_ in case.letters] == [1, 3, 5, 7, 9]
    assert {reason for _, reason, _ in case.letters} == {"crash"}
    assert case.attempts()[4] == 2


def test_a_call_that_takes_too_long_is_ended_and_its_neighbours_are_not(case: Case) -> None:
    summary = case.run("hangs", timeout_s=0.5, max_attempts=2)

    assert summary.written == 19
    assert case.letters == [(4, "timeout", "the handler was called 2 times, and at last it took longer than 0.5 s")]
    assert case.attempts() == {number: 2 if number == 4 else 1 for number in range(20)}


def test_the_time_of_a_call_is_its_own_also_where_one_follows_the_other(case: Case) -> None:
    summary = case.run("slow", timeout_s=0.8, order="partition")

    assert summary.written == 20
    assert set(case.attempts().values()) == {1}


def test_a_handler_that_exits_ends_no_process(case: Case) -> None:
    with pytest.raises(DeadLetterLimitExceeded, match="every record so far"):
        case.run("exits", max_attempts=1)
    assert all("it raised SystemExit" in message for _, _, message in case.letters)


def test_a_class_is_made_once_in_each_process(case: Case) -> None:
    case.run("Counts")
    by_process: dict[int, list[int]] = {}
    for pid, _, _, calls in case.calls:
        by_process.setdefault(pid, []).append(calls)
    assert os.getpid() not in by_process
    assert all(calls == list(range(1, len(calls) + 1)) for calls in by_process.values())


def test_a_process_that_was_killed_from_outside_is_replaced_and_costs_no_attempt(case: Case) -> None:
    worker = case.worker("works", workers=1)
    sink = sink_of(worker)
    sink.open()
    pool = sink._pool
    assert isinstance(pool, ProcessPool)
    (first,) = pool._processes
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    first._process.wait()
    assert pool._living(0) is not first
    sink.close()
    worker.run()
    assert {attempt for *_, attempt in case.calls} == {1}


def sink_of(worker: Worker) -> HandlerSink:
    assert worker.pipeline._only is not None
    sink = worker.pipeline._only.sink
    assert isinstance(sink, HandlerSink)
    return sink


def test_a_handler_that_only_a_process_cannot_import_is_refused_at_the_start(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN_IN_CHILD", str(os.getpid()))
    sink = sink_of(case.worker("works"))
    with pytest.raises(ConfigurationError, match="cannot be imported from process_app: RuntimeError: not here"):
        sink.open()
    assert sink._pool is None, "the processes are ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_ends_no_call(case: Case, number: int) -> None:
    worker = case.worker("works", workers=1)
    sink = sink_of(worker)
    sink.open()
    pool = sink._pool
    assert isinstance(pool, ProcessPool)
    (process,) = pool._processes
    assert process is not None
    os.kill(process.pid, number)
    rows = [[(b"5", None, "numbers", 0, 0, None, None, None, 1)]]
    assert [results for results, _ in process.call(rows, ordered=False, timeout_s=None)] == [[None]]
    sink.close()


def test_processes_end_with_the_one_that_started_them_however_it_ends(case: Case, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(KILLED)
    with BatcherProcess(directory=tmp_path, module="main") as parent:
        pids = [int(pid) for pid in parent.wait_for_text("pids").split()[1:]]
        assert len(pids) == 2
        parent.kill()
    for pid in pids:
        wait_for(lambda pid=pid: gone(pid), f"process {pid} ends")  # type: ignore[misc]


KILLED = """
import sys, time
from sinks.handler.sink import HandlerOptions, HandlerSink

sink = HandlerSink("process_app:works", HandlerOptions(pool="process", workers=2))
sink.open()
print("pids", *[one.pid for one in sink._pool._processes], file=sys.stderr, flush=True)
time.sleep(600)
"""
