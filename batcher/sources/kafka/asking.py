"""Ask the brokers in short slices: the client waits in C, where Python hears no signal.

A broker that takes the connection and never answers would otherwise keep Ctrl-C waiting for the whole time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

T = TypeVar("T")

SLICE_S: Final = 0.5
"""How long a question may take before signals are looked at, and it is asked again."""

LONGEST_SLICE_S: Final = 4.0
"""The length to which slices grow where a broker is slow: an answer that comes after its slice is thrown away."""

EARLY_S: Final = 0.05
"""An error that comes this long before its slice is over is an answer, and not the end of the slice."""


class Stopped(Exception):
    """Report that a stop was asked for while an answer was waited for."""


def asked(
    ask: Callable[[float], T],
    timeout_s: float,
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Return what `ask` returns. It is told how long to wait, and called again until the whole time is over.

    Raise KafkaException as `ask` does, the last one at the end of the time; Stopped between two slices.
    """
    deadline_s, slice_s = clock() + timeout_s, SLICE_S
    while True:
        began_s = clock()
        # A negative time would be one without an end.
        part_s = max(min(slice_s, deadline_s - began_s), 0.0)
        try:
            return ask(part_s)
        except KafkaException as exception:
            now_s = clock()
            if now_s - began_s < part_s - EARLY_S or deadline_s - now_s < EARLY_S:
                raise
            if exception.args[0].code() == KafkaError._TIMED_OUT:  # noqa: SLF001  # librdkafka's own
                slice_s = min(slice_s * 2, LONGEST_SLICE_S)
        if stopped():
            raise Stopped
