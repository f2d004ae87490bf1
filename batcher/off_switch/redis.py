"""Read one key of Redis over a plain socket: nothing more is needed than GET."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Final
from urllib.parse import unquote, urlsplit

TIMEOUT_S: Final = 1.0
PORT: Final = 6379
_MOST: Final = 1 << 16
"""Bytes of an answer: what we look for is one word."""


class RedisKey:
    """Read a key of `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, with `rediss` over TLS.

    Raise ValueError for another URL.
    """

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or (database and not database.isdecimal()):
            raise ValueError("is redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]")
        self._address = (parts.hostname, parts.port or PORT)
        self._tls = parts.scheme == "rediss"
        self._key = key
        self._greeting: list[tuple[str, ...]] = []
        if parts.password is not None:
            user = (unquote(parts.username),) if parts.username else ()
            self._greeting.append(("AUTH", *user, unquote(parts.password)))
        if database:
            self._greeting.append(("SELECT", database))

    def get(self) -> bytes | None:
        """Return the value, None where there is no such key. Raise OSError, or ValueError for an error of Redis.

        Each time over a connection of its own: one question a second is not worth keeping one.
        """
        return self.ask("GET", self._key)

    def ask(self, *words: str) -> bytes | None:
        """Return the answer to any command that is answered with one text. Raises as `get` does."""
        with ExitStack() as stack:
            sock = stack.enter_context(socket.create_connection(self._address, TIMEOUT_S))
            if self._tls:
                context = ssl.create_default_context()
                sock = stack.enter_context(context.wrap_socket(sock, server_hostname=self._address[0]))
            answers = stack.enter_context(sock.makefile("rb"))
            for command in (*self._greeting, words):
                sock.sendall(_packed(command))
                answer = _answer(answers, command[0])
            return answer


def _packed(words: Sequence[str]) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in encoded)


def _answer(answers: IO[bytes], command: str) -> bytes | None:
    line = answers.readline(_MOST)
    if not line.endswith(b"\r\n"):
        raise ValueError("an answer that is none of Redis") if line else ConnectionError("the connection was closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        # Its first word only: a password could stand in the others.
        raise ValueError(f"Redis answers {command} with {rest.split(b' ')[0].decode('ascii', 'replace')}")
    if kind != b"$" or not (size := int(rest)) <= _MOST:
        raise ValueError("an answer that is none of Redis")
    if size < 0:
        return None
    found = answers.read(size + 2)
    if len(found) < size + 2:
        raise ConnectionError("the connection was closed")
    return found[:-2]
