"""Stand between a REST catalog and its clients, and spoil commits: refuse them, or lose the answer after they were made."""

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
"""What becomes of a commit: `503` and `reset` before it is made, `lost` (reset) and `504` after it was, `stall` after it
was, until the client has given up."""

BEFORE: Final = ("503", "reset")


class CatalogProxy:
    """Pass on everything to a catalog, and each commit in turn as the next of `faults` says; none when they end."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.faults: deque[Fault] = deque()
        self.done: list[Fault] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

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
                if fault == "503":
                    words = b'{"error":{"message":"the catalog is busy","type":"SlowDown","code":503}}'
                    self.reply(503, words, "application/json")
                    return
                if fault == "reset":
                    self.drop()
                    return
                status, said, kind = proxy.forwarded(
                    self.command, self.path, body, self.headers.get("Content-Type", "")
                )
                if fault == "504":
                    status, said = 504, b'{"error":{"message":"gateway timeout","type":"Timeout","code":504}}'
                if fault == "stall":
                    proxy.released.wait(60)
                if fault in ("lost", "stall"):
                    self.drop()
                    return
                self.reply(status, said, kind)

            do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - the names of the base class

            def reply(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def drop(self) -> None:
                # Closed by a reset, with nothing said.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
