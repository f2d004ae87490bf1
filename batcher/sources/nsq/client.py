"""Read one channel from all servers that have its topic: connections that come and go, and what is in flight on them.

A thread of its own reads, writes and answers heartbeats, also while the pipeline waits for something. Callers change
state under one lock and wake it; it alone touches the sockets.

It is long because all that is under the lock is here, and little of it means something without the rest.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from batcher.errors import BatcherError, SourceLost
from batcher.sources.nsq.directory import ServerAddress, error_text
from batcher.sources.nsq.finder import ServerFinder
from batcher.sources.nsq.inbox import Handle, Inbox
from batcher.sources.nsq.link import Link, Subscription
from batcher.sources.nsq.ready import Flow, shares
from batcher.sources.nsq.wire import CLOSE_WAIT, CLS, HEARTBEAT, NOP, Delivery, Garbled, ServerReply, requeue, touch
from batcher.sources.receipts.gateway import Received

log = structlog.get_logger(__name__)

TICK_S: Final = 0.1
"""How often it is looked at what is due when nothing happens."""

MAX_WAITING_BYTES: Final = 64 << 20
"""Bytes that may wait for the pipeline before nothing more is asked for."""

LEAVE_S: Final = 1.0
"""How long a server gets to confirm each step of a farewell."""


class NsqClient:
    """Keep connections to all servers. Any method may be called by one thread at a time, `connect` first."""

    def __init__(
        self,
        what: Subscription,
        *,
        nsqd: Sequence[ServerAddress],
        lookupd: Sequence[ServerAddress],
        max_in_flight: int,
    ) -> None:
        self._what = what
        self._max_in_flight = max_in_flight
        self._changed = threading.Condition()
        self._links: list[Link] = []
        self._inbox = Inbox()
        self._failed: list[Handle] = []
        self._stopped = False
        self._full = False
        self._leaving = False
        self._ended = False
        self._fault: BatcherError | None = None
        self._turn = 0
        self._touch_at = 0.0
        self._finder = ServerFinder(
            what,
            nsqd=nsqd,
            lookupd=lookupd,
            connected=lambda: {link.address for link in self.links},
            on_link=self._take_link,
            on_fault=self._take_fault,
        )
        self._waker: socket.socket | None = None
        self._thread: threading.Thread | None = None

    # What the gateway calls.

    def connect(self) -> None:
        """Connect to all servers that answer, and read from then on.

        Raise Unreachable where there is none, to be called again, and ConfigurationError for what a server refuses.
        """
        try:
            self._finder.connect()
        except BatcherError:
            self._close_links()
            raise
        self._waker, woken = socket.socketpair()
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._run, args=(woken,), name="nsq", daemon=True)
        self._thread.start()
        self._finder.start()

    @property
    def links(self) -> Sequence[Link]:
        """Return the connections as they are now."""
        with self._changed:
            return tuple(self._links)

    @property
    def http_servers(self) -> Sequence[ServerAddress]:
        """Return where the servers answer HTTP."""
        return self._finder.http_servers

    def take(self, most: int, most_bytes: int, timeout_s: float) -> Sequence[Received]:
        """Return messages that have come in, at least one where there is one. Raise what the servers refuse for good.

        They stay in flight until they are sent back by `tell`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._fault, timeout_s)
            if self._fault is not None:
                raise self._fault
            taken = self._inbox.take(most, most_bytes)
            if self._full and self._inbox.nbytes < MAX_WAITING_BYTES / 2:
                self._balance(time.monotonic())
                self._wake()
            return taken

    def take_all(self) -> Sequence[Handle]:
        """Return everything that has come in, without waiting."""
        with self._changed:
            return self._inbox.take_all()

    def stop(self, *, stopped: bool) -> None:
        """Ask for nothing more, or for messages again."""
        with self._changed:
            self._stopped = stopped
            self._balance(time.monotonic())
        self._wake()

    def tell(self, handles: Iterable[Handle], commands: Callable[[list[bytes]], bytes], *, final: bool) -> list[Handle]:
        """Send a command for each message; return those that are not ours any more.

        With `final` they are not in flight afterwards; those of which that was said before are passed over, and those
        of which the timeout is over are told as well: by their own clock, because nsqd complains later.
        """
        lost: list[Handle] = []
        now = time.monotonic()
        with self._changed:
            ours: dict[Link, list[bytes]] = {}
            for link, one in handles:
                if link.alive and one in link.in_flight:
                    ours.setdefault(link, []).append(one)
                elif not link.alive or one not in link.answered:
                    lost.append((link, one))
            for link, ids in ours.items():
                link.out += commands(ids)
                if not final:
                    link.in_flight.update(dict.fromkeys(ids, now))
                    continue
                late = [one for one in ids if now - link.in_flight.pop(one) > link.terms.msg_timeout_s]
                lost += ((link, one) for one in late)
                link.late.update(late)
                link.answered.update(ids)
        self._wake()
        return lost

    def flushed(self, timeout_s: float) -> bool:
        """Wait until all that was told is written; return whether it is."""
        with self._changed:
            done = self._changed.wait_for(lambda: not any(link.out for link in self._links), timeout_s)
            if done:
                for link in self._links:
                    link.answered.clear()
            return done

    def failed(self) -> list[Handle]:
        """Return messages of which nsqd has said since the last call that they are not ours any more."""
        with self._changed:
            failed, self._failed = self._failed, []
            return failed

    def close(self) -> None:
        """Say farewell, give back what came in meanwhile, and end the threads. A second call is harmless."""
        if self._ended:
            return
        with self._changed:
            self._leaving = True
            for link in self._links:
                link.tell_ready(0)
                link.out += CLS
                link.closing = True
        if self._thread is not None:
            self._leave()
        self._ended = True
        self._finder.close()
        self._wake()
        if self._thread is not None:
            self._thread.join(LEAVE_S)
        self._close_links()
        if self._waker is not None:
            self._waker.close()

    def _leave(self) -> None:
        """Let the servers confirm that they have read everything: what is still under way when we close is lost."""
        self._wake()
        with self._changed:
            self._changed.wait_for(lambda: all(link.closed_by_nsqd for link in self._links), LEAVE_S)
            for link, name in self._inbox.take_all():
                link.out += requeue([(name, 0)])
        self._wake()
        if not self.flushed(LEAVE_S):
            return
        with self._changed:
            for link in self._links:
                # Half of a connection cannot be closed under TLS: its farewell is the confirmation above.
                if not isinstance(link.sock, ssl.SSLSocket):
                    with contextlib.suppress(OSError):
                        link.sock.shutdown(socket.SHUT_WR)
            self._changed.wait_for(lambda: all(isinstance(one.sock, ssl.SSLSocket) for one in self._links), LEAVE_S)

    def _close_links(self) -> None:
        with self._changed:
            for link in self._links:
                link.alive = False
                link.sock.close()
            self._links.clear()

    def _wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(OSError):  # full: it is awake already; closed: there is nothing to wake
                self._waker.send(b"\0")

    # The thread that reads and writes.

    def _run(self, woken: socket.socket) -> None:
        woken.setblocking(False)
        try:
            with woken, selectors.DefaultSelector() as selector:
                selector.register(woken, selectors.EVENT_READ)
                while not self._ended:
                    self._round(selector)
        except Exception as error:
            # A thread has no caller: whoever asks next is told, whatever it is.
            log.exception("nsq_client_failed")
            with self._changed:
                self._fault = SourceLost(f"the client of NSQ failed: {type(error).__name__}: {error}")
                self._fault.__cause__ = error
                self._changed.notify_all()

    def _take_link(self, link: Link) -> None:
        with self._changed:
            if self._leaving:
                link.sock.close()
                return
            self._links.append(link)
        self._wake()

    def _take_fault(self, fault: BatcherError) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def _round(self, selector: selectors.BaseSelector) -> None:
        for key, events in selector.select(TICK_S):
            if key.data is None:
                key.fileobj.recv(4096)  # type: ignore[union-attr]
            elif events & selectors.EVENT_READ:
                self._read(key.data, selector)
        now = time.monotonic()
        with self._changed:
            for link in self._links:
                if not link.watched:
                    link.watched = True
                    selector.register(link.sock, selectors.EVENT_READ, link)
            self._touch_waiting(now)
            if not self._leaving:
                self._balance(now)
            links = list(self._links)
        for link in links:
            if now - link.heard_at > 2 * self._what.heartbeat_s + 1:
                self._drop(link, "no heartbeat came", selector)
            else:
                self._write(link, selector)

    def _read(self, link: Link, selector: selectors.BaseSelector) -> None:
        try:
            frames = link.read()
        except (OSError, Garbled) as error:
            self._drop(link, error_text(error), selector)
            return
        if frames is None:
            self._drop(link, "nsqd closed the connection", selector)
            return
        link.heard_at = time.monotonic()
        received = [
            Received(
                (link, one.id), one.id.decode("ascii", "replace"), one.body, one.attempts, one.timestamp_ns // 10**6
            )
            for one in frames
            if isinstance(one, Delivery)
        ]
        with self._changed:
            for frame in frames:
                if isinstance(frame, ServerReply):
                    self._hear(link, frame)
                else:
                    link.in_flight[frame.id] = link.heard_at
            self._inbox.add(received)
            self._changed.notify_all()

    def _hear(self, link: Link, answer: ServerReply) -> None:
        if answer.text == HEARTBEAT:
            link.out += NOP
        elif answer.text == CLOSE_WAIT:
            link.closed_by_nsqd = True
        elif answer.code in ("E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"):
            # "E_FIN_FAILED FIN 0123456789abcdef failed …". The connection stays open.
            one = answer.text.split()[2]
            if one in link.late:
                link.late.discard(one)
            elif answer.code != "E_TOUCH_FAILED" or one in link.in_flight:
                link.in_flight.pop(one, None)
                self._inbox.forget(lambda handle: handle == (link, one))
                self._failed.append((link, one))
        elif answer.error:
            log.warning("nsqd_complained", nsqd=link.name, error=answer.message)

    def _write(self, link: Link, selector: selectors.BaseSelector) -> None:
        with self._changed:
            if not link.alive:
                return
            had = bool(link.out)
            try:
                left = link.write()
            except OSError as error:
                failure: OSError | None = error
            else:
                failure = None
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if left else 0)
                if selector.get_key(link.sock).events != wanted:
                    selector.modify(link.sock, wanted, link)
                if had and not left:
                    self._changed.notify_all()
        if failure is not None:
            self._drop(link, error_text(failure), selector)

    def _drop(self, link: Link, why: str, selector: selectors.BaseSelector) -> None:
        """Give a connection up. nsqd delivers what was in flight on it when its timeout is over."""
        now = time.monotonic()
        with self._changed:
            if not link.alive:
                return
            link.alive = False
            self._links.remove(link)
            selector.unregister(link.sock)
            link.sock.close()
            in_flight = len(link.in_flight)
            self._inbox.forget(lambda handle: handle[0] is link)
            self._changed.notify_all()
        if not self._leaving:
            log.warning("nsqd_lost", nsqd=link.name, error=why, in_flight=in_flight, hint="it is connected to again")
            self._finder.lost(link, now)

    def _balance(self, now: float) -> None:
        """Tell each server how many messages may be in flight."""
        self._full = self._inbox.nbytes > MAX_WAITING_BYTES / (2 if self._full else 1)
        if self._stopped or self._full:
            for link in self._links:
                link.tell_ready(0)
            return
        flows = [Flow(len(one.in_flight), one.ready, one.terms.max_ready, one.hungry(now)) for one in self._links]
        self._turn += 1
        for link, count in zip(self._links, shares(self._max_in_flight, flows, self._turn // 10), strict=True):
            link.tell_ready(count)

    def _touch_waiting(self, now: float) -> None:
        """Keep what waits inside: the pipeline extends only what it was given."""
        if now < self._touch_at:
            return
        self._touch_at = now + self._what.msg_timeout_s / 3
        for link, ids in self._inbox.by_link().items():
            link.out += touch(ids)
            link.in_flight.update(dict.fromkeys(ids, now))
