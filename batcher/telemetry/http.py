"""Metrics, health and status over HTTP, on the standard library's server.

    /metrics   Prometheus
    /livez     503 when a thread is stuck or dead; a target that is down leaves it at 200, or every replica
               would be restarted the moment the database is
    /readyz    503 until the target was checked and partitions are assigned, and again while stopping
    /status    what the pipeline says about itself, as JSON

Answers hold no record and no secret, but topics and offsets. To bind another address than loopback is to decide who may
see them.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from batcher.errors import ConfigurationError
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.status import Status

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

CLIENT_TIMEOUT_S: Final = 10.0
"""How long a client may take for its request, and for taking in the answer."""

MAX_CONNECTIONS: Final = 32
"""Each costs a thread; Prometheus, a prober and a person need three. Further ones are closed at once."""

LOOK_UP_S: Final = 0.1
"""How often the server checks whether it should stop: the time that `stop` takes."""

STOP_S: Final = 5.0
"""How long to wait for the server's thread to end."""

log = logging.getLogger(__name__)


class WebServer:
    """Answer HTTP requests on a thread of its own, between `start` and `stop`.

    `addr` is HOST:PORT, an IPv6 host in brackets. Port 0 takes a free one, which `addr` then tells. `alive` and `ready`
    are called for each request and must not block; `ready` says in words why not.
    """

    def __init__(
        self,
        addr: str,
        metrics: Metrics,
        status: Callable[[], Status],
        alive: Callable[[], bool],
        ready: Callable[[], tuple[bool, str]],
        *,
        client_timeout_s: float = CLIENT_TIMEOUT_S,
    ) -> None:
        self._host, self._port = parse_address(addr)
        self._metrics = make_wsgi_app(metrics.registry)
        self._status = status
        self._alive = alive
        self._ready = ready
        self._client_timeout_s = client_timeout_s
        self._routes = {
            "/metrics": self._scrape,
            "/livez": self._live,
            "/readyz": self._readiness,
            "/status": self._report,
        }
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
            server = _BoundedServer(self._host, self._port, handler)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"--http.addr {self.addr}: {reason}; give another port (0 takes any that is free) or a local address"
            ) from error
        server.set_app(self._answer)
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

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if method not in {"GET", "HEAD"}:
            return _text(start_response, HTTPStatus.METHOD_NOT_ALLOWED, "use GET")
        route = self._routes.get(path)
        if route is None:
            return _text(start_response, HTTPStatus.NOT_FOUND, "there is " + ", ".join(self._routes))
        try:
            body = route(environ, start_response)
        except Exception as error:  # a bug in the answer must not end as a traceback on stderr
            log.warning("cannot answer %s: %s", path, type(error).__name__, exc_info=True)
            return _text(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}, see the log")
        return body if method == "GET" else []

    def _scrape(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # HEAD is GET without the body, and the library's application knows no HEAD.
        body: Iterable[bytes] = self._metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        return body

    def _live(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        alive = self._alive()
        return _verdict(start_response, ok=alive, text="alive" if alive else "a thread is stuck or has ended")

    def _readiness(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        ready, reason = self._ready()
        return _verdict(start_response, ok=ready, text=reason or ("ready" if ready else "not ready"))

    def _report(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = json.dumps(self._status().to_dict(), indent=2, ensure_ascii=False) + "\n"
        return _respond(start_response, HTTPStatus.OK, "application/json", body)


class _BoundedServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64
    # Newer Pythons let two servers share a port; then half the scrapes would reach the other process.
    allow_reuse_port = False

    def __init__(self, host: str, port: int, handler: type[WSGIRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind without asking the DNS for this machine's full name, which may take half a minute."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log nothing: clients that go away, or are too slow, are no fault of ours."""
        log.debug("request from %s failed: %r", client_address, sys.exception())


class _RequestHandler(WSGIRequestHandler):
    server_version = "batcher"
    sys_version = ""

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


def _verdict(start_response: StartResponse, *, ok: bool, text: str) -> list[bytes]:
    return _text(start_response, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE, text)


def _text(start_response: StartResponse, code: HTTPStatus, text: str) -> list[bytes]:
    return _respond(start_response, code, "text/plain; charset=utf-8", text + "\n")


def _respond(start_response: StartResponse, code: HTTPStatus, kind: str, body: str) -> list[bytes]:
    content = body.encode(errors="backslashreplace")
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    if code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET, HEAD"))
    start_response(f"{code.value} {code.phrase}", headers)
    return [content]
