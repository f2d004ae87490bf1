"""Remember some dead letters on their way to their queue, for a look at one."""

from __future__ import annotations

import base64
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from batcher.protocols import DeadLetterQueue
from batcher.records import DeadLetter

EACH: Final = 3
"""How many are remembered for a reason, the last ones."""
REASONS: Final = 20
SHOWN_BYTES: Final = 2000
"""How much of a value is shown."""


class WatchedDeadLetters:
    """Store dead letters in a queue and remember the last ones of each reason that were stored.

    Their values and keys are kept only with `payloads`. `shown` may be called from any thread.
    """

    def __init__(
        self, queue: DeadLetterQueue, *, payloads: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._queue = queue
        self._payloads = payloads
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, deque[Mapping[str, Any]]] = {}

    def open(self) -> None:
        self._queue.open()

    def send(self, letters: Sequence[DeadLetter]) -> None:
        self._queue.send(letters)
        wanted: dict[str, list[DeadLetter]] = {}
        for letter in reversed(letters):
            found = wanted.setdefault(letter.reason, [])
            if len(found) < EACH:
                found.append(letter)
        now = round(self._clock(), 3)
        with self._lock:
            for reason, some in wanted.items():
                if reason in self._last or len(self._last) < REASONS:
                    kept = self._last.setdefault(reason, deque(maxlen=EACH))
                    kept.extendleft(self._described(letter, now) for letter in reversed(some))

    def close(self) -> None:
        self._queue.close()

    def shown(self) -> list[Mapping[str, Any]]:
        """Return what is remembered, by reason, the newest first."""
        with self._lock:
            return [one for kept in self._last.values() for one in kept]

    def _described(self, letter: DeadLetter, now: float) -> Mapping[str, Any]:
        record = letter.record
        facts = {
            "at": now,
            "reason": letter.reason,
            "stage": letter.stage,
            "message": letter.message,
            "path": letter.path or "",
            "topic": record.partition.topic,
            "partition": record.partition.number,
            "offset": record.offset,
        }
        if self._payloads:
            facts["value"] = _text(record.value)
            facts["key"] = _text(record.key)
        return facts


def _text(content: bytes | None) -> str | None:
    if content is None:
        return None
    shown = content[:SHOWN_BYTES]
    more = f" … {len(content) - SHOWN_BYTES} bytes more" if len(content) > SHOWN_BYTES else ""
    try:
        return shown.decode() + more
    except UnicodeDecodeError as error:
        if more and error.start >= len(shown) - 3:  # a character was cut
            return shown[: error.start].decode() + more
        return f"base64: {base64.b64encode(shown).decode()}{more}"
