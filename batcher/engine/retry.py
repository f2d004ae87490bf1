"""How long to wait before the same block is offered again, and when to give up. The loop is tenacity's."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_delay, stop_base, stop_when_event_set
from tenacity.wait import wait_base, wait_incrementing, wait_random_exponential

from batcher.errors import ConfigurationError, DeadLetterFailed, SchemasUnavailable, SinkMisconfigured, SinkUnavailable

OnWait = Callable[[int, float, BaseException], None]
"""Called before each wait with the attempts made so far, the seconds to come and what went wrong."""

NOT_NOW: Final = (SinkUnavailable, SinkMisconfigured, DeadLetterFailed, SchemasUnavailable)
"""The errors of a target, a dead-letter queue or a schema registry that may be able to answer later."""

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the name of the host is not known"),
    (ssl.SSLCertVerificationError, "the certificate is not trusted"),
    (ssl.SSLError, "no TLS connection comes about"),
    (ConnectionRefusedError, "the connection is refused"),
    (ConnectionError, "the connection was closed by the other side"),
    (TimeoutError, "no answer in time"),
    (PermissionError, "no permission"),
    (FileNotFoundError, "no such file or directory"),
)


def in_words(error: BaseException) -> str:
    """Name the kind of error in plain words, from the first cause in its chain that has some."""
    link: BaseException | None = error
    while link is not None:
        for kind, words in _WORDS:
            if isinstance(link, kind):
                return words
        link = link.__cause__ or link.__context__
    name = type(error).__name__.removesuffix("Error").removesuffix("Exception") or type(error).__name__
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Say how long the waits between attempts are.

    `exponential`: a random time up to `wait_s`, twice as much each time up to `max_wait_s` (full jitter: many workers
    that lost the same server do not come back together). `linear`: `wait_s`, twice that, three times that, up to
    `max_wait_s`. With `max_elapsed_s` None it goes on for ever.
    """

    strategy: Literal["exponential", "linear"] = "exponential"
    wait_s: float = 0.5
    max_wait_s: float = 30.0
    max_elapsed_s: float | None = None

    def __post_init__(self) -> None:
        if not self.wait_s > 0:
            raise ConfigurationError("--retry.wait must be more than 0; try 500ms")
        if self.max_wait_s < self.wait_s:
            raise ConfigurationError("--retry.max-wait must not be less than --retry.wait")
        if self.max_elapsed_s is not None and not self.max_elapsed_s > 0:
            raise ConfigurationError("--retry.max-elapsed must be more than 0, or none")

    def wait(self) -> wait_base:
        """Return the waits as tenacity counts them."""
        if self.strategy == "linear":
            return wait_incrementing(start=self.wait_s, increment=self.wait_s, max=self.max_wait_s)
        return wait_random_exponential(multiplier=self.wait_s, max=self.max_wait_s)

    def retrying(
        self,
        abort: threading.Event,
        on_wait: OnWait,
        *,
        errors: tuple[type[BaseException], ...] = NOT_NOW,
        sleep: Callable[[float], None] | None = None,
    ) -> Retrying:
        """Return a caller that repeats what raises one of `errors`, and raises the last one when it gives up.

        Setting `abort` ends a wait at once, and the attempts with it.
        """

        def before_sleep(state: RetryCallState) -> None:
            if state.outcome is not None and (error := state.outcome.exception()) is not None:
                on_wait(state.attempt_number, state.upcoming_sleep, error)

        stop: stop_base = stop_when_event_set(abort)
        if self.max_elapsed_s is not None:
            stop = stop | stop_after_delay(self.max_elapsed_s)
        return Retrying(
            wait=self.wait(),
            stop=stop,
            retry=retry_if_exception_type(errors),
            sleep=sleep or sleep_using_event(abort),
            before_sleep=before_sleep,
            reraise=True,
        )
