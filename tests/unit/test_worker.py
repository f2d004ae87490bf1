"""A worker is a pipeline into a handler with nothing to set up around it."""

from __future__ import annotations

import json
import signal
import sys
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import batcher
from batcher import FlushPolicy, Message, Partition, Reject, Retry, RetryPolicy, Worker
from batcher.errors import ConfigurationError, DeadLetterLimitExceeded
from batcher.plugins import PluginContext
from batcher.settings.model import BatchSection
from batcher.sources.kafka.settings import Kafka
from batcher.testing.dead_letters import MemoryDeadLetterQueue
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.processes import run_code, run_shell

NUMBERS = Partition("numbers", 0)
QUICK = RetryPolicy(wait_s=0.001, max_wait_s=0.001)


def source(*values: bytes, until_eof: bool = True) -> MemorySource:
    log = MemoryLog([NUMBERS])
    log.produce(NUMBERS, values)
    return MemorySource(log, until_eof=until_eof)


def test_each_message_is_handled_and_the_summary_says_what_became_of_them() -> None:
    seen: Counter[bytes | None] = Counter()

    def handle(message: Message) -> None:
        seen[message.value] += 1
        if message.value == b"2" and message.attempt < 3:
            raise Retry
        if message.value == b"3":
            raise Reject("no threes")

    letters = MemoryDeadLetterQueue()
    log = source(b"1", b"2", b"3")
    summary = Worker(log, handle, dead_letters=letters, retry=QUICK).run()

    assert seen == {b"1": 1, b"2": 3, b"3": 1}
    assert (summary.written, summary.dead_lettered, summary.delivery) == (2, 1, "at-least-once")
    assert [(one.record.offset, one.reason, one.message) for one in letters.letters] == [(2, "rejected", "no threes")]
    assert log.log.committed[NUMBERS].next_offset == 3


def test_dead_letters_go_to_a_directory_that_is_named(tmp_path: Path) -> None:
    def handle(message: Message) -> None:
        if message.value == b"2":
            raise Reject("no")

    Worker(source(b"1", b"2"), handle, dead_letters=tmp_path).run()
    (file,) = tmp_path.rglob("*.ndjson")
    assert json.loads(file.read_text())["offset"] == 1


def test_without_a_place_for_dead_letters_the_first_one_ends_it() -> None:
    with pytest.raises(DeadLetterLimitExceeded):
        Worker(source(b"1"), lambda message: False, max_attempts=1).run()


def test_stop_returns_from_run_after_the_calls_that_go_on() -> None:
    seen: list[bytes | None] = []

    def handle(message: Message) -> None:
        seen.append(message.value)
        worker.stop()

    worker = Worker(source(b"1", b"2", until_eof=False), handle)
    summary = worker.run()

    assert summary.written == len(seen) == 2
    assert worker.status().state == "stopped"


def test_a_signal_stops_it_and_the_handlers_of_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def handle(message: Message) -> None:
        signal.raise_signal(signal.SIGTERM)

    assert Worker(source(b"1", until_eof=False), handle).run().written == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_runs_on_other_threads_where_signals_stay_what_they_are() -> None:
    written: list[int] = []
    worker = Worker(source(b"1"), lambda message: None)
    thread = threading.Thread(target=lambda: written.append(worker.run().written))
    thread.start()
    thread.join(60)
    assert written == [1]


def test_metrics_and_status_say_how_long_calls_took_and_what_the_pool_does() -> None:
    pages: list[str] = []

    def handle(message: Message) -> None:
        if message.value == b"2":
            assert worker.http_addr is not None
            for page in ("metrics", "status"):
                with urllib.request.urlopen(f"http://{worker.http_addr}/{page}") as answer:
                    pages.append(answer.read().decode())

    worker = Worker(source(b"1", b"2"), handle, order="partition", workers=3, http_addr="127.0.0.1:0")
    worker.run()
    metrics, status = pages[0], json.loads(pages[1])

    assert 'batcher_handler_seconds_count{outcome="done"} 1.0' in metrics
    assert 'batcher_handler_seconds_bucket{le="+Inf",outcome="done"} 1.0' in metrics
    assert "batcher_handler_running 1.0" in metrics
    assert "batcher_handler_workers 3.0" in metrics
    assert status["measures"]["handler_workers"] == 3.0
    assert status["measures"]["handler_seconds"]["done"]["count"] == 1
    assert status["target"].endswith("(3 threads)")


def test_a_source_can_be_given_by_its_name_with_its_options() -> None:
    options = {"brokers": "localhost:9092", "topics": "orders", "group": "mail"}
    worker = Worker("kafka", lambda message: None, options=options)
    assert worker.pipeline.status().group == "mail"


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        ("kafka", {"brokers": "k:9092", "topics": "t"}, r"Worker\('kafka'\): option group: which consumer group"),
        ("kafka", {"broker": "k:9092"}, r"Worker\('kafka'\): option broker: Extra inputs"),
        ("kafak", {}, "did you mean 'kafka'"),
    ],
)
def test_options_that_a_source_does_not_take_are_refused(given: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Worker(given, lambda message: None, options=options)


def test_options_are_not_for_a_source_that_is_made_already() -> None:
    with pytest.raises(ConfigurationError, match="for a source that is given by its name"):
        Worker(source(b"1"), lambda message: None, options={"topics": "t"})


def test_a_function_of_a_script_is_called_in_processes(tmp_path: Path) -> None:
    """The function is defined in `__main__`, which another process has to find by its file."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = run_shell(f"{sys.executable} {script}")
    assert done.code == 0, done.stderr
    assert done.stdout.split() == ["4", "True"]


SCRIPT = """
import os
from batcher import Partition, Worker
from batcher.testing.sources import MemoryLog, MemorySource

def handle(message):
    with open(__file__ + ".calls", "a") as file:
        file.write(f"{os.getpid()}\\n")

if __name__ == "__main__":
    log = MemoryLog([Partition("t", 0)])
    log.produce(Partition("t", 0), [b"1", b"2", b"3", b"4"])
    summary = Worker(MemorySource(log, until_eof=True), handle, pool="process", workers=2).run()
    calls = open(__file__ + ".calls").read().split()
    print(summary.written, len(calls) == 4 and str(os.getpid()) not in calls)
"""


def test_the_names_for_handlers_are_public_and_light() -> None:
    assert {"Worker", "Message", "Retry", "Reject", "Drop"} <= set(batcher.__all__)
    done = run_code(
        "import sys\nfrom batcher import Message, Retry, Reject, Drop\n"
        "print({'pyarrow', 'pydantic', 'structlog', 'confluent_kafka'} & set(sys.modules) or 'none')"
    )
    assert done.stdout.strip() == "none", done.stderr


class AsksAround:
    """A source of other people, which looks at other settings than its own."""

    options = Kafka
    section = "asking"

    def __new__(cls, options: Kafka, context: PluginContext) -> Any:
        assert context.until_eof
        assert context.section(BatchSection).max_rows == 7
        return source(b"1")


def test_a_source_that_is_named_may_look_at_the_other_settings() -> None:
    options = {"brokers": "k:9092", "topics": "t", "group": "g"}
    flush = FlushPolicy(max_rows=7)
    named = f"{__name__}:AsksAround"
    worker = Worker(named, lambda message: None, options=options, until_eof=True, flush=flush)
    assert worker.run().written == 1
