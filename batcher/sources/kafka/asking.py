"""Ask the brokers in short slices: the client waits in C, where Python hears no signal.

A broker that takes the connection and never answers would otherwise keep Ctrl-C waiting for the whole time. Why there
is no answer (a certificate, a password), the client only says to its `error_cb`; its call says that the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from batcher.errors import ConfigurationError, Unreachable
from batcher.sources.kafka.errors import DOWN, forbidden, refused, text_of

T = TypeVar("T")

SLICE_S: Final = 0.5
"""How long a question may take before signals are looked at, and it is asked again."""

LONGEST_SLICE_S: Final = 4.0
"""The length to which slices grow where a broker is slow: an answer that comes after its slice is thrown away."""

EARLY_S: Final = 0.05
"""An error that comes this long before its slice is over is an answer, and not the end of the slice."""

# A broker that expects TLS closes a connection without it, and the client does not say why.
CHECK: Final = "that they run, and -X security.protocol"


class Stopped(Exception):
    """Report that a stop was asked for while an answer was waited for."""


class Complaints:
    """Keep the reason why a client has no connection; it is the `error_cb` of that client."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take what the client reports."""
        # That all brokers are down comes after the reason for it.
        if self.last is None or error.code() not in DOWN:
            self.last = error

    def of(self, client: Any) -> Callable[[], KafkaError | None]:
        """Return how to learn the reason from a client that has nothing else to report: no subscription, no record."""

        def reason() -> KafkaError | None:
            client.poll(0)
            return self.last

        return reason


def unanswered(exception: KafkaException, what: str) -> ConfigurationError | Unreachable:
    """Return the error for a question about `what`, a setting and its value, that no broker answered."""
    error: KafkaError = exception.args[0]
    if refused(error):
        return forbidden(error, f"the brokers refuse the connection for {what}")
    return Unreachable(f"no broker answers for {what}: {text_of(error)}; check {CHECK}")


def asked(
    ask: Callable[[float], T],
    timeout_s: float,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    reason: Callable[[], KafkaError | None] = lambda: None,
) -> T:
    """Return what `ask` returns. It is told how long to wait, and called again until the whole time is over.

    Raise KafkaException as `ask` does, the last one at the end of the time, or with the `reason` where there is one; at
    once where the brokers refuse the client. Raise Stopped between two slices.
    """
    deadline_s, slice_s = clock() + timeout_s, SLICE_S
    while True:
        began_s = clock()
        # A negative time would be one without an end.
        part_s = max(min(slice_s, deadline_s - began_s), 0.0)
        try:
            return ask(part_s)
        except KafkaException as exception:
            now_s, why = clock(), reason()
            if why is not None and (refused(why) or deadline_s - now_s < EARLY_S):
                raise KafkaException(why) from exception
            if now_s - began_s < part_s - EARLY_S or deadline_s - now_s < EARLY_S:
                raise
            if exception.args[0].code() == KafkaError._TIMED_OUT:  # noqa: SLF001  # librdkafka's own
                slice_s = min(slice_s * 2, LONGEST_SLICE_S)
        if stopped():
            raise Stopped
