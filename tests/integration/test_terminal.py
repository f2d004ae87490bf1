"""What a run shows on a real terminal of 60, 80 and 120 columns: nothing is cut, and no word is broken."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from subprocess import Popen

import pytest

from tests.harness.processes import clean_environment, run

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terminal") / "orders.queue"
    done = run("queue", "create", "--queue.path", str(path))
    assert done.code == 0, done.stderr
    values = [f'{{"id": {number}}}' if number % 100 else "{" for number in range(2000)]
    done = run("queue", "publish", "-", "--queue.path", str(path), stdin="\n".join(values))
    assert done.code == 0, done.stderr
    return path


def shown(columns: int, *argv: str, directory: Path, **variables: str) -> tuple[int, str]:
    """Run batcher on a terminal of its own and return its exit code and all that it wrote there."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = clean_environment(TERM="xterm", **variables)
    environment.pop("COLUMNS", None)
    process = Popen(
        [sys.executable, "-m", "batcher", *argv],
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment,
        cwd=directory,
        close_fds=True,
    )
    os.close(child)
    text = b""
    try:
        while piece := os.read(parent, 1 << 16):
            text += piece
    except OSError:  # what Linux says when the other end is closed
        pass
    finally:
        os.close(parent)
    return process.wait(60), text.decode()


def flags(queue: Path, group: str) -> list[str]:
    made = ["--source", "queue", "--queue.path", str(queue), "--queue.group", group, "--sink", "parquet"]
    return [*made, "--parquet.path", "out", "--dlq.path", "dead", "--until-eof", "--batch.rate", "1000/s"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_run_to_the_end_shows_a_bar_and_ends_with_one_sentence_and_breaks_no_word(
    queue: Path, tmp_path: Path, columns: int
) -> None:
    code, text = shown(columns, *flags(queue, f"at-{columns}"), directory=tmp_path)
    assert code == 0, text
    plain = ANSI.sub("", text)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", plain)]
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).replace("\u00a0", " ").split()
    said = " ".join(words)
    assert re.search(r"1,980 rows in [\d.]+ s, 20 dead letters: most `syntax`; see them with `batcher dlq ls", said)
    assert "--dlq.path dead`" in said
    assert "━" in plain
    assert "%" in plain
    assert "batch_written" not in plain
    for word in ("pipeline_started", "partitions_assigned", "rows/s", "target_could_keep=exactly-once"):
        assert word in words, word


def test_there_is_no_colour_with_no_color_and_none_without_a_terminal(queue: Path, tmp_path: Path) -> None:
    _, text = shown(80, *flags(queue, "plain"), directory=tmp_path, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[1-7]m", text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(*flags(queue, "piped"), "--log.format", "console", directory=elsewhere)
    assert done.code == 0
    assert "\x1b" not in done.stderr
    assert "batch_written" not in done.stderr
    assert "1,980 rows in" in done.stderr
