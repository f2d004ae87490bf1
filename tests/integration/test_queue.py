"""The embedded queue from the command line: what people type, with processes that share one file."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from batcher.cli.main import main
from tests.harness.processes import BatcherProcess, run
from tests.harness.small_disk import SmallDisk

Typed = Callable[..., Sequence[str]]


@pytest.fixture
def typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Sequence[str]]:
    """Return what runs a command of the verb and returns the lines of stdout; `code` is what it has to end with."""
    monkeypatch.setenv("BATCHER_QUEUE_PATH", str(tmp_path / "q.db"))

    def typed(*words: str, code: int = 0) -> Sequence[str]:
        assert main(["queue", *words]) == code
        return capsys.readouterr().out.splitlines()

    return typed


def envelopes(lines: Sequence[str]) -> list[Any]:
    return [json.loads(line) for line in lines]


def test_messages_are_published_pulled_acknowledged_and_replayed(typed: Typed) -> None:
    typed("create", "--priorities", "2", "--lanes", "1")
    assert typed("publish", '{"n":1}', "two", "--type", "t") == ["0-0", "0-1"]
    assert typed("publish", "urgent", "--priority", "1", "--id", "u", "--key", "k") == ["u"]
    assert typed("publish", "urgent", "--priority", "1", "--id", "u") == ["u"]

    urgent, first = envelopes(typed("pull", "--queue.group", "g", "-n", "2"))
    assert (urgent["id"], urgent["payload"], urgent["priority"], urgent["key"]) == ("u", "urgent", 1, "k")
    assert (first["payload"], first["message_type"], first["status"]) == ({"n": 1}, "t", "in flight")
    typed("ack", "--queue.group", "g", "u", "0-0")
    typed("ack", "--queue.group", "g", "0-1", code=1)
    [rest] = envelopes(typed("pull", "--queue.group", "g", "-n", "9"))
    assert rest["payload"] == "two"
    typed("ack", "--queue.group", "g", "0-1", "--give-back")
    assert envelopes(typed("pull", "--queue.group", "g"))[0]["attempt"] == 2
    typed("ack", "--queue.group", "g", "0-1")
    assert typed("pull", "--queue.group", "g") == []

    typed("replay", "--queue.group", "g", "--from", "0-1")
    assert [one["payload"] for one in envelopes(typed("pull", "--queue.group", "g", "-n", "9"))] == ["urgent", "two"]
    found = json.loads(typed("stats", "--json")[0])
    assert (found["messages"], found["groups"][0]["in_flight"]) == (3, 2)
    typed("purge", "--all", code=2)
    typed("purge", "--all", "--yes")
    assert json.loads(typed("stats", "--json")[0])["messages"] == 0


def test_lines_and_envelopes_come_through_a_pipe(typed: Typed, tmp_path: Path) -> None:
    typed("create")
    path = ("--queue.path", str(tmp_path / "q.db"))
    lines = run("queue", "publish", *path, "-", stdin="a\n\nb\r\n")
    assert (lines.code, len(lines.stdout.splitlines())) == (0, 2)
    given = '{"id":"one","payload":{"a":1},"headers":[["h","v"]]}\n{"payload":"x"}\n'
    assert run("queue", "publish", *path, "--envelopes", stdin=given).stdout.splitlines()[0] == "one"
    refused = run("queue", "publish", *path, "--envelopes", stdin='{"payload":"y"}\n{"paylod":1}\n')
    assert (refused.code, refused.stderr.count("\n")) == (2, 1)
    assert "is no envelope" in refused.stderr
    pulled = run("queue", "pull", *path, "--queue.group", "g", "-n", "9").stdout
    assert Counter(str(one["payload"]) for one in envelopes(pulled.splitlines())) == Counter(
        ["a", "b", "x", "{'a': 1}"]
    )
    assert run("queue", "ack", *path, "--queue.group", "g", stdin=pulled).code == 0
    assert run("queue", "pull", *path, "--queue.group", "g").stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["pull", "--queue.group", "g"], 78, "batcher queue create"),
        (["publish", "a"], 78, "batcher queue create"),
        (["pull"], 2, "--queue.group"),
        (["replay", "--queue.group", "g"], 2, "--from"),
        (["purge"], 2, "--read"),
        (["publish", "a", "b", "--id", "x"], 2, "--id"),
        (["pubish"], 2, "did you mean publish?"),
        ([], 2, "create|publish"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_what_to_do(
    words: list[str], code: int, said: str, typed: Typed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["queue", *words]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_queue_is_made_once(typed: Typed, capsys: pytest.CaptureFixture[str]) -> None:
    typed("create")
    typed("create", code=78)


def rows(path: Path) -> list[tuple[int, int]]:
    table = ds.dataset(path, format="parquet").to_table(columns=["_partition", "_offset"])
    return sorted(zip(table["_partition"].to_pylist(), table["_offset"].to_pylist(), strict=True))


def test_workers_share_a_queue_that_produce_has_filled_and_verify_says_that_it_is_whole(tmp_path: Path) -> None:
    queue, out = str(tmp_path / "q.db"), tmp_path / "out"
    filled = run("produce", "--to", "queue", "--queue.path", queue, "--create", "--count", "6000", "--json")
    assert (filled.code, filled.facts["delivered"]) == (0, 6000), filled.stderr
    source = ("--source", "queue", "--queue.path", queue, "--queue.group", "g")
    sink = ("--sink", "parquet", "--parquet.path", str(out))

    loaded = run(*source, *sink, "--until-eof", "--workers", "2", "--json")
    assert (loaded.code, loaded.facts["written"], loaded.facts["delivery"]) == (0, 6000, "exactly-once"), loaded.stderr
    found = rows(out)
    assert len(set(found)) == len(found) == 6000

    verified = run("verify", *source, *sink, "--json")
    assert verified.code == 0, verified.stderr
    (out / next(out.glob("*.parquet"))).unlink()
    assert run("verify", *source, *sink).code == 1
    peeked = run("peek", "--source", "queue", "--queue.path", queue, "--from", "0", "-n", "2", "--json")
    assert [one["topic"] for one in peeked.lines] == ["q", "q"]
    checked = run("check", *source[:4], "--sink", "parquet", "--parquet.path", str(tmp_path / "new"), "-n", "100")
    assert checked.code == 0, checked.stderr + checked.stdout


def test_a_full_disk_is_told_to_the_publisher_and_what_was_confirmed_is_there(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    queue = small_disk.path / "q.db"
    flags = ("produce", "--to", "queue", "--queue.path", str(queue), "--create")
    small_disk.leave_free(4 << 20)
    with BatcherProcess(*flags, prefix=small_disk.prefix) as running:
        assert running.wait() == 75
    assert running.summary["undelivered"] > 0
    confirmed = running.summary["delivered"]
    assert confirmed > 1000

    small_disk.free()
    with BatcherProcess(*flags, "--count", "1000", prefix=small_disk.prefix) as running:
        assert running.wait() == 0
    # SQLite would look for the path behind the link, which is another file here.
    kept = shutil.copytree(small_disk.outside, tmp_path / "kept")
    with closing(sqlite3.connect(kept / "q.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM message").fetchone() == (confirmed + 1000,)


def test_the_file_of_a_queue_is_not_opened_by_accident(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE theirs (a)")
    done = run("queue", "publish", "--queue.path", str(other), "a")
    assert done.code == 78
    assert "is not the file of a queue" in done.stderr
    with closing(sqlite3.connect(other)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
