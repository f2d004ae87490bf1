"""Let the targets of a pipeline share a dead-letter queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from batcher.protocols import DeadLetterQueue
from batcher.records import DeadLetter


class SharedQueue:
    """Send for several write loops, one after the other: a queue is made for one (`protocols.DeadLetterQueue`)."""

    def __init__(self, queue: DeadLetterQueue) -> None:
        self._queue = queue
        self._sending = threading.Lock()

    def open(self) -> None:
        self._queue.open()

    def send(self, letters: Sequence[DeadLetter]) -> None:
        with self._sending:
            self._queue.send(letters)

    def close(self) -> None:
        self._queue.close()
