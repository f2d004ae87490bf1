"""The page in a real browser, and in front of real processes.

Pictures of it are kept in the directory of BATCHER_TEST_PICTURES, where that is given.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batcher.cli.main import main
from batcher.cli.verbs.run import parser
from batcher.settings import UsageError, load
from tests.harness.page_scene import PageScene, free_port
from tests.harness.patience import wait_for
from tests.harness.processes import BatcherProcess

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")

CHROMIUM = next((Path(name) for name in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(name).exists()), None)

TOKEN = "a-token-of-the-test-0123456789"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield running
        running.close()


class Watched:
    """A page in the browser, with what it complained of and whom it asked."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page.on(
            "console", lambda one: self.complaints.append(one.text) if one.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda one: self.asked.add(one.url))
        self.page.goto(url)
        self.page.wait_for_selector("body[data-ready=yes]", timeout=30_000)

    def text(self, selector: str) -> str:
        found: str = self.page.text_content(selector)
        return " ".join(found.split())

    def waits(self, script: str, what: str, timeout_s: float = 60.0) -> None:
        """Wait for something in the page; its own way to wait is what the page's policy forbids."""
        try:
            wait_for(lambda: self.page.evaluate(script), what, timeout_s)
        except TimeoutError as late:
            raise AssertionError(f"{late}: {self.text('main')[:600]}") from None

    def keep(self, name: str, tmp_path: Path) -> None:
        directory = Path(os.environ.get("BATCHER_TEST_PICTURES") or tmp_path)
        directory.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(directory / f"{name}.png"))


@pytest.fixture
def scene() -> Iterator[PageScene]:
    with PageScene(http={"payloads": True}).running() as running:
        yield running


def says(selector: str, words: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent.includes({json.dumps(words)})"


def test_the_numbers_of_the_page_are_those_of_the_run(scene: PageScene, browser: Any, tmp_path: Path) -> None:
    scene.produce(5000)
    wait_for(lambda: scene.pipeline.summary().written + len(scene.letters.coordinates()) == 5000, "the orders")
    seen = Watched(browser, scene.url)
    summary = scene.pipeline.summary()
    assert summary.dead_lettered > 0
    seen.waits(says("#tile-written-more", f"{summary.written:,} since the start"), "rows")
    seen.waits(says("#letters-note", f"{summary.dead_lettered:,}"), "dead letters")
    assert seen.text("#reasons-rows") == f"type{summary.dead_lettered}"
    assert seen.text("#unknown-rows") == f"campaign{summary.unknown_fields['campaign']}"
    assert seen.text("#missing-rows") == "coupon"
    assert "exactly-once" in seen.text("#facts")
    seen.waits(says("#tile-lag", "0 records"), "the lag")
    batches = seen.page.locator("#batches-rows tr").count()
    assert batches == min(summary.batches, 12)
    # A look at one of them, with its value.
    seen.page.click("#letters-rows summary")
    assert "anonymous" in seen.text("#letters-rows details pre")
    seen.keep("numbers", tmp_path)
    # Nothing was asked of anybody else, and the browser has nothing to complain of.
    assert all(url.startswith(scene.url) for url in seen.asked)
    assert seen.complaints == []
    seen.page.close()


def test_a_target_that_stalls_is_named_with_its_reason_within_three_seconds(
    scene: PageScene, browser: Any, tmp_path: Path
) -> None:
    scene.produce(1000)
    seen = Watched(browser, scene.url)
    scene.sink.refusal = "http://clickhouse:8123: no answer (connection refused)"
    scene.produce(1000, first=1000)
    wait_for(lambda: scene.pipeline.status().last_error, "the first refusal")
    seen.waits(says("#glance", "no answer (connection refused)"), "the reason", timeout_s=3.0)
    assert seen.text("#glance-title") == "Not writing"
    assert seen.page.get_attribute("#glance", "data-level") == "alarm"
    assert "Not writing" in seen.text("#alarms")
    seen.waits(says("#partitions-rows", "waits"), "the partitions")
    assert "no answer" in seen.text("#troubles-rows")
    seen.keep("stalled", tmp_path)
    scene.sink.refusal = ""
    seen.waits("document.querySelector('#glance').dataset.level !== 'alarm'", "the recovery")
    assert seen.complaints == []
    seen.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_in_both_themes(scene: PageScene, browser: Any, tmp_path: Path, scheme: str) -> None:
    scene.produce(1000)
    seen = Watched(browser, scene.url, viewport={"width": 400, "height": 860}, color_scheme=scheme)
    seen.waits(says("#partitions-rows", "orders[2]"), "the partitions")
    seen.page.check("#settings-all")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    ground = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128
    assert bright == (scheme == "light")
    seen.keep(f"telephone-{scheme}", tmp_path)
    assert seen.complaints == []
    seen.page.close()


def test_it_is_used_by_keyboard_and_read_out(scene: PageScene, browser: Any) -> None:
    scene.produce(3000)
    seen = Watched(browser, scene.url)
    seen.waits("document.querySelector('#letters-rows summary') !== null", "a dead letter")
    reached = []
    for _ in range(30):
        seen.page.keyboard.press("Tab")
        reached.append(
            seen.page.evaluate(
                "(() => { const e = document.activeElement; const s = getComputedStyle(e.matches('.range input') ? "
                "e.nextElementSibling : e); return [e.className || e.id || e.name || e.tagName, s.outlineStyle]; })()"
            )
        )
    names = [name for name, _ in reached]
    assert names[0] == "skip"
    assert "range" in names
    assert "SUMMARY" in names
    assert "settings-all" in names
    assert {style for name, style in reached if name != "BODY"} <= {"solid", "auto"}
    # Landmarks, one main heading, and a caption and column heads for each table.
    for selector in ("header", "main", "h1"):
        assert seen.page.locator(selector).count() == 1
    tables, captions = seen.page.locator("table").count(), seen.page.locator("table > caption").count()
    assert tables == captions
    assert seen.page.locator("thead th:not([scope=col])").count() == 0
    assert seen.page.locator("svg:not([aria-label]):not([aria-hidden])").count() == 0
    seen.page.close()


def test_text_of_strangers_is_only_ever_text(browser: Any) -> None:
    topic = "<img src=x onerror=alert(1)>"
    with PageScene(topic=topic, target="<b>bold</b>").running() as scene:
        scene.produce(100)
        seen = Watched(browser, scene.url)
        seen.waits(says("#partitions-rows", topic), "the partitions")
        assert seen.page.locator("img:not(.brand img), #route b").count() == 0
        assert seen.complaints == []
        seen.page.close()


def test_a_page_that_loses_the_process_says_so(browser: Any) -> None:
    with PageScene().running() as scene:
        seen = Watched(browser, scene.url)
        assert seen.text("#link") == "live"
    seen.waits("document.querySelector('#link').dataset.state === 'lost'", "the loss")
    assert "no connection" in seen.text("#link")
    seen.page.close()


def post(url: str, token: str) -> tuple[int, str]:
    request = urllib.request.Request(url, data=b"", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def got(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            body: str = answer.read().decode()
            return body
    except OSError:
        return ""


def _is_paused(status: str) -> bool:
    return bool(json.loads(got(status))["off_switch"])


def queue_with(tmp_path: Path, messages: int) -> Sequence[str]:
    """Make a queue with messages and return the flags of a run that loads it."""
    file = str(tmp_path / "q.db")
    assert main(["queue", "create", "--queue.path", file, "--lanes", "4"]) == 0
    bodies = [json.dumps({"id": number}) for number in range(messages)]
    assert main(["queue", "publish", "--queue.path", file, *bodies]) == 0
    out = str(tmp_path / "out")
    return ("--source", "queue", "--queue.path", file, "--queue.group", "g", "--sink", "parquet", "--parquet.path", out)


def token_file(tmp_path: Path, mode: int = 0o600) -> str:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(mode)
    return str(file)


def test_a_person_pauses_flushes_resumes_and_drains_a_real_process(browser: Any, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    addr = url.removeprefix("http://").removesuffix("/")
    flags = (*queue_with(tmp_path, 20), "--batch.max-wait", "1h", "--http.addr", addr)
    control = ("--http.control", "--http.token-file", token_file(tmp_path))
    with BatcherProcess(*flags, *control) as running:
        wait_for(lambda: got(f"{url}status"), "the server")
        seen = Watched(browser, url)
        seen.waits(says("#tile-buffer-more", "20 records"), "the messages to be read")
        seen.page.click("[data-action=pause]")
        assert seen.text("#control-answer") == "Give the token first."
        seen.page.fill("#token", "wrong-wrong-wrong-wrong")
        seen.page.click("[data-action=pause]")
        seen.waits(says("#control-answer", "needs the token"), "the refusal")
        seen.page.fill("#token", TOKEN)
        seen.page.click("[data-action=pause]")
        seen.waits(says("#glance", "paused by the page, from 127.0.0.1"), "the pause")
        seen.page.click("[data-action=resume]")
        seen.waits("document.querySelector('#glance-title').textContent !== 'Paused'", "the end of the pause")
        seen.page.click("[data-action=flush]")
        seen.waits(says("#tile-written-more", "20 since the start"), "the flush")
        seen.waits(says("#batches-rows", "somebody who asked"), "the batch")
        seen.page.click("[data-action=drain]")
        seen.page.click("#sure-yes")
        assert running.wait(60) == 0
        seen.page.close()
    # Only the refusals are in the console, as the browser shows them.
    assert all("401" in one or "ERR_" in one for one in seen.complaints)
    assert [one["action"] for one in running.named("control_used")] == ["pause", "resume", "flush", "drain"]
    assert TOKEN not in json.dumps(running.events)


def test_several_workers_have_one_page_and_the_ports_they_always_had(browser: Any, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    flags = (*queue_with(tmp_path, 400), "--batch.max-wait", "100ms", "--http.addr", f"127.0.0.1:{port}")
    control = ("--http.control", "--http.token-file", token_file(tmp_path))
    with BatcherProcess(*flags, *control, "--workers", "2") as running:
        wait_for(lambda: "batcher_build_info" in got(f"{url}metrics"), "worker 0 behind the port of all")
        wait_for(lambda: "batcher_build_info" in got(f"http://127.0.0.1:{port + 1}/metrics"), "worker 1 on the next")
        seen = Watched(browser, url)
        seen.waits(says("#tile-written-more", "400 since the start"), "the sum of both")
        seen.waits("document.querySelectorAll('#workers-rows tr').length === 2", "both workers")
        seen.waits(says("#partitions-rows", "worker 1"), "the partitions of both")
        assert post(f"{url}control/pause", "no-token-no-token")[0] == 401
        assert post(f"{url}control/pause", TOKEN)[0] == 200
        seen.waits(says("#glance", "Paused"), "the pause of all")
        for which in (port, port + 1):
            status = f"http://127.0.0.1:{which}/status"
            wait_for(partial(_is_paused, status), "its pause")
        assert post(f"http://127.0.0.1:{port + 1}/control/drain", TOKEN)[0] == 403
        assert post(f"{url}control/resume", TOKEN)[0] == 200
        seen.waits("document.querySelector('#glance-title').textContent !== 'Paused'", "the end of the pause")
        assert post(f"{url}control/drain", TOKEN)[0] == 200
        assert running.wait(60) == 0
        seen.page.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_said_before_anything_is_read(
    tmp_path: Path, workers: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = queue_with(tmp_path, 1)
    with PageScene().running() as scene:
        capfd.readouterr()
        assert main([*flags, "--http.addr", scene.addr, "--workers", workers]) == 78
        assert f"--http.addr {scene.addr}: Address already in use; give another port" in capfd.readouterr().err
    assert main(["queue", "stats", "--queue.path", flags[3]]) == 0
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.parquet"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_token_file_that_others_can_read_is_refused_at_the_start(
    tmp_path: Path, workers: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = (*queue_with(tmp_path, 1), "--http.addr", "127.0.0.1:0", "--workers", workers)
    assert main([*flags, "--http.control", "--http.token-file", token_file(tmp_path, 0o644)]) == 78
    assert "chmod 600" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("--http.control", "--http.addr", "0.0.0.0:0", "--http.token-file", "t"), "or say --http.remote-control"),
        (("--http.control", "--http.addr", "127.0.0.1:0"), "needs --http.token-file"),
        (("--http.control", "--http.token-file", "t"), "needs --http.addr"),
        (("--http.token-file", "t"), "does nothing without --http.control"),
    ],
)
def test_control_that_cannot_be_meant_is_a_wrong_command_line(wrong: tuple[str, ...], why: str) -> None:
    flags = ("--sink", "parquet", "--parquet.path", "out", "-b", "k:9092", "-t", "t", "-g", "g")
    with pytest.raises(UsageError, match=why) as refused:
        load(parser(), [*flags, *wrong], {}, runnable=True)
    assert refused.value.exit_code == 2
