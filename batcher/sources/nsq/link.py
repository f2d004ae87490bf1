"""A connection to one nsqd that has subscribed: what has to be written, and which messages are in flight on it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

from batcher.sources.nsq.dialogue import CHUNK, Dialogue, Terms
from batcher.sources.nsq.directory import ServerAddress, shown
from batcher.sources.nsq.wire import Frame, FrameReader, ready, subscribe

HUNGRY_S: Final = 1.0
"""How long a connection counts as hungry after as much was in flight on it as it was allowed."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Say what to read and how. `tls` is how to encrypt, None for plain connections."""

    topic: str
    channel: str
    msg_timeout_s: float
    heartbeat_s: float = 10.0
    """How often nsqd says that it is there; after two that did not come it is given up."""
    tls: ssl.SSLContext | None = None


class Link:
    """Hold one connection. The loop reads and writes it; all else is changed under the lock of its client."""

    def __init__(self, dialogue: Dialogue, terms: Terms, now: float) -> None:
        self.address: ServerAddress = dialogue.address
        self.terms = terms
        self.sock = dialogue.sock
        self.sock.setblocking(False)
        self.alive = True
        self.watched = False
        """The loop knows of it."""
        self.since = self.heard_at = now
        self.out = bytearray()
        self.ready = 0
        self.in_flight: dict[bytes, float] = {}
        """When each message came, or was touched last."""
        self.answered: set[bytes] = set()
        """Finished or given back, and perhaps not written yet."""
        self.late: set[bytes] = set()
        """The same, after their timeout: nsqd may complain, and we know it already."""
        self.at_most_at = float("-inf")
        self.closing = False
        self.closed_by_nsqd = False
        """nsqd has confirmed that it sends nothing more."""
        self._reader: FrameReader = dialogue.reader

    @property
    def name(self) -> str:
        """Return the address for people."""
        return shown(self.address)

    def hungry(self, now: float) -> bool:
        """Return whether as many messages as allowed were in flight lately."""
        if 0 < self.ready <= len(self.in_flight):
            self.at_most_at = now
        return now - self.at_most_at < HUNGRY_S

    def tell_ready(self, count: int) -> None:
        """Say how many messages may be in flight, where that is news."""
        if count != self.ready and not self.closing:
            self.ready = count
            self.out += ready(count)

    def read(self) -> list[Frame] | None:
        """Return what has come in; None at the end. Raise Garbled or OSError."""
        frames: list[Frame] = []
        while True:
            try:
                piece = self.sock.recv(CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return frames
            if not piece:
                return frames or None
            frames += self._reader.feed(piece)
            # What TLS has decrypted already does not make the socket readable again.
            if not isinstance(self.sock, ssl.SSLSocket) or not self.sock.pending():
                return frames

    def write(self) -> bool:
        """Write what the connection takes; return whether something is left. Raise OSError."""
        while self.out:
            try:
                written = self.sock.send(self.out[:CHUNK])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            del self.out[:written]
        return False


def dial(address: ServerAddress, what: Subscription, now: float, timeout_s: float) -> Link:
    """Connect and subscribe. Raise OSError, Garbled, Declined or ConfigurationError."""
    dialogue = Dialogue(address, timeout_s)
    try:
        terms = dialogue.agree(
            msg_timeout_s=what.msg_timeout_s, heartbeat_s=what.heartbeat_s, tls=what.tls, timeout_s=timeout_s
        )
        dialogue.require_ok(subscribe(what.topic, what.channel), timeout_s)
        return Link(dialogue, terms, now)
    except BaseException:
        dialogue.close()
        raise
