"""`batcher top`: running processes in one table, at every width, also those that do not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from rich.console import Console

from batcher.cli.main import main
from batcher.cli.support.running import ProcessView, line_of, normal, totals
from batcher.cli.verbs import top
from batcher.records import Partition
from batcher.telemetry.http import WebServer
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.status import BufferStatus, Counts, LastError, PartitionStatus, Status

STATUS = Status(
    "running",
    group="events-to-clickhouse",
    waiting_for="more records, or 0.4 s to pass",
    partitions={Partition("t", 0): PartitionStatus(lag=1500)},
    buffer=BufferStatus(rows=12),
    counts=Counts(written=100, dead_lettered=2),
)


@pytest.fixture
def address() -> Iterator[str]:
    server = WebServer("127.0.0.1:0", Metrics("null"), lambda: STATUS, lambda: True, lambda: (True, ""))
    server.start()
    yield server.addr
    server.stop()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "FIRST_S", 0.0)


def test_a_process_and_one_that_is_away_are_both_shown_and_the_exit_code_says_so(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--once", address]) == 0
    assert "1,500" in capsys.readouterr().out
    assert main(["top", "--once", "--json", address, "127.0.0.1:1"]) == 69
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found["processes"]] == ["running", "away"]
    assert "refused" in found["processes"][1]["said"]
    assert (found["all"]["lag"], found["all"]["dead_letters"]) == (1500, 2)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_number_and_no_reason_is_cut_at_any_width(width: int) -> None:
    status = STATUS.to_dict()
    views = [ProcessView(f"127.0.0.1:{port}", 1.0, status) for port in (9100, 9101)]
    before = ProcessView("127.0.0.1:9100", 0.0, {**status, "counts": {}})
    lines = [line_of(view, before) for view in views]
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(top.table(lines, width))
    shown = console.export_text()
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    for text in ("127.0.0.1:9101", "running", "1,500", "102", "3,000", "15 s"):
        assert text in shown, text
    assert all(word in shown.split() for word in STATUS.waiting_for.split())


def test_rates_are_of_one_run_and_sums_are_over_what_is_known() -> None:
    status = STATUS.to_dict()
    again = line_of(ProcessView("a", 2.0, status), ProcessView("a", 1.0, {**status, "counts": {"written": 10**6}}))
    assert again.rows_per_second is None
    away = line_of(ProcessView("b", 2.0, error="does not answer: refused"), None)
    assert (totals([again, away]).lag, totals([again, away]).state) == (1500, "1 away")


def test_what_fails_is_said_before_what_is_waited_for() -> None:
    failing = Status("running", last_error=LastError("SinkUnavailable", "db away", 65.0), waiting_for="the target")
    assert line_of(ProcessView("a", 1.0, failing.to_dict()), None).said == "db away (for 1 min)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h:1", ("h", 1)),
        (":9100", ("127.0.0.1", 9100)),
        ("9100", ("127.0.0.1", 9100)),
        ("http://h:80/status", ("h", 80)),
        ("[::1]:9100", ("::1", 9100)),
    ],
)
def test_addresses_are_taken_as_people_write_them(text: str, found: tuple[str, int]) -> None:
    assert normal(text) == found


def test_an_address_without_a_port_is_a_bad_command_line() -> None:
    assert main(["top", "--once", "localhost"]) == 2
