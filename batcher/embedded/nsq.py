"""Servers of NSQ, built once from the Go module proxy into the same cache as the jars; they take a second to start."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from batcher.embedded.jars import Unavailable, cache_dir, made_once
from batcher.embedded.server import LocalServer, got
from batcher.embedded.tether import free_ports

NSQ_VERSION: Final = "1.3.0"

BUILD_TIMEOUT_S: Final = 600
"""A minute on two cores."""

PORT_ATTEMPTS: Final = 3

_WHAT: Final = f"NSQ {NSQ_VERSION}"

# Only with the replacement: the module that NSQ names was moved, and `go install` takes no replacements.
_GO_MOD: Final = f"""\
module batcher.testing/nsq

go 1.21

require github.com/nsqio/nsq v{NSQ_VERSION}

replace github.com/judwhite/go-svc => github.com/mreiferson/go-svc v1.2.2-0.20210815184239-7a96e00010f6
"""


def nsq_programs() -> Path:
    """Return the directory with `nsqd` and `nsqlookupd`, built if this is the first call on this machine.

    Raise Unavailable without Go where there is something to build, and where it cannot be built.
    """
    place = cache_dir() / f"nsq-{NSQ_VERSION}" / "bin"
    if place.is_dir():
        return place
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"no go on the PATH, and no {_WHAT} in {place}")
    return made_once(place, partial(_build, go))


def _build(go: str, scratch: Path) -> Path:
    (scratch / "go.mod").write_text(_GO_MOD, encoding="utf-8")
    built = scratch / "bin"
    built.mkdir()
    apps = "github.com/nsqio/nsq/apps"
    command = [go, "build", "-mod=mod", "-o", f"{built}/", f"{apps}/nsqd", f"{apps}/nsqlookupd"]
    try:
        done = subprocess.run(  # noqa: S603 (a fixed command)
            command, cwd=scratch, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Go did not build {_WHAT} within {BUILD_TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise Unavailable(f"Go could not build {_WHAT}: {done.stderr.strip().splitlines()[-1][:300]}")
    return built


class NsqServer(LocalServer):
    """Run one of NSQ's programs on free ports of loopback (see `LocalServer`).

    Raise Unavailable where it cannot be built, or when it does not come up.
    """

    program: str
    start_timeout_s = 30.0
    look_every_s = 0.01

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.what, self.prefix = self.program, f"batcher-{self.program}-"
        self._options = options
        # Two ports that follow one another, as NSQ has them by default: its HTTP is found above its TCP.
        self.port, self.http_port = adjacent_ports()

    @property
    def address(self) -> str:
        """Return where it is spoken to over TCP."""
        return f"127.0.0.1:{self.port}"

    @property
    def http_address(self) -> str:
        """Return where it answers HTTP."""
        return f"127.0.0.1:{self.http_port}"

    def start(self) -> None:
        """Start it and wait until it answers, with what its directory has. It may run already."""
        # Who knows it by its ports finds it at the same ones.
        attempts = 1 if self._directory is not None else PORT_ATTEMPTS
        for left in reversed(range(attempts)):
            try:
                super().start()
            except Unavailable:
                if not left:
                    raise
                # Somebody else may have taken one of the ports meanwhile.
                self.port, self.http_port = adjacent_ports()
            else:
                return

    def kill(self) -> None:
        """End it at once, by SIGKILL: what it had in memory is gone."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """End it in good order: what it had in memory goes to disk."""
        self._end(signal.SIGTERM)

    def freeze(self, *, frozen: bool) -> None:
        """Stop it without ending it, or let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def get(self, path: str, body: bytes | None = None) -> bytes:
        """Ask it over HTTP; with a body, post it. Raise OSError."""
        return got(f"http://{self.http_address}{path}", body)

    def log(self) -> str:
        """Return what it has logged."""
        return "" if self._directory is None else self._log(self._directory).read_text(encoding="utf-8")

    def fetch(self) -> Path:
        return nsq_programs() / self.program

    def _command(self, directory: Path) -> Sequence[str]:
        listening = [f"-tcp-address={self.address}", f"-http-address={self.http_address}"]
        return [str(self.fetch()), *listening, *self._own_options(directory), *self._options]

    def _own_options(self, directory: Path) -> Sequence[str]:
        del directory
        return ()

    def _is_ready(self) -> bool:
        try:
            self.get("/ping")
        except (OSError, http.client.HTTPException):
            # As long as it does not listen, a connection to a free port can be one to itself.
            return False
        return True


class NsqLookupd(NsqServer):
    """Run nsqlookupd while in the `with` block."""

    program = "nsqlookupd"

    def _own_options(self, directory: Path) -> Sequence[str]:
        del directory
        return ("-broadcast-address=127.0.0.1",)


class Nsqd(NsqServer):
    """Run nsqd while in the `with` block; with `lookupd` it announces its topics there."""

    program = "nsqd"

    def __init__(self, *options: str, lookupd: NsqLookupd | None = None) -> None:
        super().__init__(*options)
        self._lookupd = lookupd

    def _own_options(self, directory: Path) -> Sequence[str]:
        # With a certificate it would listen on a fixed port for HTTPS as well.
        own = [f"-data-path={directory}", "-broadcast-address=127.0.0.1", "-https-address=127.0.0.1:0"]
        return own if self._lookupd is None else [*own, f"-lookupd-tcp-address={self._lookupd.address}"]


def adjacent_ports() -> tuple[int, int]:
    """Return two ports of loopback that nobody listens on now, the second one above the first."""
    while True:
        [port] = free_ports(1)
        if port < 65535 and _is_free(port + 1):
            return port, port + 1


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
