"""Pause, resume, flush and drain from the page, for those who have the token.

A request needs the token in its `Authorization` header, which no other site can make a browser send, and no cookie
counts. An `Origin` other than the page's own is refused as well.
"""

from __future__ import annotations

import hmac
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

from batcher.errors import ConfigurationError
from batcher.telemetry import logs
from batcher.telemetry.server import plain

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

PATH: Final = "/control/"
LEAST_CHARACTERS: Final = 16
MOST_BODY: Final = 4096
WRONG_TOKENS: Final = 10
"""How many wrong tokens there may be in a minute, from everybody together."""
WRONG_S: Final = 60.0

log = logs.get(__name__)


class Controllable(Protocol):
    """What the page may tell: a pipeline, or the parent of several. Called on threads of the server."""

    def pause(self, by: str) -> None:
        """Read and write nothing until `resume`."""

    def resume(self) -> None:
        """End the pause of `pause`, and no other."""

    def flush(self) -> None:
        """Write what waits now."""

    def stop(self) -> None:
        """Write and commit what was read, and end."""


def read_token(file: str) -> str:
    """Return the token in a file. Raise ConfigurationError where it cannot be kept for one: its rights, its length."""
    where = f"--http.token-file {file}"
    try:
        with Path(file).open("rb") as opened:
            rights = os.fstat(opened.fileno()).st_mode
            content = opened.read(MOST_BODY)
    except OSError as error:
        raise ConfigurationError(f"{where}: {error.strerror}; put a token of your choice into it") from error
    if rights & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigurationError(f"{where}: others may read or change it (mode {stat.S_IMODE(rights):o}); chmod 600 it")
    try:
        token = content.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if len(token) < LEAST_CHARACTERS or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"{where}: needs one line of at least {LEAST_CHARACTERS} ASCII characters without blanks, "
            "such as `openssl rand -hex 24` prints"
        )
    return token


_Refusal = tuple[HTTPStatus, str] | tuple[HTTPStatus, str, tuple[str, str]]


class Control:
    """Answer requests to `/control/…`; each that was obeyed is in the log, with the address it came from."""

    def __init__(
        self, what: Controllable, token: str, held: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._token = token.encode()
        self._held = held
        self._clock = clock
        self._wrong: deque[float] = deque(maxlen=WRONG_TOKENS)
        self._lock = threading.Lock()
        self._actions: Mapping[str, Callable[[str], str]] = {
            "pause": lambda who: self._pause(what, who),
            "resume": lambda _: self._resume(what),
            "flush": lambda _: self._flush(what),
            "drain": lambda _: self._drain(what),
        }

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Refuse a request, or obey it."""
        name = environ.get("PATH_INFO", "").removeprefix(PATH)
        who = str(environ.get("REMOTE_ADDR", "?"))
        refused = self._refused(name, environ)
        if refused is not None:
            code, text, *headers = refused
            log.warning("control_refused", action=name[:20], by=who, reason=text)
            return plain(start_response, code, text, headers)
        # Before it is done: a drain may end the process.
        log.warning("control_used", action=name, by=who)
        return plain(start_response, HTTPStatus.OK, self._actions[name](who))

    def _refused(self, name: str, environ: WSGIEnvironment) -> _Refusal | None:
        if name not in self._actions:
            return HTTPStatus.NOT_FOUND, "there is " + ", ".join(PATH + one for one in self._actions)
        if environ["REQUEST_METHOD"] != "POST":
            return HTTPStatus.METHOD_NOT_ALLOWED, "use POST", ("Allow", "POST")
        if not _swallowed(environ):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "nothing is read from the body; send none"
        if not _own_origin(environ):
            return HTTPStatus.FORBIDDEN, "another site may not do that"
        return self._unknown(str(environ.get("HTTP_AUTHORIZATION", "")))

    def _unknown(self, authorization: str) -> _Refusal | None:
        """Refuse who has not the token; after some of them, everybody for a while."""
        now = self._clock()
        with self._lock:
            if len(self._wrong) == WRONG_TOKENS and now - self._wrong[0] < WRONG_S:
                return HTTPStatus.TOO_MANY_REQUESTS, "too many wrong tokens; wait a minute", ("Retry-After", "60")
            kind, _, given = authorization.partition(" ")
            # Headers come as Latin-1, whatever is in them.
            right = kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)
            if right:
                return None
            self._wrong.append(now)
            return HTTPStatus.UNAUTHORIZED, "needs the token of --http.token-file", ("WWW-Authenticate", "Bearer")

    def _pause(self, what: Controllable, who: str) -> str:
        what.pause(f"the page, from {who}")
        return "paused: nothing more is read or written, until it is resumed"

    def _resume(self, what: Controllable) -> str:
        what.resume()
        held = self._held()
        return f"the pause of the page is over, but it is still {held}" if held else "it goes on"

    def _flush(self, what: Controllable) -> str:
        held = self._held()
        what.flush()
        return f"what waits is written once it goes on; it is {held}" if held else "what waits is being written"

    def _drain(self, what: Controllable) -> str:
        what.stop()
        return "it writes and commits what it has read, and ends"


def _swallowed(environ: WSGIEnvironment) -> bool:
    """Read a small body, or else the answer is lost when the connection is closed; return whether it was small."""
    length: Any = environ.get("CONTENT_LENGTH") or "0"
    if not str(length).isdecimal() or int(length) > MOST_BODY or "HTTP_TRANSFER_ENCODING" in environ:
        return False
    environ["wsgi.input"].read(int(length))
    return True


def _own_origin(environ: WSGIEnvironment) -> bool:
    origin, host = environ.get("HTTP_ORIGIN"), environ.get("HTTP_HOST")
    if environ.get("HTTP_SEC_FETCH_SITE", "none") not in ("same-origin", "none"):
        return False
    # A program that is no browser has no origin.
    return origin is None or (bool(host) and urlsplit(str(origin)).netloc == host)
