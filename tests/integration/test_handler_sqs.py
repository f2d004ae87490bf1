"""A handler on SQS: what comes again goes back to the queue, which counts the attempts; a stop gives back the rest."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from batcher.testing.sqs import SqsQueue
from tests.harness.kills import letters_in
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess, run

Queues = Callable[..., SqsQueue]

APP = """
import os, time
from batcher import Drop, Reject, Retry

log = os.open("calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def fates(m):
    os.write(log, b"%s %d\\n" % (m.value, m.attempt))
    match int(m.value) % 100:
        case 1:
            raise Drop
        case 2:
            raise Reject("no twos")
        case 3 if m.attempt < 3:
            raise Retry(1)
        case 5:
            raise ValueError

def slowly(m):
    time.sleep(0.02)
    os.write(log, b"%s %d\\n" % (m.value, m.attempt))
"""


def calls(directory: Path) -> dict[int, list[int]]:
    """Return the attempts of each message, in their order."""
    found: dict[int, list[int]] = {}
    for line in (directory / "calls").read_text().splitlines():
        value, attempt = line.split()
        found.setdefault(int(value), []).append(int(attempt))
    return found


def flags(queue: SqsQueue, handler: str, *more: str) -> tuple[str, ...]:
    return (
        *queue.flags,
        "--sink",
        "handler",
        "--handler.function",
        f"app:{handler}",
        "--handler.max-attempts",
        "3",
        *more,
    )


def test_each_message_has_its_fate_and_the_queue_counts_the_attempts(new_queue: Queues, tmp_path: Path) -> None:
    queue = new_queue()
    queue.send([str(number) for number in range(300)])
    (tmp_path / "app.py").write_text(APP)
    more = ("--dlq.path", "dead", "--until-eof", "--retry.wait", "1s", "--json")
    done = run(*flags(queue, "fates", *more), directory=tmp_path)
    assert done.code == 0, done.stderr
    facts, found = done.facts, calls(tmp_path)

    times = {3: [1, 2, 3], 5: [1, 2, 3]}
    assert found == {number: times.get(number % 100, [1]) for number in range(300)}
    assert (facts["written"], facts["skipped"], facts["released"]) == (291, 3, 12)
    assert facts["dead_letter_reasons"] == {"rejected": 3, "attempts": 3}
    assert queue.depth == 0
    assert sorted(int(value) % 100 for (value,) in letters_in(tmp_path / "dead", "value")) == [2, 2, 2, 5, 5, 5]


def test_a_stop_gives_back_at_once_what_was_not_begun(new_queue: Queues, tmp_path: Path) -> None:
    queue = new_queue(visibility_s=600)
    queue.send([str(number) for number in range(400)])
    (tmp_path / "app.py").write_text(APP)
    more = ("--handler.workers", "2", "--sqs.visibility", "600s", "--sqs.wait", "1s")
    with BatcherProcess(*flags(queue, "slowly", *more), directory=tmp_path) as process:
        wait_for(lambda: (tmp_path / "calls").exists() and len(calls(tmp_path)) > 20, "calls go on")
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.stderr[-2000:]
    stopped = calls(tmp_path)

    assert time.monotonic() - began < 15
    assert len(stopped) < 400
    assert (queue.visible, queue.invisible) == (400 - len(stopped), 0)
    done = run(*flags(queue, "slowly", "--until-eof", "--json"), directory=tmp_path)
    assert done.code == 0, done.stderr
    assert Counter(len(attempts) for attempts in calls(tmp_path).values()) == {1: 400}
