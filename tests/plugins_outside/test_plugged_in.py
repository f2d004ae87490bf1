"""Parts that batcher does not know, plugged in by the real command line without a line of batcher changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from batcher.cli.main import main
from tests.harness import processes
from tests.harness.processes import ROOT, Ending

HERE = Path(__file__).parent
PEOPLE = "7|Anna|Oslo\n8|Ben\n9|Cleo|Rome\n"


@pytest.fixture(autouse=True)
def _beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory with the records, where the modules of the plug-ins can be imported."""
    (tmp_path / "people.txt").write_text(PEOPLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(HERE)


def run(*argv: str, **variables: str) -> Ending:
    return processes.run(*argv, environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", **variables})


ALL = (
    *("--source", "files:files", "--files.path", "people.txt"),
    *("--decode.format", "bars:Bars", "--bars.columns", "id,name,city"),
    *("--sink", "lines:Lines", "--lines.path", "out.ndjson"),
    *("--dlq.queue", "shelf:Shelf", "--shelf.path", "letters.txt"),
    *("--until-eof", "--json"),
)


def test_a_source_a_format_a_sink_and_a_queue_of_other_people_load_records() -> None:
    done = run(*ALL)

    assert done.code == 0, done.stderr
    facts = done.facts
    assert (facts["consumed"], facts["written"], facts["dead_lettered"]) == (3, 2, 1)
    assert [json.loads(line) for line in Path("out.ndjson").read_text().splitlines()] == [
        {"id": "7", "name": "Anna", "city": "Oslo", "_partition": 0, "_offset": 0},
        {"id": "9", "name": "Cleo", "city": "Rome", "_partition": 0, "_offset": 2},
    ]
    assert Path("letters.txt").read_text() == ("people.txt[0] 1 syntax: has 2 parts, and --bars.columns 3\n")


def test_options_come_from_file_variables_and_secret_files_too_and_the_secret_is_not_logged() -> None:
    Path("batcher.toml").write_text(
        'source = "files:files"\nsink = "lines:Lines"\nuntil_eof = true\n'
        '[files]\npath = "people.txt"\n[lines]\npath = "of_the_file.ndjson"\n'
        '[decode]\nformat = "bars:Bars"\n[bars]\ncolumns = ["id", "name", "city"]\n'
    )
    Path("signature").write_text("hunter22\n")
    done = run(
        *("-c", "batcher.toml", "-v", "--dlq.path", "letters"),
        BATCHER_LINES_PATH="out.ndjson",
        BATCHER_LINES_SIGNATURE_FILE="signature",
    )

    assert done.code == 0, done.stderr
    assert [json.loads(line)["signature"] for line in Path("out.ndjson").read_text().splitlines()] == ["hunter22"] * 2
    assert not Path("of_the_file.ndjson").exists()
    assert "hunter22" not in done.stderr


def test_workers_of_other_people_s_parts_start_with_the_same_options() -> None:
    done = run(*ALL, "--workers", "2")

    assert done.code == 0, done.stderr
    # Nobody shares these partitions out: each worker reads the file.
    assert done.facts["consumed"] == 6


def test_help_has_the_options_of_the_plug_in_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--sink", "lines:Lines", "--help"]) == 0

    shown = capsys.readouterr().out
    assert "The target of `--sink lines:Lines`." in shown
    assert "--lines.path FILE" in shown
    assert "$BATCHER_LINES_SIGNATURE" in shown
    assert "--parquet.path DIR|URI" in shown
    assert "--bars.columns" not in shown


def test_config_show_masks_what_is_secret_there(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["config", "show", "--sink", "lines:Lines", "--lines.path", "out", "--lines.signature", "hunter22"]
    assert main(argv) == 0

    lines = capsys.readouterr().out.splitlines()
    assert 'lines.path = "out"  # --lines.path' in lines
    assert 'lines.signature = "***"  # --lines.signature' in lines
    assert not any("hunter22" in line for line in lines)
    places = [line.lstrip("# ").partition(".")[0] for line in lines]
    assert places.index("parquet") < places.index("lines") < places.index("decode")


RUN = ["--sink", "lines:Lines", "-b", "k:1", "-t", "t", "-g", "g"]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "--lines.path: has to be given"),
        (["--lines.path", "o", "--lines.indent", "x"], "--lines.indent: input should be a valid integer, unable to "),
        (["--lines.path", "o", "--lines.indent", "-1"], "--lines.indent: input should be greater than or equal to 0"),
        (["--lines.path", "o", "--lines.ident", "1"], "--lines.ident: no such flag, did you mean --lines.indent?"),
        (["-c", "wrong.toml"], "wrong.toml: lines.ident: no such setting, did you mean indent?"),
        (["--sink", "lines:Liness", "--lines.path", "o"], "--sink 'lines:Liness': lines has no 'Liness'"),
        (["--sink", "nosuch:Lines", "--lines.path", "o"], "--sink 'nosuch:Lines': there is no module 'nosuch' on"),
        (["--lines.path", "o", "--decode.format", "bars:Bars"], "--bars.columns: has to be given"),
    ],
)
def test_what_is_wrong_with_the_options_is_one_line_and_2(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BATCHER_CONFIG", raising=False)
    Path("wrong.toml").write_text('[lines]\npath = "o"\nident = 1\n')
    assert main([*RUN, *argv]) == 2

    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"batcher: {line}")


@pytest.mark.parametrize(
    ("verb", "reason"),
    [
        ("verify", "verify: reads a log again, and --source files:files has none"),
        ("repair", "repair: reads a log again, and --source files:files has none"),
        ("bench", "works with --source kafka only, and --source is files:files"),
        ("produce", "nothing can be sent to files:files; --to kafka|"),
        ("dlq", "works with --source kafka only, and --source is files:files"),
    ],
)
def test_a_verb_that_a_source_cannot_serve_refuses_it(
    verb: str, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHER_SOURCE", "files:files")
    monkeypatch.setenv("BATCHER_FILES_PATH", "people.txt")
    argv = {
        "produce": [],
        "bench": [],
        "dlq": ["replay", "--to", "topic", "--dlq.path", "letters"],
    }.get(verb, ["--sink", "null"])
    Path("letters").mkdir()
    assert main([verb, *argv]) == 2

    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["verify"], ["repair"], ["dlq", "ls"]], ids=" ".join)
def test_letters_in_a_queue_of_other_people_cannot_be_looked_up(
    verb: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCHER_DLQ_QUEUE", "shelf:Shelf")
    monkeypatch.setenv("BATCHER_SHELF_PATH", "letters.txt")
    argv = [] if verb[0] == "dlq" else ["--sink", "null", *RUN[2:]]
    assert main([*verb, *argv]) == 2

    [line] = capsys.readouterr().err.splitlines()
    assert "shelf:Shelf" in line
    assert "topics and directories" in line
