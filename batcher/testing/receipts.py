"""A queue with receipts in memory, and a gateway to it, with the leases and refusals of a real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from batcher.errors import CommitUnconfirmed
from batcher.sources.receipts.gateway import QueueInfo, Receipt, Received
from batcher.testing.clock import ManualClock

LEASE_S: Final = 30.0


@dataclass(slots=True)
class _Message:
    body: Received
    visible_at: float = 0.0
    attempts: int = 0
    receipt: int | None = None
    """That of the last delivery; older ones are stale."""


class MemoryQueue:
    """Hand out each message under a lease by a clock that tests move."""

    def __init__(self, clock: ManualClock | None = None, *, lease_s: float = LEASE_S, name: str = "queue") -> None:
        self.clock = clock or ManualClock()
        self.lease_s = lease_s
        self.name = name
        self.messages: dict[str, _Message] = {}
        self._ids = itertools.count()
        self._receipts = itertools.count()

    def publish(self, *bodies: bytes | Received) -> list[str]:
        """Add messages and return their names."""
        names = []
        for body in bodies:
            name = f"m{next(self._ids)}"
            given = body if isinstance(body, Received) else Received(None, name, body, timestamp_ms=1_700_000_000_000)
            self.messages[name] = _Message(given._replace(id=name))
            names.append(name)
        return names

    @property
    def invisible(self) -> int:
        """Return the messages that nobody is handed now."""
        return sum(one.visible_at > self.clock() for one in self.messages.values())

    def take(self, count: int) -> list[Received]:
        """Hand out some messages."""
        ready = [one for one in self.messages.values() if one.visible_at <= self.clock()][:count]
        return [self._hand_out(one) for one in ready]

    def held(self, receipt: Receipt) -> str | None:
        """Return the name of the message that a receipt still holds; None where it is stale."""
        for name, one in self.messages.items():
            if one.receipt == receipt and one.visible_at > self.clock():
                return name
        return None

    def hide(self, receipt: Receipt, seconds: float) -> bool:
        """Begin a lease anew, or end it with 0; return whether it was still held."""
        name = self.held(receipt)
        if name is None:
            return False
        self.messages[name].visible_at = self.clock() + seconds
        return True

    def _hand_out(self, one: _Message) -> Received:
        one.attempts += 1
        one.receipt = next(self._receipts)
        one.visible_at = self.clock() + self.lease_s
        return one.body._replace(receipt=one.receipt, attempt=one.attempts)


class MemoryGateway:
    """Read a `MemoryQueue`. `ahead` messages are taken that were not asked for yet, as a real client prefetches.

    `failing` is called with the name of each call that may fail, and may raise. With `clock_moves` a wait for messages
    moves the clock on, so that a loop comes to its end.
    """

    def __init__(
        self,
        queue: MemoryQueue,
        *,
        max_held: int = 1000,
        max_attempts: int | None = None,
        ahead: int = 0,
        clock_moves: bool = True,
    ) -> None:
        self.queue = queue
        self.info = QueueInfo(queue.name, queue.lease_s, max_held, max_attempts)
        self.failing: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []
        self.receiving = True
        self.closed = False
        self._ahead = ahead
        self._clock_moves = clock_moves
        self._inside: list[Received] = []

    def without_lease(self) -> MemoryGateway:
        """Say nothing of the lease, so that it is never begun anew: a control for tests of the heartbeat."""
        self.info = replace(self.info, lease_s=None)
        return self

    def open(self) -> QueueInfo:
        return self.info

    def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> Sequence[Received]:
        del max_bytes
        self._call("receive")
        if self.receiving:
            self._inside += self.queue.take(max(0, max_messages + self._ahead - len(self._inside)))
        found, self._inside = self._inside[:max_messages], self._inside[max_messages:]
        if not found and self._clock_moves:
            self.queue.clock.advance(timeout_s)
        return found

    def stop_receiving(self) -> None:
        self.receiving = False

    def start_receiving(self) -> None:
        self.receiving = True

    def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        self._call("extend")
        for one in self._inside:
            self.queue.hide(one.receipt, self.queue.lease_s)
        return [one for one in receipts if not self.queue.hide(one, self.queue.lease_s)]

    def acknowledge(self, receipts: Sequence[Receipt], timeout_s: float) -> Sequence[Receipt]:
        del timeout_s
        self._call("acknowledge")
        lapsed = []
        for one in receipts:
            name = self.queue.held(one)
            if name is None:
                lapsed.append(one)
            else:
                del self.queue.messages[name]
        return lapsed

    def release(self, delays_s: Mapping[Receipt, float]) -> None:
        self._call("release")
        for receipt, delay_s in delays_s.items():
            self.queue.hide(receipt, delay_s)

    def held_back(self) -> Sequence[Receipt]:
        found, self._inside = self._inside, []
        return [one.receipt for one in found]

    def depth(self) -> int | None:
        return len(self.queue.messages)

    def close(self) -> None:
        self.closed = True

    def fail(self, call: str, times: int = 1) -> None:
        """Let the next calls of a kind end without an answer."""
        left = times

        def failing(name: str) -> None:
            nonlocal left
            if name == call and left > 0:
                left -= 1
                raise CommitUnconfirmed(f"{call} was not answered")

        self.failing = failing

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.failing(name)
