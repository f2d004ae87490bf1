"""Metrics, health, status and the page of a pipeline over HTTP.

    /          the page, see `dashboard`
    /metrics   Prometheus
    /livez     503 when a thread is stuck or dead; a target that is down leaves it at 200, or every replica
               would be restarted the moment the database is
    /readyz    503 until the target was checked and partitions are assigned, and again while stopping
    /status    what the pipeline says about itself, as JSON

Answers hold no secret, and no record unless the page is told to show some, but topics and offsets. To bind another
address than loopback is to decide who may see them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import make_wsgi_app

from batcher.telemetry.dashboard.pages import DashboardPages
from batcher.telemetry.metrics import Metrics
from batcher.telemetry.server import (
    CLIENT_TIMEOUT_S,
    HttpServer,
    as_json,
    only_reading,
    plain,
    verdict,
)
from batcher.telemetry.status import Status

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)


class WebServer(HttpServer):
    """Answer for a pipeline, between `start` and `stop`.

    `alive` and `ready` are called for each request and must not block; `ready` says in words why not. `pages` answers
    the paths of the page, where there is one.
    """

    def __init__(
        self,
        addr: str,
        metrics: Metrics,
        status: Callable[[], Status],
        alive: Callable[[], bool],
        ready: Callable[[], tuple[bool, str]],
        *,
        pages: DashboardPages | None = None,
        client_timeout_s: float = CLIENT_TIMEOUT_S,
    ) -> None:
        super().__init__(addr, self._answer, client_timeout_s=client_timeout_s)
        self._metrics = make_wsgi_app(metrics.registry)
        self._status = status
        self._alive = alive
        self._ready = ready
        self._pages = pages
        self._routes = {
            "/metrics": self._scrape,
            "/livez": self._live,
            "/readyz": self._readiness,
            "/status": self._report,
        }

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if self._pages is not None and (body := self._pages.answer(environ, start_response)) is not None:
            return body
        if method not in {"GET", "HEAD"}:
            return only_reading(start_response)
        route = self._routes.get(path)
        if route is None:
            known = (*(["/"] if self._pages is not None else []), *self._routes)
            return plain(start_response, HTTPStatus.NOT_FOUND, "there is " + ", ".join(known))
        try:
            body = route(environ, start_response)
        except Exception as error:  # a bug in the answer must not end as a traceback on stderr
            log.warning("cannot answer %s: %s", path, type(error).__name__, exc_info=True)
            return plain(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}, see the log")
        return body if method == "GET" else []

    def _scrape(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # HEAD is GET without the body, and the library's application knows no HEAD.
        body: Iterable[bytes] = self._metrics({**environ, "REQUEST_METHOD": "GET"}, start_response)
        return body

    def _live(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        alive = self._alive()
        return verdict(start_response, ok=alive, text="alive" if alive else "a thread is stuck or has ended")

    def _readiness(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        ready, reason = self._ready()
        return verdict(start_response, ok=ready, text=reason or ("ready" if ready else "not ready"))

    def _report(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return as_json(start_response, self._status().to_dict())
