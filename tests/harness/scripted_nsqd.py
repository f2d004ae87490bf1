"""A server that speaks NSQ's protocol word for word as a test tells it, also wrongly."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Self

from tests.harness.patience import PATIENCE_S

TERMS: Final = {"max_rdy_count": 2500, "max_msg_timeout": 900_000, "msg_timeout": 60_000, "tls_v1": False}


class Visitor:
    """One connection, from the server's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(PATIENCE_S)
        self._stream = sock.makefile("rb")

    def command(self) -> str:
        """Return the next command, without its body; "" at the end."""
        line = self._stream.readline().decode().rstrip("\n")
        if line == "IDENTIFY":
            [size] = struct.unpack(">i", self._stream.read(4))
            self._stream.read(size)
        return line

    def expect(self, beginning: str) -> str:
        """Pass over commands until one that begins in a way, and return it."""
        while (line := self.command()) and not line.startswith(beginning):
            pass
        assert line, f"the connection ended without {beginning}"
        return line

    def greet(self, *, terms: object = TERMS) -> None:
        """Read everything up to the subscription, and agree."""
        assert self._stream.read(4) == b"  V2"
        self.expect("IDENTIFY")
        self.send(0, json.dumps(terms).encode())
        self.expect("SUB")
        self.send(0, b"OK")

    def send(self, kind: int, payload: bytes) -> None:
        """Send one frame."""
        self.send_bytes(struct.pack(">ii", len(payload) + 4, kind) + payload)

    def send_message(self, name: str, body: bytes, attempts: int = 1) -> None:
        """Send a message."""
        self.send(2, struct.pack(">qH16s", 10**18, attempts, name.encode()) + body)

    def send_bytes(self, raw: bytes) -> None:
        """Send bytes that need not be a frame."""
        self._sock.sendall(raw)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()
        self._sock.close()


class ScriptedNsqd:
    """Listen on loopback, and play one scene with each connection, in the order in which they come.

    A scene that fails is raised at the end of the block.
    """

    def __init__(self, *scenes: Callable[[Visitor], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self._scenes = scenes
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None:
            self._thread.join(PATIENCE_S)
        self._listener.close()
        if kind is None and self._failures:
            raise self._failures[0]

    @property
    def address(self) -> str:
        """Return where it listens."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def _play(self) -> None:
        try:
            for scene in self._scenes:
                sock, _ = self._listener.accept()
                visitor = Visitor(sock)
                try:
                    scene(visitor)
                finally:
                    visitor.close()
        except BaseException as error:
            self._failures.append(error)
