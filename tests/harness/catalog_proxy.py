"""Stand between a REST catalog and its clients, and spoil commits: refuse them, or lose the answers to them."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal
from urllib.parse import urlsplit

Fault = Literal["none", "503", "reset", "lost", "504", "stall"]
"""`503` and `reset` before it is made; after it was, `lost` (a reset), `504`, and `stall`, which
says nothing until the client has given up."""

_SAID: Final = {
    "503": b'{"error":{"message":"the catalog is busy","type":"SlowDown","code":503}}',
    "504": b'{"error":{"message":"gateway timeout","type":"Timeout","code":504}}',
}


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that gave up."""


class CatalogProxy:
    """Pass on everything to a catalog, and each commit in turn as the next of `faults` says; none when they end."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.faults: deque[Fault] = deque()
        self.done: list[Fault] = []
        self.released = threading.Event()
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())

    @property
    def uri(self) -> str:
        """Return where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[CatalogProxy]:
        """Answer while in the `with` block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def next_fault(self, method: str, path: str) -> Fault:
        """Return what becomes of a request."""
        # A commit is a POST to a table; one without a name behind `tables` makes a table.
        if method != "POST" or "/tables/" not in path or not self.faults:
            return "none"
        fault = self.faults.popleft()
        self.done.append(fault)
        return fault

    def forwarded(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, bytes, str]:
        """Send a request on and return status, body and content type."""
        assert self._upstream.hostname is not None
        connection = http.client.HTTPConnection(self._upstream.hostname, self._upstream.port or 80, timeout=60)
        try:
            connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("Content-Type", "application/json")
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy.next_fault(self.command, self.path)
                if fault in ("503", "reset"):
                    self.spoil(fault)
                    return
                kind = self.headers.get("Content-Type", "")
                answer = proxy.forwarded(self.command, self.path, body, kind)
                if fault == "none":
                    self.reply(*answer)
                    return
                if fault == "stall":
                    proxy.released.wait(60)
                self.spoil(fault)

            def spoil(self, fault: Fault) -> None:
                if fault in _SAID:
                    self.reply(int(fault), _SAID[fault], "application/json")
                    return
                # Closed by a reset, with nothing said.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True

            do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - the names of the base class

            def reply(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
