import socket
import ssl
import threading

import pytest

from batcher.engine.retry import RetryPolicy, in_words
from batcher.errors import BlockRejected, ConfigurationError, SinkMisconfigured, SinkUnavailable
from batcher.testing.clock import ManualClock


class Target:
    """Fail so many times, then answer."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def write(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "written"


def waits(policy: RetryPolicy, failures: int) -> list[float]:
    clock = ManualClock()
    retrying = policy.retrying(threading.Event(), lambda *_: None, sleep=clock.sleep)
    assert retrying(Target(*[SinkUnavailable("away")] * failures).write) == "written"
    return clock.sleeps


def test_exponential_waits_stay_below_a_doubling_bound_and_the_maximum() -> None:
    for _ in range(20):
        found = waits(RetryPolicy("exponential", 0.5, 4.0), 6)
        assert all(0 <= wait <= bound for wait, bound in zip(found, [0.5, 1.0, 2.0, 4.0, 4.0, 4.0], strict=True))


def test_exponential_waits_are_jittered_so_that_workers_do_not_come_back_together() -> None:
    assert len({tuple(waits(RetryPolicy(), 3)) for _ in range(10)}) == 10


def test_linear_waits_grow_by_the_same_step_up_to_the_maximum() -> None:
    assert waits(RetryPolicy("linear", 1.0, 3.0), 5) == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_each_wait_is_announced_once_with_attempt_and_cause() -> None:
    heard: list[tuple[int, str]] = []
    retrying = RetryPolicy("linear", 1.0).retrying(
        threading.Event(), lambda attempt, _, error: heard.append((attempt, str(error))), sleep=ManualClock().sleep
    )

    retrying(Target(SinkUnavailable("one"), SinkMisconfigured("two")).write)

    assert heard == [(1, "one"), (2, "two")]


def test_what_a_row_is_to_blame_for_is_not_repeated() -> None:
    target = Target(BlockRejected("poison"))
    retrying = RetryPolicy().retrying(threading.Event(), lambda *_: None)

    with pytest.raises(BlockRejected):
        retrying(target.write)
    assert target.calls == 1


def test_an_abort_during_a_long_wait_ends_it_at_once() -> None:
    abort = threading.Event()
    target = Target(*[SinkUnavailable("away")] * 3)
    waiting = threading.Event()
    retrying = RetryPolicy("linear", 3600.0, 3600.0).retrying(abort, lambda *_: waiting.set())
    raised: list[BaseException] = []

    def call() -> None:
        try:
            retrying(target.write)
        except SinkUnavailable as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert waiting.wait(10)
    abort.set()
    thread.join(10)

    assert not thread.is_alive()
    assert [str(error) for error in raised] == ["away"]


@pytest.mark.parametrize(
    ("policy", "flag"),
    [
        ({"wait_s": 0.0}, "--retry.wait"),
        ({"wait_s": 2.0, "max_wait_s": 1.0}, "--retry.max-wait"),
        ({"max_elapsed_s": 0.0}, "--retry.max-elapsed"),
    ],
)
def test_impossible_waits_are_refused_with_their_flag(policy: dict[str, float], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag):
        RetryPolicy(**policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "the name of the host is not known"),
        (ConnectionRefusedError(111, "refused"), "the connection is refused"),
        (ConnectionResetError(104, "reset"), "the connection was closed by the other side"),
        (ssl.SSLError("wrong version"), "no TLS connection comes about"),
        (TimeoutError(), "no answer in time"),
        (ValueError("x"), "value"),
    ],
)
def test_a_cause_is_said_in_words(cause: Exception, words: str) -> None:
    assert in_words(cause) == words


def test_the_words_come_from_the_first_cause_that_has_some() -> None:
    outer = RuntimeError("a driver's own error")
    outer.__cause__ = ConnectionRefusedError(111, "refused")
    assert in_words(outer) == "the connection is refused"
