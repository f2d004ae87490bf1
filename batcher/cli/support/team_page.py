"""The one page of several workers, which their parent serves, and what is asked of the first worker at its address.

The parent has the address of `--http.addr`. Metrics, health and status there are those of worker 0, as they always
were, which answers on a port of its own for the parent only.
"""

from __future__ import annotations

import http.client
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from batcher.cli.support.worker import FLUSH, PAUSE, RESUME
from batcher.settings import Settings
from batcher.telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any
    from wsgiref.types import StartResponse, WSGIEnvironment

RELAYED: Final = ("/metrics", "/livez", "/readyz", "/status")

RELAY_TIMEOUT_S: Final = 5.0

EVERY_S: Final = 1.0


class Teammate(Protocol):
    """A worker, as the page sees it."""

    number: int
    over: bool
    idle: bool
    starts: int
    due: float | None
    addr: str
    seen: Mapping[str, Any] | None

    @property
    def running(self) -> bool:
        """Return whether there is a process."""

    def heard(self) -> object:
        """Take in what it has told."""

    def say(self, word: bytes) -> None:
        """Tell it something."""


class TeamPage:
    """Serve the page of several workers. The parent calls `look` in each of its rounds."""

    def __init__(self, settings: Settings, addr: str) -> None:
        from batcher.cli.support.page import about, control_of
        from batcher.telemetry.dashboard.feed import Feed
        from batcher.telemetry.dashboard.pages import DashboardPages
        from batcher.telemetry.dashboard.team import Team
        from batcher.telemetry.server import HttpServer

        control = control_of(settings, self, lambda: "")
        self._feed = Feed(about(settings, control=control is not None))
        self._pages = DashboardPages(self._feed, control)
        self._team = Team()
        self._server = HttpServer(addr, self._answer)
        self._words: deque[bytes] = deque()
        self._stop = False
        self._paused_by = ""
        self._paused: set[tuple[int, int]] = set()
        self._told: dict[int, Mapping[str, Any]] = {}
        self._first = ""
        self._shown_at = 0.0

    @classmethod
    @contextmanager
    def of(cls, settings: Settings) -> Iterator[TeamPage | None]:
        """Serve the page while the context is open, where the settings say so. Raise ConfigurationError."""
        if settings.http.addr is None:
            yield None
            return
        page = cls(settings, settings.http.addr)
        page._server.start()
        logs.get(__name__).info("listening", addr=page._server.addr, paths=" ".join(("/", *RELAYED)))
        try:
            yield page
        finally:
            page._feed.close()
            page._server.stop()

    # What the page is told, on threads of the server.

    def pause(self, by: str) -> None:
        """Pause all workers, also those that are started later."""
        self._paused_by = by

    def resume(self) -> None:
        """End the pause of all."""
        self._paused_by = ""

    def flush(self) -> None:
        """Let all write what waits."""
        self._words.append(FLUSH)

    def stop(self) -> None:
        """Let all write and commit what they have read, and end."""
        self._stop = True

    # Main thread.

    def look(self, members: Sequence[Teammate], *, stopping: bool) -> int:
        """Hear the workers, pass on what the page was told, and show it; return 1 for a stop, else 0."""
        for member in members:
            member.heard()
            if member.seen is not None and member.seen is not self._told.get(member.number):
                self._told[member.number] = member.seen
                self._team.tell(member.number, member.seen)
        self._first = members[0].addr if members[0].running else ""
        self._pass_on(members)
        now = time.monotonic()
        if now - self._shown_at >= EVERY_S:
            self._shown_at = now
            self._show(members, now)
        return int(self._stop and not stopping)

    def _pass_on(self, members: Sequence[Teammate]) -> None:
        running = [one for one in members if one.running]
        # A process that took the place of another knows nothing of a pause.
        self._paused &= {(one.number, one.starts) for one in running}
        for member in running:
            process = member.number, member.starts
            if self._paused_by and process not in self._paused:
                self._paused.add(process)
                member.say(PAUSE)
            elif not self._paused_by and process in self._paused:
                self._paused.discard(process)
                member.say(RESUME)
        while self._words:
            word = self._words.popleft()
            for member in running:
                member.say(word)

    def _show(self, members: Sequence[Teammate], now: float) -> None:
        from batcher.telemetry.dashboard.team import Member

        rows = [
            Member(
                one.number,
                one.running,
                one.idle or one.over,
                one.starts,
                None if one.running or one.due is None else round(max(one.due - now, 0.0), 1),
            )
            for one in members
        ]
        seen = self._team.observation(rows, self._paused_by)
        if seen is not None:
            self._feed.add(seen)

    # Threads of the server.

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        from batcher.telemetry.server import only_reading, plain

        body = self._pages.answer(environ, start_response)
        if body is not None:
            return body
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if method not in {"GET", "HEAD"}:
            return only_reading(start_response)
        if path not in RELAYED:
            return plain(start_response, HTTPStatus.NOT_FOUND, "there is " + ", ".join(("/", *RELAYED)))
        return self._relayed(method, path, start_response)

    def _relayed(self, method: str, path: str, start_response: StartResponse) -> Iterable[bytes]:
        from batcher.telemetry.server import plain

        if not self._first:
            return plain(start_response, HTTPStatus.SERVICE_UNAVAILABLE, "worker 0 is not running yet")
        connection = http.client.HTTPConnection(self._first, timeout=RELAY_TIMEOUT_S)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            return plain(start_response, HTTPStatus.SERVICE_UNAVAILABLE, "worker 0 does not answer")
        finally:
            connection.close()
        kept = ("Content-Type", "Content-Length", "Cache-Control", "X-Content-Type-Options")
        headers = [(name, value) for name in kept if (value := answer.headers[name]) is not None]
        start_response(f"{answer.status} {answer.reason}", headers)
        return [content] if method == "GET" else []
