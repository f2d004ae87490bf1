import threading

import pytest
from structlog.testing import capture_logs

from batcher.engine.start import SAY_AFTER_S, Patience, opened
from batcher.errors import DrainTimeout, SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.testing.clock import ManualClock


class Bench:
    """A patience on a manual clock; waiting moves it."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.clock = ManualClock()
        self.stop = False
        self.patience = Patience("the target", timeout_s, lambda: self.stop, clock=self.clock, wait=self.clock.advance)


def refusing(times: int, error: Exception) -> "Attempts":
    return Attempts(times, error)


class Attempts:
    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "open"


@pytest.mark.parametrize("error", [Unreachable("answers 503"), SinkUnavailable("connection refused")])
def test_a_target_that_does_not_answer_at_the_start_is_waited_for_with_one_line_that_says_so(error: Exception) -> None:
    bench, attempts = Bench(), refusing(5, error)
    with capture_logs() as lines:
        assert opened(attempts, bench.patience, []) == "open"

    assert attempts.calls == 6
    [line] = lines
    assert (line["event"], line["log_level"]) == ("waiting_at_start", "warning")
    assert (line["waiting_for"], line["error"], line["at_most_s"]) == ("the target", str(error), 30.0)
    assert "--start-timeout" in line["hint"]


def test_when_the_time_is_over_it_is_unreachable_and_the_message_names_the_setting() -> None:
    bench, attempts = Bench(), refusing(10**6, Unreachable("answers 503"))
    began = bench.clock()
    with pytest.raises(Unreachable, match="answers 503; waited 30 s for it, see --start-timeout"):
        opened(attempts, bench.patience, [])
    assert began + 28 < bench.clock() < began + 30
    assert attempts.calls > 15


def test_without_a_timeout_the_first_answer_counts() -> None:
    attempts = refusing(1, Unreachable("answers 503"))
    with pytest.raises(Unreachable, match=r"^answers 503$"):
        opened(attempts, Bench(0.0).patience, [])
    assert attempts.calls == 1


def test_what_waiting_does_not_mend_stops_at_once() -> None:
    attempts = refusing(1, SinkMisconfigured("no such table"))
    with pytest.raises(SinkMisconfigured):
        opened(attempts, Bench().patience, [])
    assert attempts.calls == 1


def test_a_stop_between_two_attempts_ends_the_wait() -> None:
    bench = Bench()

    def stop_and_fail() -> None:
        bench.stop = True
        raise Unreachable("answers 503")

    with pytest.raises(DrainTimeout, match="stopped before it had begun, while waiting for the target") as ended:
        opened(stop_and_fail, bench.patience, [])
    assert ended.value.exit_code == 75


def test_a_stop_is_heard_while_a_driver_hangs() -> None:
    hanging, release = threading.Event(), threading.Event()
    patience = Patience("the target", 30.0, hanging.is_set)
    threads: list[threading.Thread] = []

    def hang() -> None:
        hanging.set()
        release.wait(60)

    try:
        with pytest.raises(DrainTimeout):
            opened(hang, patience, threads)
        assert [thread.is_alive() for thread in threads] == [True]
    finally:
        release.set()
        threads[0].join(60)


def test_a_driver_that_hangs_until_the_time_is_over_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.engine.start.LEAST_ATTEMPT_S", 0.0)
    release = threading.Event()
    try:
        with pytest.raises(Unreachable, match="the target took the connection and has not answered"):
            opened(lambda: release.wait(60), Patience("the target", 0.01, lambda: False), [])
    finally:
        release.set()


def test_an_attempt_that_takes_long_is_said_once() -> None:
    bench = Bench()
    with capture_logs() as lines:
        bench.patience.remind()
        bench.clock.advance(SAY_AFTER_S + 1)
        bench.patience.remind()
        bench.patience.remind()
    assert [(line["waiting_for"], line["error"], line["at_most_s"]) for line in lines] == [
        ("the target", "no answer yet", 27.0)
    ]
