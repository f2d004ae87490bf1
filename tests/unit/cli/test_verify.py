"""What the verbs refuse before they look at anything, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from batcher.cli import main as cli
from batcher.cli.support import inspection
from batcher.cli.verbs import verify
from batcher.errors import SinkMisconfigured, SinkUnavailable
from batcher.records import Partition
from batcher.settings import Settings
from batcher.sources.kafka.window import LogReader

FLAGS = ("-b", "127.0.0.1:1", "-t", "events", "-g", "loaders")


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "tune_collector", lambda: None)
    monkeypatch.setattr(inspection, "tune_memory", lambda: None)


@pytest.fixture
def parquet(tmp_path: Path) -> Sequence[str]:
    return ("--sink", "parquet", "--parquet.path", str(tmp_path / "root"), *FLAGS)


@pytest.mark.parametrize("verb", ["verify", "repair"])
def test_the_verbs_have_help_with_the_flags_of_run(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: batcher {verb}" in text
    for flag in ("--from", "--to", "--partition", "--json", "--dlq.path", "--clickhouse.table", "-b, --kafka.brokers"):
        assert flag in text
    assert ("--remove-duplicates" in text) == (verb == "repair")


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (("verify", "--partition", "one"), 2, "--partition: needs numbers, such as 0 or 0,3"),
        (("verify", "--from", "yesterday"), 2, "--from: is an offset, or a time"),
        (("repair", "--to=-1"), 2, "--to: is an offset, or a time"),
        (("verify", "--dlq.queue", "shelf"), 2, "--dlq.queue shelf: only dead letters in topics and directories"),
        (("repair", "--form", "1"), 2, "--form: no such flag, did you mean --from?"),
    ],
)
def test_flags_that_mean_nothing_are_refused(
    argv: Sequence[str], code: int, text: str, parquet: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*argv, *parquet]) == code
    assert text in capsys.readouterr().err


def test_what_run_cannot_do_without_these_cannot_either(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "-b", "k:1"]) == 2
    err = capsys.readouterr().err
    assert "-t TOPIC" in err
    assert "-g NAME" in err


def test_a_sink_that_cannot_be_asked_is_78(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--sink", "null", *FLAGS]) == 78
    assert "cannot be asked which records it holds" in capsys.readouterr().err


def test_a_broker_that_does_not_answer_is_69(
    parquet: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.sources.kafka.window.OPEN_TIMEOUT_S", 0.5)
    assert cli.main(["verify", *parquet]) == 69
    assert "broker 127.0.0.1:1 does not answer" in capsys.readouterr().err


def test_a_partition_that_is_not_there_is_said(
    parquet: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogReader, "open", lambda _: [Partition("events", 0), Partition("events", 1)])
    assert cli.main(["verify", *parquet, "--partition", "0,7"]) == 78
    assert "--partition 7: there is no such partition; 2 partitions were found" in capsys.readouterr().err


def test_duplicates_in_files_cannot_be_removed(
    parquet: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogReader, "open", lambda _: [Partition("events", 0)])
    monkeypatch.setattr(LogReader, "committed", lambda *_: {Partition("events", 0): (5, "")})
    monkeypatch.setattr("batcher.audit.scope._scope", lambda *_: None)
    assert cli.main(["repair", *parquet, "--remove-duplicates"]) == 78
    assert "cannot delete single rows" in capsys.readouterr().err


def test_a_target_that_does_not_answer_is_asked_again_and_one_that_refuses_is_not(
    parquet: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogReader, "open", lambda _: [Partition("events", 0)])
    monkeypatch.setattr(LogReader, "committed", lambda *_: {Partition("events", 0): (5, "")})
    monkeypatch.setattr("batcher.audit.scope._scope", lambda *_: None)
    waits = ("--retry.wait", "1ms", "--retry.max-wait", "1ms")
    found = inspection.loaded(inspection.parser("verify", "", "", ""), [*parquet, *waits])
    failures: list[Exception] = [SinkUnavailable("away"), SinkUnavailable("away")]
    asked = []

    def ask(what: str) -> str:
        asked.append(what)
        if failures:
            raise failures.pop()
        return "answer"

    with inspection.inspecting(found.settings, found.arguments) as opened:
        assert opened.attempt(ask, "first") == "answer"
        failures.append(SinkMisconfigured("no"))
        with pytest.raises(SinkMisconfigured):
            opened.attempt(ask, "second")
    assert asked == ["first", "first", "first", "second"]


def test_dead_letters_in_a_directory_that_is_not_there_are_not_taken_for_none(tmp_path: Path) -> None:
    settings = Settings.model_validate({"dlq": {"path": str(tmp_path / "absent")}})
    assert "there is no such directory: dead letters count as missing" in verify._hints(settings)[0]
    assert "no --dlq.topic or --dlq.path was given" in verify._hints(Settings())[0]
    assert verify._hints(Settings.model_validate({"dlq": {"path": str(tmp_path)}})) == []
