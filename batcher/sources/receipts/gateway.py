"""What a queue with receipts has to do, so that `ReceiptSource` can read it.

A *receipt* is what a queue gives with a delivery, and takes back as the acknowledgement. A *lease* is how long a
delivery is ours; the queue hands the message to another reader when the lease ends. A gateway knows one product. It
neither numbers messages nor decides when they are acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from batcher.records import Headers

Receipt: TypeAlias = object
"""What the queue gave with one delivery; hashable, and known to its gateway only."""


class Received(NamedTuple):
    """Hold one delivery of a message."""

    receipt: Receipt
    id: str
    """The queue's name of the message, the same at each delivery; what recognises a redelivery in the target."""
    value: bytes
    attempt: int = 1
    """How often it was delivered, this time included."""
    timestamp_ms: int | None = None
    key: bytes | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """Say what a queue is called, and what it holds its readers to.

    `lease_s` is how long a delivery is ours before it has to be extended; None where it never ends. `max_held` is how
    many deliveries may be held at a time, not acknowledged. `max_attempts` is the deliveries after which the queue puts
    a message aside by itself; None where it does not. `delays` says whether a release can ask for a delay. With
    `in_turns` nothing more is handed out before all that is held was acknowledged or released.
    """

    name: str
    lease_s: float | None
    max_held: int
    max_attempts: int | None = None
    delays: bool = True
    in_turns: bool = False


class Gateway(Protocol):
    """Talk to one queue. All methods are called by the fetch loop, but for `open`, which is called once before it.

    Every call ends within about its `timeout_s`. A gateway may have threads of its own; it retries nothing that its
    callers can retry, and turns every error of its product into one of `batcher.errors`.
    """

    def open(self) -> QueueInfo:
        """Connect, and see that the queue is there and that we may read it.

        Raise ConfigurationError, or Unreachable to be called again.
        """

    def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> Sequence[Received]:
        """Return deliveries that have come in, after at most about `timeout_s`; none is returned twice.

        Raise SourceLost where it is useless to ask again, ConfigurationError where rights are missing. A server that
        is away for a while is waited for: nothing is returned, and a line is logged once.
        """

    def stop_receiving(self) -> None:
        """Ask for nothing more. What has come in already may wait inside until `start_receiving`, or be released."""

    def start_receiving(self) -> None:
        """Ask for more again."""

    def extend(self, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Begin the leases of some deliveries anew, and of those that `receive` has not returned yet.

        Return those that are not ours any more. Called three times in a lease, also with none. Raises as `acknowledge`.
        """

    def acknowledge(self, receipts: Sequence[Receipt], timeout_s: float) -> Sequence[Receipt]:
        """Tell the queue to forget some messages; return those of which the lease had ended.

        Returning means that the queue has forgotten all others. Raise CommitUnconfirmed where the outcome is not known
        in time: it is called again with the same receipts, and those that were forgotten meanwhile are no error.
        ConfigurationError where rights are missing.
        """

    def release(self, delays_s: Mapping[Receipt, float]) -> None:
        """Give deliveries back, each to come again after some seconds. Raises as `acknowledge` does.

        Those of which the lease had ended are passed over.
        """

    def held_back(self) -> Sequence[Receipt]:
        """Return the deliveries that have come in and that `receive` has not returned, and forget them.

        They are released when the source closes, with those that are held.
        """

    def depth(self) -> int | None:
        """Return the messages that the queue has and that were not acknowledged; None where that is not known.

        Delayed ones and those in the hands of other readers count. It may be an estimate. Raise CommitUnconfirmed where
        the queue does not answer: then this is not its end.
        """

    def close(self) -> None:
        """Let go of every connection and end every thread. A second call is harmless."""
