import io
import json
import logging
import sys

import pytest

from batcher.telemetry import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Captured:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Captured:
    return Captured(capsys)


def fail(text: str) -> None:
    raise RuntimeError(text)


def test_one_event_is_one_json_object_on_one_line(stderr: Captured) -> None:
    logs.setup("json")

    logs.get("batcher.test").info("batch_written", rows=3, ranges=["a[0] 1-3"])

    found = json.loads(stderr.getvalue())
    assert stderr.getvalue().count("\n") == 1
    assert found["event"] == "batch_written"
    assert (found["rows"], found["ranges"]) == (3, ["a[0] 1-3"])
    assert (found["level"], found["logger"]) == ("info", "batcher.test")
    assert found["timestamp"].endswith("Z")


def test_the_standard_librarys_records_come_out_alike(stderr: Captured) -> None:
    logs.setup("json")

    logging.getLogger("driver").warning("lost %s", "connection", extra={"attempt": 2})

    found = json.loads(stderr.getvalue())
    assert (found["event"], found["level"], found["logger"]) == ("lost connection", "warning", "driver")
    assert found["attempt"] == 2


@pytest.mark.parametrize("shown", ["json", "console"])
def test_text_from_outside_cannot_forge_a_line(stderr: Captured, shown: logs.Format) -> None:
    logs.setup(shown)
    evil = 'x\n{"event": "forged"}\r\x1b[2K\u2028\u202eforged'

    logs.get("t").warning(evil, topic=evil, more=[evil], nested={"k": evil})
    logging.getLogger("driver").warning(evil)

    text = stderr.getvalue()
    assert text.count("\n") == 2
    assert not set(text) & {"\r", "\x1b", "\u2028", "\u202e"}


def test_a_traceback_is_part_of_its_line_in_json(stderr: Captured) -> None:
    logs.setup("json")

    try:
        fail("first\nsecond")
    except RuntimeError:
        logs.get("t").exception("failed")

    found = json.loads(stderr.getvalue())
    assert stderr.getvalue().count("\n") == 1
    assert "RuntimeError: first" in found["exception"]


def test_the_lines_of_a_traceback_are_indented_for_people(stderr: Captured) -> None:
    logs.setup("console")

    try:
        fail("first\n2026-01-01 [info] forged")
    except RuntimeError as error:
        logs.get("t").error("failed", exc_info=error)

    first, *rest = stderr.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(line.startswith("  ") for line in rest)


@pytest.mark.parametrize("shown", ["json", "console"])
def test_hidden_texts_are_replaced_wherever_they_turn_up(stderr: Captured, shown: logs.Format) -> None:
    logs.setup(shown)
    logs.hide(["hunter22"])

    logs.get("t").info("using hunter22", url="http://u:hunter22@h", deep={"a": ["hunter22"]})
    logging.getLogger("driver").error("with %s", "hunter22")
    try:
        fail("hunter22 refused")
    except RuntimeError:
        logs.get("t").exception("failed")

    assert "hunter22" not in stderr.getvalue()
    assert "***" in stderr.getvalue()


def test_very_short_secrets_do_not_mangle_the_logs() -> None:
    logs.hide(["a", ""])

    assert logs.scrub("a banana") == "a banana"


def test_auto_is_console_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert logs.setup("auto") == "json"

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert logs.setup("auto") == "console"


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch, no_color: str, colored: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    logs.setup("auto")

    logs.get("t").info("hello")

    assert ("\x1b[" in terminal.getvalue()) is colored


def test_events_below_the_level_are_left_out(stderr: Captured) -> None:
    logs.setup("json", "warning")

    logs.get("t").info("quiet")
    logging.getLogger("t").info("quiet")
    logs.get("t").warning("loud")

    assert json.loads(stderr.getvalue())["event"] == "loud"


def test_lines_go_to_what_stderr_is_by_then(stderr: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup("json")
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)

    logs.get("t").info("hello")

    assert stderr.getvalue() == ""
    assert "hello" in later.getvalue()


def test_setting_up_twice_does_not_write_twice(stderr: Captured) -> None:
    logs.setup("json")
    logs.setup("json")

    logs.get("t").info("once")

    assert stderr.getvalue().count("once") == 1
