"""One connection to nsqd while it is spoken with in turns: a command, its answer."""

from __future__ import annotations

import json
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final, Self

from batcher import __version__
from batcher.errors import ConfigurationError
from batcher.sources.nsq.settings import Nsq
from batcher.sources.nsq.wire import HEARTBEAT, MAGIC, NOP, OK, FrameReader, Garbled, ServerReply, identify

CHUNK: Final = 256 << 10
"""Bytes to read at a time."""

_REFUSED_FOR_GOOD: Final = frozenset(
    {"E_BAD_TOPIC", "E_BAD_CHANNEL", "E_BAD_BODY", "E_INVALID", "E_AUTH_FAILED", "E_UNAUTHORIZED", "E_AUTH_FIRST"}
)


class Declined(Exception):
    """Report a command that nsqd answered with an error; `for_good` says that it would do so again."""

    def __init__(self, answer: ServerReply) -> None:
        super().__init__(answer.message)
        self.code = answer.code
        self.for_good = answer.code in _REFUSED_FOR_GOOD


def tls_of(options: Nsq) -> ssl.SSLContext | None:
    """Return how to encrypt, None for plain connections. Raise ConfigurationError where the file is no good."""
    if not options.tls:
        return None
    try:
        return ssl.create_default_context(cafile=options.ca)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"--nsq.ca {options.ca}: cannot be used: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class Terms:
    """Say what nsqd and we have agreed on."""

    msg_timeout_s: float
    max_msg_timeout_s: float
    max_ready: int
    """The most messages in flight on one connection."""
    tls: bool


class Dialogue:
    """Speak with one nsqd in turns. Not for several threads. Raise OSError where the connection fails."""

    def __init__(self, address: tuple[str, int], timeout_s: float) -> None:
        self.address = address
        self.sock = socket.create_connection(address, timeout_s)
        self.reader = FrameReader()
        self._answers: list[ServerReply] = []
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.sendall(MAGIC)
        except OSError:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def agree(
        self, *, msg_timeout_s: float | None, heartbeat_s: float | None, tls: ssl.SSLContext | None, timeout_s: float
    ) -> Terms:
        """Say who we are, and encrypt where `tls` says how; without `heartbeat_s` nsqd sends no heartbeats.

        Raise Declined, Garbled, or ConfigurationError where nsqd does not do TLS.
        """
        asked: dict[str, object] = {
            "client_id": socket.gethostname(),
            "hostname": socket.gethostname(),
            "user_agent": f"batcher/{__version__}",
            "feature_negotiation": True,
            "tls_v1": tls is not None,
            "heartbeat_interval": -1 if heartbeat_s is None else round(heartbeat_s * 1000),
        }
        if msg_timeout_s is not None:
            asked["msg_timeout"] = round(msg_timeout_s * 1000)
        terms = _terms(self.ask(identify(asked), timeout_s).text)
        if tls is not None:
            if not terms.tls:
                raise ConfigurationError(
                    f"--nsq.tls: nsqd at {self.address[0]}:{self.address[1]} has no certificate: start it with "
                    "-tls-cert and -tls-key, or leave --nsq.tls out"
                )
            self.sock = tls.wrap_socket(self.sock, server_hostname=self.address[0])
            self._expect_ok(self.ask(b"", timeout_s))
        return terms

    def ask(self, command: bytes, timeout_s: float) -> ServerReply:
        """Send a command and return its answer. Raise Declined for an error, Garbled, or OSError."""
        deadline_s = time.monotonic() + timeout_s
        self.sock.settimeout(timeout_s)
        self.sock.sendall(command)
        while not self._answers:
            self.sock.settimeout(max(deadline_s - time.monotonic(), 0.001))
            piece = self.sock.recv(CHUNK)
            if not piece:
                raise ConnectionError("the connection was closed")
            self._take(piece)
        answer = self._answers.pop(0)
        if answer.error:
            raise Declined(answer)
        return answer

    def _take(self, piece: bytes) -> None:
        for frame in self.reader.feed(piece):
            if not isinstance(frame, ServerReply):
                raise Garbled("a message before one was asked for")
            if frame.text == HEARTBEAT:
                self.sock.sendall(NOP)
            else:
                self._answers.append(frame)

    def require_ok(self, command: bytes, timeout_s: float) -> None:
        """Send a command that is answered by OK. Raises as `ask` does."""
        self._expect_ok(self.ask(command, timeout_s))

    def close(self) -> None:
        """Close the connection. A second call is harmless."""
        self.sock.close()

    @staticmethod
    def _expect_ok(answer: ServerReply) -> None:
        if answer.text != OK:
            raise Garbled("an answer that is not OK")


def _terms(text: bytes) -> Terms:
    try:
        facts: dict[str, Any] = json.loads(text)
        return Terms(
            msg_timeout_s=facts["msg_timeout"] / 1000,
            max_msg_timeout_s=facts["max_msg_timeout"] / 1000,
            max_ready=int(facts["max_rdy_count"]),
            tls=bool(facts["tls_v1"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise Garbled("an answer to IDENTIFY that is not what nsqd says") from error
