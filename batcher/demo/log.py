"""What the demo reads from: a log of its own, and the orders that are appended to it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence
from typing import Final, Protocol, Self

from batcher.generate.events import EventGenerator

TOPIC: Final = "orders"
PARTITIONS: Final = 4
GROUP: Final = "demo"
POISON: Final = 0.001

TICK_S: Final = 0.05
"""Between two lots of orders."""


class DemoOrders(ABC):
    """Append made-up orders, `rate` a second, on a thread of their own, until all are there or until stopped.

    `offsets` are those that the log confirmed, by partition. `throttled` says whether the pipeline is waited for.
    `error` says what ended it early.
    """

    def __init__(self, count: int, rate: float) -> None:
        self.offsets: Sequence[array[int]] = [array("q") for _ in range(PARTITIONS)]
        self.throttled = False
        self.error = ""
        self._count = count
        self._rate = rate
        self._stop = threading.Event()
        self._generator = EventGenerator(poison=POISON)
        self._thread = threading.Thread(target=self._append_all, name="orders", daemon=True)

    @property
    def poisoned(self) -> int:
        """Return how many of the orders made so far are unreadable."""
        return self._generator.poisoned

    @property
    def confirmed(self) -> int:
        """Return how many orders the log has."""
        return sum(len(run) for run in self.offsets)

    @property
    def done(self) -> bool:
        """Return whether the thread has ended."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Append no more, and return when the thread has ended. A second call is harmless."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    @abstractmethod
    def _append_all(self) -> None:
        """Append until all are there or `_stop` is set; put what ends it early into `error`."""


class DemoLog(Protocol):
    """Hold a log while in the `with` block. `name` is for people, `told` one line that says where it is.

    `flags` are those with which the pipeline reads it, and `rejoin` those with which a killed one is missed soon.
    `own_orders` are the arguments of `batcher produce`, without its counts, that fill a log of the user's own, and
    `own_flags` those that read it; `own_name` says what it is.
    """

    name: str
    told: str
    flags: Sequence[str]
    rejoin: Sequence[str]
    own_name: str
    own_orders: Sequence[str]
    own_flags: Sequence[str]

    def __enter__(self) -> Self: ...

    def __exit__(self, *_exc: object) -> None: ...

    def committed(self) -> list[int]:
        """Return the next offset of each partition that the pipeline has committed."""
        ...

    def orders(self, count: int, rate: float) -> DemoOrders:
        """Return the orders, so many and at so many a second, not begun."""
        ...
