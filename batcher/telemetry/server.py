"""An HTTP server on the standard library's, bounded in everything that a client can make it do.

Each connection costs a thread, so there are few. A client has `CLIENT_TIMEOUT_S` for its whole request, however slowly
it sends, and for taking in each piece of the answer. Where all places are taken, one of a client that has not finished
its request is given to the next client. So thousands of slow connections keep no scraper out for long.

It imports nothing of Prometheus or Arrow: the parent of several workers has one as well.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from batcher.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    Answer = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]

CLIENT_TIMEOUT_S: Final = 10.0
"""How long a client may take for its request, and for taking in a piece of the answer."""

MAX_CONNECTIONS: Final = 48
"""Open pages have at most `dashboard.pages.MAX_STREAMS` of them. Prometheus, a prober and a person need three."""

PATIENT_S: Final = 1.0
"""How long a client that has not finished its request keeps its place although another one wants it."""

HANDOVER_S: Final = 0.05
"""How long a new connection waits for the place of one that was ended for it."""

LOOK_UP_S: Final = 0.1
"""How often the server checks whether it should stop: the time that `stop` takes."""

STOP_S: Final = 5.0
"""How long to wait for the server's thread to end."""

SEND_BUFFER: Final = 1 << 16
"""Bytes that the system keeps for a client that does not read: otherwise megabytes, for each of them."""

log = logging.getLogger(__name__)


class HttpServer:
    """Answer HTTP requests on threads of its own, between `start` and `stop`.

    `addr` is HOST:PORT, an IPv6 host in brackets. Port 0 takes a free one, which `addr` then tells. `answer` is a WSGI
    application, called on a thread for each request.
    """

    def __init__(self, addr: str, answer: Answer, *, client_timeout_s: float = CLIENT_TIMEOUT_S) -> None:
        self._host, self._port = parse_address(addr)
        self._application = answer
        self._client_timeout_s = client_timeout_s
        self._server: _BoundedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def addr(self) -> str:
        """Return HOST:PORT, with the port that is in use once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def start(self) -> None:
        """Bind and begin to answer. Raise ConfigurationError when the address cannot be had."""
        handler = type("_Handler", (_RequestHandler,), {"timeout": self._client_timeout_s})
        try:
            server = _BoundedServer(self._host, self._port, handler, self._client_timeout_s)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"--http.addr {self.addr}: {reason}; give another port (0 takes any that is free) or a local address"
            ) from error
        server.set_app(self._application)
        self._server, self._port = server, server.server_port
        # A daemon: a process that has done its work does not wait for a scrape.
        self._thread = threading.Thread(target=server.serve_forever, args=(LOOK_UP_S,), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and free the port. A second call is harmless."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._thread is not None:
            self._thread.join(STOP_S)


class _BoundedServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
    # Newer Pythons let two servers share a port; then half the scrapes would reach the other process.
    allow_reuse_port = False

    def __init__(self, host: str, port: int, handler: type[WSGIRequestHandler], client_timeout_s: float) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._client_timeout_s = client_timeout_s
        # Since when each client has been sending its request, the oldest first.
        self._asking: dict[socket.socket, float] = {}
        self._noting = threading.Lock()
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind without asking the DNS for this machine's full name, which may take half a minute."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not (self._free.acquire(blocking=False) or self._place_taken_over()):
            self.shutdown_request(request)
            return
        request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        with self._noting:
            self._asking[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.asked(request)
            self._free.release()

    def asked(self, request: socket.socket) -> None:
        """Note that a client has finished its request, or is gone."""
        with self._noting:
            self._asking.pop(request, None)

    def service_actions(self) -> None:
        """End the connections of those who take too long for their request. Each read of theirs may be in time."""
        while self._ended_since(self._client_timeout_s):
            pass

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log nothing: clients that go away, or are too slow, are no fault of ours."""
        log.debug("request from %s failed: %r", client_address, sys.exception())

    def _place_taken_over(self) -> bool:
        return self._ended_since(PATIENT_S) and self._free.acquire(timeout=HANDOVER_S)

    def _ended_since(self, seconds: float) -> bool:
        """End the connection that has been asking for longest, if that is longer than `seconds`."""
        with self._noting:
            request, since = next(iter(self._asking.items()), (None, 0.0))
            if request is None or time.monotonic() - since < seconds:
                return False
            del self._asking[request]
            # Its thread reads the end of the stream, and closes it.
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
            return True


class _RequestHandler(WSGIRequestHandler):
    server_version = "batcher"
    sys_version = ""

    def parse_request(self) -> bool:
        understood = super().parse_request()
        if isinstance(self.server, _BoundedServer):
            self.server.asked(self.connection)
        return understood

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        """Keep requests out of stderr: a probe a second would be most of the log."""

    def get_stderr(self) -> Any:
        return _Discard()


class _Discard:
    """Take what wsgiref writes about a broken connection."""

    def write(self, _text: str) -> None: ...

    def flush(self) -> None: ...


def parse_address(addr: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT. Raise ConfigurationError, naming `--http.addr`.

    The host has to be there: `:9100` means every interface to some people and loopback to others.
    """
    host, _, port = addr.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not host or (":" in host and not addr.startswith("[")) or not port.isdecimal() or int(port) > 0xFFFF:
        raise ConfigurationError(f"--http.addr {addr}: give HOST:PORT, for example 127.0.0.1:9100 or [::1]:9100")
    return host, int(port)


def verdict(start_response: StartResponse, *, ok: bool, text: str) -> list[bytes]:
    """Answer a probe."""
    return plain(start_response, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, text)


def plain(
    start_response: StartResponse, code: HTTPStatus, text: str, headers: Sequence[tuple[str, str]] = ()
) -> list[bytes]:
    """Answer with one line of text."""
    return respond(start_response, code, "text/plain; charset=utf-8", text + "\n", headers)


def as_json(start_response: StartResponse, thing: Any) -> list[bytes]:
    """Answer with JSON for people and programs."""
    body = json.dumps(thing, indent=2, ensure_ascii=False) + "\n"
    return respond(start_response, HTTPStatus.OK, "application/json", body)


def respond(
    start_response: StartResponse, code: HTTPStatus, kind: str, body: str, headers: Sequence[tuple[str, str]] = ()
) -> list[bytes]:
    """Answer with a body of some kind, which nothing on the way may keep."""
    content = body.encode(errors="backslashreplace")
    start_response(
        f"{code.value} {code.phrase}",
        [
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *headers,
        ],
    )
    return [content]


def only_reading(start_response: StartResponse) -> list[bytes]:
    """Refuse any method but GET and HEAD."""
    return plain(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "use GET", [("Allow", "GET, HEAD")])
