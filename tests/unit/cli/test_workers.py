"""The parent of several workers, with small scripts in their places."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from batcher.cli.support import wiring, workers
from batcher.cli.support.scaling import ScalePolicy
from batcher.cli.support.totals import total
from batcher.cli.support.worker import ParentLink, own
from batcher.cli.support.workers import WorkerProcess, WorkerSupervisor, arguments_of, next_after, pause_s, worst
from batcher.cli.verbs.run import main, parser
from batcher.settings import Settings, UsageError, load
from batcher.sources.kafka.settings import Kafka
from batcher.telemetry import logs

REPORT = {
    "consumed": 10,
    "written": 7,
    "dead_lettered": 2,
    "skipped": 1,
    "filtered": 1,
    "released": 0,
    "paused": 0,
    "duplicates_suppressed": 0,
    "batches": 3,
    "bytes": 1000,
    "seconds": 2.0,
    "rows_per_second": 4,
    "delivery": "exactly-once",
    "dead_letter_reasons": {"syntax": 2},
    "unknown_fields": {"city": 3},
    "unknown_fields_estimated": False,
    "columns_without_value": ["town", "country"],
    "exit": 0,
}

# Each is one worker: it reads from its line as `worker.py` says and leaves with some exit code.
WAITS_FOR_A_WORD = "import os; raise SystemExit(0 if os.read(0, 1) else 9)"
WAITS_FOR_TWO = "import os; os.read(0, 1); os.read(0, 1); raise SystemExit(130)"
HEARS_NOTHING = "import signal; signal.pause()"
REPORTS = f"import os; os.write(0, {json.dumps(REPORT).encode()!r})"


def script(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK_S", 0.001)
    monkeypatch.setattr(workers, "pause_s", lambda _: 0.0)


def started(
    *scripts: str, until_eof: bool = False, policy: ScalePolicy | None = None
) -> tuple[WorkerSupervisor, list[WorkerProcess]]:
    team = WorkerSupervisor([script(text) for text in scripts], until_eof=until_eof, policy=policy)
    return team, team._members


@contextmanager
def signalling_once(ready: Callable[[], bool]) -> Iterator[None]:
    """Send this process SIGTERM, from another thread, once something holds."""

    over = threading.Event()

    def send() -> None:
        while not ready():
            if over.wait(0.001):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.mark.parametrize(
    ("code", "stopping", "until_eof", "replaces", "following"),
    [
        (0, False, True, False, "over"),
        (0, False, False, False, "again"),
        (0, True, False, False, "over"),
        (75, True, False, False, "over"),
        (75, False, False, False, "again"),
        (75, False, True, False, "again"),
        (-9, False, True, False, "again"),
        (-9, True, False, False, "over"),
        (69, False, False, False, "halt"),
        (69, False, False, True, "again"),
        (1, False, True, True, "halt"),
        (2, False, False, True, "halt"),
        (78, False, False, True, "halt"),
        (78, True, False, False, "over"),
    ],
)
def test_what_follows_the_end_of_a_worker(
    code: int, following: str, *, stopping: bool, until_eof: bool, replaces: bool
) -> None:
    assert next_after(code, stopping=stopping, until_eof=until_eof, replaces=replaces) == following


def test_pauses_double_up_to_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    assert [workers.pause_s(failures) for failures in (1, 2, 3, 5, 6, 7, 5000)] == [1, 2, 4, 16, 30, 30, 30]
    assert pause_s is workers.pause_s


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 75], 75),
        ([0, -9], 75),
        ([75, 130], 130),
        ([130, 78, 0], 78),
        ([78, 1], 1),
        ([0, 77], 77),
    ],
)
def test_the_worst_exit_code_stands_for_all(codes: list[int], code: int) -> None:
    assert worst(codes) == code


def test_the_summary_has_the_sums_the_time_of_all_and_the_weakest_guarantee() -> None:
    weaker = {
        **REPORT,
        "delivery": "at-least-once",
        "seconds": 1.0,
        "dead_letter_reasons": {"overflow": 3, "syntax": 2},
        "unknown_fields": {"street": 9, "city": 1},
        "unknown_fields_estimated": True,
        "columns_without_value": ["country"],
        "exit": 75,
    }

    assert total([REPORT, weaker, {"exit": 78}], 3.0, 75) == {
        "consumed": 20,
        "written": 14,
        "dead_lettered": 4,
        "skipped": 2,
        "filtered": 2,
        "released": 0,
        "paused": 0,
        "duplicates_suppressed": 0,
        "batches": 6,
        "bytes": 2000,
        "seconds": 3.0,
        "rows_per_second": 6,
        "delivery": "at-least-once",
        "dead_letter_reasons": {"syntax": 4, "overflow": 3},
        "unknown_fields": {"street": 9, "city": 4},
        "unknown_fields_estimated": True,
        "columns_without_value": ["country"],
        "exit": 75,
    }


def test_a_column_without_value_in_one_worker_has_one_where_another_found_it() -> None:
    idle = {**REPORT, "batches": 0, "columns_without_value": []}
    other = {**REPORT, "columns_without_value": ["town"]}
    assert total([REPORT, idle, other], 1.0, 0)["columns_without_value"] == ["town"]


def test_what_workers_did_to_each_of_several_targets_is_added_up() -> None:
    first = {**REPORT, "targets": {"a": {"written": 1, "failed": ""}, "b": {"written": 2, "failed": "broken"}}}
    second = {**REPORT, "targets": {"a": {"written": 5, "failed": ""}}}
    found = total([first, second], 1.0, 0)["targets"]
    assert found == {"a": {"written": 6, "failed": ""}, "b": {"written": 2, "failed": "broken"}}


def test_without_any_report_only_the_exit_code_is_known() -> None:
    assert total([{"exit": 78}], 3.0, 78) == {"exit": 78}


def test_a_worker_gets_the_command_line_of_its_parent_and_its_number() -> None:
    argv = ["-b", "k:9092", "--workers", "3", "--json"]

    command = arguments_of(argv, 2)

    assert command == [sys.executable, "-m", "batcher", "run", *argv, "--as-worker", "2"]
    assert load(parser(), command[4:], {}).arguments.as_worker == 2


def test_what_only_one_process_can_have_each_worker_has_for_itself() -> None:
    settings = Settings(http={"addr": "[::1]:9100"}, kafka={"instance": "loader"}, workers=3)

    changed = [own(settings, number) for number in range(3)]

    assert [one.http.addr for one in changed] == ["127.0.0.1:0", "[::1]:9101", "[::1]:9102"]
    assert [one.section(Kafka).instance for one in changed] == ["loader-0", "loader-1", "loader-2"]
    others = changed[1].model_copy(update={"http": settings.http, "kafka": settings.section(Kafka)})
    assert others.model_dump() == settings.model_dump()


def test_any_free_port_stays_any_free_port_and_what_is_not_given_stays_away() -> None:
    changed = own(Settings(http={"addr": "127.0.0.1:0"}, workers=3), 2)

    assert (changed.http.addr, changed.section(Kafka).instance) == ("127.0.0.1:0", None)


RUNNABLE = ("--sink", "parquet", "--parquet.path", "out", "-b", "k:9092", "-t", "t", "-g", "g")
EMBEDDED = ("--sink", "clickhouse", "--clickhouse.dsn", "chdb:///db", "--clickhouse.table", "t", *RUNNABLE[4:])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (EMBEDDED, "--workers: the embedded engine lets one process into its directory"),
        ((*RUNNABLE, "--max-records", "5"), "--workers: cannot go with --max-records"),
        ((*RUNNABLE, "--http.addr", "127.0.0.1:65535"), "--http.addr: worker I takes port"),
    ],
)
def test_what_several_workers_cannot_have_is_refused(argv: tuple[str, ...], message: str) -> None:
    assert load(parser(), list(argv), {}, runnable=True).settings.workers == 1

    with pytest.raises(UsageError) as refused:
        load(parser(), [*argv, "--workers", "2"], {}, runnable=True)

    assert refused.value.lines[0].startswith(message)
    assert refused.value.exit_code == 2


def test_where_only_variables_are_to_blame_the_code_is_that_of_a_bad_flag() -> None:
    with pytest.raises(UsageError) as refused:
        load(parser(), list(RUNNABLE), {"BATCHER_WORKERS": "2", "BATCHER_MAX_RECORDS": "5"}, runnable=True)

    assert refused.value.exit_code == 2


def test_workers_wait_for_each_other_at_the_end_and_a_process_alone_does_not() -> None:
    settings = load(parser(), [*RUNNABLE, "-X", "session.timeout.ms=6000"], {}).settings

    assert wiring.kafka_options_of(settings).patience_s is None
    assert wiring.kafka_options_of(settings.model_copy(update={"workers": 2})).patience_s == 26.0


def test_several_workers_are_started_only_where_several_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "supervise", lambda *_, **__: 7)
    monkeypatch.setattr("batcher.cli.verbs.run.run", lambda *_, **__: 8)

    assert main([*RUNNABLE]) == main([*RUNNABLE, "--workers", "1"]) == 8
    assert main([*RUNNABLE, "--workers", "2"]) == 7


def test_all_at_their_ends_is_0_with_what_each_has_reported() -> None:
    team, _ = started(REPORTS, REPORTS, until_eof=True)

    assert team.run() == 0
    assert team.reports == [REPORT, REPORT]


def test_one_that_cannot_be_mended_by_starting_again_ends_the_others() -> None:
    team, members = started("raise SystemExit(78)", WAITS_FOR_A_WORD)

    assert team.run() == 78
    assert [member.starts for member in members] in ([1, 1], [1, 0])


@pytest.mark.parametrize("end", ["raise SystemExit(75)", "import os; os.kill(os.getpid(), 9)", "raise SystemExit(0)"])
def test_one_that_ended_is_started_again_until_all_are_stopped(end: str) -> None:
    team, members = started(end, WAITS_FOR_A_WORD)

    with signalling_once(lambda: members[0].starts >= 3):
        assert team.run() in (0, 75)

    assert members[1].starts == 1


def test_the_first_signal_is_a_stop_that_all_hear_and_a_clean_end_is_0() -> None:
    team, members = started(WAITS_FOR_A_WORD, WAITS_FOR_A_WORD)

    with signalling_once(lambda: all(member.starts for member in members)):
        assert team.run() == 0


def test_a_worker_that_was_stopped_before_it_had_begun_keeps_nobody_from_a_clean_end() -> None:
    team, members = started(WAITS_FOR_A_WORD, "import os; os.read(0, 1); raise SystemExit(75)")

    with signalling_once(lambda: all(member.starts for member in members)):
        assert team.run() == 0


def test_a_stop_before_anybody_has_begun_is_75_as_with_one_process() -> None:
    stopped = "import os; os.read(0, 1); raise SystemExit(75)"
    team, members = started(stopped, stopped)

    with signalling_once(lambda: all(member.starts for member in members)):
        assert team.run() == 75


def test_a_stop_before_any_worker_is_started_is_75(monkeypatch: pytest.MonkeyPatch) -> None:
    team, members = started(HEARS_NOTHING, HEARS_NOTHING)
    monkeypatch.setattr(WorkerProcess, "start", lambda _: os.kill(os.getpid(), signal.SIGTERM))

    assert team.run() == 75
    assert [member.starts for member in members] == [0, 0]


def test_one_that_had_begun_and_waits_for_its_next_start_is_enough_for_a_clean_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "pause_s", lambda _: 3600.0)
    team, members = started(f"{REPORTS}; raise SystemExit(75)", "import os; os.read(0, 1); raise SystemExit(75)")

    with signalling_once(lambda: bool(team.reports) and members[1].starts > 0):
        assert team.run() == 0


def test_a_worker_that_was_stopped_with_something_in_hand_is_75() -> None:
    report = json.dumps({**REPORT, "exit": 75}).encode()
    team, members = started(f"import os; os.read(0, 1); os.write(0, {report!r}); raise SystemExit(75)")

    with signalling_once(lambda: all(member.starts for member in members)):
        assert team.run() == 75


def test_the_second_signal_is_passed_on_as_well_and_is_130() -> None:
    team, members = started(WAITS_FOR_TWO, WAITS_FOR_A_WORD)

    with (
        signalling_once(lambda: all(member.starts for member in members)),
        signalling_once(lambda: team._passed_on == 1),
    ):
        assert team.run() == 130


def test_the_third_signal_kills() -> None:
    team, members = started(HEARS_NOTHING)

    with (
        signalling_once(lambda: members[0].starts == 1),
        signalling_once(lambda: team._passed_on == 1),
        signalling_once(lambda: team._passed_on == 2),
    ):
        assert team.run() == 75


def test_a_process_that_the_system_refuses_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    team, members = started(REPORTS, until_eof=True)
    popen, refusals = subprocess.Popen, [OSError(11, "Resource temporarily unavailable")] * 2

    def refusing(*arguments: Any, **options: Any) -> object:
        if refusals:
            raise refusals.pop()
        return popen(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", refusing)

    assert team.run() == 0
    assert members[0].starts == 1


class ScriptedPipeline:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.changed = threading.Condition()

    def stop(self) -> None:
        self._say("stop")

    def abort(self) -> None:
        self._say("abort")

    def wait_for(self, *said: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.said == list(said), 10), self.said

    def _say(self, word: str) -> None:
        with self.changed:
            self.said.append(word)
            self.changed.notify_all()


@pytest.fixture
def lines() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_first_word_of_the_parent_is_a_stop_and_the_second_an_abort(
    lines: tuple[socket.socket, socket.socket],
) -> None:
    pipeline, tether = ScriptedPipeline(), ParentLink(lines[1])

    with tether.sent_to(pipeline):  # type: ignore[arg-type]
        lines[0].send(b".")
        pipeline.wait_for("stop")
        lines[0].send(b".")
        pipeline.wait_for("stop", "abort", "stop")
        assert tether.seen == 2
        lines[0].close()
        pipeline.wait_for("stop", "abort", "stop", "stop")


def test_a_parent_that_is_gone_is_a_stop(lines: tuple[socket.socket, socket.socket]) -> None:
    pipeline, tether = ScriptedPipeline(), ParentLink(lines[1])
    lines[0].close()

    with tether.sent_to(pipeline):  # type: ignore[arg-type]
        pipeline.wait_for("stop")

    assert tether.seen == 0
    tether.report(REPORT)


def test_signals_stop_a_worker_and_never_abort_it(lines: tuple[socket.socket, socket.socket]) -> None:
    pipeline, tether = ScriptedPipeline(), ParentLink(lines[1])

    with tether.sent_to(pipeline):  # type: ignore[arg-type]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        lines[0].close()
        pipeline.wait_for("stop", "stop", "stop", "stop")

    assert tether.seen == 0


def test_a_worker_that_nobody_started_is_refused() -> None:
    with pytest.raises(UsageError, match="--as-worker"):
        main([*RUNNABLE, "--as-worker", "0"])


@pytest.mark.parametrize("format_", ["json", "console"])
def test_every_line_of_a_worker_has_its_number(format_: logs.Format, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(format_, worker=3)

    thread = threading.Thread(target=lambda: logs.get("batcher.test").info("schema_pinned"))
    thread.start()
    thread.join()
    logging.getLogger("driver").warning("lost")

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all('"worker": 3' in line or "worker=3" in line for line in lines)


@pytest.mark.parametrize(("written", "code"), [(0, 78), (7, 0)])
def test_the_sum_of_all_workers_decides_whether_anything_was_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], written: int, code: int
) -> None:
    def run(team: WorkerSupervisor) -> int:
        team.reports = [{**REPORT, "written": 0}, {**REPORT, "written": written}]
        return 0

    monkeypatch.setattr(WorkerSupervisor, "run", run)
    assert workers.supervise(Settings(workers=2), [], as_json=True) == code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["exit"] == code


# It says how much is left, in two pieces, then waits for its stop and reports like any other.
TELLS = (
    "import os, time; os.write(0, b'{\"backlog\": %d'); os.write(0, b', \"whole\": %s}\\n'); code = os.read(0, 1); "
    f"os.write(0, {json.dumps(REPORT).encode()!r})"
)


def test_as_many_workers_run_as_the_backlog_needs_and_the_rest_are_never_started() -> None:
    policy = ScalePolicy(least=1, most=4, records_each=1000)
    team, members = started(*[TELLS % (2500, "true")] * 4, policy=policy)

    with signalling_once(lambda: [member.starts for member in members] == [1, 1, 1, 0]):
        assert team.run() == 0

    assert team.reports == [REPORT] * 3


def test_one_that_is_not_needed_any_more_is_drained_and_comes_again_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.cli.support.scaling.DOWN_AFTER_S", 0.0)
    policy = ScalePolicy(least=1, most=2, records_each=1000)
    # The first says that there is little, after it has seen that the second one runs; then that there is much again.
    first = (
        "import os, time\n"
        "for count in (1500, 10, 1500):\n"
        '    os.write(0, b\'{"backlog": %d, "whole": true}\\n\' % count); time.sleep(0.2)\n'
        "os.read(0, 1)"
    )
    team, members = started(first, f"import os; os.read(0, 1); {REPORTS}", policy=policy)

    with signalling_once(lambda: members[1].starts >= 2):
        assert team.run() == 0

    assert members[0].starts == 1
    assert team.reports[0] == REPORT


def test_at_the_end_of_a_topic_nobody_is_started_any_more() -> None:
    policy = ScalePolicy(least=1, most=3, records_each=1)
    team, members = started(
        *['import os; os.write(0, b\'{"backlog": 9, "whole": true}\\n\')'] * 3, until_eof=True, policy=policy
    )

    assert team.run() == 0
    assert members[0].starts == 1


def test_workers_are_a_number_or_a_range() -> None:
    def workers_of(text: str) -> tuple[int, int]:
        found = load(parser(), [*RUNNABLE, "--workers", text], {}).settings.workers
        return found.least, int(found)

    assert workers_of("3") == (3, 3)
    assert workers_of("2..5") == (2, 5)
    for text in ("0", "5..2", "1..", "..4", "1..2000", "a"):
        with pytest.raises(UsageError, match=r"--workers"):
            workers_of(text)
