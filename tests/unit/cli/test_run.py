import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict

import pytest
from structlog.testing import capture_logs

from batcher.cli.support import wiring
from batcher.cli.support.loudness import log_level
from batcher.cli.verbs import run as command
from batcher.engine.report import Summary, TargetSummary
from batcher.errors import ConfigurationError, DrainTimeout, SinkUnavailable
from batcher.settings import Settings


class ScriptedPipeline:
    def __init__(self, script: Callable[["ScriptedPipeline"], None] = lambda _: None) -> None:
        self.script = script
        self.stops = 0
        self.aborts = 0

    def run(self) -> Summary:
        self.script(self)
        return self.summary()

    def stop(self) -> None:
        self.stops += 1

    def abort(self) -> None:
        self.aborts += 1

    def summary(self) -> Summary:
        return Summary(10, 7, 2, 1, 0, 3, 1000, 2.0, "at-least-once")


@pytest.fixture(autouse=True)
def _untouched_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "tune_collector", lambda: None)


@pytest.fixture
def ending(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[ScriptedPipeline | Exception], tuple[int, dict[str, object], str]]:
    def end(pipeline: ScriptedPipeline | Exception) -> tuple[int, dict[str, object], str]:
        def made(_settings: Settings, *_: object) -> ScriptedPipeline:
            if isinstance(pipeline, Exception):
                raise pipeline
            return pipeline

        monkeypatch.setattr(wiring, "pipeline_of", made)
        code = command.run(Settings(), as_json=True)
        captured = capsys.readouterr()
        out = [line for line in captured.out.splitlines() if line.startswith("{")]
        return code, json.loads(out[-1]), captured.err

    return end


Ending = Callable[[ScriptedPipeline | Exception], tuple[int, dict[str, object], str]]


def failing(error: Exception) -> ScriptedPipeline:
    def script(_: ScriptedPipeline) -> None:
        raise error

    return ScriptedPipeline(script)


def test_a_clean_end_is_0_and_its_summary_has_the_promised_fields(ending: Ending) -> None:
    code, summary, _ = ending(ScriptedPipeline())

    assert code == 0
    assert summary == {
        "consumed": 10,
        "written": 7,
        "dead_lettered": 2,
        "skipped": 1,
        "duplicates_suppressed": 0,
        "batches": 3,
        "bytes": 1000,
        "seconds": 2.0,
        "rows_per_second": 4,
        "delivery": "at-least-once",
        "dead_letter_reasons": {},
        "unknown_fields": {},
        "unknown_fields_estimated": False,
        "columns_without_value": [],
        "filtered": 0,
        "paused": 0,
        "released": 0,
        "exit": 0,
    }


def test_a_run_in_which_everything_was_filtered_is_told_and_is_no_failure(
    ending: Ending, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = Summary(10, 0, 0, 10, 0, 3, 1000, 2.0, "at-least-once", filtered=10)
    monkeypatch.setattr(ScriptedPipeline, "summary", lambda _: summary)
    with capture_logs() as logs:
        code, _, _ = ending(ScriptedPipeline())
    assert code == 0
    assert [one["records"] for one in logs if one["event"] == "all_filtered"] == [10]


def test_an_error_is_one_line_and_the_summary_still_comes(ending: Ending) -> None:
    code, summary, err = ending(failing(SinkUnavailable("the target is gone")))

    assert code == 75
    assert (summary["written"], summary["exit"]) == (7, 75)
    assert err == "batcher: the target is gone\n"


def test_settings_that_a_part_refuses_end_with_a_summary_too(ending: Ending) -> None:
    code, summary, err = ending(ConfigurationError("--sink 'x' is not known"))

    assert code == 78
    assert summary == {"exit": 78}
    assert err == "batcher: --sink 'x' is not known\n"


def test_a_bug_is_1_with_its_traceback(ending: Ending) -> None:
    code, summary, err = ending(failing(ZeroDivisionError("oh")))

    assert (code, summary["exit"]) == (1, 1)
    assert "ZeroDivisionError: oh" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_for_a_drain_and_a_clean_drain_is_0(ending: Ending, number: signal.Signals) -> None:
    pipeline = ScriptedPipeline(lambda _: os.kill(os.getpid(), number))

    code, _, _ = ending(pipeline)

    assert (code, pipeline.stops, pipeline.aborts) == (0, 1, 0)


def test_the_second_signal_aborts_and_is_130(ending: Ending) -> None:
    def script(_: ScriptedPipeline) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        raise DrainTimeout("stopped before everything was durable")

    pipeline = ScriptedPipeline(script)

    code, summary, err = ending(pipeline)

    assert (code, summary["exit"]) == (130, 130)
    assert (pipeline.stops, pipeline.aborts) == (1, 1)
    assert err == "batcher: stopped before everything was durable\n"


def test_a_drain_that_ran_out_of_time_after_one_signal_is_75(ending: Ending) -> None:
    def script(_: ScriptedPipeline) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise DrainTimeout("too slow")

    assert ending(ScriptedPipeline(script))[0] == 75


def test_the_old_signal_handlers_come_back(ending: Ending) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    ending(ScriptedPipeline(lambda _: os.kill(os.getpid(), signal.SIGTERM)))

    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(
    ("argv", "left", "question"),
    [
        (["-X", "list"], [], "list"),
        (["-b", "k", "-Xdump", "-X", "a=b"], ["-b", "k", "-X", "a=b"], "dump"),
        (["-t", "list"], ["-t", "list"], None),
        (["-X"], ["-X"], None),
    ],
)
def test_questions_about_properties_are_told_from_properties(
    argv: list[str], left: list[str], question: str | None
) -> None:
    assert command.without_property_question(argv) == (left, question)


@pytest.mark.parametrize(
    ("argv", "level"),
    [([], "info"), (["-q"], "warning"), (["-v"], "debug"), (["-q", "--log.level", "error"], "error")],
)
def test_quiet_and_verbose_move_the_level(argv: list[str], level: str) -> None:
    from batcher.settings import load

    loaded = load(command.parser(), argv, {})

    assert log_level(loaded.settings, loaded.arguments) == level


def refused(**more: object) -> Callable[[ScriptedPipeline], None]:
    def script(pipeline: ScriptedPipeline) -> None:
        facts = {"consumed": 5, "written": 0, "dead_lettered": 5, "skipped": 0, "duplicates_suppressed": 0}
        summary = Summary(
            **{**facts, **more},  # type: ignore[arg-type]
            batches=1,
            bytes=1,
            seconds=1.0,
            delivery="exactly-once",
            dead_letter_reasons={"overflow": 4, "syntax": 1},
        )
        pipeline.summary = lambda: summary  # type: ignore[method-assign]

    return script


def test_a_run_in_which_every_record_was_refused_never_ends_with_0_and_says_why(ending: Ending) -> None:
    code, summary, err = ending(ScriptedPipeline(refused()))

    assert (code, summary["exit"]) == (78, 78)
    assert "not one record was loaded: 5 of 5 were refused, most of them for overflow (4)" in err
    assert summary["dead_letter_reasons"] == {"overflow": 4, "syntax": 1}


@pytest.mark.parametrize("good", [{"written": 1}, {"duplicates_suppressed": 1}, {"dead_lettered": 0}])
def test_a_run_that_loaded_something_or_refused_nothing_ends_with_0(ending: Ending, good: dict[str, int]) -> None:
    assert ending(ScriptedPipeline(refused(**good)))[0] == 0


def test_a_target_of_several_that_refused_everything_is_named_and_the_end_is_not_0(ending: Ending) -> None:
    good, bad = TargetSummary(written=3), TargetSummary(dead_lettered=5)
    code, summary, err = ending(ScriptedPipeline(refused(written=3, targets={"shop.a": good, "shop.b": bad})))
    assert (code, summary["exit"]) == (78, 78)
    assert "not one record was loaded into shop.b" in err
    assert summary["targets"] == {"shop.a": asdict(good), "shop.b": asdict(bad)}
