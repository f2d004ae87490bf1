"""A proxy before an object store that delays, refuses, loses and counts; it speaks plain HTTP/1.1 and signs nothing.

The `Host` of a request is passed on, so signatures stay right. A `Fault` holds for requests of a method (`PUT`, `GET`,
…, or all), the next so many of them or all from now on; the first one that fits is taken:

    delay           seconds before a request is passed on
    slow            seconds between the bytes of an answer and the next ones, in pieces of a hundredth
    status, code    answered instead of passing it on, with a body as S3 has it
    reset_before    the connection is cut before the request is passed on: nothing has happened
    reset_after     … after the store has done it, and in the middle of the answer's first line
    lost            the store has done it, and no answer comes at all
    deaf            what the request is conditional on is not passed on, as an older store would not know it
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from io import BufferedIOBase
from typing import Final, Self
from urllib.parse import urlsplit

HOLD_S: Final = 600.0
"""How long a lost answer is held back, unless the proxy ends."""

MESSAGES: Final = {
    "SlowDown": "Please reduce your request rate.",
    "ServiceUnavailable": "Reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
    "RequestTimeTooSkewed": "The difference between the request time and the current time is too large.",
    "ExpiredToken": "The provided token has expired.",
    "AccessDenied": "Access Denied",
}


@dataclass(frozen=True, slots=True)
class StoreFault:
    """Say what becomes of requests of a method whose path holds `path`; see above."""

    method: str = ""
    path: str = ""
    delay: float = 0.0
    slow: float = 0.0
    status: int = 0
    code: str = ""
    reset_before: bool = False
    reset_after: bool = False
    lost: bool = False
    deaf: bool = False
    times: int = 1_000_000_000


class StoreProxy:
    """Pass requests on to an endpoint, after what `faults` say. Any thread may change them and read `counts`."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.target = (parts.hostname or "", parts.port or 80)
        self.counts: Counter[str] = Counter()
        """Requests by method, those that were not passed on too."""
        self.starts: list[str] = []
        """The first line of each request."""
        self.faults: list[StoreFault] = []
        self.most_at_once = 0
        self._at_once = 0
        self._left: Counter[int] = Counter()
        self._lock = threading.Lock()
        self.ended = threading.Event()
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError, _Cut):
                    while _pass_on(proxy, self.rfile, self.connection):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def set(self, *faults: StoreFault) -> None:
        """Let these faults hold, and none of those before."""
        with self._lock:
            self.faults = list(faults)
            self._left = Counter({number: fault.times for number, fault in enumerate(faults)})

    def taken(self, method: str, path: str, start: str) -> StoreFault:
        """Count a request, and return what becomes of it."""
        with self._lock:
            self.counts[method] += 1
            self.starts.append(start)
            for number, fault in enumerate(self.faults):
                if fault.method in ("", method) and fault.path in path and self._left[number] > 0:
                    self._left[number] -= 1
                    return fault
        return StoreFault()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request among those that go on at once."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()


class _Cut(Exception):
    """End a connection."""


def _pass_on(proxy: StoreProxy, client: BufferedIOBase, connection: socket.socket) -> bool:
    """Pass one request on and its answer back; return whether the connection goes on."""
    start = client.readline()
    if not start.strip():
        return False
    method, path, _ = start.decode("latin-1").split(" ", 2)
    headers = _headers(client)
    body = client.read(int(headers.get("content-length", 0)))
    fault = proxy.taken(method, path, start.decode("latin-1").strip())
    with proxy.counted():
        if fault.delay:
            proxy.ended.wait(fault.delay)
        if fault.status:
            connection.sendall(_refusal(fault, method))
            return True
        if fault.reset_before:
            _cut(connection)
        if fault.deaf:
            headers = {name: value for name, value in headers.items() if name not in ("if-none-match", "if-match")}
        answer = _answered(proxy, start, headers, body)
    if fault.reset_after:
        connection.sendall(answer[:5])
        _cut(connection)
    if fault.lost:
        proxy.ended.wait(HOLD_S)
        _cut(connection)
    if fault.slow:
        piece = max(1, len(answer) // 100)
        for at in range(0, len(answer), piece):
            connection.sendall(answer[at : at + piece])
            time.sleep(fault.slow)
        return True
    connection.sendall(answer)
    return True


def _answered(proxy: StoreProxy, start: bytes, headers: dict[str, str], body: bytes) -> bytes:
    with socket.create_connection(proxy.target, timeout=60) as store:
        kept = {name: value for name, value in headers.items() if name not in ("connection", "expect")}
        lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in kept.items())
        store.sendall(start + lines + b"connection: close\r\n\r\n" + body)
        answer = b""
        while piece := store.recv(1 << 16):
            answer += piece
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines_back = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"keep-alive:"))]
    return b"\r\n".join(lines_back) + b"\r\n\r\n" + rest


def _headers(client: BufferedIOBase) -> dict[str, str]:
    found: dict[str, str] = {}
    while (line := client.readline()).strip():
        name, _, value = line.decode("latin-1").partition(":")
        found[name.lower()] = value.strip()
    return found


def _refusal(fault: StoreFault, method: str) -> bytes:
    message = MESSAGES.get(fault.code, fault.code)
    body = b"" if method == "HEAD" else f"<Error><Code>{fault.code}</Code><Message>{message}</Message></Error>".encode()
    phrase = HTTPStatus(fault.status).phrase
    return (
        f"HTTP/1.1 {fault.status} {phrase}\r\ncontent-type: application/xml\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def _cut(connection: socket.socket) -> None:
    # With this a close is a reset.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    raise _Cut
