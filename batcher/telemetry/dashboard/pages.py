"""The paths of the page: what is served, with which headers, and how much of it at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import cache
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, Final

from batcher.telemetry.dashboard import control
from batcher.telemetry.dashboard.control import Control
from batcher.telemetry.dashboard.feed import Feed
from batcher.telemetry.server import only_reading, plain, respond

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_STREAMS: Final = 24
"""Pages that are open at once; each costs a thread that sleeps. Further ones are told so, and ask again."""

KINDS: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

GUARDS: Final = (
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Only what this process serves is loaded and asked, nothing runs that is not one of its files, and no other site may
frame or embed it."""


class DashboardPages:
    """Answer for the page, its assets, its stream of events, and its control where that is allowed."""

    def __init__(self, feed: Feed, control: Control | None = None) -> None:
        self._feed = feed
        self._control = control
        self._free = threading.BoundedSemaphore(MAX_STREAMS)

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes] | None:
        """Answer one request; None where the path is none of the page's."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if path.startswith(control.PATH):
            if self._control is None:
                return plain(start_response, HTTPStatus.FORBIDDEN, "control is off; see --http.control")
            return self._control.answer(environ, start_response)
        if path != "/events" and path not in assets():
            return None
        if method not in {"GET", "HEAD"}:
            return only_reading(start_response)
        if path == "/events":
            return self._stream(start_response, body=method == "GET")
        kind, text = assets()[path]
        answer = respond(start_response, HTTPStatus.OK, f"{kind}; charset=utf-8", text, GUARDS)
        return answer if method == "GET" else []

    def _stream(self, start_response: StartResponse, *, body: bool) -> Iterable[bytes]:
        if body and not self._free.acquire(blocking=False):
            return plain(
                start_response,
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_STREAMS} pages are open, which is the most; close one",
                [("Retry-After", "10")],
            )
        start_response(
            "200 OK",
            [
                ("Content-Type", "text/event-stream; charset=utf-8"),
                ("Cache-Control", "no-store"),
                ("X-Content-Type-Options", "nosniff"),
                ("X-Accel-Buffering", "no"),
                *GUARDS,
            ],
        )
        return _EventStream(self._feed, self._free) if body else []


class _EventStream:
    """Yield the messages for one page until it goes away; the server calls `close` in any case."""

    def __init__(self, feed: Feed, place: threading.BoundedSemaphore) -> None:
        self._feed = feed
        self._place: threading.BoundedSemaphore | None = place
        self._mailbox = feed.subscribe()

    def __iter__(self) -> Iterator[bytes]:
        while (message := self._mailbox.take(self._feed.whole)) is not None:
            # A comment, so that a page that went away is noticed.
            yield message or b": nothing new\n\n"

    def close(self) -> None:
        self._feed.unsubscribe(self._mailbox)
        place, self._place = self._place, None
        if place is not None:
            place.release()


@cache
def assets() -> dict[str, tuple[str, str]]:
    """Return kind and text of each file of the page by its path. They are read once: no path reaches the disk."""
    folder = resources.files("batcher.telemetry.dashboard") / "assets"
    found = {}
    for file in folder.iterdir():
        ending = file.name.rpartition(".")[2]
        if ending in KINDS:
            path = "/" if file.name == "index.html" else f"/assets/{file.name}"
            found[path] = KINDS[ending], file.read_text(encoding="utf-8")
    return found
