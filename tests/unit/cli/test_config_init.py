"""`batcher config init`: what it writes is a settings file, whole and of the chosen parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batcher.cli.main import main
from batcher.cli.verbs.run import parser
from batcher.plugins import registry_of
from batcher.settings import UsageError, load, reference

SOURCES = sorted(registry_of("source").built_in)
SINKS = sorted(registry_of("sink").built_in)


def written(path: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["config", "init", *argv]) == 0
    text = capsys.readouterr().out
    path.write_text(text)
    return text


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_file_loads_back_for_every_source_and_sink_and_names_what_is_needed(
    source: str, sink: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "batcher.toml"
    text = written(file, capsys, "--source", source, "--sink", sink)

    loaded = load(parser(), ["-c", str(file)], {})
    assert (loaded.settings.source, loaded.settings.sink) == (source, sink)
    assert loaded.warnings == ()
    faults: tuple[str, ...] = ()
    try:
        load(parser(), ["-c", str(file)], {}, runnable=True)
    except UsageError as error:
        faults = error.lines
    assert text.count("# NEEDED: ") == len(faults)


@pytest.mark.parametrize("sink", SINKS)
def test_a_default_may_be_uncommented_and_changes_nothing(
    sink: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "batcher.toml"
    text = written(file, capsys, "--source", "kafka", "--sink", sink)
    before = load(parser(), ["-c", str(file)], {}).settings
    # An example that is no default is empty.
    file.write_text(re.sub(r'^#(\w+ = (?!(?:""|\[\]|\{\})$))', r"\1", text, flags=re.MULTILINE))
    assert load(parser(), ["-c", str(file)], {}).settings == before


def test_every_setting_of_the_chosen_parts_is_in_the_file_and_none_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = written(tmp_path / "f", capsys, "--source", "kafka", "--sink", "parquet")
    found = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert {"kafka", "parquet", "batch", "decode", "registry", "dlq", "http", "log"} <= set(found)
    assert not {"clickhouse", "handler", "sqs", "nsq", "queue", "csv", "raw"} & set(found)
    for row in reference():
        if row.section in found or not row.section:
            assert re.search(rf"^#?{row.name} = ", text, re.MULTILINE), row.key


def test_what_was_given_is_in_the_file_and_makes_it_runnable_and_a_secret_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "batcher.toml"
    flags = ["--sink", "clickhouse", "-b", "k:9092", "-t", "a,b", "-g", "g", "--batch.max-wait", "2s"]
    flags += ["--clickhouse.table", "t", "--clickhouse.password", "geheim-1", "-X", "sasl.password=geheim-2"]
    text = written(file, capsys, *flags, "--clickhouse.dsn", "http://h:8123/default")
    assert "geheim" not in text
    assert "# NEEDED:" not in text
    assert "BATCHER_CLICKHOUSE_PASSWORD_FILE" in text
    settings = load(parser(), ["-c", str(file)], {}, runnable=True).settings
    assert settings.batch.max_wait.total_seconds() == 2
    assert settings.model_dump()["kafka"]["topics"] == ("a", "b")


def test_without_a_sink_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init"]) == 2
    assert "--sink: into which target?" in capsys.readouterr().err
