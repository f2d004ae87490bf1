"""The commands of `batcher dlq` as they are typed, on a directory."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batcher.cli import main as cli
from batcher.cli.support.record_view import payload
from batcher.cli.verbs import dlq
from batcher.dead_letters.directory import DirectoryDeadLetterQueue, read_letters
from batcher.dead_letters.encoding import from_fields
from batcher.records import DeadLetter, Partition, Record, Stage

NOT_JSON = DeadLetter(
    Record(Partition("events", 0), 3, 1_700_000_000_000, b"k", b'{"n" 1}', (("h", b"1"),)),
    "decode",
    "syntax",
    "not JSON at character 5: Expecting ':' delimiter",
)


def letter(offset: int, value: bytes | None, *, stage: Stage = "sink", reason: str = "overflow") -> DeadLetter:
    return DeadLetter(Record(Partition("orders", 2), offset, None, None, value), stage, reason, "does not fit", "n")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dead"), "loaders")
    queue.open()
    queue.send([NOT_JSON, letter(7, b'{"n": 7}'), letter(8, b'{"n": 8}'), letter(9, None), letter(8, b'{"n": 8}')])
    queue.close()
    return tmp_path / "dead"


Ran = tuple[int, list[str], str]


@pytest.fixture
def run(kept: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def ran(*argv: str) -> Ran:
        code = cli.main(["dlq", *argv, "--dlq.path", str(kept)])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return ran


def files_of(directory: Path, column: pa.Field) -> tuple[str, ...]:
    """Return the flags of a Parquet target whose schema is one column."""
    schema = directory / "n.arrow"
    with pa.ipc.new_file(str(schema), pa.schema([column])):
        pass
    return ("--sink", "parquet", "--parquet.path", str(directory / "out"), "--decode.schema", str(schema))


def test_a_listing_has_a_line_for_each_letter_and_nothing_of_the_records(run: Callable[..., Ran]) -> None:
    code, lines, errors = run("ls")
    assert (code, errors, len(lines)) == (0, "", 5)
    assert [word in lines[0] for word in ("decode", "syntax", "events:0:3", "at character 5")] == [True] * 4
    assert not any('"n"' in line for line in lines)


def test_a_listing_as_json_has_the_promised_fields(run: Callable[..., Ran]) -> None:
    _, lines, _ = run("ls", "--json", "--max", "1")
    (line,) = lines
    fields = json.loads(line)
    assert fields.pop("failed_at")
    assert fields.pop("stored").endswith(".ndjson:1")
    assert fields == {
        "id": "events:0:3",
        "topic": "events",
        "partition": 0,
        "offset": 3,
        "timestamp_ms": 1_700_000_000_000,
        "stage": "decode",
        "reason": "syntax",
        "message": "not JSON at character 5: Expecting ':' delimiter",
        "path": None,
        "group": "loaders",
        "attempts": 0,
        "complete": True,
    }


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--where", "reason=overflow,partition=2"), 4),
        (("--where", "topic=events"), 1),
        (("--where", "stage=decode,reason=overflow"), 0),
        (("--since", "1h"), 5),
        (("--before", "1h"), 0),
        (("--before", "2020-01-01"), 0),
        (("--since", "1577836800000"), 5),
        (("--where", "reason=overflow", "--max", "2"), 2),
    ],
)
def test_a_listing_is_of_what_is_asked_for(run: Callable[..., Ran], flags: tuple[str, ...], found: int) -> None:
    assert len(run("ls", *flags)[1]) == found


def test_one_letter_is_shown_with_a_caret_under_what_is_wrong(run: Callable[..., Ran]) -> None:
    code, lines, _ = run("show", "events:0:3")
    assert code == 0
    assert lines[0] == "events:0:3"
    assert lines[-2:] == ['    {"n" 1}', "         ^"]
    assert any("header h" in line and line.endswith("1") for line in lines)


def test_a_letter_that_is_not_there_is_no_success(run: Callable[..., Ran]) -> None:
    code, lines, errors = run("show", "events:0:4")
    assert (code, lines) == (2, [])
    assert "events[0] offset 4" in errors


def test_json_has_the_record_whole(run: Callable[..., Ran]) -> None:
    lines = [json.loads(line) for line in run("show", "orders:2:8", "--json")[1]]
    assert [(line["value"], line["id"]) for line in lines] == [('{"n": 8}', "orders:2:8")] * 2


def test_counts_are_by_topic_stage_and_reason(run: Callable[..., Ran]) -> None:
    rows = [json.loads(line) for line in run("stats", "--json")[1]]
    assert [(row["topic"], row["stage"], row["reason"], row["letters"], row["records"]) for row in rows] == [
        ("events", "decode", "syntax", 1, 1),
        ("orders", "sink", "overflow", 4, 3),
    ]
    assert all(row["first"] <= row["last"] for row in rows)
    assert run("stats")[1][-1].split() == ["5", "dead", "letters", "in", "all"]


def test_an_export_can_be_read_as_a_directory_can_and_is_for_its_owner_only(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    out = tmp_path / "out.ndjson"
    assert run("export", str(out), "--where", "topic=events")[0] == 0
    assert [from_fields(fields) for fields in read_letters(out)] == [NOT_JSON]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    code, _, errors = run("export", str(out))
    assert code == 2
    assert "File exists" in errors
    assert len(run("export", "-")[1]) == 5


def test_a_replay_loads_what_it_can_and_a_second_one_finds_it_there(run: Callable[..., Ran], tmp_path: Path) -> None:
    target = files_of(tmp_path, pa.field("n", pa.int64(), nullable=False))
    code, lines, _ = run("replay", *target, "--dry-run", "--json")
    assert (code, json.loads(lines[0])["replayed"]) == (1, 2)
    assert list(tmp_path.rglob("*.parquet")) == []

    code, lines, errors = run("replay", *target)
    assert (code, errors) == (1, "")
    assert lines[0].startswith("failed again: events:0:3  syntax")
    assert lines[-1] == "2 replayed, 0 already there, 1 failed again (syntax), 1 skipped (no_value)"
    again = ("--where", "reason=overflow", "--max", "2", "--json")
    code, lines, _ = run("replay", *target, *again)
    facts = json.loads(lines[0])
    assert (code, facts["replayed"], facts["already_there"]) == (0, 0, 2)
    (file,) = (tmp_path / "out").glob("*.parquet")
    assert pq.ParquetFile(file).read()["_offset"].to_pylist() == [7, 8]


def test_a_target_that_cannot_be_asked_is_refused_before_anything_is_read(run: Callable[..., Ran]) -> None:
    code, lines, errors = run("replay", "--sink", "null", "--json")
    assert (code, json.loads(lines[0])["exit"]) == (78, 78)
    assert "--to topic" in errors


def test_nothing_is_purged_without_yes(run: Callable[..., Ran], kept: Path) -> None:
    (file,) = kept.iterdir()
    old = file.rename(kept / "letters-20200101T000000Z-1-1-000001.ndjson")
    os.utime(old, (0, 0))
    code, lines, errors = run("purge", "--before", "2100-01-01")
    assert (code, len(lines)) == (2, 1)
    assert "--yes" in errors
    assert old.exists()
    code, lines, _ = run("purge", "--before", "2100-01-01", "--yes", "--json")
    assert (code, json.loads(lines[0])["letters"]) == (0, 5)
    assert not old.exists()


@pytest.mark.parametrize("flags", [("--yes",), ("--yes", "--json")])
def test_a_file_that_is_kept_for_its_broken_lines_is_named(
    run: Callable[..., Ran], kept: Path, flags: tuple[str, ...]
) -> None:
    (file,) = kept.iterdir()
    for number, broken in (1, b"a note\n"), (2, b""), (3, b'{"n": 1}\n{"n": 2}\n'):
        old = kept / f"letters-20200101T000000Z-1-1-00000{number}.ndjson"
        old.write_bytes(file.read_bytes() + broken)
        os.utime(old, (0, 0))
    code, lines, errors = run("purge", "--before", "2100-01-01", *flags)
    assert (code, len(lines)) == (0, 1)
    assert errors == (
        "batcher: 2 old files are kept, with lines that are no dead letters or have no time, the first "
        f"{kept}/letters-20200101T000000Z-1-1-000001.ndjson; look into them, and remove them yourself\n"
    )
    assert len(list(kept.iterdir())) == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lss"], "did you mean ls?"),
        ([], "what?"),
        (["ls"], "--dlq.path: which dead letters?"),
        (["ls", "--dlq.topic", "t"], "which brokers"),
        (["ls", "--dlq.path", "d", "--where", "colour=red"], "--where: needs the form"),
        (["ls", "--dlq.path", "d", "--since", "yesterday"], "--since: is a time"),
        (["show", "--dlq.path", "d", "17"], "TOPIC:PARTITION:OFFSET"),
        (["replay", "--dlq.path", "d"], "--sink: where to load?"),
        (["replay", "--dlq.path", "d", "--to", "topic"], "-b HOST:PORT"),
        (["replay", "--dlq.path", "d", "--rate", "fast"], "--rate: is a number"),
        (["purge", "--dlq.path", "d", "--yes"], "--before"),
    ],
)
def test_a_command_line_that_means_nothing_is_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["dlq", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["ls", "show", "stats", "replay", "export", "purge"])
def test_every_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dlq", command, "--help"]) == 0
    assert f"usage: batcher dlq {command}" in capsys.readouterr().out
    assert cli.main(["dlq", "--help"]) == 0
    assert f"\n  {command} " in capsys.readouterr().out


def test_the_help_of_the_verb_names_every_flag_of_its_own_that_a_command_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["dlq", "--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--where", "--since", "--before", "--max", "--json", "--to", "--dry-run", "--rate", "--max-attempts"):
        assert flag in text
    assert dlq.USAGE in text


@pytest.mark.parametrize(
    ("value", "message", "lines"),
    [
        (b'{"a" 1}', "not JSON at character 5: x", ['{"a" 1}', "     ^"]),
        (b'{"a":', "not JSON at character 5: x", ['{"a":', "     ^"]),
        (b'{\n"a" 1}', "not JSON at character 6: x", ["{", '"a" 1}', "    ^"]),
        (b'  {"a" 1}', "not JSON at character 5: x", ['  {"a" 1}', "       ^"]),
        (b'  {"a" 1}', "not JSON at character 7: x", ['  {"a" 1}', "       ^"]),
        ('{"日é" 1}'.encode(), "not JSON at character 6: x", ['{"日é" 1}', "       ^"]),
        (b'{"a": "\x1b[31m', "not JSON at character 12: x", ['{"a": "\\x1b[31m', "               ^"]),
        (b"x" * 150, "at character 120: x", ["x" * 100, "x" * 50, " " * 20 + "^"]),
        (b'{"a": 1}', "column a: does not fit", ['{"a": 1}']),
        (b"", "the message is empty", [""]),
        (b"\xff", "invalid UTF-8 at byte 0", [f"00000000  ff{' ' * 46} |.|", f"{' ' * 10}^^"]),
    ],
)
def test_a_caret_stands_under_the_place_that_the_message_names(value: bytes, message: str, lines: list[str]) -> None:
    assert list(payload(value, message)) == lines


def test_of_a_large_payload_the_part_around_the_place_is_shown() -> None:
    value = b"[" + b" " * 50_000 + b"?" + b" " * 50_000
    lines = list(payload(value, "not JSON at character 50001: x"))
    place = lines.index(next(line for line in lines if "^" in line))
    assert lines[place - 1][len(lines[place]) - 1] == "?"
    assert lines[0].endswith("characters before)")
    assert lines[-1].endswith("characters more)")
    assert sum(map(len, lines)) < 10_000


@pytest.mark.parametrize("command", [("ls",), ("stats",), ("export", "-"), ("replay", "--sink", "parquet")])
def test_a_place_without_dead_letters_is_said_because_a_mistyped_one_looks_the_same(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    sink = ("--parquet.path", str(tmp_path / "out")) if "--sink" in command else ()
    assert cli.main(["dlq", *command, "--dlq.path", str(tmp_path / "empty"), *sink]) == 0
    assert f"no dead letter was found in --dlq.path {tmp_path / 'empty'}" in capsys.readouterr().err
    assert cli.main(["dlq", *command, "--dlq.path", str(tmp_path / "absent"), *sink]) == 78


def test_counts_name_the_first_letter_of_each_kind_and_what_is_said_about_it(run: Callable[..., Ran]) -> None:
    rows = [json.loads(line) for line in run("stats", "--json")[1]]
    assert [(row["reason"], row["example"], row["message"]) for row in rows] == [
        ("syntax", "events:0:3", NOT_JSON.message),
        ("overflow", "orders:2:7", "does not fit"),
    ]
    assert f"such as events:0:3: {NOT_JSON.message}" in "\n".join(run("stats")[1])


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_replay_names_the_fields_that_the_target_does_not_take(
    dry: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dead"), "loaders")
    queue.open()
    queue.send([letter(7, b'{"n": 7, "late": {"x": 1}}'), letter(8, b'{"n": 8}')])
    queue.close()
    target = files_of(tmp_path, pa.field("n", pa.int64()))
    assert cli.main(["dlq", "replay", "--dlq.path", str(tmp_path / "dead"), *target, *dry]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "not stored, no column takes them: late (1)"


def test_a_dry_run_compares_letters_with_the_columns_of_their_topic(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = DirectoryDeadLetterQueue(str(tmp_path / "dead"), "loaders")
    queue.open()
    queue.send([letter(7, b'{"n": 7}')])
    target = ("--sink", "parquet", "--parquet.path", str(tmp_path / "out"), "--parquet.layout", "topic", "--json")
    replay = ("dlq", "replay", "--dlq.path", str(tmp_path / "dead"), *target)
    assert cli.main(list(replay)) == 0
    queue.send([letter(9, b'{"n": "seven"}')])
    queue.close()
    capsys.readouterr()

    assert cli.main([*replay, "--dry-run"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["already_there"], facts["failed_again"]) == (1, {"type": 1})


@pytest.mark.parametrize("command", [("ls",), ("stats",), ("export", "-"), ("show", "events:0:3")])
def test_a_place_that_holds_other_things_and_no_letter_is_no_success(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "part.parquet").write_bytes(b"PAR1")
    (tmp_path / "events.ndjson").write_bytes(b'{"id": 1}\n{"id": 2}\n')
    for wrong, what in ((root, "1 files of other names"), (tmp_path / "events.ndjson", "2 lines")):
        assert cli.main(["dlq", *command, "--dlq.path", str(wrong)]) == 78
        out, errors = capsys.readouterr()
        assert out == ""
        assert f"{wrong}: " in errors
        assert what in errors


@pytest.mark.parametrize("command", ["ls", "stats", "replay"])
def test_a_filter_that_means_no_letter_is_said(command: str, run: Callable[..., Ran], tmp_path: Path) -> None:
    target = ("--sink", "parquet", "--parquet.path", str(tmp_path / "out")) if command == "replay" else ()
    code, _, errors = run(command, "--where", "reason=snytax", *target)
    assert (code, errors) == (0, "batcher: none of the 5 dead letters was asked for\n")


def test_an_export_that_does_not_get_to_its_end_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "events.ndjson").write_bytes(b'{"id": 1}\n')
    out = tmp_path / "out.ndjson"
    assert cli.main(["dlq", "export", str(out), "--dlq.path", str(tmp_path / "events.ndjson")]) == 78
    assert not out.exists()


def test_letters_of_several_topics_give_no_new_target_the_schema_of_one(
    run: Callable[..., Ran], tmp_path: Path
) -> None:
    root = tmp_path / "out"
    target = ("--sink", "parquet", "--parquet.path", str(root))
    code, _, errors = run("replay", *target)
    assert code == 78
    assert "dead letters of 2 topics (events, orders): give -t as for run" in errors
    assert not list(root.rglob("*.parquet"))
    code, lines, _ = run("replay", *target, "-t", "events,orders")
    assert (code, lines[-1]) == (1, "2 replayed, 0 already there, 1 failed again (syntax), 1 skipped (no_value)")
    (file,) = root.rglob("*.parquet")
    assert file.parent == root / "orders"
