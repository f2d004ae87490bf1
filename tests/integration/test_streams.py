"""Streams that are closed or full, signals before anything has begun, and command lines with nothing in them."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from batcher.cli.verbs import VERBS
from batcher.testing.kafka import Broker
from tests.harness.patience import PATIENCE_S, wait_for
from tests.harness.processes import BatcherProcess, Ending, run_shell

BATCHER = f"{sys.executable} -m batcher"


def shell(command: str, **variables: str) -> Ending:
    return run_shell(command, environment=variables, timeout_s=PATIENCE_S)


@pytest.mark.parametrize("words", ["", "run"])
def test_a_command_line_with_nothing_in_it_says_how_to_begin(words: str) -> None:
    # A variable is something given as well; this one is kept for all tests, to choose the path they run on.
    done = shell(f"env -u BATCHER_NATIVE {BATCHER} {words}")
    assert done.code == 2
    assert "batcher demo" in done.stderr
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"bench", "demo", "run", "plugins"}))
def test_a_verb_without_anything_says_what_it_lacks_in_words(verb: str) -> None:
    done = shell(f"{BATCHER} {verb}")
    assert done.code == 2
    assert done.stderr.startswith("batcher: ")
    assert "Traceback" not in done.stderr


CLOSED = ["2>&-", ">&-", "<&-", ">&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full", "2> >(exit 0)"]


@pytest.mark.broker
@pytest.mark.parametrize(
    ("output", "streams"),
    [
        *(("--json", streams) for streams in CLOSED),
        # The console's format has nothing of its own but on stderr.
        *(("-v --log.format console", streams) for streams in CLOSED if "2>" in streams),
    ],
)
def test_streams_that_are_closed_or_full_change_nothing_about_a_good_run(
    broker: Broker, new_topic: Callable[..., str], tmp_path: Path, output: str, streams: str
) -> None:
    topic = new_topic()
    broker.produce(topic, ['{"id":1}', '{"id":2}'])
    done = shell(
        f"{BATCHER} --sink parquet --parquet.path {tmp_path}/out -b {broker.bootstrap} -t {topic} -g {topic} "
        f"--until-eof {output} {streams}"
    )
    assert done.code == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("verb", "streams"),
    [
        *(("config show", streams) for streams in CLOSED),
        # Each writes in its own way; that a stream is closed or full is the same for all of them.
        *product(("plugins", "--version", "--help", "nonsense", "config"), (">&- 2>&-", ">/dev/full 2>/dev/full")),
    ],
)
def test_no_verb_ends_in_a_traceback_over_its_streams(verb: str, streams: str) -> None:
    done = shell(f"{BATCHER} {verb} {streams}")
    assert done.code in {0, 1, 2}
    assert "Traceback" not in done.stderr + done.stdout


def listens(pid: int) -> bool:
    """Return whether a process catches SIGTERM, which `early` begins to do last."""
    [caught] = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc which signals a process catches")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0.0, 0.25, 0.65])
def test_a_signal_is_heard_before_a_loader_has_begun(number: int, after_s: float, tmp_path: Path) -> None:
    argv = ["--sink", "parquet", "--parquet.path", str(tmp_path), "-b", "127.0.0.1:1", "-t", "t", "-g", "g"]
    with BatcherProcess(*argv) as running:
        # What comes before the first line of our own code is Python's to answer.
        wait_for(lambda: listens(running.pid), "it listens to signals")
        time.sleep(after_s)
        running.signal(number)
        assert running.wait() in {75, -number}
    assert "Traceback" not in running.stderr
