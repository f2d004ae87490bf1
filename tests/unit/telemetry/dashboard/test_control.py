"""Who may pause a pipeline from the page, and what it does with what was paused otherwise."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from batcher.core.buffer import FlushPolicy
from batcher.engine.off_switch import OffSwitch
from batcher.engine.pipeline import Pipeline
from batcher.errors import ConfigurationError
from batcher.records import Partition
from batcher.telemetry.dashboard import control as controls
from batcher.telemetry.dashboard.control import Control, read_token
from batcher.telemetry.dashboard.feed import Feed
from batcher.telemetry.dashboard.pages import DashboardPages
from batcher.testing.formats import NUMBERS, NumberFormat
from batcher.testing.sinks import ScriptedSink
from batcher.testing.sources import MemoryLog, MemorySource
from tests.harness.patience import wait_for
from tests.unit.engine.test_off_switch import Switch, running

TOKEN = "0123456789abcdef-token"
A = Partition("events", 0)


class Told:
    """Remember what the page has told."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def pause(self, by: str) -> None:
        self.words.append(f"pause by {by}")

    def resume(self) -> None:
        self.words.append("resume")

    def flush(self) -> None:
        self.words.append("flush")

    def stop(self) -> None:
        self.words.append("stop")


@pytest.fixture
def told() -> Told:
    return Told()


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(told: Told) -> Ask:
    now = [0.0]
    pages = DashboardPages(Feed({}), Control(told, TOKEN, lambda: "", clock=lambda: now[0]))

    def asked(path: str, token: str | None = TOKEN, *, method: str = "POST", later_s: float = 0.0, **more: str) -> Any:
        now[0] += later_s
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "REMOTE_ADDR": "10.0.0.7",
            "HTTP_HOST": "127.0.0.1:9100",
            "wsgi.input": io.BytesIO(b"x" * 10_000),
            **more,
        }
        if token is not None:
            environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        said: list[str] = []
        body = pages.answer(environ, lambda status, _headers: said.append(status))  # type: ignore[arg-type]
        assert body is not None
        return int(said[0].split()[0]), b"".join(body).decode()

    return asked


def test_each_word_is_passed_on_and_logged_with_who_said_it(ask: Ask, told: Told) -> None:
    with capture_logs() as logs:
        for action in ("pause", "resume", "flush", "drain"):
            assert ask(f"/control/{action}")[0] == 200
    assert told.words == ["pause by the page, from 10.0.0.7", "resume", "flush", "stop"]
    assert [(one["event"], one["action"], one["by"]) for one in logs] == [
        ("control_used", action, "10.0.0.7") for action in ("pause", "resume", "flush", "drain")
    ]


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ÿ" * 20])
def test_without_the_token_nothing_is_obeyed(ask: Ask, told: Told, token: str | None) -> None:
    with capture_logs() as logs:
        assert ask("/control/drain", token)[0] == 401
    assert told.words == []
    assert [(one["event"], one["by"]) for one in logs] == [("control_refused", "10.0.0.7")]
    assert TOKEN not in str(logs)
    assert not token or token not in str(logs)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"HTTP_ORIGIN": "http://evil.example"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_ORIGIN": "http://127.0.0.1:9100", "HTTP_SEC_FETCH_SITE": "same-origin"}, 200),
        ({"CONTENT_LENGTH": "9999"}, 413),
        ({"CONTENT_LENGTH": "many"}, 413),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 413),
        ({"CONTENT_LENGTH": "20"}, 200),
    ],
)
def test_another_site_is_refused_even_with_the_token(ask: Ask, told: Told, more: dict[str, str], code: int) -> None:
    assert ask("/control/flush", **more)[0] == code
    assert bool(told.words) == (code == 200)


def test_only_post_acts_and_an_unknown_word_is_told_the_known_ones(ask: Ask, told: Told) -> None:
    assert ask("/control/drain", method="GET")[0] == 405
    code, text = ask("/control/explode")
    assert (code, "/control/pause" in text) == (404, True)
    assert told.words == []


def test_who_tries_tokens_is_slowed_down_and_the_right_one_works_again_after_a_minute(ask: Ask, told: Told) -> None:
    codes = [ask("/control/pause", f"wrong-{n}")[0] for n in range(controls.WRONG_TOKENS + 2)]
    assert codes == [401] * controls.WRONG_TOKENS + [429] * 2
    assert ask("/control/pause")[0] == 429
    assert ask("/control/pause", later_s=61.0)[0] == 200
    assert len(told.words) == 1


def test_control_that_is_off_refuses_everything() -> None:
    said: list[str] = []
    environ: dict[str, Any] = {"REQUEST_METHOD": "POST", "PATH_INFO": "/control/drain"}
    DashboardPages(Feed({})).answer(environ, lambda status, _: said.append(status))  # type: ignore[arg-type]
    assert said == ["403 Forbidden"]


def file_with(directory: Path, content: bytes, mode: int = 0o600) -> str:
    file = directory / "token"
    file.write_bytes(content)
    file.chmod(mode)
    return str(file)


def test_a_token_is_one_line_of_a_file_of_ones_own(tmp_path: Path) -> None:
    assert read_token(file_with(tmp_path, f"{TOKEN}\n".encode())) == TOKEN
    assert read_token(file_with(tmp_path, TOKEN.encode(), 0o640)) == TOKEN  # the group of a service may read it


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (TOKEN.encode(), 0o644, "others may read or change it \\(mode 644\\); chmod 600"),
        (TOKEN.encode(), 0o620, "others may read or change it"),
        (b"", 0o600, "at least 16"),
        (b"short\n", 0o600, "at least 16"),
        (b"two words of some length", 0o600, "without blanks"),
        ("ü".encode() * 20, 0o600, "ASCII"),
    ],
)
def test_a_token_that_others_can_read_or_guess_is_refused(tmp_path: Path, content: bytes, mode: int, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as refused:
        read_token(file_with(tmp_path, content, mode))
    assert refused.value.exit_code == 78
    assert TOKEN not in str(refused.value)


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_token(str(tmp_path / "none"))


def made(log: MemoryLog, sink: ScriptedSink, switch: OffSwitch | None = None, max_wait_s: float = 0.01) -> Pipeline:
    flush = FlushPolicy(max_rows=1000, max_wait_s=max_wait_s)
    return Pipeline(MemorySource(log), sink, NumberFormat(), name="group", flush=flush, switch=switch)


def test_a_pause_holds_without_a_switch_and_a_resume_goes_on() -> None:
    log, sink = MemoryLog([A]), ScriptedSink(NUMBERS)
    pipeline = made(log, sink)
    pipeline.pause("the page, from 127.0.0.1")
    log.produce(A, ["1"] * 5)
    with running(pipeline):
        wait_for(lambda: pipeline.status().partitions and pipeline.status().partitions[A].paused, "the pause")
        assert pipeline.ready == (False, "held: paused by the page, from 127.0.0.1")
        assert sink.rows() == []
        pipeline.resume()
        wait_for(lambda: len(sink.rows()) == 5, "all rows")
        assert pipeline.ready == (True, "")


def test_a_resume_does_not_overrule_the_switch_and_the_switch_does_not_end_a_pause() -> None:
    log, sink, switch = MemoryLog([A]), ScriptedSink(NUMBERS), Switch(off=True)
    one = OffSwitch(switch.ask, "hold", "the file /x", look_every_s=0.002)
    pipeline = made(log, sink, one)
    log.produce(A, ["1"] * 5)
    with running(pipeline):
        wait_for(lambda: one.off, "the switch")
        pipeline.pause("the page")
        assert one.doing == "held: paused by the page and switched off by the file /x"
        pipeline.resume()
        assert one.doing == "held: switched off by the file /x"
        pipeline.pause("the page")
        switch.says = False
        wait_for(lambda: one.doing == "held: paused by the page", "the switch to be on")
        assert sink.rows() == []
        pipeline.resume()
        wait_for(lambda: len(sink.rows()) == 5, "all rows")


def test_a_pause_holds_even_where_the_switch_would_drop() -> None:
    log, sink, switch = MemoryLog([A]), ScriptedSink(NUMBERS), Switch(off=True)
    one = OffSwitch(switch.ask, "drop", "a test", look_every_s=0.002)
    pipeline = made(log, sink, one)
    pipeline.pause("the page")
    log.produce(A, ["1"] * 5)
    with running(pipeline):
        wait_for(lambda: one.off and pipeline.status().partitions, "the switch")
        assert (one.holding, one.dropping) == (True, False)
        switch.says = False
        wait_for(lambda: one.doing == "held: paused by the page", "the switch to be on")
        pipeline.resume()
        wait_for(lambda: len(sink.rows()) == 5, "nothing was dropped")


def test_a_flush_writes_what_waits_long_before_it_is_due_once() -> None:
    log, sink = MemoryLog([A]), ScriptedSink(NUMBERS)
    pipeline = made(log, sink, max_wait_s=3600.0)
    with running(pipeline):
        log.produce(A, ["1"] * 5)
        wait_for(lambda: pipeline.status().buffer.rows == 5, "the records to be read")
        pipeline.flush()
        wait_for(lambda: len(sink.rows()) == 5, "the flush")
        wait_for(lambda: not pipeline.status().buffer.rows, "the batch to be over")
        pipeline.flush()  # there is nothing to flush, and the next record waits its time
        log.produce(A, ["2"])
        wait_for(lambda: pipeline.status().buffer.rows == 1, "the record to be read")
        assert pipeline.summary().batches == 1
