import json
import sys
import tomllib
from pathlib import Path

import pytest

from batcher.cli import main as cli
from batcher.cli.support import outcome
from batcher.cli.verbs import VERBS
from batcher.errors import ConfigurationError, SinkUnavailable
from batcher.settings import UsageError
from tests.harness.processes import run, run_code, run_shell


def test_help_loads_none_of_the_heavy_libraries() -> None:
    program = """
import sys
from batcher.cli.main import main
code = main(["--help"])
heavy = {"pyarrow", "clickhouse_connect", "confluent_kafka", "chdb", "numpy", "rich", "structlog"} & set(sys.modules)
sys.exit(f"{code} {sorted(heavy)}" if code or heavy else 0)
"""
    done = run_code(program)

    assert done.code == 0, done.stderr
    assert done.stdout.startswith("usage: batcher [run]")


def test_help_shows_every_flag_with_default_and_variable_and_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    from batcher.settings import reference

    assert cli.main(["--help"]) == 0

    text = " ".join(capsys.readouterr().out.split())
    for row in reference():
        assert row.flag in text
        assert f"${row.env}]" in text
    assert "[24MiB; $BATCHER_BATCH_MAX_BYTES]" in text
    for verb, what in VERBS.items():
        assert f"{verb} {what}" in text


@pytest.mark.parametrize("argv", [["run", "--help"], ["help"], ["help", "run"], ["-h"]])
def test_there_is_more_than_one_way_to_ask_for_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    assert "usage: batcher" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["produce", "config", "plugins"])
def test_every_verb_has_help_of_its_own(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert f"usage: batcher {verb}" in capsys.readouterr().out


def test_the_version_names_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    from confluent_kafka import libversion

    assert cli.main(["--version"]) == 0

    out = capsys.readouterr().out
    for part in ("batcher 0.", f"librdkafka {libversion()[0]}", "clickhouse-connect 1.", "pyarrow "):
        assert part in out


def test_a_mistyped_verb_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prodcue"]) == 2
    assert capsys.readouterr().err == "batcher: prodcue: no such verb, did you mean produce?; see batcher --help\n"


def test_a_mistyped_flag_is_one_line_without_a_traceback() -> None:
    done = run("--snik", "parquet")

    assert done.code == 2
    assert done.stderr == "batcher: --snik: no such flag, did you mean --sink?; see batcher --help\n"
    assert done.stdout == ""


def test_run_is_the_default_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--sink", "null"]) == cli.main(["run", "--sink", "null"]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]
    assert lines[0] == "batcher: --kafka.brokers: which brokers? -b HOST:PORT"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError(["--a: x", "--b: y"]), 2, "batcher: --a: x\nbatcher: --b: y\n"),
        (ConfigurationError("table t is missing"), 78, "batcher: table t is missing\n"),
        (SinkUnavailable("reset\nbatcher: forged"), 75, "batcher: reset\\nbatcher: forged\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_becomes_its_line_and_its_exit_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome.explained(error) == code
    assert capsys.readouterr().err == text


def test_a_bug_shows_its_traceback_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from batcher.telemetry import logs

    monkeypatch.setattr(logs, "_secrets", {"hunter22"})
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("of hunter22")

    assert outcome.explained(caught.value) == 1

    err = capsys.readouterr().err
    assert "ZeroDivisionError: of ***" in err
    assert "Traceback" in err


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m batcher config show | head -n 1; exit ${{PIPESTATUS[0]}}"

    done = run_shell(command)

    assert (done.code, done.stderr) == (0, "")


def test_config_show_is_a_configuration_file_that_says_the_same(tmp_path: Path) -> None:
    given = [
        "-b",
        "k:1",
        "-t",
        "a,b",
        "-X",
        "client.id=x",
        "--batch.max-wait",
        "250ms",
        "--until-eof",
        "--sink",
        "null",
    ]
    shown = run("config", "show", *given).stdout
    file = tmp_path / "shown.toml"
    file.write_text(shown)

    again = run("config", "show", "-c", str(file)).stdout

    assert tomllib.loads(again) == tomllib.loads(shown)
    assert tomllib.loads(shown)["kafka"]["options"] == {"client.id": "x"}


def test_config_show_says_where_values_come_from_and_masks_secrets() -> None:
    environ = {"BATCHER_CLICKHOUSE_PASSWORD": "hunter22", "BATCHER_SNIK": "x"}

    done = run("config", "show", "-g", "loader", "--clickhouse.dsn", "http://u:hunter22@h/d", environment=environ)
    as_json = run("config", "show", "--json", environment=environ)

    assert 'kafka.group = "loader"  # --kafka.group' in done.stdout
    assert 'clickhouse.password = "***"  # BATCHER_CLICKHOUSE_PASSWORD' in done.stdout
    assert 'kafka.start = "earliest"  # default' in done.stdout
    assert "BATCHER_SNIK: no such setting" in done.stderr
    assert json.loads(as_json.stdout)["clickhouse"]["password"] == "***"
    assert not any("hunter22" in text for text in (done.stdout, done.stderr, as_json.stdout))


def test_plugins_lists_the_sinks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plugins", "--json"]) == 0

    assert {"clickhouse", "parquet", "null"} <= {one["name"] for one in json.loads(capsys.readouterr().out)}


def test_x_list_says_what_is_set_and_what_is_refused_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-X", "list"]) == 0

    out = capsys.readouterr().out
    for text in ("check.crcs", "enable.auto.commit", "plugin.library.paths", "CONFIGURATION.md"):
        assert text in out


def test_x_dump_shows_what_librdkafka_gets_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["-b", "k:1", "-t", "t", "-g", "g", "-X", "sasl.password=hunter22", "-X", "dump", "-X", "client.id=me"]

    assert cli.main(argv) == 0

    out = capsys.readouterr().out
    assert "client.id = me\n" in out
    assert "group.id = g\n" in out
    assert "sasl.password = ***\n" in out


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending() -> None:
    program = """
import threading
import batcher.cli.main
from batcher.__main__ import main

def hanging() -> int:
    threading.Thread(target=threading.Event().wait).start()
    print("data")
    return 75

batcher.cli.main.main = hanging
main()
"""
    done = run_code(program)

    assert (done.code, done.stdout) == (75, "data\n")
